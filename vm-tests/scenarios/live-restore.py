start_cluster()
addresses = [start_docker(node) for node in nodes]
ping_all()

with subtest("Docker restarted under its containers"):
    streams = [Stream(node1, addresses[1]), Stream(node2, addresses[2])]
    for node in nodes:
        before = node.succeed("docker inspect --format '{{.State.Pid}}' container")
        restart_docker(node)
        assert node.succeed("docker inspect --format '{{.State.Pid}}' container") == before
    # it sets up its rules anew; a hundred packets are a second
    lost = [stream.lost() for stream in streams]
    assert max(lost) <= 100, lost

with subtest("the service restarted under Docker"):
    stream = Stream(node1, addresses[1])
    docker = node1.get_unit_property("docker.service", "MainPID")
    node1.succeed(f"systemctl restart {SERVICE}")
    assert stream.lost() == 0
    assert node1.get_unit_property("docker.service", "MainPID") == docker

with subtest("a node that boots again"):
    node3.shutdown()
    node3.start()
    node3.wait_for_unit("docker.service")
    node3.succeed("docker start container")
    assert find_container(node3) == addresses[2]
    ping_all()
