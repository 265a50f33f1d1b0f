final: _previous: { flannel-rs = final.callPackage ./package.nix { }; }
