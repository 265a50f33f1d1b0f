STRANGER = "192.168.1.77"

start_cluster()


for backend in ("vxlan", "udp", "host-gw"):
    with subtest(f"{backend}: containers live in the subnet of their node, and know the MTU"):
        use_backend(backend)
        # another backend has another MTU, which dockerd and containers learn when they start
        for node in nodes:
            restart_docker(node)
        addresses = [start_docker(node, "--publish 8080:5201") for node in nodes]
        for number, node in enumerate(nodes, 1):
            assert addresses[number - 1].startswith(f"100.96.{number}."), addresses
            mtu = subnet_env(node, "FLANNEL_MTU")
            for link in (in_container(node, "ip link show eth0"), node.succeed("ip link show docker0")):
                assert f" mtu {mtu} " in link, f"{mtu}: {link}"

    with subtest(f"{backend}: they reach each other, with packets of the full size"):
        ping_all()

    servers = [Server(node, CONTAINER) for node in nodes]
    with subtest(f"{backend}: on ports that nobody published, and see who it is"):
        for server, target in zip(servers, addresses):
            for client, address in zip(nodes, addresses):
                if client != server.node:
                    seen = server.meet(client, target)
                    assert seen == address, f"{seen}, not {address}"

    with subtest(f"{backend}: by a port of their node"):
        server, target = servers[0], "192.168.1.47"
        assert server.meet(stranger, target, 8080, place="") == STRANGER
        assert server.meet(node2, target, 8080, place="") == "192.168.1.48"
        assert server.meet(node3, target, 8080) == "192.168.1.49"

    with subtest(f"{backend}: the world is reached, and sees the node"):
        outside = Server(stranger)
        for number, node in enumerate(nodes, 47):
            assert outside.meet(node, STRANGER) == f"192.168.1.{number}", node.name
        for one in (outside, *servers):
            one.stop()
