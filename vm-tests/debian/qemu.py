"""A machine as an emulated computer: a kernel of its own, udev, every module, real limits.

No virtual machine extensions are used, as a host that is itself virtual seldom has any that work.
Commands go to a root shell on a virtio console, as in the NixOS test driver.
"""

from __future__ import annotations

import base64
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import IO

from cluster import Node
from debian import host
from debian.machine import TELLING, Log, Machine, store_command
from debian.network import Network
from debian.seed import Seed

# A line longer than this does not pass a console in one piece.
PIECE = 2000

# Seconds for a boot that shares two processors with two others and with whatever the host does.
BOOT = 180


class Qemu(Machine):
    """An emulated computer. Its disk is a copy of the image, in the run's folder."""

    def __init__(self, node: Node, folder: Path, log: Log, network: Network) -> None:
        """`insert` completes it before the first start."""
        super().__init__(node.name, folder, log)
        self._node = node
        self._network = network
        self._tap = network.tap(node)
        self._kernel = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._shell: socket.socket | None = None
        self._lines: IO[bytes] | None = None

    def insert(self, image: Path, seed: Seed) -> None:
        """Gives it a disk, and an initial RAM disk that has the seed beside the image's own."""
        self._kernel = image / "vmlinuz"
        host.command("cp", "--sparse=always", image / "disk", self.folder / "disk")
        tree = self.folder / "first"
        (tree / "seed").mkdir(parents=True)
        seed.lay_over(tree / "seed", [])
        pack = 'cd "$1" && find seed | cpio --quiet -o -H newc | gzip -1 >"$2"'
        archive = self.folder / "seed.cpio"
        host.command("sh", "-ec", pack, "sh", tree, archive)
        with (self.folder / "initrd").open("wb") as whole:
            for part in (image / "initrd", archive):
                whole.write(part.read_bytes())
        shutil.rmtree(tree)

    def start(self, allow_reboot: bool = False) -> None:
        if self.is_up():
            return
        self.log("starting")
        for name in ("shell", "monitor"):
            (self.folder / name).unlink(missing_ok=True)
        with (self.folder / "emulator.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command_line([] if allow_reboot else ["-no-reboot"]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=self._prepare,
            )

    def is_up(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            self._ended()
        return self._process is not None

    def crash(self) -> None:
        if self._process is not None:
            self.log("pulling the plug")
            self._process.kill()
            self._process.wait()
            self._ended()

    def wait_for_shutdown(self) -> None:
        if self._process is not None:
            self._process.wait(BOOT)
            self._ended()

    def block(self) -> None:
        self.log("pulling the cable")
        self._monitor("set_link card off")

    def unblock(self) -> None:
        self.log("putting the cable back")
        self._monitor("set_link card on")

    def journal(self, lines: int) -> str:
        if not self.is_up():
            return "it is off\n"
        return self._run(f"journalctl --lines={lines} --no-pager {' '.join(TELLING)}", 60)[1]

    def _prepare(self) -> None:
        """Runs in the child: no machine outlives its driver, or is mistaken for another run's."""
        group = f"{host.GROUP}/{self._network.run}/{self.name}"
        for path in host.make_group(group):
            (path / "cgroup.procs").write_text("0")
        host.end_with_parent(signal.SIGKILL)

    def _command_line(self, extra: list[str]) -> list[str]:
        node, folder = self._node, self.folder
        last = node.address.rpartition(".")[2]
        kernel = [
            *("console=ttyS0", "quiet", "mitigations=off", "panic=-1"),
            *("systemd.show_status=0", "systemd.unit=multi-user.target", "net.ifnames=0"),
            *(f"lab.address={node.address}", f"lab.gateway={node.gateway}"),
        ]
        return [
            *("ip", "netns", "exec", self._network.router, "nice", "qemu-system-x86_64"),
            # without la57 the kernel need not go through five levels of page tables
            *("-M", "q35", "-accel", "tcg", "-cpu", "max,la57=off", "-m", "512", "-smp", "1"),
            *("-nodefaults", "-display", "none", *extra),
            *("-kernel", str(self._kernel), "-initrd", f"{folder}/initrd"),
            *("-append", " ".join(kernel)),
            *("-drive", f"file={folder}/disk,if=virtio,format=raw,cache=unsafe"),
            *("-netdev", f"tap,id=cable,ifname={self._tap},script=no,downscript=no"),
            *("-device", f"virtio-net-pci,id=card,netdev=cable,mac=52:54:00:00:00:{int(last):02x}"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-serial", f"file:{folder}/console.log"),
            *("-chardev", f"socket,id=shell,path={folder}/shell,server=on,wait=off"),
            *("-device", "virtconsole,chardev=shell"),
            *("-monitor", f"unix:{folder}/monitor,server=on,wait=off"),
        ]

    def _monitor(self, order: str) -> None:
        with self._connect("monitor") as monitor:
            monitor.sendall(f"{order}\n".encode())
            # the prompt after the echo says that it is done
            answer = b""
            while answer.count(b"(qemu)") < 2:
                answer += monitor.recv(4096)

    def _connect(self, name: str) -> socket.socket:
        deadline = time.monotonic() + 30
        while self.is_up() and time.monotonic() < deadline:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self.folder / name))
            except OSError:
                connection.close()
                time.sleep(0.05)
            else:
                return connection
        raise RuntimeError(f"{self.name}: {(self.folder / 'emulator.log').read_text()}")

    def _reach(self) -> socket.socket:
        """Waits for the shell, which comes with the bus; the boot goes on."""
        if self._shell is None:
            shell = self._connect("shell")
            shell.settimeout(BOOT)
            self._lines = shell.makefile("rb")
            while b"LAB-SHELL" not in self._line():
                pass
            self._shell = shell
        return self._shell

    def _run(self, command: str, timeout: int | None) -> tuple[int, str]:
        shell = self._reach()
        shell.settimeout(timeout + 30 if timeout else None)
        text = base64.b64encode(command.encode()).decode()
        shell.sendall(b"text=\n")
        for start in range(0, len(text), PIECE):
            shell.sendall(f"text+={text[start : start + PIECE]}\n".encode())
        limit = f"timeout {timeout} " if timeout else ""
        run = f'{limit}bash -c "$(base64 -d <<<$text)" </dev/null 2>/dev/ttyS0 | base64 -w0'
        shell.sendall(f'{run}; echo " ${{PIPESTATUS[0]}}"\n'.encode())
        output, _, code = (b" " + self._line()).rpartition(b" ")
        return int(code), base64.b64decode(output.strip()).decode(errors="replace")

    def _store(self, content: bytes, target: str, mode: int) -> None:
        """Through the shell: little by little, which is meant for little files."""
        shell = self._reach()
        text = base64.b64encode(content).decode()
        fresh = f"{target}.base64"
        self.succeed(f"install -D /dev/null {shlex.quote(fresh)}")
        for start in range(0, len(text), PIECE):
            shell.sendall(f"echo {text[start : start + PIECE]} >>{shlex.quote(fresh)}\n".encode())
        write = store_command(target, mode)
        self.succeed(f"base64 -d {shlex.quote(fresh)} | ({write})", f"rm {shlex.quote(fresh)}")

    def _line(self) -> bytes:
        line = self._lines.readline() if self._lines else b""
        if not line:
            text = (self.folder / "console.log").read_text(errors="replace")
            raise RuntimeError(f"{self.name} has ended:\n{text[-2000:]}")
        return line.strip()

    def _ended(self) -> None:
        if self._shell is not None:
            self._shell.close()
        self._process = self._shell = self._lines = None
        host.remove_group(f"{host.GROUP}/{self._network.run}/{self.name}")
