start_cluster()
for node in nodes:
    node.wait_for_unit("docker.service")
    # an empty image: the programs are the host's own
    node.succeed(
        "tar --create --files-from=/dev/null | docker import - empty",
        "docker run --detach --name probe --volume /nix/store:/nix/store "
        "--volume /run/current-system/sw/bin:/bin empty /bin/sleep infinity",
    )
addresses = [
    node.succeed("docker inspect --format '{{.NetworkSettings.IPAddress}}' probe").strip()
    for node in nodes
]

with subtest("containers live in the subnet of their node"):
    for number, address in enumerate(addresses, 1):
        assert address.startswith(f"100.96.{number}."), addresses

with subtest("they reach each other, with packets of the full size"):
    size = int(subnet_env(node1, "FLANNEL_MTU")) - 28
    for node in nodes:
        for address in addresses:
            enter = "nsenter --net --target $(docker inspect --format '{{.State.Pid}}' probe)"
            node.succeed(f"{enter} ping -q -c 1 -w 5 -M do -s {size} {address}")

with subtest("also on a port that is not published"):
    enter = "nsenter --net --target $(docker inspect --format '{{.State.Pid}}' probe)"
    node1.succeed(f"{enter} iperf3 --server --daemon")
    node2.wait_until_succeeds(f"{enter} iperf3 --client {addresses[0]} --time 1", 30)

with subtest("a restart of the service leaves containers alone"):
    before = node1.get_unit_property("docker.service", "MainPID")
    stream = node1.succeed("docker inspect --format '{{.State.Pid}}' probe")
    node1.succeed(f"systemctl restart {SERVICE}")
    assert node1.get_unit_property("docker.service", "MainPID") == before
    assert node1.succeed("docker inspect --format '{{.State.Pid}}' probe") == stream
