# What follows from the settings, with the program's own defaults.
{ cfg }:
let
  backend = cfg.settings.network.backend;
  orElse = default: value: if value == null then default else value;
  port = default: orElse default backend.port;
in
rec {
  network = cfg.settings.network.network;

  # null: only the datastore knows
  kind = if network == null then backend.type else orElse "vxlan" backend.type;

  # The datastore may say anything where the settings say nothing.
  udpPorts =
    {
      vxlan = [ (port 8472) ];
      udp = [ (port 8285) ];
      host-gw = [ ];
    }
    .${if kind == null then "" else kind} or [
      8285
      8472
    ];

  # Routes through the uplink itself, which others look after, too.
  mayRoutePlainly = !(kind == "udp" || kind == "vxlan" && backend.direct-routing != true);

  vni = orElse 1 backend.vni;
  bridge = orElse "docker0" cfg.settings.docker.bridge;

  # by name; an address may be given, too
  uplink =
    let
      given = cfg.settings.node.interface;
    in
    if given == null || builtins.match "[0-9.]+" given != null then null else given;
}
