//! Interfaces, ports, devices and rights that are not as the service needs them.

use std::fs::{self, File, Permissions};
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Output};
use std::thread;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::unistd::{Uid, setfsuid};

use crate::support::lab::{Lab, Shape};
use crate::support::process::inside;
use crate::{UDP, VXLAN};

#[test]
fn it_waits_for_its_interface() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    node.write_config("[node]\ninterface = \"eth7\"\n");
    node.start();
    node.wait_for_status("waiting; uplink: no interface named \"eth7\"; there are eth0");
    node.must(
        "ip link add eth7 type veth peer name eth8
         ip address add 192.168.7.1/24 dev eth7
         ip link set eth8 up; ip link set eth7 up",
    );
    node.wait_until_ready();
    assert!(
        node.shown("ip -d link show dev flannel.1")
            .contains("dev eth7")
    );
}

#[test]
fn it_waits_for_a_default_route_and_bears_its_loss() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    node.must("ip route delete default");
    node.start();
    let line =
        node.wait_for_status("waiting; uplink: no default route: set node.interface to one of ");
    assert!(line.contains("eth0"), "{line}");
    node.must("ip route add default via 192.168.1.1");
    node.wait_until_ready();
    node.wait_for_status("datastore ok");
    let rows = node.rows();
    node.must("ip route delete default");
    node.wait_for_status(
        "100.96.1.0/24 vxlan, 0 of 0 peers, lease 23h59m, uplink: no default route",
    );
    assert_eq!(node.rows(), rows);
}

#[test]
fn a_udp_port_in_use_is_named_and_taken_once_free() {
    let Some(lab) = Lab::with_backend(Shape::Flat, UDP) else {
        return;
    };
    let other = socket_in(&lab.namespace("node1"), "0.0.0.0:8285");
    let mut node = lab.node(1);
    node.start();
    node.wait_for_status(
        "waiting; proxy: udp 192.168.1.47:8285 is in use: another program has bound port 8285, \
         perhaps a flanneld that still runs; stop it or choose another port for the cluster",
    );
    assert!(node.is_running());
    assert_eq!(
        node.subnet_env(),
        "",
        "told others of a network that is not there"
    );
    drop(other);
    node.wait_until_ready();
    node.wait_for_status("datastore ok");
}

#[test]
fn a_vxlan_device_with_our_identifier_is_named_and_left_alone() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    node.must("ip link add theirs type vxlan id 1 dstport 8472 dev eth0; ip link set theirs up");
    node.start();
    let line = node.wait_for_status("A VXLAN device with the specified VNI already exists");
    assert!(
        line.starts_with("waiting; kernel: add link flannel.1 vxlan vni 1 "),
        "{line}"
    );
    node.must("ip link show theirs && ip link delete theirs");
    node.wait_until_ready();
    node.wait_for_status("datastore ok");
}

#[test]
fn somebody_elses_flannel_1_is_told_and_not_deleted() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    node.must("ip link add flannel.1 type veth peer name other");
    node.start();
    let line = node.wait_for_status("waiting; foreign-link: flannel.1 should be \"vxlan");
    let end = "but is \"veth\", not made by us: remove or rename it";
    assert!(line.ends_with(end), "{line}");
    assert!(node.shown("ip -d link show flannel.1").contains("veth"));
    node.must("ip link delete flannel.1");
    node.wait_until_ready();
    node.wait_for_status("datastore ok");
}

#[test]
fn without_cap_net_admin_it_says_so_and_ends() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let node = lab.node(1);
    let program = lab.folder().join("flannel-rs");
    fs::copy(env!("CARGO_BIN_EXE_flannel-rs"), &program).unwrap();
    for folder in [lab.folder(), node.folder()] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
    }
    let root = "--bounding-set=-net_admin --inh-caps=-net_admin";
    let nobody = "--reuid=65534 --regid=65534 --clear-groups";
    for identity in [root, nobody] {
        let mut command = inside(&lab.namespace("node1"), "timeout");
        command
            .args(["30", "setpriv"])
            .args(identity.split(' '))
            .arg(&program);
        command.arg("daemon").arg("--config").arg(node.config());
        let (code, text) = ended(&mut command);
        assert_eq!(
            text,
            "cannot set up the network without CAP_NET_ADMIN; start the service by systemd or as \
             root\n"
        );
        assert_eq!(code, Some(77));
    }
    assert_eq!(lab.leases(), Vec::<String>::new());
}

