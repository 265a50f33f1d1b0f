NAME = "org.flannelrs.Flannel1"

start_cluster()
for node in nodes:
    add_container(node)
stream = Stream(node1, "100.96.2.2")
process = node1.get_unit_property(SERVICE, "MainPID")
node1.succeed(f"busctl status {NAME}")

with subtest("name and objects come back"):
    node1.succeed("systemctl restart dbus.service")
    node1.wait_until_succeeds(f"busctl status {NAME}", 60)
    tree = node1.succeed(f"busctl tree --list {NAME}")
    assert "/org/flannelrs/Flannel1/peer/_100_96_2_0_24" in tree, tree
    state = node1.succeed(f"busctl get-property {NAME} /org/flannelrs/Flannel1 {NAME}.Manager State")
    assert state.strip() == 's "running"', state

with subtest("the service has not been disturbed"):
    assert node1.get_unit_property(SERVICE, "MainPID") == process
    assert stream.lost() == 0
