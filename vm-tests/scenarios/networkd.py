start_cluster()
for node in nodes:
    node.wait_for_unit("systemd-networkd.service")
    node.wait_until_succeeds("networkctl list eth1 --no-legend | grep -w configured", 60)
    add_container(node)

with subtest("networkd leaves our links alone"):
    for link in ("flannel.1", "docker0"):
        assert "unmanaged" in node1.succeed(f"networkctl list {link} --no-legend")

for backend in ("vxlan", "host-gw"):
    with subtest(f"a restart of networkd is harmless, with {backend}"):
        use_backend(backend)
        before = data_path(node1)
        streams = [Stream(node1, "100.96.2.2"), Stream(node3, "100.96.1.2")]
        node1.succeed("systemctl restart systemd-networkd.service", "networkctl reload")
        node1.wait_until_succeeds("networkctl list eth1 --no-legend | grep -w configured", 60)
        assert [stream.lost() for stream in streams] == [0, 0]
        assert data_path(node1) == before
