# Names that every scenario finds besides the driver's: a scenario's file is appended to this one.
# No types are named here, as each version of the NixOS driver has others.

nodes = [node1, node2, node3]

SERVICE = "flannel-rs.service"

# The words before a command that run it where the container's network is.
CONTAINER = "nsenter --net=/run/netns/container"


def subnet_env(node, name):
    """A value that the service has written for others."""
    return node.succeed(f". /run/flannel/subnet.env; echo ${name}").strip()


def start_cluster():
    """Boots all nodes and waits until each is ready and knows the others."""
    start_all()
    for node in nodes:
        node.wait_for_unit(SERVICE)
    for node in nodes:
        wait_for_status(node, "2 of 2 peers")


def wait_for_status(node, text):
    """Waits until the service says so in its line for `systemctl status`."""
    node.wait_until_succeeds(f"systemctl show -p StatusText {SERVICE} | grep -F '{text}'", 60)


def wait_until_healthy(node):
    """Waits until the service has nothing to complain of."""
    node.wait_until_succeeds(f"systemctl show -p StatusText {SERVICE} | grep 'datastore ok$'", 60)


def add_container(node):
    """What Docker would make: a network namespace that is plugged into docker0, with its MTU.

    Returns its address. One that was there is replaced, as another MTU asks for.
    """
    gateway = subnet_env(node, "FLANNEL_SUBNET").partition("/")[0]
    mtu = subnet_env(node, "FLANNEL_MTU")
    address = gateway.rpartition(".")[0] + ".2"
    node.succeed(
        f"""
        if test -e /run/netns/container; then
            ip link delete container0
            ip netns delete container
        fi
        ip netns add container
        ip link add container0 mtu {mtu} type veth peer name eth0 mtu {mtu} netns container
        ip link set container0 master docker0 up
        ip -n container link set lo up
        ip -n container link set eth0 up
        ip -n container address add {address}/24 dev eth0
        ip -n container route add default via {gateway}
        """
    )
    return address


def start_docker(node, options=""):
    """Waits for dockerd and starts a container of Docker's, which takes the place of `add_container`'s.

    Returns its address.
    """
    node.wait_for_unit("docker.service")
    node.succeed(
        "docker image inspect busybox >/dev/null 2>&1 || load-busybox",
        "docker rm --force container >/dev/null 2>&1 || true",
        f"docker run --detach --init --name container {options} busybox sleep 1d",
    )
    return find_container(node)


def restart_docker(node):
    """As an administrator would, only that it may be done again and again."""
    # the unit of Docker gives up for a minute after the third start
    node.succeed("systemctl reset-failed docker.service", "systemctl restart docker.service")


def find_container(node):
    """Looks where Docker's container runs, which a restart changes. Returns its address."""
    node.succeed(
        """
        mkdir -p /run/netns
        process=$(docker inspect --format '{{.State.Pid}}' container)
        ln -sfn /proc/$process/ns/net /run/netns/container
        """
    )
    address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return node.succeed(f"docker inspect --format '{address}' container").strip()


def in_container(node, command):
    """Runs a command where the container's network is."""
    return node.succeed(f"{CONTAINER} {command}")


def ping_all():
    """Every container reaches every other one, also with packets of the full size."""
    addresses = {node.name: subnet_env(node, "FLANNEL_SUBNET") for node in nodes}
    size = int(subnet_env(node1, "FLANNEL_MTU")) - 28
    for node in nodes:
        for name, gateway in addresses.items():
            if name != node.name:
                target = gateway.rpartition(".")[0] + ".2"
                in_container(node, f"ping -q -c 1 -w 5 -M do -s {size} {target}")


class Server:
    """Takes TCP connections, on a node or with `CONTAINER` in its container, and tells who they came from."""

    def __init__(self, node, place="", port=5201):
        self.node = node
        self.file = f"/tmp/server-{port}"
        node.succeed(
            f"rm -f {self.file}",
            f"{place} iperf3 --server --daemon --json --port {port} "
            f"--pidfile {self.file}.pid --logfile {self.file}",
        )

    def meet(self, client, target, port=5201, place=CONTAINER):
        """Sends it something; the address that it came from, as the server sees it."""
        send = f"{place} iperf3 --client {target} --port {port} --bytes 100K --connect-timeout 2000"
        self.node.succeed(f": >{self.file}")
        client.wait_until_succeeds(send, 20)
        # `"host": "100.96.1.2",` in the line after "accepted_connection"
        line = f"grep -A 1 accepted_connection {self.file} | grep -m 1 host"
        return self.node.wait_until_succeeds(line, 20).split('"')[3]

    def stop(self):
        """Leaves the port to others."""
        self.node.succeed(f"kill $(tr -d '\\0' <{self.file}.pid)")


class Stream:
    """A hundred packets a second from one container to another, each of which is accounted for."""

    def __init__(self, node, target):
        self.node = node
        self.target = target
        self.file = f"/tmp/stream-{target}"
        # numbered replies, one on a line; it ends by itself if nobody asks for the result
        ping = f"{CONTAINER} ping -i 0.01 -w 300 {target}"
        node.succeed(f"{ping} </dev/null >{self.file} 2>&1 & echo $! >{self.file}.pid")
        self.wait_for_replies(20)

    def wait_for_replies(self, count):
        """Waits until so many more packets have come back."""
        # grep fails where it counts none
        counted = f"grep -c icmp_seq= {self.file} || true"
        enough = int(self.node.succeed(counted)) + count
        self.node.wait_until_succeeds(f"test $({counted}) -ge {enough}", 60)

    def lost(self):
        """Ends it. How many of its packets got lost."""
        self.wait_for_replies(20)
        lines = self.node.succeed(
            f"kill -INT $(cat {self.file}.pid)",
            f"tail --pid=$(cat {self.file}.pid) -f /dev/null",
            f"cat {self.file}",
        ).splitlines()
        replies = [line.partition("icmp_seq=")[2].split()[0] for line in lines if "ttl=" in line]
        seen = {int(reply) for reply in replies}
        log.info(f"{len(seen)} replies of {max(seen)}")
        # what came after the last reply was on its way when the stream ended
        return max(seen) - len(seen)


def etcdctl(words):
    """Asks the datastore."""
    return node1.succeed(
        f"""
        endpoints=$(sed -n 's/^endpoints = //p' /etc/flannel-rs/config.toml | tr -d '[]" ')
        ETCDCTL_API=3 etcdctl --endpoints="$endpoints" {words}
        """
    )


def data_path(node):
    """All that carries packets on a node, to be compared with itself."""
    return node.succeed(
        "ip -o -4 address show | sed 's/ valid_lft .*//'",
        "ip route | sort",
        "ip -o -d link show type vxlan | cut -d: -f2-",
        "ip neighbour show nud permanent | sort",
        "bridge fdb show | grep -w dst | sort || true",
    )


def use_backend(name):
    """Writes another backend into the datastore; returns when all nodes have it."""
    config = f'{{"Network": "100.96.0.0/16", "Backend": {{"Type": "{name}"}}}}'
    etcdctl(f"put /coreos.com/network/config '{config}'")
    for node in nodes:
        wait_for_status(node, f"{name}, 2 of 2 peers")
