# The scenarios of this folder as NixOS tests: three nodes as on Debian, and the very same scripts.
# Then what only NixOS can host, each with the reason.
{ pkgs }:
let
  inherit (pkgs) lib;

  scenarios = lib.mapAttrs (
    name: table:
    {
      shape = "flat";
      backend = "vxlan";
      etcd = [ "node1" ];
      subnets = true;
      networkd = false;
      docker = "";
      stranger = false;
      script = ../scenarios + "/${name}.py";
      node = { };
    }
    // table
  ) (lib.importTOML ../scenarios.toml);

  test =
    name: scenario:
    pkgs.testers.runNixOSTest {
      name = "flannel-rs-${name}";
      # a scenario of this folder's own says why it is none of Debian's
      passthru.description =
        scenario.shows + lib.optionalString (!scenarios ? ${name}) " (NixOS only: ${scenario.why})";
      # a machine without KVM is slow
      globalTimeout = 1800;
      nodes = import ./nodes.nix { inherit lib scenario; };
      testScript = lib.concatMapStringsSep "\n" builtins.readFile [
        ../prelude.py
        scenario.script
      ];
    };
in
lib.mapAttrs test (
  # upgrading is the distribution's own affair
  scenarios
  // {
    upgrade = scenarios.upgrade // {
      node = ./upgrade.nix;
    };
  }
  // import ./only.nix { inherit pkgs scenarios; }
)
