CONFIG = "/etc/flannel-rs/config.toml"


def refused(node, command, code):
    """The command ends with this exit code and one line on standard error."""
    got, said = node.execute(f"{command} 2>&1 >/dev/null")
    assert got == code, f"`{command}`: exit code {got}, not {code}: {said}"
    assert len(said.splitlines()) == 1, f"`{command}`: {said}"
    return said


start_cluster()

with subtest("what does not exist"):
    refused(node1, "flannel-rs nonsense", 2)
    refused(node1, "flannel-rs peers 100.96.77.0/24", 68)

with subtest("no permission"):
    refused(node1, "runuser -u visitor -- flannel-rs reconcile", 77)
    said = refused(node1, f"runuser -u visitor -- flannel-rs daemon --config {CONFIG}", 77)
    assert "CAP_NET_ADMIN" in said, said
    node1.succeed("runuser -u visitor -- flannel-rs status")

with subtest("it runs already"):
    # root's, beside the unit's, which is another user's
    refused(node1, "timeout 20 flannel-rs daemon", 75)

with subtest("a wrong config"):
    node1.succeed("printf '[node]\\nnme = 1\\n' >/tmp/wrong.toml")
    code, said = node1.execute("flannel-rs check /tmp/wrong.toml 2>&1")
    # the place in the file follows the line
    assert code == 78 and "unknown key `nme`" in said.splitlines()[0], said

with subtest("a wrong config keeps the unit from starting, once and for all"):
    node2.succeed(f"systemctl stop {SERVICE}", f"echo nonsense >>{CONFIG}")
    node2.fail(f"systemctl start {SERVICE}")
    node2.require_unit_state(SERVICE, "failed")
    assert node2.get_unit_property(SERVICE, "ExecMainStatus") == "78"

with subtest("service not running"):
    node3.succeed(f"systemctl stop {SERVICE}")
    refused(node3, "flannel-rs peers", 69)

with subtest("no bus"):
    nowhere = "DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nonexistent"
    refused(node1, f"env {nowhere} flannel-rs status", 69)
