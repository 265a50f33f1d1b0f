# What the module makes of a host's configuration, evaluated. Each case has what is and what should be.
{ pkgs }:
let
  inherit (pkgs) lib;

  machine =
    module:
    pkgs.nixos {
      imports = [
        ../module.nix
        module
      ];
      networking.hostName = lib.mkDefault "node1";
      boot.loader.grub.enable = false;
      fileSystems."/" = {
        device = "/dev/vda";
        fsType = "ext4";
      };
      system.stateVersion = lib.mkDefault lib.trivial.release;
      services.flannel-rs.enable = lib.mkDefault true;
    };
  host = module: (machine module).config;

  # The settings as they are rendered; a checked file can only be read once it is built.
  rendered =
    module:
    builtins.fromJSON
      (host {
        imports = [ module ];
        services.flannel-rs.checkConfig = false;
      }).environment.etc."flannel-rs/config.toml".source.value;

  with' = flannel: { services.flannel-rs = flannel; };

  cluster = {
    network.network = "100.96.0.0/16";
    network.backend.type = "vxlan";
    node.interface = "eth1";
  };
  hostGateway = lib.recursiveUpdate cluster { network.backend.type = "host-gw"; };
  fleet = {
    node1 = {
      publicIP = "192.168.1.47";
      subnet = "100.96.1.0/24";
    };
    node2 = {
      publicIP = "192.168.1.48";
      subnet = "100.96.2.0/24";
    };
  };
  docker = version: {
    services.flannel-rs = {
      docker.enable = true;
      openFirewall = true;
    };
    virtualisation.docker.package = pkgs.docker // {
      inherit version;
    };
  };
  scenario = {
    inherit
      pkgs
      lib
      host
      rendered
      with'
      cluster
      hostGateway
      fleet
      docker
      ;
  };
in
{
  cases = lib.concatMapAttrs (
    area: cases: lib.mapAttrs' (name: lib.nameValuePair "${area}: ${name}") cases
  ) (import ./files.nix scenario // import ./clashes.nix scenario);

  # For comparison with systemd/, with the documents and with the program itself.
  module =
    let
      whole = host {
        imports = [ (docker "29.0") ];
        services.flannel-rs = {
          settings = lib.recursiveUpdate cluster { datastore.username = "flannel"; };
          credentials = {
            caFile = "/run/secrets/ca";
            certFile = "/run/secrets/cert";
            keyFile = "/run/secrets/key";
            passwordFile = "/run/secrets/password";
          };
        };
        systemd.network.enable = true;
      };
      plain = builtins.unsafeDiscardStringContext;
    in
    {
      unit = plain whole.systemd.units."flannel-rs.service".text;
      install = {
        WantedBy = whole.systemd.services.flannel-rs.wantedBy;
        Alias = whole.systemd.services.flannel-rs.aliases;
      };
      docker = plain whole.systemd.units."docker.service".text;
      network = plain whole.systemd.network.units."00-flannel-rs.network".text;
      link = plain whole.systemd.network.units."50-flannel-rs.link".text;
      # NixOS itself asks for some of them
      modules = lib.concatMap (one: one.value) (
        lib.filter (one: lib.hasSuffix "/nix/module/host.nix" one.file)
          (machine { }).options.boot.kernelModules.definitionsWithLocations
      );
      forwarding = toString whole.boot.kernel.sysctl."net.ipv4.conf.all.forwarding";
      denied = whole.networking.dhcpcd.denyInterfaces;
      unmanaged = whole.networking.networkmanager.unmanaged;
      user = { inherit (whole.users.users.flannel-rs) home description; };
      settings = {
        etcd = rendered (with' {
          settings = lib.recursiveUpdate cluster { datastore.username = "flannel"; };
          credentials.passwordFile = "/run/secrets/password";
        });
        fleet = rendered (with' {
          inherit fleet;
          settings = cluster;
        });
        nothing = rendered { };
      };
      options = map (option: option.name) (
        lib.filter (option: option.visible or true && !(option.internal or false)) (
          lib.optionAttrSetToDocList
            (lib.evalModules {
              modules = [
                ../module/options.nix
                { _module.args = { inherit pkgs; }; }
              ];
            }).options.services.flannel-rs
        )
      );
    };
}
