start_cluster()
addresses = [start_docker(node, "--restart always") for node in nodes]
ping_all()


def wait_for_container(node):
    """Waits until Docker has brought it back."""
    node.wait_until_succeeds("docker inspect --format '{{.State.Running}}' container | grep true", 30)
    return find_container(node)


def bridge(node):
    """Address and MTU of docker0, and what new containers of Docker are told of them."""
    format = "{{(index .IPAM.Config 0).Subnet}}"
    return node.succeed(
        "ip -4 -br address show docker0 | awk '{ print $3 }'",
        "cat /sys/class/net/docker0/mtu",
        f"docker network inspect --format '{format}' bridge",
    ).split()


with subtest("Docker restarted: its containers are back, those of others have lost nothing"):
    others = Stream(node2, addresses[2])
    stream = Stream(node3, addresses[0])
    restart_docker(node1)
    assert wait_for_container(node1) == addresses[0]
    lost = stream.lost()
    log.info(f"{lost} packets were lost on the way to a container that was restarted")
    assert lost <= 2000
    assert others.lost() == 0
    ping_all()

with subtest("Docker waits for the service"):
    node1.succeed(f"systemctl stop docker.service docker.socket {SERVICE}", "ip link delete docker0")
    node1.succeed("rm /run/flannel/docker.env", "systemctl start docker.service")
    node1.require_unit_state(SERVICE)
    assert bridge(node1) == ["100.96.1.1/24", "1450", "100.96.1.0/24"], bridge(node1)
    assert wait_for_container(node1) == addresses[0]
    ping_all()

with subtest("a network of its own beside the bridge"):
    node1.succeed(
        "docker network create --subnet 172.30.0.0/24 beside",
        "docker run --detach --init --name second --network beside busybox sleep 1d",
    )
    beside = "nsenter --net --target $(docker inspect --format '{{.State.Pid}}' second)"
    node1.succeed(f"{beside} ping -q -c 1 -w 5 192.168.1.48")
    ping_all()
    node1.succeed("docker rm --force second", "docker network rm beside")

# a dockerd without our options, whose bridge is docker0, too
EARLY = "systemd-run --unit=early --service-type=notify dockerd --data-root /var/lib/docker/early "
EARLY += "--host unix:///run/early.sock --pidfile /run/early.pid"


def is_mended(node):
    """The bridge is ours again, and the containers are back in the subnet."""
    wait_until_healthy(node)
    assert bridge(node) == ["100.96.2.1/24", "1450", "100.96.2.0/24"], bridge(node)
    assert wait_for_container(node) == addresses[1]
    ping_all()


with subtest("a dockerd that was there first keeps its bridge; told with its remedy, which mends it"):
    node2.succeed(
        f"systemctl stop docker.service docker.socket {SERVICE}",
        "ip link delete docker0",
        f"{EARLY} --bip 172.31.0.1/24",
        f"systemctl start {SERVICE}",
    )
    wait_for_status(node2, "has 172.31.0.1/24, not 100.96.2.1/24")
    assert "172.31.0.1/24" in node2.succeed("ip -4 -br address show docker0")
    node2.succeed("systemctl stop early.service", "systemctl start docker.service")
    is_mended(node2)

with subtest("a dockerd that remembers another address puts it on our bridge; told, and taken back"):
    node2.succeed("systemctl stop docker.service docker.socket", EARLY)
    wait_for_status(node2, "has 172.31.0.1/24, not 100.96.2.1/24")
    assert "flannel-rs take-bridge" in node2.get_unit_property(SERVICE, "StatusText")
    node2.succeed(
        "systemctl stop early.service",
        "systemctl reset-failed docker.service",
        "flannel-rs take-bridge --yes --restart-docker",
    )
    is_mended(node2)

with subtest("a container with a larger MTU than the overlay carries"):
    node2.succeed("ip link add wide mtu 1500 type veth peer name thin", "ip link set wide master docker0 up")
    wait_for_status(node2, "docker: 1 of 2 interfaces of containers on docker0 (wide first) have an MTU of up to 1500")
    node2.succeed("ip link delete wide")
    wait_until_healthy(node2)

with subtest("a node that gets another subnet: Docker learns it when it is restarted"):
    node3.succeed("flannel-rs renumber --yes 100.96.33.0/24")
    restart_docker(node3)
    assert wait_for_container(node3) == "100.96.33.2"
    ping_all()
