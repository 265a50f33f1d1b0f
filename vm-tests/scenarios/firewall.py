STRANGER = "192.168.1.77"
# packets of a stream in a second, which is what may get lost until the service has put things right
SECOND = 100
CONFIG = "/etc/flannel-rs/config.toml"

start_cluster()
addresses = [start_docker(node) for node in nodes]
ping_all()
outside = Server(stranger)


def under_traffic(change):
    """Changes something on two nodes while containers talk in both directions."""
    streams = [Stream(node1, addresses[1]), Stream(node2, addresses[0])]
    for node in (node1, node2):
        node.succeed(change)
    for stream in streams:
        stream.wait_for_replies(SECOND)
    lost = [stream.lost() for stream in streams]
    log.info(f"lost {lost}: {change}")
    assert max(lost) <= SECOND, lost
    ping_all()
    for number, node in enumerate((node1, node2), 47):
        assert outside.meet(node, STRANGER) == f"192.168.1.{number}"


def echoes(node):
    """How many pings have come to its container."""
    line = in_container(node, "nstat -asz IcmpInEchos | grep IcmpInEchos")
    return int(line.split()[1])


for change in (
    "nft flush ruleset",
    "iptables -F",
    "iptables -P FORWARD DROP",
    "iptables -F FORWARD; iptables -P FORWARD DROP",
    "systemctl reset-failed docker.service; systemctl restart docker.service",
    "for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 >$file; done",
):
    with subtest(change):
        under_traffic(change)

with subtest("a stranger does not get through the tunnel's port, a peer does"):
    address = node1.succeed("cat /sys/class/net/flannel.1/address").strip()
    stranger.succeed(
        f"""
        ip link add forged type vxlan id 1 dstport 8472 local {STRANGER} remote 192.168.1.47 nolearning
        ip address add 100.96.2.77/32 dev forged
        ip link set forged up
        ip route add {addresses[0]} dev forged
        ip neighbour add {addresses[0]} lladdr {address} dev forged nud permanent
        """
    )
    forge = f"ping -c 3 -i 0.2 -W 1 {addresses[0]}"
    before = echoes(node1)
    stranger.fail(forge)
    assert echoes(node1) == before
    in_container(node2, forge)
    assert echoes(node1) == before + 3
    # the very same packets, with nobody to stop them
    node1.succeed(
        f"printf '[firewall]\\nprotect-tunnel-port = false\\nverify-source = false\\n' >>{CONFIG}",
        f"systemctl reload {SERVICE}",
    )
    node1.wait_until_fails("nft list table ip flannel-rs | grep 8472", 10)
    stranger.execute(forge)
    assert echoes(node1) == before + 6

# NixOS brings a firewall of its own instead
if node1.execute("type -P firewall-cmd")[0] == 0:
    for node in (node1, node2):
        node.succeed("systemctl start firewalld.service")
        node.wait_until_succeeds("firewall-cmd --zone trusted --list-sources | grep -F 100.96.0.0/16", 20)
        # Docker makes a zone for its bridge
        restart_docker(node)
    for change in ("firewall-cmd --reload", "systemctl restart firewalld.service"):
        with subtest(change):
            under_traffic(change)
