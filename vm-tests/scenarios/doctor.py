start_cluster()
for node in nodes:
    start_docker(node)
ping_all()

with subtest("nothing is found where nothing is wrong"):
    for node in nodes:
        node.succeed("flannel-rs doctor")

with subtest("masquerading of Docker's own hides containers from each other"):
    # the rule that dockerd makes without --ip-masq=false
    rule = "POSTROUTING -s 100.96.1.0/24 ! -o docker0 -j MASQUERADE"
    node1.succeed(f"iptables -t nat -I {rule}")
    code, said = node1.execute("flannel-rs doctor")
    assert code == 5 and "rewritten: " in said and "--ip-masq=false" in said, said
    node1.succeed(f"iptables -t nat -D {rule}")
    node1.succeed("flannel-rs doctor")
