"""The wires between machines: a switch for each segment, and one router that joins them.

Switches and router are one network namespace; nothing is put into the host's own.
"""

from __future__ import annotations

from pathlib import Path

from cluster import Node
from debian.host import command


class Network:
    """The segments of one run."""

    def __init__(self, run: str, segments: dict[str, str]) -> None:
        """Segments are named, each with the router's address on it, such as `192.168.1.1/24`."""
        self.run = run
        self.router = f"{run}-router"
        self._add_namespace(self.router)
        # bridges would otherwise show their frames to the host's own packet filter
        quiet = "net.bridge.bridge-nf-call-iptables=0"
        command(
            *("ip", "netns", "exec", self.router),
            *("sysctl", "--quiet", "--ignore", "--write", "net.ipv4.ip_forward=1", quiet),
        )
        for name, address in segments.items():
            self._ip("link", "add", name, "type", "bridge")
            self._ip("address", "add", address, "dev", name)
            self._ip("link", "set", name, "up")

    def plug(self, node: Node) -> Path:
        """A namespace that has a cable to the node's segment as `eth1`."""
        namespace = f"{self.run}-{node.name}"
        self._add_namespace(namespace)
        cable = ("link", "add", node.name, "type", "veth")
        self._ip(*cable, "peer", "name", "eth1", "netns", namespace)
        self._ip("link", "set", node.name, "master", node.segment, "up")
        return Path("/run/netns", namespace)

    def configure(self, node: Node) -> None:
        """Gives `eth1` its address, before the boot, for nodes that do not do that themselves."""
        inside = ("ip", "-n", f"{self.run}-{node.name}")
        command(*inside, "address", "add", f"{node.address}/24", "dev", "eth1")
        command(*inside, "link", "set", "eth1", "up")
        command(*inside, "route", "add", "default", "via", node.gateway)

    def tap(self, node: Node) -> str:
        """The end of a cable to the node's segment, for an emulator in the router's namespace."""
        self._ip("tuntap", "add", node.name, "mode", "tap")
        self._ip("link", "set", node.name, "master", node.segment, "up")
        return node.name

    def cut(self, node: str) -> None:
        """Takes the carrier from a node's `eth1`."""
        self._ip("link", "set", node, "down")

    def mend(self, node: str) -> None:
        """Gives it back."""
        self._ip("link", "set", node, "up")

    def _add_namespace(self, name: str) -> None:
        command("ip", "netns", "add", name)
        command("ip", "-n", name, "link", "set", "lo", "up")

    def _ip(self, *words: str) -> None:
        command("ip", "-n", self.router, *words)
