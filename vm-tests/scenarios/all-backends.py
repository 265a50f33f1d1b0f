import re

start_cluster()
for backend in ("vxlan", "udp", "host-gw"):
    with subtest(backend):
        use_backend(backend)
        for node in nodes:
            add_container(node)
        ping_all()
        rating = node1.succeed(f"systemd-analyze security --no-pager {SERVICE}")
        exposure = re.search(r"exposure level for \S+: ([0-9.]+)", rating)
        assert exposure and float(exposure[1]) <= 2.0, rating
        log.info(f"{backend}: exposure {exposure[1]}")

with subtest("the sandbox was never in the way"):
    for node in nodes:
        refusals = "not permitted|permission denied|seccomp|SIGSYS|core-dump"
        node.fail(f"journalctl --boot --no-pager -u {SERVICE} | grep -Ei '{refusals}'")
        assert node.get_unit_property(SERVICE, "NRestarts") == "0"
