//! The service and the journal: what journald gets of a life, and what a journald that hangs
//! does to it. A socket of the test's own stands where journald's is.

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions marked #[test] for tests"
)]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flannel_rs::service::journal::Occasion;
use nix::sys::signal::Signal;

use support::lab::{ETCD, Lab, Shape};
use support::node::Node;
use support::process::until;

#[path = "support/mod.rs"]
mod support;

const SUBNET: &str = "100.96.1.0/24";

/// A socket in journald's place, and what has come in.
struct Journald {
    socket: Option<UnixDatagram>,
    messages: Arc<Mutex<Vec<Vec<u8>>>>,
    done: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Journald {
    /// One that hangs, for the service of `node`.
    fn hung(node: &Node) -> Self {
        let socket = UnixDatagram::bind(node.folder().join("journal")).unwrap();
        let pause = Some(Duration::from_millis(100));
        socket.set_read_timeout(pause).unwrap();
        Self {
            socket: Some(socket),
            messages: Arc::default(),
            done: Arc::default(),
            reader: None,
        }
    }

    /// Reads all from now on.
    fn work(&mut self) {
        let (messages, done) = (self.messages.clone(), self.done.clone());
        let socket = self.socket.take().unwrap();
        self.reader = Some(thread::spawn(move || {
            let mut bytes = vec![0; 1 << 20];
            while !done.load(Ordering::Relaxed) {
                if let Ok(length) = socket.recv(&mut bytes) {
                    messages.lock().unwrap().push(bytes[..length].to_vec());
                }
            }
        }));
    }

    /// The first message with all of these fields; waits for it.
    fn wait_for(&self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut found = None;
        until(&format!("a message with {fields:?}"), || {
            let messages = self.messages.lock().unwrap();
            let has_all = |message: &&Vec<u8>| fields.iter().all(|field| has(message, *field));
            found = messages.iter().find(has_all).cloned();
            found.is_some()
        });
        found.unwrap()
    }

    fn count(&self, field: (&str, &str)) -> usize {
        let messages = self.messages.lock().unwrap();
        messages
            .iter()
            .filter(|message| has(message, field))
            .count()
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

/// Whether a message in journald's native protocol has this field.
fn has(message: &[u8], (name, value): (&str, &str)) -> bool {
    let length = (value.len() as u64).to_le_bytes();
    let parts: [&[u8]; 5] = [name.as_bytes(), b"\n", &length, value.as_bytes(), b"\n"];
    let field = parts.concat();
    message.windows(field.len()).any(|part| part == field)
}

fn is(occasion: Occasion) -> (&'static str, &'static str) {
    ("MESSAGE_ID", occasion.id())
}

/// A node of a lab with an etcd, which logs at this level.
fn node(level: &str) -> Option<(Lab, Node)> {
    let lab = Lab::with_backend(Shape::Flat, r#"{"Type":"host-gw"}"#)?;
    let node = lab.bare_node(1);
    set_level(&node, level);
    Some((lab, node))
}

fn set_level(node: &Node, level: &str) {
    let own = format!("[node]\nname = \"node1\"\nsubnet = \"{SUBNET}\"\n");
    let log = format!("[log]\nlevel = {level:?}\n");
    let datastore = format!("[datastore]\nendpoints = [\"{ETCD}\"]\n");
    node.write_config_with_store(&format!("{own}{log}"), &datastore);
}

/// Starts the service as systemd does, with stderr on the journal; here it is a file.
fn start(node: &mut Node) {
    let folder = node.folder().display().to_string();
    node.start_after(&format!(
        "mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/journal
         ln -s {folder}/journal /run/systemd/journal/socket
         export JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2)"
    ));
}

/// Somebody else changes something of the service's.
fn drift(node: &Node) {
    node.must("ip address del 100.96.1.1/24 dev docker0");
}

#[test]
fn the_journal_is_told_of_a_life_and_of_another_level_at_once() {
    let Some((_lab, mut node)) = node("info") else {
        return;
    };
    let mut journald = Journald::hung(&node);
    journald.work();
    start(&mut node);
    node.wait_until_ready();
    let (info, subnet) = (("PRIORITY", "6"), ("SUBNET", SUBNET));
    let public_ip = ("PUBLIC_IP", "192.168.1.47");
    journald.wait_for(&[
        is(Occasion::Started),
        info,
        ("VERSION", env!("CARGO_PKG_VERSION")),
    ]);
    journald.wait_for(&[
        is(Occasion::UplinkChanged),
        info,
        public_ip,
        ("ADDRESS", "192.168.1.47"),
    ]);
    journald.wait_for(&[
        is(Occasion::NetworkChanged),
        info,
        ("NETWORK", "100.96.0.0/16"),
    ]);
    journald.wait_for(&[is(Occasion::LeaseAcquired), info, subnet, public_ip]);
    journald.wait_for(&[is(Occasion::Ready), info, subnet, ("BACKEND", "host-gw")]);
    assert_eq!(journald.count(("PRIORITY", "7")), 0);

    set_level(&node, "debug");
    node.signal(Signal::SIGHUP);
    journald.wait_for(&[is(Occasion::LogLevelChanged), info, ("LEVEL", "debug")]);
    journald.wait_for(&[is(Occasion::Reloaded), info]);
    drift(&node);
    journald.wait_for(&[is(Occasion::DriftRepaired), info, ("CHANGES", "1")]);
    journald.wait_for(&[
        ("PRIORITY", "7"),
        (
            "MESSAGE",
            "applied change=\"add address 100.96.1.1/24 dev docker0\"",
        ),
    ]);

    set_level(&node, "debugg");
    node.signal(Signal::SIGHUP);
    journald.wait_for(&[
        is(Occasion::ReloadRefused),
        ("PRIORITY", "4"),
        ("FAULT", "config"),
    ]);
    assert_eq!(journald.count(is(Occasion::Reloaded)), 1);

    // the last line is not lost, and nothing went anywhere else
    assert_eq!(node.stop(), Some(0));
    journald.wait_for(&[is(Occasion::Stopping), info, subnet]);
    assert_eq!(node.log(), "");
}

#[test]
fn a_journal_that_hangs_does_not_hold_up_the_service() {
    let Some((_lab, mut node)) = node("trace,flannel_rs=trace") else {
        return;
    };
    let mut journald = Journald::hung(&node);
    start(&mut node);
    node.wait_until_ready();
    // far more lines than there is room for, and all the same everything is done
    for number in 0..50 {
        node.signal(Signal::SIGHUP);
        until("the reload ends", || node.told("READY=1") > 1 + number);
    }
    drift(&node);
    node.wait_for("ip -4 address show dev docker0", "100.96.1.1/24");
    journald.work();
    let lost = journald.wait_for(&[is(Occasion::LinesLost), ("PRIORITY", "4")]);
    assert!(lost.windows(6).any(|part| part == b"LINES\n"));
    // from here on all is told again
    drift(&node);
    journald.wait_for(&[is(Occasion::DriftRepaired)]);
    assert_eq!(node.stop(), Some(0));
    journald.wait_for(&[is(Occasion::Stopping)]);
}

#[test]
fn nobody_waits_for_a_journal_that_hangs_when_the_service_stops() {
    let Some((_lab, mut node)) = node("info") else {
        return;
    };
    let _journald = Journald::hung(&node);
    // with room for no line at all
    let full = UnixDatagram::unbound().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send_to(b"", node.folder().join("journal")).is_ok() {}
    start(&mut node);
    node.wait_until_ready();
    assert_eq!(node.stop(), Some(0));
    assert_eq!(fs::read_to_string(node.folder().join("log")).unwrap(), "");
}
