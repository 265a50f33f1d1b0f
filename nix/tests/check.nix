# The evaluation tests as a check of the flake.
{ pkgs }:
let
  inherit (pkgs) lib;
  inherit (import ./. { inherit pkgs; }) cases;
  failing = lib.filterAttrs (_: case: case.is != case.should) cases;
in
if failing == { } then
  pkgs.runCommand "flannel-rs-module-tests" { }
    "echo ${toString (lib.length (lib.attrNames cases))} >$out"
else
  throw "flannel-rs module tests: ${builtins.toJSON failing}"
