# services.flannel-rs: docs/nixos.md tells how to use it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.flannel-rs;

  # TOML has no null. An option that is not set is left out, and so is a table that has nothing
  # else: an empty [network] would be a wrong one.
  prune =
    value:
    if lib.isAttrs value then
      lib.filterAttrs (_: inner: inner != null && inner != { }) (lib.mapAttrs (_: prune) value)
    else
      value;

  rendered = (pkgs.formats.toml { }).generate "flannel-rs.toml" (prune cfg.settings);
  checked = pkgs.runCommand "flannel-rs-checked.toml" { } ''
    ${lib.getExe cfg.package} check ${rendered}
    cp ${rendered} $out
  '';
  configFile = if cfg.checkConfig then checked else rendered;

  # What only a restart applies; the list of a fleet is none of it.
  fixed = builtins.toJSON {
    inherit (cfg.settings.node) name;
    datastore = removeAttrs cfg.settings.datastore [ "nodes" ];
    state = cfg.settings.paths.state or null;
  };

  credentials = lib.filterAttrs (_: path: path != null) {
    etcd-ca = cfg.credentials.caFile;
    etcd-cert = cfg.credentials.certFile;
    etcd-key = cfg.credentials.keyFile;
    etcd-password = cfg.credentials.passwordFile;
  };
  # %d is the folder of the unit's credentials
  fromCredential = name: lib.mkIf (credentials ? ${name}) (lib.mkDefault "%d/${name}");
in
{
  imports = [
    ./module/options.nix
    ./module/clashes.nix
    ./module/docker.nix
    ./module/host.nix
  ];

  config = lib.mkIf cfg.enable {
    services.flannel-rs.settings = {
      datastore = {
        ca-file = fromCredential "etcd-ca";
        cert-file = fromCredential "etcd-cert";
        key-file = fromCredential "etcd-key";
        password-file = fromCredential "etcd-password";
        type = lib.mkIf (cfg.fleet != { }) (lib.mkDefault "static");
        nodes = lib.mkIf (cfg.fleet != { }) (
          lib.mapAttrs (_: node: {
            public-ip = node.publicIP;
            inherit (node) subnet;
          }) cfg.fleet
        );
      };
      # The config is checked where it is built, and that host has another name.
      node.name = lib.mkIf (cfg.fleet != { }) (lib.mkDefault config.networking.hostName);
    };

    # At the place where the package's unit and command look for it, so that neither needs to be told.
    environment.etc."flannel-rs/config.toml".source = configFile;
    environment.systemPackages = [ cfg.package ];

    # A static user: dbus-daemon does not let dynamic ones in.
    users.users.flannel-rs = {
      description = "flannel-rs overlay network";
      isSystemUser = true;
      group = "flannel-rs";
      home = "/var/lib/flannel-rs";
    };
    users.groups.flannel-rs = { };

    services.dbus.packages = [ cfg.package ];

    # The unit is that of the package; what follows is a drop-in.
    systemd.packages = [ cfg.package ];
    systemd.services.flannel-rs = {
      wantedBy = [ "multi-user.target" ];
      # the bus starts it by this name
      aliases = [ "dbus-org.flannelrs.Flannel1.service" ];
      reloadTriggers = [ configFile ];
      restartTriggers = [ fixed ];
      # A new version is started as soon as the old one ends, not at the end of the whole switch.
      stopIfChanged = false;
      serviceConfig.LoadCredential = lib.mapAttrsToList (name: path: "${name}:${path}") credentials;
    };
  };

  meta.maintainers = [ ];
}
