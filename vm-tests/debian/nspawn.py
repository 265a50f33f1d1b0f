"""A machine as a container of systemd-nspawn: the host's kernel, everything else its own.

Why each option is there stands beside it; none is for speed.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from debian import host
from debian.machine import PATH, TELLING, Log, Machine, store_command
from debian.network import Network

# systemd-nspawn's exit code for a machine that wants to boot again, under --keep-unit.
REBOOT = 133


class Nspawn(Machine):
    """A container. Its root is an overlay whose upper layer is in the run's folder."""

    def __init__(self, name: str, folder: Path, log: Log, network: Network) -> None:
        """`plug` and `lower` complete it before the first start."""
        super().__init__(name, folder, log)
        self._network = network
        self.namespace = Path()
        self.lower = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._leader: int | None = None
        self._reached = False
        self._groups: list[Path] = []
        for layer in ("upper", "work", "root", "docker"):
            (folder / layer).mkdir(exist_ok=True)

    @property
    def upper(self) -> Path:
        """Where its own files are while it is off."""
        return self.folder / "upper"

    def start(self, allow_reboot: bool = False) -> None:
        if self.is_up():
            return
        self.log("starting")
        notices = self._notices()
        # nspawn puts the machine into a group below its caller's: one for each machine
        self._groups = host.make_group(f"{host.GROUP}/{self._network.run}/{self.name}")
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": notices.getsockname(),
            # /proc/sys/net is writable, and /sys shows the interfaces of the namespace
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
            # without it DeviceAllow= and IPAddressDeny= are accepted and do nothing
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }
        with (self.folder / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                self._command_line(),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                preexec_fn=self._prepare,
            )
        threading.Thread(target=self._listen, args=(notices,), daemon=True).start()

    def is_up(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            self._ended()
        return self._process is not None

    def crash(self) -> None:
        if not self.is_up():
            return
        assert self._process is not None
        self.log("pulling the plug")
        if self._await_leader():
            # never nspawn itself, which would leave the machine running without it
            os.kill(self._leader or 0, signal.SIGKILL)
        else:
            self._process.terminate()
        self._process.wait(30)
        self._ended()

    def wait_for_shutdown(self) -> None:
        if self._process is not None:
            code = self._process.wait(120)
            self._ended()
            if code == REBOOT:
                self.log("wants to boot again, and is off instead")

    def block(self) -> None:
        self.log("pulling the cable")
        self._network.cut(self.name)

    def unblock(self) -> None:
        self.log("putting the cable back")
        self._network.mend(self.name)

    def journal(self, lines: int) -> str:
        files = self.upper / "var/log/journal"
        words = [f"--directory={files}", f"--lines={lines}", "--no-pager", *TELLING]
        return host.command("journalctl", *words)

    def enter(self) -> list[str]:
        """The words before a command that run it inside."""
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        clean = ["env", "-i", f"PATH={PATH}", "HOME=/root", "TERM=dumb", "LANG=C.UTF-8"]
        return ["nsenter", f"--target={self._leader}", *spaces, "--root", "--wd", *clean]

    def _command_line(self) -> list[str]:
        folder = self.folder
        layers = f"lowerdir={self.lower},upperdir={folder}/upper,workdir={folder}/work"
        # mounted in a mount namespace of nspawn's own, and gone with it however that ends
        mount = f'mount -t overlay -o {layers} overlay {folder}/root; exec "$@"'
        return [
            *("unshare", "--mount", "--propagation", "private", "sh", "-ec", mount, "sh"),
            *("systemd-nspawn", "--quiet", "--boot", "--console=pipe", "--notify-ready=yes"),
            f"--machine={self._network.run}-{self.name}",
            f"--hostname={self.name}",
            f"--directory={folder}/root",
            # the host may have no systemd, and where it has one it need not know
            *("--register=no", "--keep-unit"),
            # wired before the boot; the capability is what --private-network would give
            f"--network-namespace-path={self.namespace}",
            "--capability=CAP_NET_ADMIN",
            # Docker's overlays cannot lie on an overlay
            f"--bind={folder}/docker:/var/lib/docker",
            # device policies are BPF programs; credentials use the keyring
            "--system-call-filter=bpf @keyring",
            *("systemd.unit=multi-user.target", "systemd.log_target=journal"),
        ]

    def _prepare(self) -> None:
        """Runs in the child: no machine outlives its driver, and each has its own group."""
        host.end_with_parent(signal.SIGTERM)
        for group in self._groups:
            (group / "cgroup.procs").write_text("0")

    def _notices(self) -> socket.socket:
        path = self.folder / "notify"
        path.unlink(missing_ok=True)
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notices.bind(str(path))
        notices.settimeout(1)
        return notices

    def _listen(self, notices: socket.socket) -> None:
        """Learns who leads the machine, and reads on: unread notices would block nspawn."""
        process = self._process
        with notices:
            while process is not None and process.poll() is None:
                with suppress(TimeoutError):
                    for line in notices.recv(65536).decode().splitlines():
                        if line.startswith("X_NSPAWN_LEADER_PID="):
                            self._leader = int(line.partition("=")[2])

    def _await_leader(self) -> bool:
        deadline = time.monotonic() + 30
        while self._leader is None and time.monotonic() < deadline and self.is_up():
            time.sleep(0.01)
        return self._leader is not None

    def _reach(self) -> None:
        """Waits until systemd and the bus answer; the boot goes on."""
        if self._reached:
            return
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.is_up():
            inside = Path(f"/proc/{self._leader}/root/run")
            sockets = (inside / "systemd/private", inside / "dbus/system_bus_socket")
            if self._leader and all(path.exists() for path in sockets):
                self._reached = True
                return
            time.sleep(0.02)
        text = (self.folder / "console.log").read_text(errors="replace")
        raise RuntimeError(f"{self.name} does not boot:\n{text[-3000:]}")

    def _run(self, command: str, timeout: int | None) -> tuple[int, str]:
        self._reach()
        limit = ["timeout", str(timeout)] if timeout else []
        return self._inside([*limit, "bash", "-c", command], b"")

    def _store(self, content: bytes, target: str, mode: int) -> None:
        self._reach()
        code, _ = self._inside(["bash", "-c", store_command(target, mode)], content)
        if code:
            raise RuntimeError(f"{self.name}: cannot write {target}")

    def _inside(self, words: list[str], given: bytes) -> tuple[int, str]:
        with (self.folder / "console.log").open("ab") as console:
            done = subprocess.run(
                [*self.enter(), *words],
                input=given,
                stdout=subprocess.PIPE,
                stderr=console,
                preexec_fn=self.join,
            )
        return done.returncode, done.stdout.decode(errors="replace")

    def join(self) -> None:
        """Runs in the child: takes part in the machine's control groups."""
        for group in self._groups:
            for below in ("payload/init.scope", "payload", ""):
                with suppress(OSError):
                    (group / below / "cgroup.procs").write_text("0")
                    break

    def _ended(self) -> None:
        self._process = self._leader = None
        self._reached = False
        host.remove_group(f"{host.GROUP}/{self._network.run}/{self.name}")
