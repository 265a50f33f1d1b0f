start_cluster()

with subtest("each host has found itself"):
    for number, node in enumerate(nodes, 1):
        text = node.get_unit_property(SERVICE, "StatusText")
        assert text.startswith(f"100.96.{number}.0/24 vxlan, 2 of 2 peers"), text
        node.fail("systemctl is-active etcd.service")

with subtest("containers reach each other"):
    for node in nodes:
        add_container(node)
    ping_all()

with subtest("a restart and a crash change nothing"):
    stream = Stream(node1, "100.96.3.2")
    node1.succeed(f"systemctl restart {SERVICE}")
    node2.crash()
    node2.start()
    node2.wait_for_unit(SERVICE)
    add_container(node2)
    ping_all()
    assert stream.lost() == 0
