import time

start_cluster()

def kill_and_return():
    """Kills the service; the seconds until it is ready again."""
    old = node1.get_unit_property(SERVICE, "MainPID")
    node1.succeed(f"kill -9 {old}")
    killed = time.monotonic()
    node1.wait_until_succeeds(
        f"systemctl show -p MainPID,ActiveState {SERVICE} | grep -q ActiveState=active && "
        f"test $(systemctl show --value -p MainPID {SERVICE}) != {old}",
        20,
    )
    return time.monotonic() - killed


for backend in ("vxlan", "host-gw"):
    with subtest(f"kill -9 with {backend}"):
        use_backend(backend)
        for node in nodes:
            add_container(node)
        ping_all()
        streams = [Stream(node1, "100.96.2.2"), Stream(node3, "100.96.1.2")]
        spent = kill_and_return()
        log.info(f"ready again after {spent:.2f} seconds")
        assert [stream.lost() for stream in streams] == [0, 0]
        assert spent < 2, spent
