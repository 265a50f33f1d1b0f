start_cluster()
for node in nodes:
    add_container(node)
ping_all()

with subtest("a node without power gets its subnet back"):
    stream = Stream(node1, "100.96.3.2")
    node2.crash()
    node2.start()
    node2.wait_for_unit(SERVICE)
    add_container(node2)
    ping_all()
    assert stream.lost() == 0

with subtest("the others do without the node that has the datastore"):
    stream = Stream(node2, "100.96.3.2")
    node1.crash()
    stream.wait_for_replies(300)
    node1.start()
    node1.wait_for_unit(SERVICE)
    add_container(node1)
    ping_all()
    assert stream.lost() == 0

with subtest("a cable that was out"):
    node2.block()
    node1.fail("ping -c 1 -w 1 -I 100.96.1.1 100.96.2.1")
    node2.unblock()
    node1.wait_until_succeeds("ping -c 1 -w 1 -I 100.96.1.1 100.96.2.1", 30)
    ping_all()
