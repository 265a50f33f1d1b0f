"""The module says the same as systemd/, the documents and the program."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from nix import PROJECT, Nix
from report import Report

SHIPPED = PROJECT / "systemd"
UNIT = SHIPPED / "system" / "flannel-rs.service"
# What NixOS gives to every unit, and what it tells itself.
OF_NIXOS = re.compile(r"X-|Environment$")
# What only the module knows.
OF_THE_MODULE = {("Service", "LoadCredential")}

Unit = dict[tuple[str, str], list[str]]


def everything(nix: Nix, report: Report) -> None:
    """All comparisons."""
    module = nix.evaluate("(import ./nix/tests { inherit pkgs; }).module")
    report.add("compare: the unit", unit(module))
    report.add("compare: files for the rest of the host", host(module))
    report.add("compare: the drop-in of docker.service", docker(module))
    report.add("compare: docs/nixos.md lists every option", documents(module))
    verify(module, report)
    program(module, report)


def read(text: str) -> Unit:
    """Each directive with all its values; an empty one takes those before it back."""
    found: Unit = defaultdict(list)
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            place = (section, key.strip())
            if value.strip():
                found[place].append(value.strip())
            else:
                found[place].clear()
    return found


def unit(module: dict[str, Any]) -> list[str]:
    """The module's drop-in says nothing that the shipped unit says otherwise, and little else."""
    shipped, added = read(UNIT.read_text()), read(module["unit"])
    wrong = []
    for (section, key), values in added.items():
        place = (section, key)
        if OF_NIXOS.match(key) or place in OF_THE_MODULE:
            continue
        if values != shipped.get(place):
            wrong.append(f"[{section}] {key}={values} here, {shipped.get(place)} in systemd/")
    # NixOS makes these links itself, and does not read the section.
    install = {key: values for (section, key), values in shipped.items() if section == "Install"}
    if module["install"] != install:
        wrong.append(f"[Install] {module['install']} here, {install} in systemd/")
    return wrong


def host(module: dict[str, Any]) -> list[str]:
    """Modules, sysctls, links that others leave alone, and the user."""
    wrong = []

    def same(what: str, here: object, there: object) -> None:
        if here != there:
            wrong.append(f"{what}: {here!r} here, {there!r} in systemd/")

    def lines(name: str) -> list[str]:
        text = (SHIPPED / name).read_text()
        return [line for line in text.splitlines() if line and line[0] not in "#["]

    same("kernel modules", module["modules"], lines("modules-load.d/flannel-rs.conf"))
    same("sysctl", module["forwarding"], lines("sysctl.d/50-flannel-rs.conf")[0].split()[-1])
    network = read((SHIPPED / "network/00-flannel-rs.network").read_text())
    ours = read(module["network"])
    same("networkd", ours["Match", "Name"], network["Match", "Name"])
    same("networkd", ours["Link", "Unmanaged"], ["true"])
    link = read((SHIPPED / "network/50-flannel-rs.link").read_text())
    same("udev", dict(read(module["link"])), dict(link))
    denied = lines("dhcpcd/flannel-rs.conf")[0].split()[1:]
    same("dhcpcd", [one for one in denied if one not in module["denied"]], [])
    devices = read((SHIPPED / "NetworkManager/conf.d/flannel-rs.conf").read_text())
    matches = devices["device-flannel-rs", "match-device"][0].split(",")
    same("NetworkManager", module["unmanaged"], matches)
    _, _, _, description, home, *_ = re.findall(
        r'"[^"]*"|\S+', lines("sysusers.d/flannel-rs.conf")[0]
    )
    same("user", module["user"], {"description": description.strip('"'), "home": home})
    return wrong


def docker(module: dict[str, Any]) -> list[str]:
    """Docker's unit waits for the same, and takes its options from the same file."""
    here = read(module["docker"])
    there = read((SHIPPED / "docker.service.d/flannel-rs.conf").read_text())
    wrong = []
    for section, key in (("Unit", "Wants"), ("Unit", "After"), ("Service", "EnvironmentFile")):
        for value in there[section, key]:
            if value not in " ".join(here[section, key]).split():
                wrong.append(f"{key}={value} is not in {here[section, key]}")
    if not here["Service", "ExecStart"][-1].endswith(there["Service", "ExecStart"][-1].split()[-1]):
        wrong.append(f"options: {here['Service', 'ExecStart']}")
    return wrong


def documents(module: dict[str, Any]) -> list[str]:
    """The table has a row for each option, and no other."""
    text = (PROJECT / "docs" / "nixos.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    options = {name.removeprefix("services.flannel-rs.") for name in module["options"]}
    wrong = [f"no row for {name}" for name in sorted(options - set(rows))]
    return wrong + [f"no such option: {name}" for name in sorted(set(rows) - options)]


def verify(module: dict[str, Any], report: Report) -> None:
    """The unit with all its drop-ins, as systemd reads them."""
    name = "compare: systemd has nothing to say about the whole"
    if not shutil.which("systemd-analyze"):
        report.skip(name, "systemd-analyze is not installed")
        return
    said = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True)
    version = said.stdout.split()[1]
    with tempfile.TemporaryDirectory() as folder:
        units, data = Path(folder, "units"), Path(folder, "data")
        units.mkdir()
        program = f"{units}/program"
        Path(program).write_text("#!/bin/sh\n")
        Path(program).chmod(0o755)
        for since in SHIPPED.glob("since-*"):
            shutil.copytree(since, data / since.name)
        subprocess.run([PROJECT / "packaging/drop-ins", version, data, units], check=True)
        drop_ins = units / "flannel-rs.service.d"
        drop_ins.mkdir(exist_ok=True)
        (units / UNIT.name).write_text(UNIT.read_text().replace("/usr/bin/flannel-rs", program))
        (drop_ins / "overrides.conf").write_text(module["unit"])
        for path in [*data.rglob("*.conf")]:
            path.write_text(path.read_text().replace("/usr/bin/flannel-rs", program))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", units / UNIT.name],
            capture_output=True,
            text=True,
        )
    report.add(name, [line for line in done.stderr.splitlines() if "flannel-rs" in line])


def program(module: dict[str, Any], report: Report) -> None:
    """The settings are such as the program takes."""
    binary = Path(os.environ.get("BINARY", PROJECT / "target/debug/flannel-rs"))
    for name, settings in module["settings"].items():
        title = f"compare: the program takes the settings of {name}"
        if not binary.exists():
            report.skip(title, f"no {binary}; BINARY names one")
            continue
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write("".join(f"{key} = {toml(value)}\n" for key, value in settings.items()))
            file.flush()
            done = subprocess.run([binary, "check", file.name], capture_output=True, text=True)
        wrong = [done.stderr.strip() or f"exit code {done.returncode}"] if done.returncode else []
        report.add(title, wrong)


def toml(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(inner)}' for key, inner in value.items())} }}"
    if isinstance(value, list):
        return f"[ {', '.join(map(toml, value))} ]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value).lower()
