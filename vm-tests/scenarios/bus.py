NAME = "org.flannelrs.Flannel1"
ROOT = "/org/flannelrs/Flannel1"
PEER = f"{ROOT}/peer/_100_96_2_0_24"

start_cluster()
# the bus is told of changes five times a second, the line for `systemctl status` at once
node1.wait_until_succeeds(f"busctl tree --list {NAME} | grep -F peer/_100_96_3_0_24", 20)


def as_root(command):
    """The command as it is."""
    return command


def as_visitor(command):
    """The command as a user without any rights."""
    return f"runuser -u visitor -- {command}"


def refused(command, error):
    """The call is answered by this error."""
    _, said = node1.execute(f"{as_visitor(command)} 2>&1")
    assert error in said, (command, said)


def call(method, signature=""):
    """A call by a program that asks for no password; dbus-send names the error."""
    send = "dbus-send --system --print-reply"
    return f"{send} --dest={NAME} {ROOT} {NAME}.Manager.{method} {signature}"


for who, word in {"root": as_root, "visitor": as_visitor}.items():
    with subtest(f"{who} may read all of it"):
        tree = node1.succeed(word(f"busctl tree --list {NAME}"))
        for path in (PEER, f"{ROOT}/peer/_100_96_3_0_24", f"{ROOT}/interface/_flannel_2e1"):
            assert path in tree.splitlines(), tree
        members = node1.succeed(word(f"busctl introspect {NAME} {ROOT} {NAME}.Manager"))
        for member in (".ReleaseLease", ".Subnet", ".DriftRepaired"):
            assert f"{member} " in members, members
        subnet = node1.succeed(word(f"busctl get-property {NAME} {ROOT} {NAME}.Manager Subnet"))
        assert subnet.strip() == 's "100.96.1.0/24"', subnet
        address = node1.succeed(word(f"busctl get-property {NAME} {PEER} {NAME}.Peer PublicIP"))
        assert "192.168.1.48" in address, address
        plan = node1.succeed(word(f"busctl call {NAME} {ROOT} {NAME}.Manager Plan"))
        assert plan.strip() == "a(ss) 0", plan

with subtest("a visitor may change nothing"):
    interactive = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
    for method in ("Reload", "Reconcile", "ReleaseLease", "Cleanup"):
        refused(call(method), interactive)
    refused(call("Renumber", "string:100.96.9.0/24"), interactive)
    refused(call("SetLogLevel", "string:debug"), interactive)
    # it offers to ask for a password, but nobody is there to type one
    _, said = node1.execute(f"{as_visitor(f'busctl call {NAME} {ROOT} {NAME}.Manager Reload')} 2>&1")
    assert said and "InteractiveAuthorizationRequired" not in said, said
    refused(f"timeout 5 busctl monitor {NAME}", "Access denied")
    assert subnet_env(node1, "FLANNEL_SUBNET") == "100.96.1.1/24"

with subtest("root may, and whoever watches is told"):
    node1.succeed(
        f"timeout 60 busctl monitor {NAME} </dev/null >/tmp/monitor 2>/dev/null & echo $! >/tmp/monitor.pid",
        "sleep 1",
        "ip route delete 100.96.2.0/24",
    )
    node1.wait_until_succeeds("grep -q Member=DriftRepaired /tmp/monitor", 20)
    node1.succeed("kill $(cat /tmp/monitor.pid)", "ip route show 100.96.2.0/24 | grep flannel.1")
    node1.succeed(f"busctl call {NAME} {ROOT} {NAME}.Manager Reload")
    node1.succeed(f"busctl call {NAME} {ROOT} {NAME}.Manager SetLogLevel s debug")
    level = node1.succeed(f"busctl get-property {NAME} {ROOT} {NAME}.Manager LogLevel")
    assert level.strip() == 's "debug"', level

with subtest("root is told what is wrong"):
    code, said = node1.execute(f"{call('Renumber', 'string:10.0.0.0/24')} 2>&1")
    assert code != 0 and f"{NAME}.Error.OutsideNetwork" in said, said
    code, said = node1.execute(f"{call('Renumber', 'string:nonsense')} 2>&1")
    assert code != 0 and f"{NAME}.Error.InvalidSubnet" in said, said
