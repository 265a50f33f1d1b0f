start_cluster()
for node in nodes:
    add_container(node)
stream = Stream(node1, "100.96.2.2")

with subtest("two of three members suffice"):
    node3.crash()
    node1.succeed(f"systemctl restart {SERVICE}")
    wait_for_status(node1, "100.96.1.0/24 vxlan, 2 of 2 peers")

with subtest("the third comes back"):
    node3.start()
    node3.wait_for_unit("etcd.service")
    node3.wait_for_unit(SERVICE)
    add_container(node3)
    ping_all()

assert stream.lost() == 0
