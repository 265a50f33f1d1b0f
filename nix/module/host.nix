# What the rest of the host must do, and leave alone. systemd/ has the same for other distributions.
{ config, lib, ... }:
let
  cfg = config.services.flannel-rs;
  facts = import ./facts.nix { inherit cfg; };

  tunnels = [
    "flannel.*"
    "flannel0"
  ];
  links = tunnels ++ [ facts.bridge ];

  open.allowedUDPPorts = facts.udpPorts;
  between =
    if facts.network != null then
      "ip saddr ${facts.network} ip daddr ${facts.network} accept"
    else
      ''
        iifname "flannel*" oifname "${facts.bridge}" accept
        iifname "${facts.bridge}" oifname "flannel*" accept
      '';
in
{
  config = lib.mkIf cfg.enable {
    networking = {
      firewall = lib.mkIf cfg.openFirewall (
        lib.mkMerge [
          (if facts.uplink == null then open else { interfaces.${facts.uplink} = open; })
          # What a container sends to a node itself comes in by the uplink; where its own node does not
          # masquerade, the way back is the tunnel.
          { checkReversePath = lib.mkDefault "loose"; }
          # Only the nftables firewall can filter what is forwarded.
          (lib.mkIf config.networking.firewall.filterForward { extraForwardRules = between; })
        ]
      );
      dhcpcd.denyInterfaces = links;
      networkmanager.unmanaged = map (name: "interface-name:${name}") links;
    };

    systemd.network = {
      networks."00-flannel-rs" = {
        matchConfig.Name = lib.concatStringsSep " " links;
        linkConfig.Unmanaged = true;
      };
      # networkd removes routes that it does not know from links that it looks after: with host-gw
      # from the uplink.
      config.networkConfig.ManageForeignRoutes = lib.mkDefault false;
      # Peers know a tunnel by its address, which udev would replace by default.
      links."50-flannel-rs" = {
        matchConfig.OriginalName = lib.concatStringsSep " " tunnels;
        linkConfig.MACAddressPolicy = "none";
      };
    };

    boot.kernelModules = [
      "bridge"
      "nf_tables"
      "nft_chain_nat"
      "nft_masq"
      "tun"
      "vxlan"
    ];
    # Stronger than the default of NixOS, which is off, and weaker than what a user says.
    boot.kernel.sysctl."net.ipv4.conf.all.forwarding" = lib.mkOverride 900 true;

    environment.etc."iproute2/rt_protos.d/flannel-rs.conf".source =
      "${cfg.package}/etc/iproute2/rt_protos.d/flannel-rs.conf";
  };
}
