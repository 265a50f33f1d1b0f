start_cluster()
for node in nodes:
    add_container(node)
# sooner than as shipped, as this test waits for it
node1.succeed(
    f"""
    mkdir -p /run/systemd/system/{SERVICE}.d
    printf '[Service]\\nWatchdogSec=4s\\n' >/run/systemd/system/{SERVICE}.d/sooner.conf
    systemctl daemon-reload
    systemctl restart {SERVICE}
    """
)
stream = Stream(node1, "100.96.2.2")
process = node1.get_unit_property(SERVICE, "MainPID")

with subtest("a process that does nothing any more is started anew"):
    node1.succeed(f"kill -STOP {process}")
    node1.wait_until_succeeds(f"systemctl show -p NRestarts {SERVICE} | grep -qx NRestarts=1", 60)
    node1.wait_for_unit(SERVICE)
    assert node1.get_unit_property(SERVICE, "MainPID") != process
    node1.succeed(f"journalctl --boot --no-pager -u {SERVICE} | grep -i 'watchdog timeout'")

assert stream.lost() == 0
