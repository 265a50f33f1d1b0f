"""A machine as scenarios see it: the methods of the NixOS test driver's, for any kind of machine.

What they promise is written in the README. A kind of machine adds how to start, to enter and to
pull the plug.
"""

from __future__ import annotations

import re
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What a failure shows of a journal: the service, and whatever is amiss on the node.
TELLING = " + ".join(
    ["UNIT=flannel-rs.service", "_SYSTEMD_UNIT=flannel-rs.service"]
    + [f"PRIORITY={level}" for level in range(5)]
).split()

# The NixOS driver's answer to "for how long", in seconds.
PATIENCE = 900


class Log:
    """What a scenario tells whoever reads its log, with the seconds since it began."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._depth = 0

    def info(self, message: str) -> None:
        """A line."""
        spent = time.monotonic() - self._began
        print(f"[{spent:7.2f}] {'  ' * self._depth}{message}", flush=True)

    def warning(self, message: str) -> None:
        """A line that stands out."""
        self.info(f"warning: {message}")

    def error(self, message: str) -> None:
        """A line that says what is wrong."""
        self.info(f"error: {message}")

    @contextmanager
    def nested(self, message: str, attributes: dict[str, str] | None = None) -> Iterator[None]:
        """A line, and its lines below it."""
        del attributes
        self.info(message)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1


def retry(fn: Callable[[bool], bool], timeout_seconds: int = PATIENCE, /) -> None:
    """Calls until it is true; the last call is told that it is the last one."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if fn(False):
            return
        time.sleep(0.2)
    if not fn(True):
        raise TimeoutError(f"not so within {timeout_seconds} seconds")


