# What does not go together with the service, told when the system is evaluated rather than by
# packets that get lost.
{ config, lib, ... }:
let
  cfg = config.services.flannel-rs;
  facts = import ./facts.nix { inherit cfg; };
  inherit (import ./ranges.nix { inherit lib; }) overlap;

  inherit (config.networking) firewall nftables;
  docker = config.virtualisation.docker;
  k3s = config.services.k3s;
  networkd = config.systemd.network;
  isOn =
    value:
    lib.elem value [
      true
      1
      "1"
      "on"
      "true"
      "y"
      "yes"
    ];

  # ranges that this host uses otherwise, and for what
  taken =
    lib.concatLists (
      lib.mapAttrsToList (
        name: interface:
        map (at: {
          range = "${at.address}/${toString at.prefixLength}";
          use = "networking.interfaces.${name}";
        }) interface.ipv4.addresses
      ) (removeAttrs config.networking.interfaces [ facts.bridge ])
    )
    ++ lib.optionals docker.enable (
      map (pool: {
        range = pool.base;
        use = "virtualisation.docker.daemon.settings.default-address-pools";
      }) (docker.daemon.settings.default-address-pools or [ ])
    );
  overlapping = lib.filter (one: facts.network != null && overlap facts.network one.range) taken;

  # netdevs of networkd that are, or that take the place of, the tunnel
  rivals = lib.attrNames (
    lib.filterAttrs (
      _: netdev:
      netdev.enable
      && (
        (netdev.netdevConfig.Name or "") == "flannel.${toString facts.vni}"
        ||
          (netdev.netdevConfig.Kind or "") == "vxlan"
          && (netdev.vxlanConfig.VNI or null) == facts.vni
          && lib.elem (netdev.vxlanConfig.DestinationPort or 8472) facts.udpPorts
      )
    ) networkd.netdevs
  );

  # what docker.env says as well
  given = lib.filter (name: docker.daemon.settings ? ${name}) [
    "bip"
    "ip-masq"
    "mtu"
  ];

  k3sFlags = lib.concatStringsSep " " (lib.toList k3s.extraFlags);
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = !config.services.flannel.enable;
        message = ''
          services.flannel-rs and services.flannel (also by services.kubernetes.flannel) are both enabled: both would
          write the network config, make the tunnel and lease a subnet for this host. They may be members of one
          cluster, on different hosts.
        '';
      }
      {
        assertion =
          k3s.enable -> lib.hasInfix "--flannel-backend" k3sFlags && !lib.hasInfix "vxlan" k3sFlags;
        message = ''
          services.k3s brings a flannel of its own, which takes flannel.1 and /run/flannel/subnet.env as services.flannel-rs
          does. Set services.k3s.extraFlags = [ "--flannel-backend=none" ] on its servers, or leave one of the two out.
        '';
      }
      {
        assertion = cfg.docker.enable && nftables.enable -> !nftables.flushRuleset;
        message = ''
          networking.nftables.flushRuleset removes Docker's rules at each reload of the firewall, and with them the way
          from and to containers (services.flannel-rs.docker.enable). Set it to false (it is on by default with a ruleset of your own, and where
          system.stateVersion is before 23.11).
        '';
      }
      {
        assertion =
          networkd.enable && facts.mayRoutePlainly
          -> !isOn (networkd.config.networkConfig.ManageForeignRoutes or true);
        message = ''
          systemd.network.config.networkConfig.ManageForeignRoutes lets networkd remove the routes to other nodes from the
          uplink whenever it restarts (backend host-gw, or vxlan with direct-routing). Leave it at false, which
          services.flannel-rs sets.
        '';
      }
      {
        assertion =
          cfg.docker.enable
          && cfg.settings.firewall.forward == false
          && lib.versionAtLeast docker.package.version "28"
          ->
            lib.versionAtLeast docker.package.version "28.2"
            && docker.daemon.settings.allow-direct-routing or false;
        message = ''
          Docker drops what containers on other hosts send to containers here, from 28.0 on (this one is
          ${docker.package.version}), and settings.firewall.forward = false keeps services.flannel-rs from letting it
          through. Leave that out; or set virtualisation.docker.daemon.settings.allow-direct-routing, which 28.2 and newer
          have, and accept the network in the chain DOCKER-USER yourself.
        '';
      }
      {
        assertion = cfg.docker.enable -> given == [ ];
        message = ''
          virtualisation.docker.daemon.settings has ${toString given}, which services.flannel-rs.docker.enable hands to dockerd by
          itself: dockerd does not start with an option that is given twice. Leave it out there; who masquerades is said by
          services.flannel-rs.settings.firewall.masquerade.
        '';
      }
      {
        assertion = cfg.docker.enable -> facts.bridge == "docker0";
        message = ''
          services.flannel-rs.docker.enable goes with the bridge docker0 only: dockerd takes an address for its own bridge,
          or a bridge of others, not both. Leave settings.docker.bridge out.
        '';
      }
      {
        assertion = overlapping == [ ];
        message = ''
          services.flannel-rs.settings.network.network = "${toString facts.network}" overlaps with what this host uses
          already: ${
            lib.concatMapStringsSep ", " (one: "${one.range} (${one.use})") overlapping
          }. Packets to one of
          them would end in the other.
        '';
      }
      {
        assertion = rivals == [ ];
        message = ''
          systemd.network.netdevs.${toString rivals} has the name, or the VNI and the port, of the tunnel flannel.${toString facts.vni}.
          Give one of them another VNI (services.flannel-rs.settings.network.backend.vni, the same on all nodes).
        '';
      }
      {
        assertion = cfg.fleet == { } || cfg.settings.datastore.type == "static";
        message = ''
          services.flannel-rs.fleet declares the leases, and settings.datastore.type says that they are elsewhere. Leave one
          of the two out: there is one place that the network config comes from.
        '';
      }
      {
        assertion = cfg.fleet == { } || lib.elem cfg.settings.node.name (lib.attrNames cfg.fleet);
        message = ''
          services.flannel-rs.fleet has no node "${toString cfg.settings.node.name}", which is this host's name
          (networking.hostName, or settings.node.name); it has ${lib.concatStringsSep ", " (lib.attrNames cfg.fleet)}.
        '';
      }
      {
        assertion = cfg.fleet == { } || facts.network != null;
        message = "services.flannel-rs.fleet needs settings.network.network beside it: nobody else says which network it is.";
      }
    ];

    warnings =
      lib.optional
        (
          firewall.enable
          && facts.kind != "host-gw"
          && cfg.settings.firewall.masquerade == false
          && lib.elem firewall.checkReversePath [
            true
            "strict"
          ]
        )
        ''
          services.flannel-rs: networking.firewall.checkReversePath is strict and nobody masquerades
          (settings.firewall.masquerade), so what containers send to another node's own address is dropped there: it
          comes in by the uplink, and its way back is the tunnel. Set it to "loose", or set
          services.flannel-rs.openFirewall.
        ''
      ++ lib.optional (cfg.docker.enable && docker.liveRestore) ''
        services.flannel-rs: with virtualisation.docker.liveRestore dockerd keeps to the subnet that it had as long as a
        container runs, also when this node has got another.
      '';
  };
}
