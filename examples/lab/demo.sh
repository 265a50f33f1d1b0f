#!/usr/bin/env bash
# Three nodes get their subnets, their containers reach each other, and the kernel shows how.
#
#   BACKEND=vxlan|host-gw|udp   how packets travel           (default vxlan)
#   STORE=local|etcd            where the leases are         (default local, a file)
#   SHAPE=flat|routed           routed: node3 sits behind a router   (default flat)
#   BIN=FILE                    the binary                   (default target/release/flannel-rs)
#
# Needs root. All of it lives in network namespaces and a temporary folder, and is gone at the end.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
backend=${BACKEND:-vxlan} store=${STORE:-local} shape=${SHAPE:-flat}
bin=$(realpath -m "${BIN:-$here/../../target/release/flannel-rs}")

fail() {
    echo "demo: $*" >&2
    exit 1
}

[[ $backend =~ ^(vxlan|host-gw|udp)$ ]] || fail "BACKEND=$backend: expected vxlan, host-gw or udp"
[[ $store =~ ^(local|etcd)$ ]] || fail "STORE=$store: expected local or etcd"
[[ $shape =~ ^(flat|routed)$ ]] || fail "SHAPE=$shape: expected flat or routed"
[[ -x $bin ]] || fail "$bin is not there: run 'cargo build --release', or set BIN"
if ((EUID != 0)); then
    exec sudo BACKEND="$backend" STORE="$store" SHAPE="$shape" BIN="$bin" bash "$0"
fi
for program in ip bridge ping iperf3 dbus-daemon $([[ $store == local ]] || echo etcd); do
    command -v "$program" >/dev/null || fail "the program $program is missing: run 'make install-deps'"
done

# shellcheck source=examples/lab/walk.sh
source "$here/walk.sh"

prefix=demo-$$
dir=$(mktemp -d /tmp/flannel-rs-demo.XXXXXX)
pids=() daemon=()

# Ends our own processes, youngest first: the services still need bus and datastore then.
clean() {
    trap '' INT TERM
    local i tries
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill -TERM "${pids[i]}" 2>/dev/null || continue
        for ((tries = 0; tries < 50; tries++)); do
            kill -0 "${pids[i]}" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "${pids[i]}" 2>/dev/null || true
        wait "${pids[i]}" 2>/dev/null || true
    done
    "$here/lab.sh" down --prefix "$prefix"
    rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start LOG COMMAND…: in the background, to be ended by clean
start() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    pids+=($!)
}

# within SECONDS COMMAND…: tries until the command succeeds
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}

inside() { # NAME COMMAND…: in a namespace of the lab
    ip netns exec "$prefix-$1" "${@:2}"
}

status() { # N [--json]: what the service of node N says of itself
    DBUS_SYSTEM_BUS_ADDRESS=unix:path=$dir/node$1/bus "$bin" status "${@:2}"
}

# The service is up: with a lease, and with its subnet.env written. "degraded" counts, because
# that is what host-gw is for peers behind a router.
ready() {
    [[ -s $dir/node$1/subnet.env ]] &&
        { status "$1" --json 2>/dev/null || true; } | grep -Eiq '"state" *: *"(running|degraded)'
}

ready_or_ended() {
    ready "$1" || ! kill -0 "${daemon[$1]}" 2>/dev/null
}

write_config() {
    local datastore
    if [[ $store == etcd ]]; then
        datastore='type = "etcd"
endpoints = ["http://192.168.1.47:2379"]'
    else
        datastore="type = \"local\"
path = \"$dir/store.json\""
    fi
    cat >"$dir/node$1/config.toml" <<END
[node]
name = "node$1"
interface = "eth0"
subnet = "100.96.$1.0/24"

[datastore]
$datastore

[network]
network = "100.96.0.0/16"
subnet-len = 24

[network.backend]
type = "$backend"

[paths]
state = "$dir/node$1/state"
subnet-env = "$dir/node$1/subnet.env"
docker-env = "$dir/node$1/docker.env"
END
    # one private bus for each node, as each machine has one
    cat >"$dir/node$1/bus.conf" <<END
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=$dir/node$1/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
END
}

start_etcd() {
    start "$dir/etcd.log" ip netns exec "$prefix-node1" etcd --data-dir "$dir/etcd" \
        --listen-client-urls http://192.168.1.47:2379 --advertise-client-urls http://192.168.1.47:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --log-level warn
    within 20 inside node1 bash -c ': </dev/tcp/192.168.1.47/2379' 2>/dev/null || {
        tail "$dir/etcd.log" >&2
        fail "etcd does not answer"
    }
}

