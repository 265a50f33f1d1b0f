//! Network namespaces that live as long as a thread: nothing is left behind, however a test ends.

use std::any::Any;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::gettid;

use super::super::counters::Counters;
use super::super::table::Table;
use super::super::{Proxy, ProxyError, Settings, Tuning};

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
pub(super) struct Namespace {
    jobs: Sender<Job>,
    thread: i32,
}

impl Namespace {
    /// `None`, with a message, where the system refuses.
    fn new() -> Option<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, outcome) = mpsc::channel();
        thread::spawn(move || {
            let entered = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid().as_raw());
            ready.send(entered).unwrap();
            inbox.into_iter().for_each(|job| job());
        });
        match outcome.recv().unwrap() {
            Ok(thread) => Some(Self { jobs, thread }),
            Err(errno) => {
                eprintln!("skipped: cannot make a network namespace: {errno}");
                None
            }
        }
    }

    /// Does the work inside; a panic comes out again.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        type Outcome<T> = Result<T, Box<dyn Any + Send>>;
        let (done, outcome) = mpsc::channel::<Outcome<T>>();
        let job = move || {
            let _ = done.send(panic::catch_unwind(AssertUnwindSafe(work)));
        };
        self.jobs.send(Box::new(job)).unwrap();
        match outcome.recv().unwrap() {
            Ok(value) => value,
            Err(payload) => panic::resume_unwind(payload),
        }
    }

    /// Runs a command inside: whether it succeeded, and its output.
    pub(super) fn attempt(&self, line: &str) -> (bool, String) {
        let line = line.to_owned();
        self.run(move || {
            let mut words = line.split_whitespace();
            let program = words.next().unwrap();
            let mut command = Command::new(program);
            command.args(words).stdin(Stdio::null());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let birth = BIRTH.lock().unwrap_or_else(PoisonError::into_inner);
            let child = command.spawn().unwrap();
            drop(birth);
            let output = child.wait_with_output().unwrap();
            let text = [output.stdout, output.stderr].concat();
            (output.status.success(), String::from_utf8(text).unwrap())
        })
    }

    pub(super) fn command(&self, line: &str) -> String {
        let (success, text) = self.attempt(line);
        assert!(success, "{line}: {text}");
        text
    }

    pub(super) fn set(&self, parameter: &str, value: &'static str) {
        let path = format!("/proc/sys/net/{parameter}");
        self.run(move || fs::write(path, value).unwrap());
    }
}

/// A process that is being born holds all our descriptors until it has become another program:
/// meanwhile the port or the device of a dropped proxy seems to be in use.
static BIRTH: Mutex<()> = Mutex::new(());

/// A node: a namespace with an uplink, and a subnet.
pub(super) struct Node {
    pub(super) namespace: Namespace,
    pub(super) public: Ipv4Addr,
    pub(super) base: Ipv4Addr,
    pub(super) tuning: Tuning,
}

/// Two nodes, 192.168.1.47 with 100.96.1.0/24 and 192.168.1.48 with 100.96.2.0/24.
pub(super) fn pair(tuning: Tuning) -> Option<(Node, Node)> {
    let (left, right) = (Namespace::new()?, Namespace::new()?);
    if !fs::exists("/dev/net/tun").unwrap() {
        eprintln!("skipped: there is no /dev/net/tun");
        return None;
    }
    left.command(&format!(
        "ip link add eth0 type veth peer name eth0 netns {}",
        right.thread
    ));
    let node = |namespace: Namespace, number: u8| {
        let public = Ipv4Addr::new(192, 168, 1, 46 + number);
        namespace.command("ip link set lo up");
        namespace.command(&format!("ip address add {public}/24 dev eth0"));
        namespace.command("ip link set eth0 up");
        Node {
            namespace,
            public,
            base: Ipv4Addr::new(100, 96, number, 0),
            tuning,
        }
    };
    let (left, right) = (node(left, 1), node(right, 2));
    // The kernel lets packets out some time after both ends are up, and some more when it is busy
    // (`linkwatch_event`), and holds only a few for a neighbour that it does not know yet.
    eventually("the link carries packets", || {
        left.ping(&format!("-c 1 -W 1 {}", right.public)).0
    });
    Some((left, right))
}

/// Puts a router between two nodes; behind it, towards `right`, packets are at most `mtu` bytes long.
pub(super) fn put_between(left: &Node, right: &Node, mtu: u32) -> Option<Namespace> {
    let router = Namespace::new()?;
    left.namespace.command("ip link delete eth0");
    for (node, other, link, gateway) in [
        (left, right, "left", "10.0.0.1"),
        (right, left, "right", "10.0.0.2"),
    ] {
        let peer = node.namespace.thread;
        for line in [
            &format!("ip link add {link} type veth peer name eth0 netns {peer}"),
            &format!("ip address add {gateway}/32 dev {link}"),
            &format!("ip link set {link} up"),
            &format!("ip route add {} dev {link}", node.public),
        ] {
            router.command(line);
        }
        for line in [
            &format!("ip address add {}/32 dev eth0", node.public),
            "ip link set eth0 up",
            &format!("ip route add {gateway} dev eth0"),
            &format!("ip route add {} via {gateway}", other.public),
        ] {
            node.namespace.command(line);
        }
    }
    router.set("ipv4/ip_forward", "1");
    router.command(&format!("ip link set right mtu {mtu}"));
    right
        .namespace
        .command(&format!("ip link set eth0 mtu {mtu}"));
    Some(router)
}

