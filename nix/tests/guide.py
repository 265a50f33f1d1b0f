"""What docs/nixos.md tells people to write, evaluated as it stands there."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from nix import PROJECT, Nix
from report import Report

GUIDE = PROJECT / "docs" / "nixos.md"
HARDWARE = """\
{
  boot.loader.grub.enable = false;
  fileSystems."/" = { device = "/dev/vda"; fsType = "ext4"; };
}
"""
HOSTS = ("node1", "node2", "node3")
# In place of the flakes that cannot be fetched here.
SYSTEM = """
let
  lib = pkgs.lib;
  evaluate = given: import (nixpkgs + "/nixos/lib/eval-config.nix") (given // {{
    inherit lib;
    system = null;
    modules = given.modules ++ [ {more} ];
  }});
  outputs = (import {folder}/flake.nix).outputs {{
    self = outputs;
    nixpkgs.lib = lib // {{ nixosSystem = evaluate; }};
    flannel-rs.nixosModules.default = ./nix/module.nix;
  }};
  facts = _: host: {{
    said = map (one: one.message) (builtins.filter (one: !one.assertion) host.config.assertions)
      ++ host.config.warnings;
    etcd = host.config.services.etcd.enable;
    type = host.config.services.flannel-rs.settings.datastore.type;
    system = builtins.unsafeDiscardStringContext host.config.system.build.toplevel.drvPath;
  }};
in
builtins.mapAttrs facts outputs.nixosConfigurations
"""


def everything(nix: Nix, report: Report) -> None:
    """The cluster with an etcd, and the same as a fleet."""
    flake, fleet, secrets, *_ = re.findall(r"^```nix\n(.*?)^```$", GUIDE.read_text(), re.M | re.S)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for host in HOSTS:
            (folder / host).mkdir()
            (folder / host / "hardware-configuration.nix").write_text(HARDWARE)
        (folder / "flake.nix").write_text(flake)

        def judge(title: str, more: str, kind: str | None, members: list[str]) -> None:
            hosts = nix.evaluate(SYSTEM.format(folder=folder, more=more))
            wrong = [f"{name}: {text}" for name, host in hosts.items() for text in host["said"]]
            if sorted(hosts) != list(HOSTS):
                wrong.append(f"hosts are {sorted(hosts)}")
            if [name for name, host in hosts.items() if host["etcd"]] != members:
                wrong.append("etcd is not where it should be")
            if {host["type"] for host in hosts.values()} != {kind}:
                wrong.append("the datastore is another one")
            report.add(f"guide: {title}", wrong)

        with_tls = secrets.replace("endpoints =", "endpoints = lib.mkForce")
        judge("three hosts with an etcd", "{ }", None, ["node1"])
        judge("the same with secrets", f"{{ {with_tls} }}", None, ["node1"])
        (folder / "flake.nix").write_text(without_etcd(flake))
        judge("a fleet without a server", f"{{ {fleet} }}", "static", [])


def without_etcd(flake: str) -> str:
    """The flake, less what the guide says to leave out."""
    without = re.sub(r"^ *settings\.datastore\.endpoints.*\n", "", flake, flags=re.M)
    return re.sub(r"etcd = \{.*\};", "etcd = { };", without)
