#!/usr/bin/env bash
# docker.sh ROOT OUT: OUT/upper, what the installation of Docker, iptables, nft and firewalld changes in a root.
# Whoever calls it has a mount namespace for it alone.
set -euo pipefail

root=$1 out=$2
packages=(docker.io iptables nftables firewalld)

mount -t overlay -o "lowerdir=$root,upperdir=$out/upper,workdir=$out/work" overlay "$out/root"
cd "$out/root"
mount -t proc proc proc
# what only apt needs
for folder in run var/lib/apt/lists var/cache/apt; do
    mount -t tmpfs tmpfs "$folder"
done
: >etc/resolv.conf
mount --bind /etc/resolv.conf etc/resolv.conf

export DEBIAN_FRONTEND=noninteractive
chroot . apt-get update -q
# newer releases have the client in a package of its own
if chroot . apt-cache show docker-cli >/dev/null 2>&1; then
    packages+=(docker-cli)
fi
nice chroot . apt-get install -qy --no-install-recommends "${packages[@]}"

# as in root.sh: what a scenario needs is enabled for its nodes
rm -f etc/systemd/system/*.wants/{docker,containerd,firewalld,nftables}.* etc/systemd/system/dbus-org.fedoraproject.*
umount etc/resolv.conf
rm etc/resolv.conf

# What a scenario calls for an image, as there is no registry.
cat >usr/local/bin/load-busybox <<'END'
#!/bin/sh
set -e
tree=$(mktemp -d)
mkdir "$tree/bin"
cp /bin/busybox "$tree/bin"
ln -s busybox "$tree/bin/sleep"
tar -C "$tree" -c . | docker import - busybox
rm -r "$tree"
END
chmod 755 usr/local/bin/load-busybox
