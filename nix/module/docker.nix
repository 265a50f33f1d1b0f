# docker.enable: containers of Docker live in this node's subnet.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.flannel-rs;
  docker = config.virtualisation.docker;
  filtersDirect = lib.versionAtLeast docker.package.version "28";
  iptables = "${pkgs.iptables}/bin/iptables -w";
in
{
  config = lib.mkIf (cfg.enable && cfg.docker.enable) {
    virtualisation.docker = {
      enable = true;
      extraOptions = "$DOCKER_OPTS";
      # With it dockerd would keep to the old subnet as long as a container runs.
      liveRestore = lib.mkDefault false;
      # From 28 on Docker drops what comes to a container's own address from other hosts.
      daemon.settings = lib.mkIf filtersDirect { allow-direct-routing = lib.mkDefault true; };
    };

    systemd.services.docker = {
      # Wants=, not Requires=: a restart of flannel-rs must not stop the containers.
      wants = [ "flannel-rs.service" ];
      after = [ "flannel-rs.service" ];
      # Must be there: a dockerd without it would give out addresses of some other network.
      serviceConfig.EnvironmentFile = cfg.settings.paths.docker-env or "/run/flannel/docker.env";
      # The option above does without a rule in `raw` only; ports that are not published are dropped
      # in `filter`, too, but after this chain, which Docker leaves to others.
      postStart = lib.mkIf filtersDirect ''
        . ${cfg.settings.paths.subnet-env or "/run/flannel/subnet.env"}
        among="-s $FLANNEL_NETWORK -d $FLANNEL_NETWORK -j ACCEPT"
        ${iptables} -N DOCKER-USER 2>/dev/null || true
        ${iptables} -C DOCKER-USER $among 2>/dev/null || ${iptables} -I DOCKER-USER $among
      '';
    };
  };
}
