# The command `upgrade-flannel-rs`: switches to a system with another build of the package, and at the
# next call back.
{ config, pkgs, ... }:
let
  old = config.services.flannel-rs.package;
  # the same program at another place, which is all that systemd sees of a newer one
  new = pkgs.runCommand "flannel-rs-next" { inherit (old) meta; } ''
    cp -rL ${old} $out
    chmod -R u+w $out
    grep -rlIF ${old} $out | xargs sed -i "s,${old},$out,g"
  '';
in
{
  system.switch.enable = true;
  specialisation.next.configuration =
    { lib, ... }:
    {
      services.flannel-rs.package = lib.mkForce new;
    };
  environment.systemPackages = [
    (pkgs.writeShellScriptBin "upgrade-flannel-rs" ''
      system=$(readlink -f /run/booted-system)
      if [[ $(readlink -f /run/current-system) == "$system" ]]; then
          system+=/specialisation/next
      fi
      "$system/bin/switch-to-configuration" test
    '')
  ];
}