start_nodes() {
    local n log
    for n in 1 2 3; do
        mkdir -p "$dir/node$n/state"
        write_config "$n"
        start "$dir/node$n/bus.log" dbus-daemon --nofork --nopidfile --config-file="$dir/node$n/bus.conf"
    done
    for n in 1 2 3; do
        within 10 test -S "$dir/node$n/bus" || fail "no bus for node$n: $(cat "$dir/node$n/bus.log")"
        start "$dir/node$n/daemon.log" ip netns exec "$prefix-node$n" env -u NOTIFY_SOCKET \
            DBUS_SYSTEM_BUS_ADDRESS="unix:path=$dir/node$n/bus" \
            "$bin" daemon --config "$dir/node$n/config.toml"
        daemon[n]=$!
    done
    for n in 1 2 3; do
        log=$dir/node$n/daemon.log
        within 45 ready_or_ended "$n" && ready "$n" && continue
        echo "--- node$n: last lines of its log" >&2
        tail -n 20 "$log" >&2
        echo "--- node$n: flannel-rs status" >&2
        status "$n" >&2 || true
        fail "the service of node$n has ended, or is not ready after 45 seconds"
    done
}

title() {
    printf '\n\033[1m== %s\033[0m\n' "$*"
}

# show COMMAND…: the command as a person would type it, and what it prints
show() {
    echo "\$ ${*:2}"
    ip netns exec "$prefix-$1" "${@:2}" | sed 's/^/  /; s/ addrgenmode .*/ …/; s/ *$//'
}

show_node() {
    local node=node$1
    title "$node"
    echo "\$ flannel-rs status"
    status "$1" | sed 's/^/  /' || true # its exit code says "degraded"
    show "$node" ip -br -4 address
    if [[ $backend == vxlan ]]; then
        show "$node" ip -d link show flannel.1
    fi
    show "$node" ip route
    if [[ $backend == vxlan ]]; then
        show "$node" ip neighbour show dev flannel.1
        show "$node" bridge fdb show dev flannel.1
    fi
}

# Whether this pair of nodes cannot reach each other by design: host-gw needs a shared link.
apart() {
    [[ $backend == host-gw && $shape == routed && $1 != "$2" && ($1 == 3 || $2 == 3) ]]
}

# Each service is ready by itself; that all know of all takes a moment more.
converged() {
    local from to
    for from in 1 2 3; do
        for to in 1 2 3; do
            apart "$from" "$to" || within 20 inside "c$from" ping -qc1 -W1 "${container[$to]}" >/dev/null || return 1
        done
    done
}

round_trip() { # FROM TO: "0.123", or "unreachable"
    local to=${container[$2]} output
    output=$(inside "c$1" ping -q -c5 -i0.1 -W1 "$to" 2>/dev/null) || true
    # rtt min/avg/max/mdev = 0.053/0.061/0.070/0.006 ms
    output=$(sed -n 's|^rtt [^=]*= [^/]*/\([^/]*\)/.*|\1|p' <<<"$output")
    echo "${output:-unreachable}"
}

lost=0
show_round_trips() {
    local from to time
    title "round-trip times between the containers, average in ms"
    printf '  %-22s' 'from \ to'
    for to in 1 2 3; do printf '%16s' "${container[$to]}"; done
    echo
    for from in 1 2 3; do
        printf '  %-22s' "c$from ${container[$from]}"
        for to in 1 2 3; do
            time=$(round_trip "$from" "$to")
            printf '%16s' "$time"
            if [[ $time == unreachable ]] && ! apart "$from" "$to"; then lost=$((lost + 1)); fi
        done
        echo
    done
    if apart 1 3; then
        echo
        echo "host-gw cannot reach node3, which sits behind a router. What the service on node1 says:"
        status 1 | sed 's/^/  /' || true
    fi
}

listening() { # a connection to try it would be the only one that --one-off serves
    [[ -n $(inside c2 ss -Hltn 'sport = :5201') ]]
}

show_throughput() {
    local output
    title "throughput from container 1 to container 2"
    start "$dir/iperf.log" ip netns exec "$prefix-c2" iperf3 --server --one-off
    within 10 listening
    output=$(inside c1 iperf3 --client "${container[2]}" --time 3 --format m 2>&1) || true
    awk '/receiver/ { print "  " $7, $8; seen = 1 } END { exit !seen }' <<<"$output" ||
        fail "iperf3 found no way: $output"
}

title "three nodes, backend $backend, leases in ${store/local/a file}, $shape network"
"$here/lab.sh" up --prefix "$prefix" --shape "$shape"
[[ $store == local ]] || start_etcd
began=$SECONDS
start_nodes
echo "all three services are ready after $((SECONDS - began)) s"

container=('')
for n in 1 2 3; do
    container[n]=$("$here/lab.sh" container "$n" --prefix "$prefix" --subnet-env "$dir/node$n/subnet.env")
done

converged || echo "not all containers reach each other:"
for n in 1 2 3; do show_node "$n"; done
if inside c1 ping -qc1 -W1 "${container[2]}" >/dev/null; then
    title "the path of a packet from container 1 (${container[1]}) to container 2 (${container[2]})"
    "walk_${backend/-/_}"
fi
show_round_trips
((lost == 0)) || fail "$lost pairs of containers do not reach each other"
show_throughput
