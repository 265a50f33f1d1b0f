//! Three nodes in network namespaces, each with a service of its own, on a real etcd.
//!
//! Uses `examples/lab/lab.sh`, so what the tests run on is what people can run. Everything goes
//! with the [`Lab`], also when a test fails.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

use super::node::Node;
use super::process::{Pings, end, inside, must, pid, shown, until};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/lab/lab.sh");
/// Where the lab's etcd listens: on the router, which all nodes reach in both shapes.
pub const ETCD: &str = "http://192.168.1.1:2379";
/// Where flanneld keeps its things in etcd.
const PREFIX: &str = "/coreos.com/network";
/// How many labs stand at once: a test mostly waits, but what it waits for needs the processor.
const LABS: u32 = 3;

/// The lab. Dropping it ends all its processes and removes all its namespaces.
pub struct Lab {
    prefix: String,
    folder: TempDir,
    etcd: Option<Child>,
    _turn: Turn,
}

/// How the nodes are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// All on one link.
    Flat,
    /// node3 behind a router.
    Routed,
}

/// An entry of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its value.
    pub value: String,
    /// When it was last written.
    pub revision: i64,
    /// How long it still lives, in seconds; `None` if it never expires.
    pub ttl: Option<i64>,
}

impl Lab {
    /// Makes the namespaces, or says why not and answers `None`: the test is to be skipped then.
    pub fn new(shape: Shape) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if let Some(reason) = refusal() {
            eprintln!("skipped: {reason}");
            return None;
        }
        let turn = Turn::wait();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("t{}-{count}", std::process::id());
        let shape = match shape {
            Shape::Flat => "flat",
            Shape::Routed => "routed",
        };
        let lab = Self {
            prefix,
            folder: TempDir::new().unwrap(),
            etcd: None,
            _turn: turn,
        };
        let made = lab.script(&["up", "--shape", shape]);
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        Some(lab)
    }

    /// A lab with a running etcd that holds the network `100.96.0.0/16` with this backend, such
    /// as `{"Type":"vxlan"}`.
    pub fn with_backend(shape: Shape, backend: &str) -> Option<Self> {
        let mut lab = Self::new(shape)?;
        lab.start_etcd();
        lab.set_backend(backend);
        Some(lab)
    }

    fn script(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(SCRIPT);
        command.args(arguments).args(["--prefix", &self.prefix]);
        command.output().expect("bash runs lab.sh")
    }

    /// The namespace `net`, `node1` or `c1`.
    pub fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A place for files of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts etcd on the router, on the data of the one before if there was one, and waits
    /// until it answers.
    pub fn start_etcd(&mut self) {
        let log = File::create(self.folder.path().join("etcd.log")).unwrap();
        let mut command = inside(&self.namespace("net"), "etcd");
        command.args([
            "--data-dir".as_ref(),
            self.folder.path().join("etcd").as_os_str(),
        ]);
        command.args([
            "--listen-client-urls",
            ETCD,
            "--advertise-client-urls",
            ETCD,
        ]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
        command.args(["--unsafe-no-fsync", "--logger=zap"]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.etcd = Some(
            command
                .spawn()
                .expect("etcd is installed (Debian: etcd-server)"),
        );
        until("etcd answers", || {
            self.try_etcdctl(&["get", "x"]).status.success()
        });
    }

    /// Ends etcd as a power cut would.
    pub fn kill_etcd(&mut self) {
        end(self.etcd.take());
    }

    /// Sends a signal to etcd.
    pub fn signal_etcd(&self, signal: Signal) {
        let etcd = self.etcd.as_ref().expect("a running etcd");
        kill(pid(etcd), signal).unwrap();
    }

    /// Runs `etcdctl` and answers what it prints.
    pub fn etcdctl(&self, arguments: &[&str]) -> String {
        let output = self.try_etcdctl(arguments);
        assert!(output.status.success(), "etcdctl {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn try_etcdctl(&self, arguments: &[&str]) -> Output {
        let mut command = inside(&self.namespace("net"), "etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(ETCD);
        command
            .args(["--dial-timeout=2s", "--command-timeout=3s"])
            .args(arguments);
        command
            .output()
            .expect("etcdctl is installed (Debian: etcd-client)")
    }

    /// Writes the network config.
    pub fn configure(&self, json: &str) {
        self.etcdctl(&["put", &format!("{PREFIX}/config"), json]);
    }

    /// Writes the network config with the network `100.96.0.0/16` and this backend.
    pub fn set_backend(&self, backend: &str) {
        self.configure(&format!(
            r#"{{"Network":"100.96.0.0/16","Backend":{backend}}}"#
        ));
    }

    /// The keys of all leases, such as `100.96.1.0-24`, in order.
    pub fn leases(&self) -> Vec<String> {
        let prefix = format!("{PREFIX}/subnets/");
        let keys = self.etcdctl(&["get", "--prefix", "--keys-only", &prefix]);
        keys.lines()
            .filter_map(|key| key.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect()
    }

    /// The entry of a lease.
    pub fn lease(&self, key: &str) -> Option<Entry> {
        let key = format!("{PREFIX}/subnets/{key}");
        let json = self.etcdctl(&["get", &key, "--write-out=json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let found = json.get("kvs")?.get(0)?;
        let value = self.etcdctl(&["get", &key, "--print-value-only"]);
        let ttl = found.get("lease").map(|id| {
            let id = format!("{:x}", id.as_i64().unwrap());
            let json = self.etcdctl(&["lease", "timetolive", &id, "--write-out=json"]);
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            json["ttl"].as_i64().unwrap()
        });
        let revision = found["mod_revision"].as_i64().unwrap();
        Some(Entry {
            value: value.trim_end().to_owned(),
            revision,
            ttl,
        })
    }

    /// Writes a lease as another member of the cluster would: for ten minutes, or as a
    /// reservation for ever.
    pub fn write_lease(&self, key: &str, value: &str, reservation: bool) {
        let key = format!("{PREFIX}/subnets/{key}");
        if reservation {
            self.etcdctl(&["put", &key, value]);
            return;
        }
        self.put_with_lease(&key, value, Duration::from_secs(600));
    }

    /// Writes a lease that lives for a while.
    pub fn write_lease_for(&self, key: &str, value: &str, ttl: Duration) {
        self.put_with_lease(&format!("{PREFIX}/subnets/{key}"), value, ttl);
    }

    fn put_with_lease(&self, key: &str, value: &str, ttl: Duration) {
        // "lease 694d8d1b5ae1b10a granted with TTL(600s)"
        let granted = self.etcdctl(&["lease", "grant", &ttl.as_secs().to_string()]);
        let id = granted.split_whitespace().nth(1).unwrap();
        self.etcdctl(&["put", key, value, &format!("--lease={id}")]);
    }

    /// Deletes a lease.
    pub fn delete_lease(&self, key: &str) {
        let deleted = self.etcdctl(&["del", &format!("{PREFIX}/subnets/{key}")]);
        assert_eq!(deleted.trim(), "1", "no lease {key}");
    }

    /// A node that asks for its subnet of the documents, 100.96.N.0/24, and is not started yet.
    pub fn node(&self, number: u32) -> Node {
        let node = self.bare_node(number);
        let subnet = format!("100.96.{number}.0/24");
        node.write_config(&format!(
            "[node]\nname = \"node{number}\"\nsubnet = \"{subnet}\"\n"
        ));
        node
    }

    /// A node without a config.
    pub fn bare_node(&self, number: u32) -> Node {
        let folder = self.folder.path().join(format!("node{number}"));
        Node::new(number, self.namespace(&format!("node{number}")), folder)
    }

    /// All three nodes, started and ready, each with a container behind its bridge.
    pub fn start_all(&self) -> [Node; 3] {
        let mut nodes = [1, 2, 3].map(|number| self.node(number));
        for node in &mut nodes {
            node.start();
        }
        for node in &mut nodes {
            node.wait_until_ready();
            self.container(node);
        }
        nodes
    }

    /// Puts a container behind the bridge of a node that is ready; its namespace is `cN`.
    pub fn container(&self, node: &Node) {
        let subnet_env = node.folder().join("subnet.env");
        let number = node.number.to_string();
        let arguments = [
            "container",
            &number,
            "--subnet-env",
            subnet_env.to_str().unwrap(),
        ];
        let made = self.script(&arguments);
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
    }

    /// Whether the container `from` gets an answer from the container of node `to`.
    pub fn reaches(&self, from: u32, to: u32) -> bool {
        let address = format!("100.96.{to}.2");
        let mut ping = inside(&self.namespace(&format!("c{from}")), "ping");
        ping.args(["-c", "1", "-W", "1", &address])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        ping.status().unwrap().success()
    }

    /// Waits until every container reaches every other.
    pub fn wait_until_connected(&self) {
        for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
            let what = format!("container {from} reaches container {to}");
            until(&what, || self.reaches(from, to));
        }
    }

    /// What a command prints in a namespace of the lab.
    pub fn shown(&self, name: &str, command: &str) -> String {
        shown(&self.namespace(name), command)
    }

    /// Runs shell commands in a namespace of the lab, which must succeed.
    pub fn must(&self, name: &str, script: &str) -> String {
        must(&self.namespace(name), script)
    }

    /// Starts pings from container `from` to the container of node `to`.
    pub fn ping(&self, from: u32, to: u32) -> Pings {
        let output = self.folder.path().join(format!("pings-{from}-{to}"));
        Pings::start(
            &self.namespace(&format!("c{from}")),
            &format!("100.96.{to}.2"),
            output,
        )
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill_etcd();
        let removed = self.script(&["down"]);
        if !removed.status.success() {
            eprintln!("lab.sh down: {}", String::from_utf8_lossy(&removed.stderr));
        }
    }
}

/// Why there can be no lab here.
fn refusal() -> Option<String> {
    static PROBES: AtomicU32 = AtomicU32::new(0);
    let count = PROBES.fetch_add(1, Ordering::Relaxed);
    let probe = format!("t{}-probe{count}", std::process::id());
    let netns = |verb| Command::new("ip").args(["netns", verb, &probe]).output();
    let made = netns("add").is_ok_and(|output| output.status.success());
    if !made {
        return Some("this needs root, iproute2 and network namespaces".to_owned());
    }
    let _ = netns("delete");
    let missing = ["etcd", "etcdctl", "setpriv", "ping", "bridge"]
        .into_iter()
        .find(|program| {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .output();
            !found.is_ok_and(|output| output.status.success())
        });
    missing.map(|program| format!("this needs the program {program}"))
}

/// The right to have a lab, one of [`LABS`].
struct Turn;

static TURNS: Mutex<u32> = Mutex::new(LABS);
static TURN_OVER: Condvar = Condvar::new();

impl Turn {
    fn wait() -> Self {
        let turns = TURNS.lock().unwrap();
        let mut turns = TURN_OVER.wait_while(turns, |turns| *turns == 0).unwrap();
        *turns -= 1;
        Self
    }
}

/// Lets this many more labs stand at once, for labs that mostly stand idle.
pub fn make_room(labs: u32) {
    *TURNS.lock().unwrap() += labs;
    TURN_OVER.notify_all();
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TURNS.lock().unwrap() += 1;
        TURN_OVER.notify_one();
    }
}
