#!/usr/bin/env bash
# root.sh SUITE DIR: a small Debian that boots, with what a node of the lab needs, by mmdebstrap.
set -euo pipefail

packages=(
    systemd systemd-sysv udev dbus polkitd pkexec libnss-systemd kmod procps
    iproute2 iputils-ping netcat-openbsd iperf3 tcpdump
    etcd-server etcd-client busybox-static
)

build() { # SUITE DIR
    local path includes leave_out=()
    for path in man doc locale info; do
        leave_out+=("--dpkgopt=path-exclude=/usr/share/$path/*")
    done
    includes=$(IFS=,; echo "${packages[*]}")
    nice mmdebstrap --quiet --variant=minbase --include="$includes" \
        --aptopt='APT::Install-Recommends "false"' "${leave_out[@]}" \
        --customize-hook="$(realpath "$0") prepare \"\$1\"" "$1" "$2"
}

# Only the base system starts by itself; what a scenario needs is enabled for its nodes.
prepare() { # DIR
    cd "$1"
    rm -f etc/systemd/system/timers.target.wants/*
    rm -f etc/systemd/system/*.wants/{etcd,e2scrub_reap,systemd-pstore}.*
    # it waits for two minutes where networkd manages nothing
    ln -sf /dev/null etc/systemd/system/systemd-networkd-wait-online.service
    # udev makes it so on a real host; nspawn has no udev
    echo 'c! /dev/net/tun 0666 root root - 10:200' >etc/tmpfiles.d/lab-tun.conf
    # boots before the last one stay readable
    mkdir -p var/log/journal
    chroot . useradd --create-home --shell /bin/bash visitor
    rm -f etc/hostname etc/resolv.conf
    : >etc/machine-id
}

if [[ $1 == prepare ]]; then
    prepare "$2"
else
    build "$1" "$2"
fi
