# The path of a packet from container 1 to container 2, hop by hop, with the values that the kernel
# holds at this moment. Sourced by demo.sh, which sets `container` and gives `inside`.
# shellcheck shell=bash disable=SC2154

step() { # TEXT [EVIDENCE]: the evidence is a line of the kernel
    number=$((number + 1))
    printf '%2d. %s\n' "$number" "$1"
    [[ -z ${2-} ]] || sed 's/^[[:space:]]*/      | /; s/ addrgenmode .*/ …/; s/ uid 0 *$//; s/ *$//' <<<"$2"
}

# The line of the routing table that a packet to this address matches.
route() { # NAMESPACE ADDRESS
    inside "$1" ip route get fibmatch "$2"
}

word_after() { # WORD TEXT
    sed -n "s/.*\b$1 \([^ ]*\).*/\1/p" <<<"$2" | head -n1
}

# From the container to the route that its packet matches on node1.
walk_out() {
    number=0
    step "container 1 sends to ${container[2]}. That is not in its own subnet, so the packet goes to the gateway, docker0:" \
        "$(inside c1 ip route get "${container[2]}" | head -n1)"
    step "docker0 hands it to the routing of node1 (ip_forward = $(inside node1 cat /proc/sys/net/ipv4/ip_forward)), where it matches this line:" \
        "$(route node1 "${container[2]}")"
}

# From node2 to the container.
walk_in() {
    local port mac
    step "node2 looks into its own table. The subnet is behind its docker0:" "$(route node2 "${container[2]}")"
    mac=$(word_after lladdr "$(inside node2 ip neighbour show "${container[2]}" dev docker0)")
    port=$(inside node2 bridge fdb show br docker0 | grep -i "^${mac:-none} " | head -n1 || true)
    step "docker0 is a switch. The container's address (${mac:-unknown}) is at this port:" "$port"
    step "the other end of the port is eth0 of container 2. The packet has arrived:" \
        "$(inside c2 ip -br -4 address show eth0)"
}

walk_vxlan() {
    local via mac entry peer device
    walk_out
    via=$(word_after via "$(route node1 "${container[2]}")")
    step "the gateway $via is flannel.1 of node2. A permanent neighbour entry, written by flannel-rs, tells its MAC address, so nobody has to ask:" \
        "$(inside node1 ip neighbour show "$via" dev flannel.1)"
    mac=$(word_after lladdr "$(inside node1 ip neighbour show "$via" dev flannel.1)")
    entry=$(inside node1 bridge fdb show dev flannel.1 | grep -i "^$mac ")
    peer=$(word_after dst "$entry")
    step "flannel.1 needs the machine behind that MAC address. The forwarding database says $peer:" "$entry"
    device=$(inside node1 ip -d link show flannel.1 | grep 'vxlan id')
    step "the kernel puts a VXLAN header (VNI $(word_after id "$device")) before the frame and all of it into a UDP datagram from $(word_after local "$device") to $peer, port $(word_after dstport "$device"):" "$device"
    step "the datagram leaves by eth0 like any other:" "$(inside node1 ip route get "$peer" | head -n1)"
    step "the kernel of node2 takes it from the UDP port. The VNI is that of its own flannel.1, which unpacks the frame; the MAC address is its own:" \
        "$(inside node2 ip -br link show flannel.1)"
    walk_in
}

walk_host_gw() {
    local via
    walk_out
    via=$(word_after via "$(route node1 "${container[2]}")")
    step "the gateway is node2 itself. Its MAC address comes from ordinary ARP:" \
        "$(inside node1 ip neighbour show "$via" dev eth0)"
    step "the packet leaves by eth0 as it is, from ${container[1]} to ${container[2]}, in a frame for that MAC address:" \
        "$(inside node2 ip -br link show eth0)"
    walk_in
}

walk_udp() {
    local peer=192.168.1.48
    walk_out
    step "flannel0 is a TUN device: the kernel gives the packet to the process that holds its other end, flannel-rs on node1:" \
        "$(inside node1 ip -d link show flannel0 | grep -o 'tun type.*' || true)"
    step "flannel-rs finds the subnet of ${container[2]} among the leases. It is that of the node at $peer:" \
        "$(status 1 | grep -F "$peer" || true)"
    step "it sends the packet, whole and without a header of its own, in a UDP datagram to $peer, port 8285:" \
        "$(inside node1 ip route get "$peer" | head -n1)"
    step "flannel-rs on node2 receives it on its socket:" \
        "$(inside node2 ss -Hulnp 'sport = :8285' 2>/dev/null || true)"
    step "and writes the packet into its own flannel0, so that it enters the kernel of node2:" \
        "$(inside node2 ip -br -4 address show flannel0)"
    walk_in
}
