# docker.enable: containers of Docker live in this node's subnet.
{ config, lib, ... }:
let
  cfg = config.services.flannel-rs;
in
{
  config = lib.mkIf (cfg.enable && cfg.docker.enable) {
    virtualisation.docker = {
      enable = true;
      extraOptions = "$DOCKER_OPTS";
      # With it dockerd would keep to the old subnet as long as a container runs.
      liveRestore = lib.mkDefault false;
    };

    systemd.services.docker = {
      # Wants=, not Requires=: a restart of flannel-rs must not stop the containers.
      wants = [ "flannel-rs.service" ];
      after = [ "flannel-rs.service" ];
      # Must be there: a dockerd without it would give out addresses of some other network.
      serviceConfig.EnvironmentFile = cfg.settings.paths.docker-env or "/run/flannel/docker.env";
    };
  };
}
