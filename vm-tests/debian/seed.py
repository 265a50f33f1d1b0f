"""What each node finds on its disk at its first boot, besides Debian and the package."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from cluster import Node, Scenario

MEMBER = """\
ETCD_NAME={node.name}
ETCD_LISTEN_CLIENT_URLS=http://{node.address}:2379,http://127.0.0.1:2379
ETCD_ADVERTISE_CLIENT_URLS=http://{node.address}:2379
ETCD_LISTEN_PEER_URLS=http://{node.address}:2380
ETCD_INITIAL_ADVERTISE_PEER_URLS=http://{node.address}:2380
ETCD_INITIAL_CLUSTER={members}
ETCD_INITIAL_CLUSTER_STATE=new
"""

# Without a router to announce anything an interface would be configured after 12 seconds only.
UPLINK = """\
[Match]
Name=eth1
[Network]
IPv6AcceptRA=no
Address={node.address}/24
Gateway={node.gateway}
"""

# What a scenario calls to put a newer version of the package in place.
UPGRADE = """\
#!/bin/sh
exec dpkg --force-confold --install /var/cache/flannel-rs-next.deb
"""

# Active by a link, as it says itself.
DROP_IN = "etc/systemd/system/docker.service.d/flannel-rs.conf"

WANTED = "etc/systemd/system/multi-user.target.wants"


class Seed:
    """A tree of files to be laid over a root."""

    def __init__(self, tree: Path, scenario: Scenario, node: Node) -> None:
        self._tree = tree
        self._write("etc/hostname", f"{node.name}\n")
        # given, so that this boot is not a "first" one, at which systemd enables everything
        self._write("etc/machine-id", hashlib.md5(node.name.encode()).hexdigest() + "\n")
        hosts = [f"{other.address} {other.name}\n" for other in scenario.hosts]
        self._write("etc/hosts", "127.0.0.1 localhost\n" + "".join(hosts))
        if node not in scenario.nodes:
            self._link("etc/systemd/system/flannel-rs.service", "/dev/null")
            return
        self._write("etc/flannel-rs/config.toml", scenario.config(node))
        if node.name in scenario.etcd:
            members = scenario.members()
            peers = ",".join(f"{m.name}=http://{m.address}:2380" for m in members)
            self._write("etc/default/etcd", MEMBER.format(node=node, members=peers))
            self._want("etcd.service")
        if scenario.networkd:
            self._write("etc/systemd/network/50-eth1.network", UPLINK.format(node=node))
            self._want("systemd-networkd.service")
        if scenario.docker:
            self._link(DROP_IN, f"/usr/share/flannel-rs/{DROP_IN.removeprefix('etc/systemd/system/')}")
            live = json.dumps({"live-restore": scenario.docker == "live-restore"})
            self._write("etc/docker/daemon.json", f"{live}\n")
            self._want("docker.service")

    def add_upgrade(self, package: Path) -> None:
        """The command `upgrade-flannel-rs`, and the package that it installs."""
        self._write("usr/local/bin/upgrade-flannel-rs", UPGRADE).chmod(0o755)
        shutil.copy(package, self._place("var/cache/flannel-rs-next.deb"))

    def lay_over(self, upper: Path, lowers: list[Path]) -> None:
        """Copies it into an upper layer; folders keep what they are below."""
        for path in sorted(self._tree.rglob("*")):
            name = path.relative_to(self._tree)
            if path.is_dir():
                (upper / name).mkdir(exist_ok=True)
                below = [layer / name for layer in lowers if (layer / name).is_dir()]
                if below:
                    copy_owner(below[0], upper / name)
            else:
                shutil.copy2(path, upper / name, follow_symlinks=False)

    def _want(self, unit: str) -> None:
        self._link(f"{WANTED}/{unit}", f"/lib/systemd/system/{unit}")

    def _link(self, name: str, target: str) -> None:
        self._place(name).symlink_to(target)

    def _write(self, name: str, text: str) -> Path:
        path = self._place(name)
        path.write_text(text)
        return path

    def _place(self, name: str) -> Path:
        path = self._tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def copy_owner(source: Path, target: Path) -> None:
    """Mode and owner, as the upper layer's folder stands for both."""
    status = source.stat()
    shutil.copymode(source, target)
    shutil.chown(target, status.st_uid, status.st_gid)
