# Each assertion and each warning: what calls it up, and that its remedy silences it.
{
  lib,
  host,
  with',
  cluster,
  hostGateway,
  fleet,
  docker,
  ...
}:
let
  said =
    module:
    let
      machine = host module;
      failed = lib.filter (one: !one.assertion) machine.assertions;
    in
    lib.filter (lib.hasInfix "flannel-rs") (map (one: one.message) failed ++ machine.warnings);

  # the words that are said when, and how many remarks there are then
  told = words: module: {
    is = map (lib.hasInfix words) (said module);
    should = [ true ];
  };
  silent = module: {
    is = said module;
    should = [ ];
  };

  opened = settings: {
    services.flannel-rs = {
      openFirewall = true;
      inherit settings;
    };
  };
  unmasked = settings: settings // { firewall.masquerade = false; };
  unforwarded.services.flannel-rs.settings.firewall.forward = false;
  direct-routing.virtualisation.docker.daemon.settings.allow-direct-routing = true;
  networkd = settings: {
    imports = [ (opened settings) ];
    networking.useNetworkd = true;
    systemd.network.config.networkConfig.ManageForeignRoutes = true;
  };
  nftables = flush: {
    imports = [ (docker "29.0") ];
    networking.nftables = {
      enable = true;
      flushRuleset = flush;
    };
  };
  direct = {
    node.interface = "eth1";
    network.network = "100.96.0.0/16";
    network.backend = {
      type = "vxlan";
      direct-routing = true;
    };
  };
  address = range: prefixLength: {
    imports = [ (opened cluster) ];
    networking.interfaces.eth1.ipv4.addresses = [
      {
        address = range;
        inherit prefixLength;
      }
    ];
  };
  pool = base: {
    imports = [
      (docker "29.0")
      (with' { settings = cluster; })
    ];
    virtualisation.docker.daemon.settings.default-address-pools = [
      {
        inherit base;
        size = 24;
      }
    ];
  };
  netdev = port: {
    imports = [ (opened cluster) ];
    systemd.network.netdevs.overlay = {
      netdevConfig = {
        Name = "overlay0";
        Kind = "vxlan";
      };
      vxlanConfig = {
        VNI = 1;
        DestinationPort = port;
      };
    };
  };
  k3s = flags: {
    imports = [ (opened cluster) ];
    services.k3s = {
      enable = true;
      extraFlags = flags;
    };
  };
in
{
  clash = {
    "none by default where the firewall is opened" = silent (opened cluster);

    "services.flannel" = told "services.flannel" {
      imports = [ (opened cluster) ];
      services.flannel = {
        enable = true;
        network = "10.5.0.0/16";
      };
    };

    "k3s with a flannel of its own" = told "--flannel-backend=none" (k3s [ ]);
    "k3s without" = silent (k3s [ "--flannel-backend=none" ]);

    "flushRuleset with Docker" = told "flushRuleset" (nftables true);
    "no flushRuleset" = silent (nftables false);
    "flushRuleset by an old stateVersion" = told "flushRuleset" {
      imports = [ (docker "29.0") ];
      networking.nftables.enable = true;
      system.stateVersion = "23.05";
    };

    "networkd takes routes of host-gw away" = told "ManageForeignRoutes" (networkd hostGateway);
    "networkd takes direct routes away" = told "ManageForeignRoutes" (networkd direct);
    "networkd may take routes of a backend that only the datastore knows" = told "ManageForeignRoutes" (
      networkd { }
    );
    "networkd does not touch those of a tunnel" = silent (networkd cluster);

    "Docker 28.0 drops, and nobody lets anything through" = told "firewall.forward" {
      imports = [
        (docker "28.0.4")
        unforwarded
        direct-routing
      ];
    };
    "Docker 28.2 has an option for that" = told "allow-direct-routing" {
      imports = [
        (docker "28.2.0")
        unforwarded
      ];
    };
    "with which it does not matter" = silent {
      imports = [
        (docker "28.2.0")
        unforwarded
        direct-routing
      ];
    };
    "nor does it before 28" = silent {
      imports = [
        (docker "27.5.1")
        unforwarded
      ];
    };
    "the service lets the network through any Docker" = silent (docker "28.0.4");
    "an option that Docker is given twice" = told "ip-masq" {
      imports = [ (docker "29.0") ];
      virtualisation.docker.daemon.settings.ip-masq = false;
    };
    "Docker and another bridge" = told "docker0" {
      imports = [ (docker "29.0") ];
      services.flannel-rs.settings.docker.bridge = "containers";
    };
    "Docker keeps containers over its restart" = told "liveRestore" {
      imports = [ (docker "29.0") ];
      virtualisation.docker.liveRestore = true;
    };

    "the host is inside the network" = told "100.96.0.0/16" (address "100.96.7.1" 24);
    "the network is inside the host's" = told "networking.interfaces.eth1" (address "100.64.0.1" 10);
    "the host is beside the network" = silent (address "100.97.0.1" 16);
    "a pool of Docker is inside the network" = told "default-address-pools" (pool "100.96.128.0/17");
    "a pool of Docker is beside the network" = silent (pool "172.20.0.0/16");

    "another vxlan with the same VNI and port" = told "netdevs.overlay" (netdev 8472);
    "another vxlan on another port" = silent (netdev 4789);

    "a fleet without this host" = told "has no node" {
      imports = [
        (opened cluster)
        (with' { inherit fleet; })
      ];
      networking.hostName = "node9";
    };
    "a fleet that has it under the name of the settings" = silent {
      imports = [
        (opened cluster)
        (with' { inherit fleet; })
      ];
      networking.hostName = "node9";
      services.flannel-rs.settings.node.name = "node2";
    };
    "a fleet and an etcd" = told "datastore.type" {
      imports = [
        (opened cluster)
        (with' { inherit fleet; })
      ];
      services.flannel-rs.settings.datastore.type = "etcd";
    };
    "a fleet without its network" = told "network.network" {
      imports = [ (with' { inherit fleet; }) ];
      services.flannel-rs.openFirewall = true;
    };

    "a strict reverse path" = told "checkReversePath" (with' {
      settings = unmasked cluster;
    });
    "a strict reverse path by the user's own word" = told "checkReversePath" {
      imports = [ (opened (unmasked cluster)) ];
      networking.firewall.checkReversePath = "strict";
    };
    "a strict reverse path does not matter where containers are masqueraded" = silent (with' {
      settings = cluster;
    });
    "a strict reverse path does not matter to host-gw" = silent (with' {
      settings = unmasked hostGateway;
    });
    "without a firewall there is none" = silent {
      imports = [ (with' { settings = unmasked cluster; }) ];
      networking.firewall.enable = false;
    };
  };
}
