"""Runs one scenario: a network, its machines, and the names that the script finds."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from cluster import HERE, Node, Scenario
from debian import host
from debian.images import Images
from debian.machine import Log, Machine, retry
from debian.network import Network
from debian.nspawn import Nspawn
from debian.qemu import Qemu
from debian.seed import Seed

# How much of a node's journal a failure shows.
JOURNAL_LINES = 40
CONSOLE_LINES = 10


class Driver:
    """The machines of one scenario."""

    def __init__(self, scenario: Scenario, images: Images, folder: Path, kind: str) -> None:
        self.scenario = scenario
        self.log = Log()
        self._images = images
        self._folder = folder
        self._network = Network(folder.name, scenario.segments)
        self.machines = [self._machine(node, kind) for node in scenario.hosts]

    def run(self) -> bool:
        """Runs the script; says whether it went through."""
        names = self._names()
        try:
            for path in (HERE / "prelude.py", self.scenario.script):
                exec(compile(path.read_text(), path, "exec"), names)
        except Exception:
            self.log.error(traceback.format_exc())
            self._show_journals()
            return False
        return True

    def close(self) -> None:
        """Pulls all plugs."""
        for machine in self.machines:
            with suppress(Exception):
                machine.crash()

    def doors(self) -> str:
        """How a person enters the machines."""
        lines = [
            f"{m.name}: {' '.join(m.enter())} bash" for m in self.machines if isinstance(m, Nspawn)
        ]
        return "\n".join([*lines, f"files: {self._folder}"])

    def _machine(self, node: Node, kind: str) -> Machine:
        if kind == "qemu" or node.name in self.scenario.emulated:
            return self._emulated(node)
        return self._contained(node)

    def _contained(self, node: Node) -> Machine:
        folder = self._folder / node.name
        machine = Nspawn(node.name, folder, self.log, self._network)
        machine.namespace = self._network.plug(node)
        if not self.scenario.networkd:
            self._network.configure(node)
        lowers = list(self._images.layers)
        machine.lower = ":".join(map(str, lowers))
        self._seed(node).lay_over(machine.upper, lowers)
        return machine

    def _emulated(self, node: Node) -> Machine:
        if self._images.disk is None:
            raise RuntimeError("no disk was made for emulated machines")
        folder = self._folder / node.name
        machine = Qemu(node, folder, self.log, self._network)
        machine.insert(self._images.disk, self._seed(node))
        return machine

    def _seed(self, node: Node) -> Seed:
        seed = Seed(self._folder / f"{node.name}.seed", self.scenario, node)
        seed.add_upgrade(self._images.next_package)
        return seed

    def _names(self) -> dict[str, Any]:
        return {
            **{machine.name: machine for machine in self.machines},
            "__name__": self.scenario.name,
            "machines": self.machines,
            "start_all": self._start_all,
            "join_all": self._join_all,
            "subtest": self._subtest,
            "retry": retry,
            "log": self.log,
        }

    def _start_all(self) -> None:
        for machine in self.machines:
            machine.start()

    def _join_all(self) -> None:
        for machine in self.machines:
            machine.wait_for_shutdown()

    def _subtest(self, name: str) -> AbstractContextManager[None]:
        return self.log.nested(f"subtest: {name}")

    def _show_journals(self) -> None:
        for machine in self.machines:
            try:
                journal = machine.journal(JOURNAL_LINES)
            except Exception as error:
                journal = f"{error}\n"
            self.log.info(f"the end of the journal of {machine.name}:\n{journal}")
            console = machine.folder / "console.log"
            text = console.read_text(errors="replace") if console.exists() else ""
            end = "\n".join(text.splitlines()[-CONSOLE_LINES:])
            self.log.info(f"the end of the console of {machine.name}, with what commands say:\n{end}")


@contextmanager
def driver(scenario: Scenario, images: Images, kind: str) -> Iterator[Driver]:
    """A driver whose machines, network and files are gone afterwards."""
    with host.run_folder() as folder:
        one = Driver(scenario, images, folder, kind)
        try:
            yield one
        finally:
            one.close()
