# What the module generates.
{
  lib,
  host,
  rendered,
  with',
  cluster,
  hostGateway,
  fleet,
  docker,
  ...
}:
let
  firewall =
    module:
    let
      inherit ((host module).networking) firewall nftables;
    in
    {
      everywhere = firewall.allowedUDPPorts;
      on = lib.mapAttrs (_: interface: interface.allowedUDPPorts) firewall.interfaces;
      reverse = firewall.checkReversePath;
      # what nftables is told, of the kind that only it knows
      forward = lib.optionals nftables.enable (
        lib.filter (line: line != "") (lib.splitString "\n" firewall.extraForwardRules)
      );
    };
  opened = settings: {
    services.flannel-rs = {
      openFirewall = true;
      inherit settings;
    };
  };
  nftables = {
    networking.nftables.enable = true;
    networking.firewall.filterForward = true;
  };
  # Versions of NixOS differ in quotes and spaces.
  nftablesText =
    module:
    lib.replaceStrings [ "\"" "  " ] [ "" " " ]
      (host {
        imports = [
          nftables
          module
        ];
      }).networking.nftables.tables.nixos-fw.content;
in
{
  settings = {
    "nothing set is an empty file" = {
      is = rendered { };
      should = { };
    };
    "what is set is all there is" = {
      is = rendered (with' {
        settings = cluster;
      });
      should = cluster;
    };
    "keys that the module does not know pass through" = {
      is = rendered (with' {
        settings = {
          lease.ttl = "12h";
          network.subnet-len = 26;
        };
      });
      should = {
        lease.ttl = "12h";
        network.subnet-len = 26;
      };
    };
    "a fleet is rendered as the static datastore, and the host named" = {
      is = rendered (with' {
        inherit fleet;
        settings = cluster;
      });
      should = cluster // {
        node = cluster.node // {
          name = "node1";
        };
        datastore = {
          type = "static";
          nodes = lib.mapAttrs (_: node: {
            public-ip = node.publicIP;
            inherit (node) subnet;
          }) fleet;
        };
      };
    };
    "credentials are named by %d" = {
      is = rendered (with' {
        credentials.caFile = "/run/secrets/ca";
        credentials.passwordFile = "/run/secrets/password";
        settings.datastore.username = "flannel";
      });
      should.datastore = {
        ca-file = "%d/etcd-ca";
        password-file = "%d/etcd-password";
        username = "flannel";
      };
    };
    "a path of one's own wins over a credential's" = {
      is = rendered (with' {
        credentials.caFile = "/run/secrets/ca";
        settings.datastore.ca-file = "/etc/ca.pem";
      });
      should.datastore.ca-file = "/etc/ca.pem";
    };
    "the program checks them, unless it is told not to" = {
      is = (host { }).environment.etc."flannel-rs/config.toml".source.name;
      should = "flannel-rs-checked.toml";
    };
  };

  unit = {
    "the package brings it" = {
      is = map (package: package.pname or "") (
        lib.filter (package: lib.hasPrefix "flannel" (package.pname or "")) (host { }).systemd.packages
      );
      should = [ "flannel-rs" ];
    };
    "systemd reads the secrets" = {
      is =
        (host (with' {
          credentials.keyFile = "/run/secrets/key";
          credentials.certFile = "/run/secrets/cert";
        })).systemd.services.flannel-rs.serviceConfig.LoadCredential;
      should = [
        "etcd-cert:/run/secrets/cert"
        "etcd-key:/run/secrets/key"
      ];
    };
    "a change of the settings reloads it, or restarts it where a reload does not suffice" = {
      is =
        let
          service = module: (host module).systemd.services.flannel-rs;
          change = one: other: {
            reload = (service one).reloadTriggers != (service other).reloadTriggers;
            restart = (service one).restartTriggers != (service other).restartTriggers;
          };
          nodes = more: with' { fleet = fleet // more; };
        in
        {
          network = change { } (with' {
            settings = cluster;
          });
          datastore = change { } (with' {
            settings.datastore.endpoints = [ "http://192.168.1.47:2379" ];
          });
          name = change { } (with' {
            settings.node.name = "other";
          });
          state = change { } (with' {
            settings.paths.state = "/var/lib/other";
          });
          toFleet = change { } (nodes { });
          fleet = change (nodes { }) (nodes {
            node3 = fleet.node1;
          });
        };
      should =
        let
          both = {
            reload = true;
            restart = true;
          };
          reload = both // {
            restart = false;
          };
        in
        {
          network = reload;
          datastore = both;
          name = both;
          state = both;
          toFleet = both;
          fleet = reload;
        };
    };
    "it is stopped and started at once, with its alias" = {
      is =
        let
          service = (host { }).systemd.services.flannel-rs;
        in
        {
          inherit (service) stopIfChanged aliases;
        };
      should = {
        stopIfChanged = false;
        aliases = [ "dbus-org.flannelrs.Flannel1.service" ];
      };
    };
    "bus, command and polkit actions come with the package" = {
      is =
        let
          machine = host { security.polkit.enable = true; };
          ours = lib.any (package: package.pname or "" == "flannel-rs");
        in
        [
          (ours machine.services.dbus.packages)
          (ours machine.environment.systemPackages)
          (lib.elem "/share/polkit-1" machine.environment.pathsToLink)
        ];
      should = [
        true
        true
        true
      ];
    };
  };

  host = {
    "a module that is not enabled changes nothing" = {
      is =
        let
          machine = host { services.flannel-rs.enable = false; };
          ours = lib.filter (lib.hasInfix "flannel");
        in
        {
          etc = ours (lib.attrNames machine.environment.etc);
          user = machine.users.users ? flannel-rs;
          unit = machine.systemd.services ? flannel-rs;
          denied = ours machine.networking.dhcpcd.denyInterfaces;
          foreign = machine.systemd.network.config.networkConfig;
        };
      should = {
        etc = [ ];
        user = false;
        unit = false;
        denied = [ ];
        foreign = { };
      };
    };
    "forwarding is on, also beside Docker, and a user has the last word" = {
      is = map (module: toString (host module).boot.kernel.sysctl."net.ipv4.conf.all.forwarding") [
        { }
        (docker "29.0")
        { boot.kernel.sysctl."net.ipv4.conf.all.forwarding" = false; }
      ];
      should = [
        "1"
        "1"
        ""
      ];
    };
    "nobody else looks after the links, whatever the bridge is called" = {
      is =
        let
          machine = host {
            networking.useNetworkd = true;
            services.flannel-rs.settings.docker.bridge = "containers";
          };
        in
        {
          networkd = machine.systemd.network.networks."00-flannel-rs".matchConfig.Name;
          # NixOS adds some of its own
          dhcpcd = lib.take 3 machine.networking.dhcpcd.denyInterfaces;
          routes = machine.systemd.network.config.networkConfig.ManageForeignRoutes;
        };
      should = {
        networkd = "flannel.* flannel0 containers";
        dhcpcd = [
          "flannel.*"
          "flannel0"
          "containers"
        ];
        routes = false;
      };
    };
    "the whole system evaluates" = {
      is = lib.hasSuffix ".drv" (
        builtins.unsafeDiscardStringContext
          (host {
            imports = [
              (docker "29.0")
              (opened cluster)
              nftables
            ];
            networking.useNetworkd = true;
          }).system.build.toplevel.drvPath
      );
      should = true;
    };
  };

  firewall = {
    "closed unless it is asked for" = {
      is = firewall (with' {
        settings = cluster;
      });
      should = {
        everywhere = [ ];
        on = { };
        reverse = true;
        forward = [ ];
      };
    };
    "vxlan on its interface" = {
      is = firewall (opened cluster);
      should = {
        everywhere = [ ];
        on.eth1 = [ 8472 ];
        reverse = "loose";
        forward = [ ];
      };
    };
    "udp with a port of its own, and an address for an interface" = {
      is = firewall (opened {
        node.interface = "192.168.1.47";
        network.network = "100.96.0.0/16";
        network.backend = {
          type = "udp";
          port = 9000;
        };
      });
      should = {
        everywhere = [ 9000 ];
        on = { };
        reverse = "loose";
        forward = [ ];
      };
    };
    "host-gw has no port" = {
      is = (firewall (opened hostGateway)).on;
      should.eth1 = [ ];
    };
    "who leaves the backend to the datastore opens for each" = {
      is = (firewall (opened { })).everywhere;
      should = [
        8285
        8472
      ];
    };
    "nftables: between containers" = {
      is =
        (firewall {
          imports = [
            nftables
            (opened cluster)
          ];
        }).forward;
      should = [ "ip saddr 100.96.0.0/16 ip daddr 100.96.0.0/16 accept" ];
    };
    "nftables: between bridge and tunnel where the network is not known here" = {
      is =
        (firewall {
          imports = [
            nftables
            (opened { })
          ];
        }).forward;
      should = [
        ''iifname "flannel*" oifname "docker0" accept''
        ''iifname "docker0" oifname "flannel*" accept''
      ];
    };
    "nftables: the ruleset itself has all of it" = {
      is = map (line: lib.hasInfix line (nftablesText (opened cluster))) [
        "iifname eth1 udp dport { 8472 } accept"
        "ip saddr 100.96.0.0/16 ip daddr 100.96.0.0/16 accept"
        "fib saddr . mark oif exists accept"
      ];
      should = [
        true
        true
        true
      ];
    };
  };

  docker = {
    "it waits for the subnet, and is told all of it" = {
      is =
        let
          machine = host (docker "29.0");
          service = machine.systemd.services.docker;
        in
        {
          inherit (service) wants;
          after = lib.elem "flannel-rs.service" service.after;
          file = service.serviceConfig.EnvironmentFile;
          options = machine.virtualisation.docker.extraOptions;
          live = machine.virtualisation.docker.liveRestore;
        };
      should = {
        wants = [ "flannel-rs.service" ];
        after = true;
        file = "/run/flannel/docker.env";
        options = "$DOCKER_OPTS";
        live = false;
      };
    };
    "chains and options of Docker are left to the service and to the user" = {
      is =
        let
          machine = host (docker "29.0");
        in
        {
          direct = machine.virtualisation.docker.daemon.settings ? allow-direct-routing;
          inherit (machine.systemd.services.docker) postStart;
        };
      should = {
        direct = false;
        postStart = "";
      };
    };
    "the file is where the settings say" = {
      is =
        (host {
          imports = [ (docker "29.0") ];
          services.flannel-rs.settings.paths.docker-env = "/run/flannel/other.env";
        }).systemd.services.docker.serviceConfig.EnvironmentFile;
      should = "/run/flannel/other.env";
    };
  };
}
