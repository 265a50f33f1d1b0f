#!/usr/bin/env bash
# Three nodes on one machine: the lab of the documentation, as network namespaces.
#
#   lab.sh up        [--prefix P] [--shape flat|routed]      make the nodes and what connects them
#   lab.sh container N --subnet-env FILE [--prefix P]        put a container behind docker0 of node N
#   lab.sh down      [--prefix P]                            remove it all, also what is half-made
#
# Namespaces, with the default prefix "lab":
#   lab-node1..3   eth0 192.168.1.47, .48, .49, default route by 192.168.1.1
#   lab-net        the switch br1 and the router 192.168.1.1
#   lab-c1..3      eth0 with the second address of the node's subnet, behind docker0 of the node
# In the shape "routed" node3 is 192.168.2.49, on a switch br2 of its own behind the router.
#
# All interfaces are made inside these namespaces, so labs with different prefixes share nothing.
# Look around with: ip netns exec lab-node1 bash. End what you started in there before "down".
set -euo pipefail

usage() {
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 64
}

fail() {
    echo "lab.sh: $*" >&2
    exit 1
}

prefix=lab shape=flat env_file='' words=()
while (($#)); do
    case $1 in
    --prefix) prefix=${2-}; shift 2 || usage ;;
    --shape) shape=${2-}; shift 2 || usage ;;
    --subnet-env) env_file=${2-}; shift 2 || usage ;;
    -*) usage ;;
    *) words+=("$1") && shift ;;
    esac
done
[[ $prefix =~ ^[a-z0-9][a-z0-9-]{0,31}$ ]] || fail "--prefix '$prefix': expected a-z, 0-9 and -, at most 32"
[[ $shape == flat || $shape == routed ]] || fail "--shape '$shape': expected flat or routed"
((EUID == 0)) || fail "network namespaces need root: try again with sudo"

net=$prefix-net

# sysctl NAMESPACE KEY VALUE: without the program of that name, which small systems lack
sysctl() {
    ip netns exec "$1" sh -c "echo $3 > /proc/sys/net/${2//.//}"
}

namespace() {
    ip netns add "$1"
    ip -n "$1" link set lo up
}

# A machine that forwards. Replies may come by another interface than the kernel would send by
# (host-gw over the router does that), which the reverse path filter of some systems drops.
forwarder() {
    sysctl "$1" ipv4.ip_forward 1
    sysctl "$1" ipv4.conf.all.rp_filter 0
    sysctl "$1" ipv4.conf.default.rp_filter 0
}

# switch BRIDGE ADDRESS: a link of the lab, with the router's address on it
switch() {
    ip -n "$net" link add "$1" type bridge
    ip -n "$net" address add "$2" dev "$1"
    ip -n "$net" link set "$1" up
}

# node NAME ADDRESS BRIDGE ROUTER
node() {
    local ns=$prefix-$1
    namespace "$ns"
    forwarder "$ns"
    ip -n "$ns" link add eth0 type veth peer name "$1" netns "$net"
    ip -n "$net" link set "$1" master "$3" up
    ip -n "$ns" address add "$2" dev eth0
    ip -n "$ns" link set eth0 up
    ip -n "$ns" route add default via "$4"
}

up() {
    # a lab that is there is somebody's, and not to be cleaned up
    [[ ! -e /run/netns/$net ]] || fail "the lab '$prefix' exists: choose another --prefix, or end it by: lab.sh down --prefix $prefix"
    ip netns add "$net"
    trap down EXIT
    ip -n "$net" link set lo up
    forwarder "$net"
    switch br1 192.168.1.1/24
    node node1 192.168.1.47/24 br1 192.168.1.1
    node node2 192.168.1.48/24 br1 192.168.1.1
    if [[ $shape == flat ]]; then
        node node3 192.168.1.49/24 br1 192.168.1.1
    else
        switch br2 192.168.2.1/24
        node node3 192.168.2.49/24 br2 192.168.2.1
    fi
    trap - EXIT
}

# value KEY: a line of the node's subnet.env
value() {
    sed -n "s/^$1=//p" "$env_file"
}

container() {
    local number=$1 ns=$prefix-c$1 node=$prefix-node$1 subnet mtu gateway address
    [[ $number =~ ^[123]$ ]] || fail "container '$number': expected 1, 2 or 3"
    [[ -r $env_file ]] || fail "--subnet-env '$env_file': no such file; is the service of node$number ready?"
    subnet=$(value FLANNEL_SUBNET) mtu=$(value FLANNEL_MTU)
    [[ $subnet =~ ^([0-9]+\.){3}[0-9]+/[0-9]+$ && $mtu =~ ^[0-9]+$ ]] ||
        fail "$env_file: expected FLANNEL_SUBNET=100.96.1.1/24 and FLANNEL_MTU=1450, or the like"
    gateway=${subnet%/*}
    address=${gateway%.*}.$((${gateway##*.} + 1))/${subnet#*/}
    ip -n "$node" link show docker0 >/dev/null || fail "node$number has no docker0"
    ip netns add "$ns" || fail "container $number is there"
    trap 'ip netns delete "$prefix-c$number"' EXIT
    ip -n "$ns" link set lo up
    ip -n "$ns" link add eth0 mtu "$mtu" type veth peer name "veth-c$number" mtu "$mtu" netns "$node"
    ip -n "$node" link set "veth-c$number" master docker0 up
    ip -n "$ns" address add "$address" dev eth0
    ip -n "$ns" link set eth0 up
    ip -n "$ns" route add default via "$gateway"
    trap - EXIT
    echo "${address%/*}"
}

# The interfaces go first: a process that is left in a namespace would keep them alive.
down() {
    local ns link
    for ns in "$prefix"-c{1,2,3} "$prefix"-node{1,2,3} "$net"; do
        [[ -e /run/netns/$ns ]] || continue
        for link in $(ip -n "$ns" -oneline link 2>/dev/null | sed 's/^[0-9]*: \([^:@]*\).*/\1/'); do
            [[ $link == lo ]] || ip -n "$ns" link delete "$link" 2>/dev/null || true
        done
        ip netns delete "$ns" 2>/dev/null || rm -f "/run/netns/$ns"
    done
}

case "${words[*]-}" in
up) up ;;
down) down ;;
'container '?) container "${words[1]}" ;;
*) usage ;;
esac
