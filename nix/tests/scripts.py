"""The VM tests: their machines evaluate, and their scripts fit the driver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from nix import PROJECT, Nix
from report import Report

sys.path.insert(0, str(PROJECT / "vm-tests"))

from cluster import Scenario, scenarios

TESTS = "(import ./. { inherit pkgs; }).vmTests"
DRIVER = Path(__file__).with_name("driver.py")
# Names that a script has from the driver, for pyflakes.
NAMES = "start_all,join_all,subtest,retry,log,machines"

# What is said of a machine, without building any of it.
FACTS = f"""
let
  facts = name: machine: {{
    failed = map (one: one.message) (builtins.filter (one: !one.assertion) machine.assertions);
    inherit (machine) warnings;
    address = machine.networking.primaryIPAddress;
    settings = machine.services.flannel-rs.settings or null;
  }};
  test = {TESTS}.${{%s}};
in
{{
  inherit (test.config.passthru) description;
  script = builtins.unsafeDiscardStringContext test.config.testScriptString;
  # all of it, down to each file of each machine
  derivation = builtins.unsafeDiscardStringContext test.drvPath;
  machines = builtins.mapAttrs facts test.config.nodes;
}}
"""


def everything(nix: Nix, report: Report) -> None:
    """Each test."""
    names = nix.evaluate(f"builtins.attrNames {TESTS}")
    shared = {one.name: one for one in scenarios()}
    missing = sorted(set(shared) - set(names))
    report.add("vm-tests: each scenario is a NixOS test", [f"not {name}" for name in missing])
    found = nix.evaluate_all([FACTS % f'"{name}"' for name in names])
    for name, test in zip(names, found, strict=True):
        wrong = machines(test["machines"])
        if name in shared:
            wrong += differences(shared[name], test["machines"])
        report.add(f"vm-tests: {name}: machines", wrong)
    report.add("vm-tests: README.md says why others need NixOS", reasons(names, shared, found))
    check_scripts(dict(zip(names, found, strict=True)), report)


def machines(found: dict[str, Any]) -> list[str]:
    """What an administrator would be told."""
    wrong = []
    for name, machine in found.items():
        wrong += [f"{name}: {text}" for text in machine["failed"] + machine["warnings"]]
    return wrong


def differences(scenario: Scenario, found: dict[str, Any]) -> list[str]:
    """Addresses and settings are those of the Debian lab."""
    wrong = []
    for node in scenario.nodes:
        machine = found[node.name]
        if machine["address"] != node.address:
            wrong.append(f"{node.name}: {machine['address']}, not {node.address}")
        here, there = without_nulls(machine["settings"]), tomllib.loads(scenario.config(node))
        if here != there:
            wrong.append(f"{node.name}: {here}, not {there}")
    return wrong


def reasons(
    names: list[str], shared: dict[str, Scenario], found: list[dict[str, Any]]
) -> list[str]:
    """Each test that Debian does not have is in the README's table, with its own words."""
    text = (PROJECT / "vm-tests" / "README.md").read_text()
    rows = [row for row in text.splitlines() if row.startswith("| `")]
    wrong = []
    for name, test in zip(names, found, strict=True):
        why = test["description"].rpartition("NixOS only: ")[2].removesuffix(")")
        if name not in shared and not any(f"`{name}`" in row and why in row for row in rows):
            wrong.append(f"no row for {name}: {why}")
    return wrong


def without_nulls(value: Any) -> Any:
    """As the module renders it."""
    if not isinstance(value, dict):
        return value
    inner = {key: without_nulls(one) for key, one in value.items()}
    return {key: one for key, one in inner.items() if one is not None and one != {}}


def check_scripts(tests: dict[str, Any], report: Report) -> None:
    """As the driver's own build would: pyflakes, and mypy with the names that a script finds."""
    for tool in ("pyflakes", "mypy"):
        # Debian calls it pyflakes3
        program = shutil.which(tool) or shutil.which(f"{tool}3")
        if program is None:
            report.skip(f"vm-tests: scripts by {tool}", "it is not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            for name, test in tests.items():
                if tool == "mypy":
                    options = ["--no-error-summary", f"--cache-dir={folder}/cache"]
                    wrong = lint([program, *options], types(test), test, Path(folder))
                else:
                    wrong = lint([program], "", test, Path(folder))
                report.add(f"vm-tests: {name}: script, by {tool}", wrong)


def types(test: dict[str, Any]) -> str:
    """What goes before a script when its types are checked."""
    return DRIVER.read_text() + "".join(f"{name}: Machine\n" for name in test["machines"])


def lint(command: list[str], head: str, test: dict[str, Any], folder: Path) -> list[str]:
    """What the tool says, with the script's own line numbers."""
    path = folder / "script.py"
    path.write_text(head + test["script"])
    done = subprocess.run(
        [*command, path],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYFLAKES_BUILTINS": ",".join([NAMES, *test["machines"]])},
    )
    before = head.count("\n")
    wrong = []
    for line in done.stdout.splitlines():
        _, number, *rest = line.split(":", 2)
        wrong.append(f"line {int(number) - before}:{''.join(rest)}")
    return wrong or ([done.stderr.strip()] if done.returncode else [])
