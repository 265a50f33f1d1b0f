start_all()
for node in (node1, node2):
    node.wait_for_unit(SERVICE)
node3.wait_for_unit("flannel.service")
node3.wait_for_file("/run/flannel/subnet.env", 60)

with subtest("flanneld keeps what the others have agreed on"):
    for node in (node1, node2):
        node.wait_until_succeeds(
            f"systemctl show -p StatusText {SERVICE} | grep -F '2 of 2 peers'", 60
        )

with subtest("containers reach each other"):
    # flanneld leaves the bridge to Docker
    gateway = subnet_env(node3, "FLANNEL_SUBNET")
    node3.succeed(
        "ip link add docker0 type bridge",
        f"ip address add {gateway} dev docker0",
        "ip link set docker0 up",
    )
    for node in nodes:
        add_container(node)
    ping_all()

with subtest("a restart of either is not noticed"):
    stream = Stream(node1, f"{gateway.rpartition('.')[0]}.2")
    node1.succeed(f"systemctl restart {SERVICE}")
    node3.succeed("systemctl restart flannel.service")
    node3.wait_for_unit("flannel.service")
    stream.wait_for_replies(200)
    assert stream.lost() == 0
