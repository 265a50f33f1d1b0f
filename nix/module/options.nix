# What can be set. docs/nixos.md lists all of it.
{ lib, pkgs, ... }:
let
  inherit (lib) mkOption types;

  toml = pkgs.formats.toml { };

  unset =
    type: arguments:
    mkOption (
      {
        type = types.nullOr type;
        default = null;
      }
      // arguments
    );

  # the keys that the module itself looks at; all others pass through
  settings = types.submodule {
    freeformType = toml.type;
    options = {
      node.name = unset types.str {
        example = "node1";
        description = "Name of this node. Without one it is the host name.";
      };
      node.interface = unset types.str {
        example = "eth1";
        description = ''
          Interface, or an address of it, that carries what goes to other nodes. Without one it is that of the
          default route.
        '';
      };
      datastore.type = unset (types.enum [
        "etcd"
        "local"
        "static"
      ]) { description = "Where the leases are. Without one it is etcd."; };
      datastore.endpoints = unset (types.nonEmptyListOf types.str) {
        example = [ "http://192.168.1.47:2379" ];
        description = "Client URLs of the etcd members.";
      };
      network.network = unset types.str {
        example = "100.96.0.0/16";
        description = ''
          Network that the nodes' subnets lie in. With etcd it is written to the datastore if that holds no network
          config yet, and may be left out where another host does so.
        '';
      };
      network.backend.type = unset (types.enum [
        "host-gw"
        "udp"
        "vxlan"
      ]) { description = "How packets reach other nodes. Without one it is vxlan."; };
      network.backend.port = unset types.port {
        description = "UDP port of vxlan (8472) or udp (8285), the same on all nodes.";
      };
      network.backend.vni = unset types.ints.unsigned {
        description = "Identifier of the vxlan (1). The link is called flannel.<vni>.";
      };
      network.backend.direct-routing = unset types.bool {
        description = "Whether vxlan uses plain routes to peers on the same link.";
      };
      docker.bridge = unset types.str {
        description = "Bridge of the containers (docker0).";
      };
      docker.daemon-json = unset types.path {
        example = "/run/flannel/daemon.json";
        description = ''
          File that gets dockerd's options in the form of its `daemon.json` besides. For a dockerd that somebody else
          starts: {option}`docker.enable` hands the options over by itself.
        '';
      };
      firewall.masquerade = unset types.bool {
        description = "Whether what containers send to the outside gets this host's address. Without a word it does.";
      };
      firewall.forward = unset types.bool {
        description = "Whether the network is let through chains of others that would drop it. Without a word it is.";
      };
      firewall.protect-tunnel-port = unset types.bool {
        description = "Whether the tunnel's port is closed to all but peers. Without a word it is.";
      };
      firewall.verify-source = unset types.bool {
        description = ''
          Whether packets from the tunnel are dropped that speak in the name of another peer's containers. Without a
          word they are.
        '';
      };
      udp.offload = unset types.bool {
        description = "Whether the udp backend moves many packets with one call where the kernel can. Without a word it does.";
      };
      udp.port-per-flow = unset types.bool {
        description = ''
          Whether each flow of the udp backend has a port of its own to come from. Without a word it has; `false` is
          for firewalls that expect the shared one.
        '';
      };
      host.repair = unset types.bool {
        description = ''
          Whether forwarding, and a reverse path filter that drops, are put right for the links of the overlay.
          Without a word they are only told.
        '';
      };
    };
  };

  secret =
    what:
    unset types.externalPath {
      example = "/run/secrets/etcd";
      description = ''
        ${what}, a file outside the Nix store. systemd reads it as root and passes it on (`LoadCredential=`), so
        that the service's user need not be able to. A changed one takes effect at a restart.
      '';
    };
in
{
  options.services.flannel-rs = {
    enable = lib.mkEnableOption "flannel-rs, an overlay network for container hosts";

    package = mkOption {
      type = types.package;
      default = pkgs.flannel-rs or (pkgs.callPackage ../package.nix { });
      defaultText = lib.literalExpression "pkgs.flannel-rs or (pkgs.callPackage ./nix/package.nix { })";
      description = "The flannel-rs to use.";
    };

    settings = mkOption {
      type = settings;
      default = { };
      example = lib.literalExpression ''
        {
          datastore.endpoints = [ "http://192.168.1.47:2379" ];
          network.network = "100.96.0.0/16";
          network.backend.type = "vxlan";
        }
      '';
      description = ''
        Contents of {file}`/etc/flannel-rs/config.toml`. The folder examples has a commented one for each backend.
        A change is applied by a reload, or by a restart where the program needs one.
      '';
    };

    checkConfig = mkOption {
      type = types.bool;
      default = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
      defaultText = lib.literalMD "whether the host's programs can run where it is built";
      description = "Whether `flannel-rs check` must accept the settings for the system to be built.";
    };

    fleet = mkOption {
      default = { };
      example = lib.literalExpression ''
        {
          node1 = { publicIP = "192.168.1.47"; subnet = "100.96.1.0/24"; };
          node2 = { publicIP = "192.168.1.48"; subnet = "100.96.2.0/24"; };
        }
      '';
      description = ''
        All nodes of the cluster by name, the same on all of them: leases that are declared instead of held by an
        etcd. Each host finds itself by {option}`networking.hostName`.
      '';
      type = types.attrsOf (
        types.submodule {
          options = {
            publicIP = mkOption {
              type = types.str;
              example = "192.168.1.47";
              description = "Address that the other nodes send to.";
            };
            subnet = mkOption {
              type = types.str;
              example = "100.96.1.0/24";
              description = "Subnet of the node's containers.";
            };
          };
        }
      );
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether to let other nodes in: the backend's UDP port on {option}`settings.node.interface` (on all
        interfaces without one), packets between containers where forwarding is filtered, and packets whose way
        back is another interface.
      '';
    };

    docker.enable = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether Docker's containers get their addresses from this node's subnet. Turns Docker on, which then waits
        for the subnet at its start.
      '';
    };

    credentials = {
      caFile = secret "Certificate of the authority that etcd's certificates are checked against";
      certFile = secret "Client certificate for etcd";
      keyFile = secret "Key of the client certificate";
      passwordFile = secret "Password for etcd, that of `settings.datastore.username`";
    };
  };
}
