start_cluster()
assert "via 192.168.1.1 " in node1.succeed("ip route get 192.168.2.49")

for backend in ("vxlan", "udp"):
    with subtest(f"{backend} goes through a router"):
        use_backend(backend)
        for node in nodes:
            add_container(node)
        ping_all()

with subtest("host-gw cannot, and says so"):
    etcdctl("""put /coreos.com/network/config '{"Network":"100.96.0.0/16","Backend":{"Type":"host-gw"}}'""")
    wait_for_status(node1, "host-gw, 1 of 2 peers")
    node1.require_unit_state(SERVICE)
