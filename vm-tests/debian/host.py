"""The host under the lab: its commands, the lab's folders on it, and its control groups.

A run of one scenario owns the network namespaces `ID-*`, the control groups `flannel-rs-lab/ID`,
the folder `runs/ID` and the processes in those groups. It holds a lock in its folder for as long as
it lives, so whatever has no holder is a remnant and may be removed by anybody.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

GROUP = "flannel-rs-lab"

PR_SET_PDEATHSIG = 1


def command(*words: str | Path) -> str:
    """Runs a command; returns all it printed, which is also the error if it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        line = " ".join(map(str, words))
        raise RuntimeError(f"{line}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def lacking(machine: str) -> str | None:
    """Why machines of this kind cannot run here, or nothing."""
    if os.geteuid() != 0:
        return "it needs root"
    programs = {"mmdebstrap": "mmdebstrap", "ip": "iproute2", "dpkg-deb": "dpkg"}
    if machine == "qemu":
        programs |= {"qemu-system-x86_64": "qemu-system-x86", "cpio": "cpio"}
        programs |= {"mke2fs": "e2fsprogs"}
    else:
        programs |= {"systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
    missing = sorted({p for name, p in programs.items() if not shutil.which(name)})
    if missing:
        return f"please install {' '.join(missing)}"
    if machine == "nspawn" and not any(os.access(h, os.W_OK) for h in hierarchies()):
        return "the control groups of this host are read-only"
    return None


def cache() -> Path:
    """What is kept between runs, and the folders of the runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "flannel-rs" / "vm-tests"


@contextlib.contextmanager
def locked(path: Path, mode: int) -> Iterator[bool]:
    """Holds a lock on a file; yields whether it was had, which only `LOCK_NB` leaves open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, mode)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def run_folder() -> Iterator[Path]:
    """The folder of this run; its name is the run's identity. All that is left goes with it."""
    runs = cache() / "runs"
    folder = runs / f"flr{os.getpid()}"
    with contextlib.ExitStack() as held:
        with locked(runs / "lock", fcntl.LOCK_EX):
            remove_run(folder.name)
            folder.mkdir(parents=True)
            held.enter_context(locked(folder / "lock", fcntl.LOCK_EX))
        try:
            yield folder
        finally:
            remove_run(folder.name)


def remove_remnants() -> list[str]:
    """Removes what killed runs have left; returns their names."""
    runs = cache() / "runs"
    removed = []
    with locked(runs / "lock", fcntl.LOCK_EX):
        for folder in sorted(runs.glob("flr*")):
            with locked(folder / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB) as dead:
                if dead:
                    remove_run(folder.name)
                    removed.append(folder.name)
    return removed


def remove_run(run: str) -> None:
    """Ends the processes in the control groups of a run and removes all else that is its own."""
    deadline = time.monotonic() + 10
    while (members := processes(run)) and time.monotonic() < deadline:
        for process in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    for line in command("ip", "netns", "list").splitlines():
        name = line.split()[0]
        if name.startswith(f"{run}-"):
            command("ip", "netns", "delete", name)
    remove_group(f"{GROUP}/{run}")
    for hierarchy in hierarchies():
        with contextlib.suppress(OSError):
            (hierarchy / GROUP).rmdir()
    for remnant in Path("/run/systemd/nspawn").glob(f"*/{run}-*"):
        shutil.rmtree(remnant, ignore_errors=True)
    shutil.rmtree(cache() / "runs" / run, ignore_errors=True)


def hierarchies() -> list[Path]:
    """The mount points of all control group hierarchies: one on most hosts, a dozen on some."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] in ("cgroup", "cgroup2"):
            found.append(Path(fields[4]))
    return found


def make_group(group: str) -> list[Path]:
    """A control group in every hierarchy."""
    made = []
    for hierarchy in hierarchies():
        path = hierarchy / group
        path.mkdir(parents=True, exist_ok=True)
        if (hierarchy / "cpuset.cpus").exists():
            fill_cpuset(hierarchy, path)
        made.append(path)
    return made


def fill_cpuset(hierarchy: Path, group: Path) -> None:
    """Version 1 of cpuset starts empty, and takes no process until it is filled."""
    levels = [group, *group.parents]
    for level in reversed(levels[: levels.index(hierarchy)]):
        for name in ("cpuset.cpus", "cpuset.mems"):
            (level / name).write_text((hierarchy / name).read_text())


def remove_group(group: str) -> None:
    """Removes an empty control group, and all below it, from every hierarchy."""
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def end_with_parent(by: signal.Signals) -> None:
    """Has the kernel send this signal to the calling process when the thread that made it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)


def processes(run: str) -> set[int]:
    """The processes in the control groups of a run."""
    found = set()
    for hierarchy in hierarchies():
        for file in (hierarchy / GROUP / run).rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                found |= {int(process) for process in file.read_text().split()}
    return found
