# All that flake.nix offers, for those who use no flakes:
#     nix-build -A flannel-rs
#     imports = [ (import ./path/to/flannel-rs { }).module ];
{
  pkgs ? import <nixpkgs> { },
}:
rec {
  flannel-rs = pkgs.callPackage ./nix/package.nix { };
  overlay = import ./nix/overlay.nix;
  module = ./nix/module.nix;
  moduleTests = import ./nix/tests/check.nix { inherit pkgs; };
  vmTests = import ./vm-tests/nixos { inherit pkgs; };
  shell = pkgs.callPackage ./nix/shell.nix { inherit flannel-rs; };
}
