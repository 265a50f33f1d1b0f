"""What a scenario runs on, in terms that hold for any kind of machine.

`scenarios.toml` says it for each scenario, in a form that Nix reads too.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

NETWORK = "100.96.0.0/16"


@dataclass(frozen=True)
class Node:
    """A machine of the cluster and its place in the network."""

    name: str
    address: str
    segment: str
    subnet: str

    @property
    def gateway(self) -> str:
        """The router, which is the first host of each segment."""
        return self.address.rsplit(".", 1)[0] + ".1"


@dataclass(frozen=True)
class Scenario:
    """One file of `scenarios/`, and the cluster that it asks for."""

    name: str
    # what a person reads in a list
    shows: str
    # "flat": all nodes on one segment. "routed": node3 is behind a router
    shape: str = "flat"
    backend: str = "vxlan"
    # the nodes that are members of the etcd cluster; without any the nodes are declared in the config
    etcd: tuple[str, ...] = ("node1",)
    # whether each node asks for a subnet by its config
    subnets: bool = True
    # whether systemd-networkd looks after eth1
    networkd: bool = False
    # the nodes that must be emulated, as they need udev or a kernel of their own
    emulated: tuple[str, ...] = ()
    # whether dockerd runs, and what its own restart does to containers: "stops" or "live-restore"
    docker: str = ""
    # whether there is a host on the segment of node1 that is no node
    stranger: bool = False
    seconds: int = 120

    @property
    def script(self) -> Path:
        """The scenario itself."""
        return HERE / "scenarios" / f"{self.name}.py"

    @property
    def nodes(self) -> list[Node]:
        """The three nodes, with the addresses that the documents give them."""
        behind = "192.168.2.49" if self.shape == "routed" else "192.168.1.49"
        addresses = ["192.168.1.47", "192.168.1.48", behind]
        return [
            Node(f"node{n}", address, f"lan{address.split('.')[2]}", f"100.96.{n}.0/24")
            for n, address in enumerate(addresses, 1)
        ]

    @property
    def hosts(self) -> list[Node]:
        """All machines, also the one that is no node."""
        stranger = Node("stranger", "192.168.1.77", "lan1", "")
        return [*self.nodes, stranger] if self.stranger else self.nodes

    @property
    def segments(self) -> dict[str, str]:
        """Each segment with the router's address on it."""
        return {node.segment: f"{node.gateway}/24" for node in self.nodes}

    def members(self) -> list[Node]:
        """The nodes that run etcd."""
        return [node for node in self.nodes if node.name in self.etcd]

    def datastore(self) -> str:
        """`[datastore]` of each node's config."""
        if not self.etcd:
            declared = "".join(
                f'{n.name} = {{ public-ip = "{n.address}", subnet = "{n.subnet}" }}\n' for n in self.nodes
            )
            return f'[datastore]\ntype = "static"\n[datastore.nodes]\n{declared}'
        endpoints = ", ".join(f'"http://{m.address}:2379"' for m in self.members())
        return f'[datastore]\ntype = "etcd"\nendpoints = [{endpoints}]\n'

    def config(self, node: Node) -> str:
        """`/etc/flannel-rs/config.toml` of a node."""
        subnet = f'subnet = "{node.subnet}"' if self.subnets else ""
        return f"""\
[node]
name = "{node.name}"
interface = "eth1"
{subnet}

{self.datastore()}
[network]
network = "{NETWORK}"

[network.backend]
type = "{self.backend}"
"""


def scenarios() -> list[Scenario]:
    """All scenarios, in the order of the file."""
    tables = tomllib.loads((HERE / "scenarios.toml").read_text())
    found = []
    for name, table in tables.items():
        lists = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
        found.append(Scenario(name=name, **{**table, **lists}))
    return found
