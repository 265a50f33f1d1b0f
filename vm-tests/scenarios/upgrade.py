start_cluster()
for node in nodes:
    add_container(node)

for backend in ("vxlan", "host-gw"):
    with subtest(f"a newer version is put in place, with {backend}"):
        use_backend(backend)
        streams = [Stream(node1, "100.96.2.2"), Stream(node3, "100.96.1.2")]
        process = node1.get_unit_property(SERVICE, "MainPID")
        node1.succeed("upgrade-flannel-rs")
        node1.wait_for_unit(SERVICE)
        assert node1.get_unit_property(SERVICE, "MainPID") != process, "it was not restarted"
        assert [stream.lost() for stream in streams] == [0, 0]
        assert subnet_env(node1, "FLANNEL_SUBNET") == "100.96.1.1/24"