#[test]
fn without_a_tun_device_it_waits_where_it_needs_one() {
    let Some(lab) = Lab::with_backend(Shape::Flat, UDP) else {
        return;
    };
    let mut node = lab.node(1);
    let hide = "mount -t tmpfs none /dev/net";
    node.start_after(hide);
    node.wait_for_status(
        "waiting; proxy: cannot open /dev/net/tun: No such file or directory (os error 2); load \
         the tun module (modprobe tun) or let this container or service have the device",
    );
    assert!(node.is_running());
    node.beside("umount /dev/net");
    node.wait_until_ready();
    node.wait_for_status("datastore ok");

    node.kill();
    lab.set_backend(VXLAN);
    node.start_after(hide);
    node.wait_until_ready();
    node.wait_for_status("100.96.1.0/24 vxlan, 0 of 0 peers, lease 23h59m, datastore ok");
}

#[test]
fn a_second_service_on_one_host_ends_at_once() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    node.start();
    node.wait_until_ready();
    let config = node.config();
    let (code, stdout, stderr) = node.program(&["daemon", "--config", config.to_str().unwrap()]);
    assert_eq!(
        stderr,
        "flannel-rs is already running in this network namespace; two would fight over its links\n"
    );
    assert_eq!((code, stdout.as_str()), (Some(75), ""));
    assert!(node.is_running());
}

/// Abstract names are anybody's. Those who take the lock's must not keep the service from
/// starting, nor have it wait for them.
#[test]
fn a_squatter_neither_stops_nor_delays_the_service() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    let _squat = beside_as_nobody(&lab.namespace("node1"), || {
        let datagrams = UnixDatagram::bind_addr(&lock()).unwrap();
        // one that takes no connection, and has no room for another
        let (listener, client) = (stream(), stream());
        let address = UnixAddr::new_abstract(LOCK.as_bytes()).unwrap();
        bind(listener.as_raw_fd(), &address).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        connect(client.as_raw_fd(), &address).unwrap();
        (datagrams, listener, client)
    });
    node.start();
    node.wait_until_ready();
    assert!(
        node.log()
            .contains("some other program holds the abstract socket @flannel-rs"),
        "{}",
        node.log()
    );
}

#[test]
fn nobody_can_crowd_the_lock_of_a_running_service() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    node.start();
    node.wait_until_ready();
    let _crowd = beside_as_nobody(&lab.namespace("node1"), || {
        let address = UnixAddr::new_abstract(LOCK.as_bytes()).unwrap();
        let client = || {
            let client = stream();
            fcntl(&client, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
            client
        };
        // until there is no more room, where there is any: a backlog keeps those who have left
        let refused = |_| connect(client().as_raw_fd(), &address).is_err();
        assert!((0..100_000).any(refused), "the backlog has no end");
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        while sender.send_to_addr(b"x", &lock()).is_ok() {}
        sender
    });
    let config = node.config();
    let config = config.to_str().unwrap();
    for arguments in [
        ["daemon", "--config", config].as_slice(),
        &["cleanup", "--yes", "--config", config],
    ] {
        let (code, _, stderr) = node.program(arguments);
        assert_eq!(code, Some(75), "{arguments:?}: {stderr}");
    }
    assert!(node.is_running());
}

const LOCK: &str = "flannel-rs";

fn lock() -> SocketAddr {
    SocketAddr::from_abstract_name(LOCK).unwrap()
}

fn stream() -> OwnedFd {
    let (family, kind) = (AddressFamily::Unix, SockType::Stream);
    socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

/// What the user nobody makes in a network namespace. A thread becomes that user, as far as
/// files and sockets go, for itself alone.
fn beside_as_nobody<T: Send + 'static>(
    namespace: &str,
    make: impl FnOnce() -> T + Send + 'static,
) -> T {
    let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
    let made = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        setfsuid(Uid::from_raw(65534));
        make()
    });
    made.join().unwrap()
}

fn ended(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

/// A socket in a network namespace. A thread enters it, because there is no way back.
fn socket_in(namespace: &str, address: &str) -> UdpSocket {
    let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
    let address = address.to_owned();
    let bound = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        UdpSocket::bind(address).unwrap()
    });
    bound.join().unwrap()
}