class Machine(ABC):
    """One machine. Its disk outlives `crash` and `shutdown`."""

    def __init__(self, name: str, folder: Path, log: Log) -> None:
        self.name = name
        self.folder = folder
        self._log = log
        folder.mkdir(parents=True, exist_ok=True)

    # life

    @abstractmethod
    def start(self, allow_reboot: bool = False) -> None:
        """Switches it on and returns at once; nothing happens if it is on."""

    @abstractmethod
    def is_up(self) -> bool:
        """Whether it is switched on."""

    @abstractmethod
    def crash(self) -> None:
        """Pulls the plug."""

    @abstractmethod
    def wait_for_shutdown(self) -> None:
        """Returns when it is off."""

    @abstractmethod
    def block(self) -> None:
        """Pulls the cable out of `eth1`."""

    @abstractmethod
    def unblock(self) -> None:
        """Puts it back."""

    @abstractmethod
    def _run(self, command: str, timeout: int | None) -> tuple[int, str]:
        """Runs a line of bash as root; exit code 124 says that the time was up."""

    @abstractmethod
    def _store(self, content: bytes, target: str, mode: int) -> None:
        """Writes a file."""

    @abstractmethod
    def journal(self, lines: int) -> str:
        """The end of its journal, in any state that it may be in."""

    def shutdown(self) -> None:
        """Switches it off in good order."""
        if self.is_up():
            self.log("shutting down")
            self.execute("systemctl poweroff --no-block")
            self.wait_for_shutdown()

    # commands

    def execute(
        self,
        command: str,
        check_return: bool = True,
        check_output: bool = True,
        timeout: int | None = PATIENCE,
    ) -> tuple[int, str]:
        """Exit code and standard output; starts the machine first if it is off."""
        self.start()
        code, output = self._run(f"set -euo pipefail; cd /tmp; {command}", timeout)
        if not check_return:
            return -1, output
        return (code, output) if check_output else (-2, "")

    def succeed(self, *commands: str, timeout: int | None = None) -> str:
        """Output of commands that must all succeed."""
        return self._expect(commands, lambda code: code == 0, timeout)

    def fail(self, *commands: str, timeout: int | None = None) -> str:
        """Output of commands that must all fail."""
        return self._expect(commands, lambda code: code != 0, timeout)

    def wait_until_succeeds(self, command: str, timeout: int = PATIENCE) -> str:
        """Repeats a command until it succeeds."""
        return self._wait(command, lambda code: code == 0, timeout)

    def wait_until_fails(self, command: str, timeout: int = PATIENCE) -> str:
        """Repeats a command until it fails."""
        return self._wait(command, lambda code: code != 0, timeout)

    def sleep(self, secs: int) -> None:
        """Lets time pass inside."""
        self.succeed(f"sleep {secs}")

    # units

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        """Runs systemctl, of the system or of a user."""
        if user is None:
            return self.execute(f"systemctl {q}")
        inside = f"XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user {q}"
        return self.execute(f"su -l {user} --shell /bin/sh -c {shlex.quote(inside)}")

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        """All properties of a unit."""
        code, lines = self.systemctl(f"--no-pager show {shlex.quote(unit)}", user)
        if code:
            raise RuntimeError(f"{self.name}: no properties of {unit}")
        pairs = (line.partition("=") for line in lines.splitlines() if "=" in line)
        return {name: value for name, _, value in pairs}

    def get_unit_property(self, unit: str, property: str, user: str | None = None) -> str:
        """One property of a unit."""
        quoted = f"{shlex.quote(property)} {shlex.quote(unit)}"
        code, value = self.systemctl(f"--no-pager show --value --property {quoted}", user)
        if code:
            raise RuntimeError(f"{self.name}: no property {property} of {unit}")
        return value.strip()

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        """Raises unless the unit is in that state."""
        state = self.get_unit_property(unit, "ActiveState")
        if state != require_state:
            raise AssertionError(f"{self.name}: {unit} is {state}, not {require_state}")

    def wait_for_unit(self, unit: str, user: str | None = None, timeout: int = PATIENCE) -> None:
        """Waits until it is active; raises at once if it failed, or if nothing will start it."""

        def active(last: bool) -> bool:
            state = self.get_unit_property(unit, "ActiveState", user)
            if state == "failed" or (state == "inactive" and not self._jobs(user)):
                # it may have become active between the two questions
                if state == self.get_unit_property(unit, "ActiveState", user):
                    raise AssertionError(f"{self.name}: {unit} is {state}")
            if last and state != "active":
                raise AssertionError(f"{self.name}: {unit} is {state} after {timeout} seconds")
            return state == "active"

        with self.nested(f"waiting for {unit}"):
            retry(active, timeout)

    def start_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """Starts a unit."""
        return self.systemctl(f"start {jobname}", user)

    def stop_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """Stops a unit."""
        return self.systemctl(f"stop {jobname}", user)

    # files and ports

    def wait_for_file(self, filename: str, timeout: int = PATIENCE) -> None:
        """Waits until there is such a file."""
        self.wait_until_succeeds(f"test -e {shlex.quote(filename)}", timeout)

    def wait_for_open_port(
        self, port: int, addr: str = "localhost", timeout: int = PATIENCE
    ) -> None:
        """Waits until a TCP port takes connections."""
        self.wait_until_succeeds(f"nc -z {addr} {port}", timeout)

    def wait_for_closed_port(
        self, port: int, addr: str = "localhost", timeout: int = PATIENCE
    ) -> None:
        """Waits until a TCP port takes none."""
        self.wait_until_fails(f"nc -z {addr} {port}", timeout)

    def wait_for_open_unix_socket(
        self, addr: str, is_datagram: bool = False, timeout: int = PATIENCE
    ) -> None:
        """Waits until a Unix socket takes connections."""
        kind = "-uU" if is_datagram else "-U"
        self.wait_until_succeeds(f"nc -z {kind} {shlex.quote(addr)}", timeout)

    def wait_for_console_text(self, regex: str, timeout: int | None = None) -> None:
        """Waits until the journal of this boot, which NixOS shows on the console, says so."""

        def said(_last: bool) -> bool:
            code, lines = self.execute("journalctl --boot --no-pager --output=cat")
            return code == 0 and re.search(regex, lines) is not None

        retry(said, PATIENCE if timeout is None else timeout)

    def copy_from_host(self, source: str, target: str) -> None:
        """Copies a file of the host, with its mode."""
        self.start()
        path = Path(source)
        self._store(path.read_bytes(), target, path.stat().st_mode & 0o7777)

    # log

    def log(self, msg: str) -> None:
        """A line in the log of the run."""
        self._log.info(f"{self.name}: {msg}")

    def nested(
        self, msg: str, attrs: dict[str, str] | None = None
    ) -> AbstractContextManager[None]:
        """A line in the log of the run, and its lines below it."""
        return self._log.nested(f"{self.name}: {msg}", attrs)

    def _expect(
        self, commands: tuple[str, ...], right: Callable[[int], bool], timeout: int | None
    ) -> str:
        output = ""
        for command in commands:
            with self.nested(brief(command)):
                code, printed = self.execute(command, timeout=timeout)
            if not right(code):
                raise AssertionError(f"{self.name}: `{command}`: exit code {code}\n{printed}")
            output += printed
        return output

    def _wait(self, command: str, right: Callable[[int], bool], timeout: int) -> str:
        answer = (0, "")

        def tried(_last: bool) -> bool:
            nonlocal answer
            answer = self.execute(command, timeout=max(timeout, 1))
            return right(answer[0])

        with self.nested(f"waiting: {brief(command)}"):
            try:
                retry(tried, timeout)
            except TimeoutError:
                code, printed = answer
                why = f"still exit code {code} after {timeout} seconds"
                raise AssertionError(f"{self.name}: `{command}`: {why}\n{printed}") from None
        return answer[1]

    def _jobs(self, user: str | None) -> bool:
        _, jobs = self.systemctl("list-jobs --full 2>&1", user)
        return "No jobs" not in jobs


def brief(command: str) -> str:
    """A command on one line of the log."""
    line = " ".join(command.split())
    return line if len(line) < 150 else f"{line[:147]}..."


def store_command(target: str, mode: int) -> str:
    """Bash that makes a new file of its input: the old one may be a program that runs."""
    fresh = shlex.quote(f"{target}.new")
    return f"install -D -m {mode:o} /dev/stdin {fresh} && mv {fresh} {shlex.quote(target)}"