/// Has what the test knows to be free. A process that is being born lets go of our descriptors a
/// moment after it has become another program, so what a test has closed may still be held.
pub(super) fn insist<T>(mut attempt: impl FnMut() -> Result<T, ProxyError>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(ProxyError::PortInUse { .. } | ProxyError::DeviceBusy { .. })
                if start.elapsed() < PATIENCE =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            outcome => return outcome.unwrap(),
        }
    }
}

impl Node {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            device: "flannel0".to_owned(),
            mtu: MTU,
            bind: SocketAddrV4::new(self.public, PORT),
            verify: None,
            tuning: self.tuning,
        }
    }

    pub(super) fn attach_as(&self, settings: Settings) -> Result<Proxy, ProxyError> {
        self.unobserved(move || Proxy::attach(settings))
    }

    /// Does the work inside while no process is being born.
    pub(super) fn unobserved<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.namespace.run(move || {
            let _birth = BIRTH.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        })
    }

    /// A proxy without a table.
    pub(super) fn attach(&self) -> Proxy {
        insist(|| self.attach_as(self.settings()))
    }

    /// Does to the device what the keeper of the network state does.
    pub(super) fn configure(&self) {
        let base = self.base;
        for line in [
            &format!("ip address add {base}/32 dev flannel0"),
            &format!("ip link set flannel0 mtu {MTU} up"),
            &format!("ip route add 100.96.0.0/16 dev flannel0 src {base}"),
        ] {
            self.namespace.command(line);
        }
    }

    /// A proxy on a configured device that knows the way to one other node.
    pub(super) fn connect(&self, peer: &Self) -> Proxy {
        let proxy = self.attach();
        self.configure();
        proxy.set_table(&peer.table());
        proxy
    }

    /// How the others reach this node.
    pub(super) fn table(&self) -> Table {
        Table::new([(format!("{}/24", self.base).parse().unwrap(), self.public)])
    }

    /// What its kernel says of connections, datagrams and devices, for those who ask why nothing
    /// moves.
    pub(super) fn account(&self) -> String {
        let tables = ["snmp", "netstat", "dev", "softnet_stat"];
        let tables = self.namespace.run(move || {
            let read = |table| fs::read_to_string(format!("/proc/thread-self/net/{table}"));
            tables.map(|table| format!("{table}: {:?}", read(table)))
        });
        let (_, connections) = self.namespace.attempt("ss -tuaniemO");
        format!("{connections}\n{}", tables.join("\n"))
    }

    /// Whether `ping` got all its answers, and what it said.
    pub(super) fn ping(&self, arguments: &str) -> (bool, String) {
        self.namespace.attempt(&format!("ping -n {arguments}"))
    }
}

/// Waits until something has happened, for at most [`PATIENCE`].
#[track_caller]
pub(super) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < PATIENCE, "in vain waited: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until a proxy has counted something, for at most [`PATIENCE`]: workers count what they
/// have done, a while later if others have the processor.
#[track_caller]
pub(super) fn counted(proxy: &Proxy, what: &str, is_counted: impl Fn(&Counters) -> bool) {
    let start = Instant::now();
    loop {
        let counters = proxy.counters();
        if is_counted(&counters) {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "in vain waited for the count of {what}: {counters:?}, {:?}",
            proxy.failure()
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// How many answers `ping` says it got.
pub(super) fn answers(text: &str) -> u32 {
    let before = text.split(" received").next().unwrap();
    before.split(' ').next_back().unwrap().parse().unwrap()
}

/// The socket of a peer, or of somebody who has taken its place.
pub(super) fn peer_socket(node: &Node) -> UdpSocket {
    let address = SocketAddrV4::new(node.public, PORT);
    let socket = node
        .namespace
        .run(move || UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(super) fn raw_socket(protocol: SockProtocol) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(AddressFamily::Inet, SockType::Raw, flags, protocol).unwrap();
    let patience = TimeVal::seconds(30);
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience).unwrap();
    socket
}

/// The next packet of that sender.
pub(super) fn arrival(socket: &OwnedFd, sender: Ipv4Addr) -> Vec<u8> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = socket::recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())
            .map_err(io::Error::from)
            .expect("a packet");
        if buffer[12..16] == sender.octets() {
            return buffer[..length].to_vec();
        }
    }
}

/// A UDP packet with a right header checksum, worked out apart from the code under test.
pub(super) fn udp_packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    payload: &[u8],
) -> Vec<u8> {
    let total = u16::try_from(28 + payload.len()).unwrap().to_be_bytes();
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x45, 0, total[0], total[1], 0x12, 0x34, 0, 0, ttl, 17, 0, 0];
    bytes.extend_from_slice(&source.octets());
    bytes.extend_from_slice(&destination.octets());
    let sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let checksum = u16::try_from(0xffff - sum % 0xffff).unwrap();
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    bytes.extend_from_slice(&[0x30, 0x39, 0, 9, length[0], length[1], 0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Each packet by itself.
pub(super) const PLAIN: Tuning = Tuning {
    offload: false,
    port_per_flow: false,
};

/// Runs each test once in each mode.
macro_rules! in_both_modes {
    ($($test:ident),* $(,)?) => {
        mod plain {
            $(#[test]
            fn $test() {
                super::$test(super::lab::PLAIN);
            })*
        }

        mod offload {
            $(#[test]
            fn $test() {
                super::$test(crate::proxy::Tuning::default());
            })*
        }
    };
}
pub(super) use in_both_modes;

/// How long to wait for what takes moments on an idle machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const PORT: u16 = 8285;
const MTU: u32 = 1472;
