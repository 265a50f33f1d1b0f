//! What is watched over time: `status --wait` and `monitor`, while service and bus come and go.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use flannel_rs::service::status::{Fault, State, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::fake::{Fake, command, run};
use crate::support::bus::PrivateBus;
use crate::support::process::PATIENCE;
use crate::support::served::{self, Node, status};

/// A running program and what it prints.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(bus: &PrivateBus, arguments: &[&str]) -> Self {
        let mut command = command(bus, arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    /// The next line, without its time.
    fn next(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE).expect("a line");
        let (time, text) = line.split_once("  ").unwrap();
        assert!(time.ends_with('Z') && time.len() == 20, "{line}");
        text.to_owned()
    }

    fn expect(&self, expected: &str) {
        let line = self.next();
        assert!(line.starts_with(expected), "{line:?} is not {expected:?}");
    }

    fn end(&mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_monitor_tells_each_change_in_a_line() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let mut watch = Watch::start(&node.bus, &["monitor"]);
    watch.expect("connected  node1 is running, 100.96.1.0/24, peers: 2, version 0.1.0");
    node.change(|status| {
        status.state = State::Degraded;
        status.faults = vec![Fault {
            code: "datastore".to_owned(),
            text: "etcd is away".to_owned(),
            times: 1,
        }];
    });
    watch.expect("state      running -> degraded");
    watch.expect("fault      datastore: etcd is away");
    node.change(|now| {
        *now = status();
        let peers = std::sync::Arc::make_mut(&mut now.peers);
        peers.push(served::peer(4));
    });
    watch.expect("state      degraded -> running");
    watch.expect("cleared    datastore");
    watch.expect("peer       + 100.96.4.0/24 192.168.1.50 vxlan");
    assert_eq!(watch.end(Signal::SIGINT), Some(0));
    assert_eq!(watch.lines.try_recv().ok(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_monitor_goes_on_over_restarts_of_service_and_bus() {
    let Some(mut bus) = PrivateBus::stopped() else {
        return;
    };
    let mut watch = Watch::start(&bus, &["monitor"]);
    watch.expect("gone       there is no system bus: ");
    bus.run();
    watch.expect("gone       flannel-rs is not running: ");
    let fake = Fake::obliging(&bus, &status()).await;
    watch.expect("connected  node1 is running");
    fake.stop().await;
    watch.expect("gone       flannel-rs is not running: ");
    let changed = Status {
        subnet: Some("100.96.9.0/24".to_owned()),
        ..status()
    };
    let fake = Fake::obliging(&bus, &changed).await;
    watch.expect("connected  node1 is running, 100.96.9.0/24");
    watch.expect("changed    subnet 100.96.1.0/24 -> 100.96.9.0/24");
    bus.kill();
    watch.expect("gone       there is no system bus: ");
    drop(fake);
    let mut line = String::new();
    bus.run();
    let fake = Fake::obliging(&bus, &changed).await;
    // whether it sees the bus without the service is a matter of time
    while !line.starts_with("connected") {
        assert!(line.is_empty() || line.starts_with("gone"), "{line}");
        line = watch.next();
    }
    let changes = vec![("add", "link flannel.1"), ("write", "file\n/x")];
    fake.emit("DriftRepaired", &changes).await;
    watch.expect("repaired   add link flannel.1");
    watch.expect("repaired   write file\u{fffd}/x");
    fake.emit("SubnetConflict", &("100.96.9.0/24", "192.168.1.49"))
        .await;
    watch.expect("conflict   100.96.9.0/24 is held by 192.168.1.49");
    assert_eq!(watch.end(Signal::SIGINT), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_monitor_believes_only_the_service() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let fake = Fake::obliging(&bus, &status()).await;
    let watch = Watch::start(&bus, &["monitor"]);
    watch.expect("connected  ");
    let liar = served::connect(&bus).await;
    let told = [("forged", "change")].as_slice();
    let names = zbus::fdo::DBusProxy::new(&liar).await.unwrap();
    for name in names.list_names().await.unwrap() {
        if name.as_str().starts_with(':') {
            let manager = served::MANAGER;
            let path = flannel_rs::service::dbus::ROOT;
            liar.emit_signal(Some(name.as_str()), path, manager, "DriftRepaired", &told)
                .await
                .unwrap();
        }
    }
    fake.emit("DriftRepaired", &[("true", "change")].as_slice())
        .await;
    watch.expect("repaired   true change");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_an_object_per_line() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let watch = Watch::start(&node.bus, &["monitor", "--json"]);
    let next = || {
        let line = watch.lines.recv_timeout(PATIENCE).unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    let first = next();
    assert_eq!(first["event"], "connected");
    assert_eq!(first["peer_count"], 2);
    node.change(|status| status.peers = std::sync::Arc::default());
    let second = next();
    assert_eq!(second["event"], "peer-removed");
    let peer = serde_json::to_value(served::peer(2)).unwrap();
    assert_eq!(second["peer"], peer);
    assert!(second["time"].as_str().unwrap().ends_with('Z'), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_begins_before_there_is_a_bus_and_ends_when_the_node_runs() {
    let Some(mut bus) = PrivateBus::stopped() else {
        return;
    };
    let watch = Watch::start(&bus, &["status", "--wait"]);
    bus.run();
    let waiting = Status {
        state: State::Waiting,
        ..status()
    };
    let node = Node::on(bus, waiting);
    let mut node = node;
    node.reconnect().await;
    let nothing_yet = watch.lines.recv_timeout(Duration::from_millis(500));
    assert!(nothing_yet.is_err(), "{nothing_yet:?}");
    node.change(|status| status.state = State::Running);
    let line = watch.lines.recv_timeout(PATIENCE).unwrap();
    assert_eq!(line, "node1 is running");
    let mut watch = watch;
    assert_eq!(watch.child.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_has_an_end_and_shows_how_the_node_is_then() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    for (state, expected) in [
        (State::Degraded, 3),
        (State::Waiting, 4),
        (State::Running, 0),
    ] {
        node.change(|status| status.state = state);
        let start = Instant::now();
        let answer = run(&node.bus, &["status", "--wait", "--timeout", "1500ms"]).await;
        let (code, stdout, stderr) = answer;
        assert_eq!(code, expected, "{state}");
        assert!(
            stdout.starts_with(&format!("node1 is {state}\n")),
            "{stdout}"
        );
        if state == State::Running {
            assert_eq!(stderr, "");
        } else {
            assert_eq!(stderr, "the node was not running within 1s 500ms\n");
            assert!(start.elapsed() >= Duration::from_millis(1500));
        }
    }
}
