start_cluster()
for node in nodes:
    add_container(node)
ping_all()
node1.succeed("systemctl is-active systemd-udevd.service")

with subtest("udev has not put an address of its own on the tunnel"):
    for node in nodes:
        recorded = node.succeed("cat /sys/class/net/flannel.1/address").strip()
        lease = etcdctl("get --print-value-only --prefix /coreos.com/network/subnets/")
        assert recorded in lease, (recorded, lease)

with subtest("all events once more change nothing"):
    before = data_path(node1)
    stream = Stream(node1, "100.96.2.2")
    for action in ("change", "add"):
        node1.succeed(f"udevadm trigger --action={action} --subsystem-match=net", "udevadm settle")
    node1.succeed("udevadm trigger", "udevadm settle")
    assert stream.lost() == 0
    assert data_path(node1) == before
