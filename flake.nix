{
  description = "Overlay network for container hosts: leases a subnet per machine and connects them over host-gw, vxlan or udp";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      perSystem = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ];
      # What a checkout gives without flakes, in the nixpkgs of this flake.
      project = perSystem (system: import ./. { pkgs = nixpkgs.legacyPackages.${system}; });
    in
    {
      packages = perSystem (system: rec {
        inherit (project.${system}) flannel-rs;
        default = flannel-rs;
      });

      overlays.default = import ./nix/overlay.nix;

      nixosModules = rec {
        flannel-rs = ./nix/module.nix;
        default = flannel-rs;
      };

      checks = perSystem (
        system:
        {
          package = self.packages.${system}.default;
          module = project.${system}.moduleTests;
        }
        // lib.mapAttrs' (name: lib.nameValuePair "vm-${name}") project.${system}.vmTests
      );

      devShells = perSystem (system: {
        default = project.${system}.shell;
      });

      # plain nixfmt does not walk folders
      formatter = perSystem (system: nixpkgs.legacyPackages.${system}.nixfmt-tree);
    };
}
