start_cluster()
before = [subnet_env(node, "FLANNEL_SUBNET") for node in nodes]
for node in nodes:
    add_container(node)
ping_all()

with subtest("a node in good order"):
    node2.shutdown()
    node2.start()
    node2.wait_for_unit(SERVICE)
    assert subnet_env(node2, "FLANNEL_SUBNET") == before[1]

with subtest("all nodes at once"):
    for node in nodes:
        node.succeed("systemctl poweroff --no-block")
    join_all()
    start_cluster()
    assert [subnet_env(node, "FLANNEL_SUBNET") for node in nodes] == before
    for node in nodes:
        add_container(node)
    ping_all()
