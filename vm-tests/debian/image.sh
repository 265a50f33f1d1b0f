#!/usr/bin/env bash
# image.sh ROOT OUT: OUT/{vmlinuz,initrd,disk} for an emulated machine, from a root that is mounted.
# The kernel is the host's suite's, fetched by apt; no loop device and no mount is needed.
set -euo pipefail

root=$1 out=$2
stage=$out/stage first=$out/first

# What a test does not need and an emulated processor feels.
idle=(
    serial-getty@{hvc0,ttyS0}.service getty@tty1.service
    modprobe@{configfs,dm_mod,drm,efi_pstore,fuse,loop}.service kmod-static-nodes.service
    systemd-{pstore,boot-system-token,update-utmp,update-utmp-runlevel}.service
    dev-hugepages.mount dev-mqueue.mount sys-kernel-{debug,tracing,config}.mount
    sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount
)

fetch_kernel() {
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^  Depends: //p')
    (cd "$out" && apt-get download -q "$package" >/dev/null)
    mkdir "$stage/kernel"
    dpkg-deb -x "$out/$package"_*.deb "$stage/kernel"
    rm "$out/$package"_*.deb
    release=$(basename "$stage"/kernel/lib/modules/*)
    cp "$stage/kernel/boot/vmlinuz-$release" "$out/vmlinuz"
    mkdir -p "$stage/usr/lib/modules"
    mv "$stage/kernel/lib/modules/$release" "$stage/usr/lib/modules/"
    rm -r "$stage/kernel"
    chroot "$stage" depmod "$release"
}

# A root shell on the virtio console, as in the NixOS test driver.
add_shell() {
    cat >"$stage/etc/systemd/system/lab-shell.service" <<'END'
[Unit]
DefaultDependencies=no
After=dbus.socket
Conflicts=shutdown.target
[Service]
ExecStart=/bin/sh -c 'exec <>/dev/hvc0 >&0 2>&1; stty raw -echo; echo LAB-SHELL; exec bash --norc 2>/dev/null'
Restart=always
KillSignal=SIGHUP
END
    ln -sf ../lab-shell.service "$stage/etc/systemd/system/multi-user.target.wants/"
}

settle_units() {
    local unit
    for unit in "${idle[@]}"; do
        ln -sf /dev/null "$stage/etc/systemd/system/$unit"
    done
    # nspawn makes the device anew; here udev does
    rm "$stage/etc/tmpfiles.d/lab-tun.conf"
}

# Loads what disk and network card need, names the card, lays the node's own files over the disk.
add_first_stage() {
    local module number=10
    mkdir -p "$first"/{bin,proc,sys,dev,new}
    cp "$stage/bin/busybox" "$first/bin/"
    for module in $(for name in virtio_{pci,blk,net,console}; do
        chroot "$stage" modprobe --set-version "$release" --show-depends "$name"
    done | awk '$1 == "insmod" && !seen[$2]++ {print $2}'); do
        cp "$stage/$module" "$first/$number-$(basename "$module")"
        number=$((number + 1))
    done
    cat >"$first/init" <<'END'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in /*.ko; do $b insmod $module; done
for word in $($b cat /proc/cmdline); do
    case $word in lab.*) eval "${word#lab.}" ;; esac
done
$b ip link set eth0 name eth1
$b ifconfig lo 127.0.0.1 up
$b ip address add "$address/24" dev eth1
$b ip link set eth1 up
$b ip route add default via "$gateway"
until $b mount -t ext4 /dev/vda /new 2>/dev/null; do $b usleep 20000; done
if [ ! -e /new/etc/seeded ]; then
    cd /seed
    $b find . -type d | while read -r d; do $b mkdir -p "/new/$d"; done
    $b find . ! -type d | while read -r f; do $b cp -dp "$f" "/new/$f"; done
    : >/new/etc/seeded
    cd /
fi
$b hostname "$($b cat /new/etc/hostname)"
$b mount --move /dev /new/dev
$b umount /sys /proc
exec $b switch_root /new /sbin/init
END
    chmod +x "$first/init"
    (cd "$first" && find . | cpio --quiet -o -H newc) | gzip -1 >"$out/initrd"
}

cp -a "$root" "$stage"
fetch_kernel
add_shell
settle_units
add_first_stage
truncate -s 2G "$out/disk"
mke2fs -q -t ext4 -O '^has_journal,^metadata_csum' -E root_owner=0:0,lazy_itable_init=1 -m 0 \
    -d "$stage" "$out/disk"
rm -rf "$stage" "$first"
