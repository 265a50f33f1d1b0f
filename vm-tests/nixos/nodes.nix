# The machines of a scenario. cluster.py says the same for Debian, and a test compares the two.
{ lib, scenario }:
let
  addresses = {
    node1 = "192.168.1.47";
    node2 = "192.168.1.48";
    node3 = if scenario.shape == "routed" then "192.168.2.49" else "192.168.1.49";
  };
  segment = address: lib.toInt (lib.elemAt (lib.splitString "." address) 2);
  at = address: {
    ipv4.addresses = lib.mkForce [
      {
        inherit address;
        prefixLength = 24;
      }
    ];
  };
  subnet = name: "100.96.${lib.removePrefix "node" name}.0/24";
  url =
    scheme: port: name:
    "${scheme}://${addresses.${name}}:${toString port}";

  node =
    name: address:
    { pkgs, ... }:
    {
      imports = [
        ../../nix/module.nix
        (member name)
        docker
        scenario.node
      ];

      virtualisation.vlans = [ (segment address) ];
      networking = {
        primaryIPAddress = lib.mkForce address;
        interfaces.eth1 = at address // {
          ipv4 = (at address).ipv4 // {
            routes = lib.optional (scenario.shape == "routed") {
              address = "192.168.${if segment address == 1 then "2" else "1"}.0";
              prefixLength = 24;
              via = "192.168.${toString (segment address)}.1";
            };
          };
        };
        useNetworkd = lib.mkIf scenario.networkd true;
        # scenarios change the backend behind the settings' back
        firewall.interfaces.eth1.allowedUDPPorts = [
          8285
          8472
        ];
      };

      services.flannel-rs = {
        enable = lib.mkDefault true;
        openFirewall = true;
        fleet = lib.mkIf (scenario.etcd == [ ]) (
          lib.mapAttrs (name: address: {
            publicIP = address;
            subnet = subnet name;
          }) addresses
        );
        settings = {
          node = {
            inherit name;
            interface = "eth1";
            subnet = lib.mkIf scenario.subnets (subnet name);
          };
          datastore = lib.mkIf (scenario.etcd != [ ]) {
            type = "etcd";
            endpoints = lib.mkDefault (map (url "http" 2379) scenario.etcd);
          };
          network = {
            network = "100.96.0.0/16";
            backend.type = scenario.backend;
          };
        };
      };
      # a file rather than a link: scenarios write to it
      environment.etc."flannel-rs/config.toml".mode = "0644";

      # what the scripts call, and who they become
      environment.systemPackages = [
        pkgs.etcd
        pkgs.iperf3
        pkgs.tcpdump
      ];
      users.users.visitor.isNormalUser = true;
      security.polkit.enable = true;
    };

  member =
    name:
    { lib, ... }:
    lib.mkIf (lib.elem name scenario.etcd) {
      services.etcd = {
        enable = true;
        openFirewall = true;
        inherit name;
        listenClientUrls = [
          (url "http" 2379 name)
          "http://127.0.0.1:2379"
        ];
        advertiseClientUrls = [ (url "http" 2379 name) ];
        listenPeerUrls = [ (url "http" 2380 name) ];
        initialCluster = map (member: "${member}=${url "http" 2380 member}") scenario.etcd;
      };
    };

  docker =
    { lib, pkgs, ... }:
    lib.mkIf (scenario.docker != "") {
      services.flannel-rs.docker.enable = true;
      virtualisation = {
        diskSize = 4096;
        # the setting itself, as the module of flannel-rs warns of the option
        docker.daemon.settings.live-restore = scenario.docker == "live-restore";
      };
      environment.systemPackages = [
        pkgs.nftables
        # no registry is to be had
        (pkgs.writeShellScriptBin "load-busybox" ''
          tar -C ${pkgs.pkgsStatic.busybox} -c bin | docker import - busybox
        '')
      ];
    };

  # a host that is no node
  stranger =
    { pkgs, ... }:
    {
      virtualisation.vlans = [ 1 ];
      networking = {
        interfaces.eth1 = at "192.168.1.77";
        primaryIPAddress = lib.mkForce "192.168.1.77";
        firewall.enable = false;
      };
      environment.systemPackages = [ pkgs.iperf3 ];
    };

  # the first host of each segment
  router = {
    virtualisation.vlans = [
      1
      2
    ];
    networking = {
      interfaces.eth1 = at "192.168.1.1";
      interfaces.eth2 = at "192.168.2.1";
      primaryIPAddress = lib.mkForce "192.168.1.1";
      firewall.enable = false;
    };
    boot.kernel.sysctl."net.ipv4.ip_forward" = true;
  };
in
lib.mapAttrs node addresses
// lib.optionalAttrs scenario.stranger { inherit stranger; }
// lib.optionalAttrs (scenario.shape == "routed") { inherit router; }
