start_cluster()

with subtest("each node has its subnet, and says so in one line"):
    for number, node in enumerate(nodes, 1):
        subnet = f"100.96.{number}.0/24"
        node.require_unit_state(SERVICE)
        text = node.get_unit_property(SERVICE, "StatusText")
        assert text.startswith(f"{subnet} vxlan, 2 of 2 peers, lease 2"), text
        assert text in node.succeed("systemctl status --no-pager flannel-rs")
        assert subnet_env(node, "FLANNEL_NETWORK") == "100.96.0.0/16"
        addresses = node.succeed("ip -br -4 address show docker0")
        assert f"100.96.{number}.1/24" in addresses, addresses

with subtest("containers reach each other"):
    for node in nodes:
        add_container(node)
    ping_all()

with subtest("a stop leaves the data path, and a start finds it"):
    stream = Stream(node1, "100.96.2.2")
    node1.succeed("systemctl stop flannel-rs")
    stream.wait_for_replies(50)
    node1.succeed("systemctl start flannel-rs")
    assert stream.lost() == 0
