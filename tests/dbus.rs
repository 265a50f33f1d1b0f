//! The service on a real message bus: what clients see, and what happens when the bus goes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests fail by panicking and say what they skip, also in their helpers"
)]

mod support;

use std::io::{Read, Write};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use flannel_rs::cluster::subnet::Subnet;
use flannel_rs::service::dbus::{Bus, ERROR_PREFIX, NAME, ROOT, serve_on};
use flannel_rs::service::duty::Pulse;
use flannel_rs::service::status::{
    Command, Fault, PeerPath, PeerStatus, PlannedChange, RenumberError, State, Status,
};
use support::bus::PrivateBus;
use support::served::{MANAGER, Node, PEER, connect, peer, shown, status};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use zbus::OwnedVariant;
use zbus::fdo::RequestNameFlags;

const PEER_2: &str = "/org/flannelrs/Flannel1/peer/_100_96_2_0_24";
const PEER_3: &str = "/org/flannelrs/Flannel1/peer/_100_96_3_0_24";

#[tokio::test(flavor = "multi_thread")]
async fn properties_show_the_status() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let all = node.properties(ROOT, MANAGER).await;
    let expected = "\
Backend \"vxlan\"
DatastoreRevision int64 42
DatastoreState \"connected\"
Health @a(ss) []
LastReconcileUSec uint64 1800000000000000
LeaseExpiresUSec uint64 1800086399000000
MTU uint32 1450
Network \"100.96.0.0/16\"
NodeId \"0123456789abcdef0123456789abcdef\"
NodeName \"node1\"
PeerCount uint32 2
PublicIP \"192.168.1.47\"
RepairCount uint64 7
State \"running\"
Subnet \"100.96.1.0/24\"
Version \"0.1.0\"
";
    assert_eq!(shown(&all), expected);
    let expected = "\
Backend \"vxlan\"
Mac \"02:00:00:00:00:02\"
Obstacle \"\"
Path \"tunnel\"
PublicIP \"192.168.1.48\"
Subnet \"100.96.2.0/24\"
";
    assert_eq!(shown(&node.properties(PEER_2, PEER).await), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_is_empty_or_zero() {
    let waiting = Status {
        state: State::Waiting,
        faults: vec![Fault {
            code: "datastore".to_owned(),
            text: "a text with \0 in it".to_owned(),
            times: 1,
        }],
        backend: None,
        network: None,
        subnet: None,
        interface: None,
        public_ip: None,
        mtu: 0,
        lease_expires_usec: None,
        peers: Arc::default(),
        last_reconcile_usec: None,
        ..status()
    };
    let Some(node) = Node::start(waiting).await else {
        return;
    };
    let all = shown(&node.properties(ROOT, MANAGER).await);
    for line in [
        "Backend \"\"",
        "Health [(\"datastore\", \"a text with \u{fffd} in it\")]",
        "LastReconcileUSec uint64 0",
        "LeaseExpiresUSec uint64 0",
        "Network \"\"",
        "PublicIP \"\"",
        "State \"waiting\"",
        "Subnet \"\"",
    ] {
        assert!(all.lines().any(|l| l == line), "{line} not in\n{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_once_and_alone() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let mut signals = node.signals().await;
    node.change(|status| {
        status.state = State::Degraded;
        status.repairs += 1;
        status.garbage = Vec::new();
    });
    let told = signals.next().await;
    assert_eq!(
        told,
        format!("{ROOT} PropertiesChanged {MANAGER}\nRepairCount uint64 8\nState \"degraded\"\n")
    );

    // nothing that a client can see
    node.change(|status| status.interface = Some("eth1".to_owned()));
    node.change(|status| Arc::make_mut(&mut status.peers)[0].path = PeerPath::Direct);
    let told = signals.next().await;
    assert_eq!(
        told,
        format!("{PEER_2} PropertiesChanged {PEER}\nPath \"direct\"\n")
    );
    assert_eq!(signals.quiet().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_changes_become_few_signals() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let mut signals = node.signals().await;
    let start = Instant::now();
    for revision in 1..=100 {
        node.change(|status| status.datastore.revision = 42 + revision);
        sleep(Duration::from_millis(10)).await;
    }
    let mut count = 0;
    loop {
        count += 1;
        assert!(count < 100, "every change was told");
        if signals.next().await.contains("DatastoreRevision int64 142") {
            break;
        }
    }
    let most = start.elapsed().as_millis() / 200 + 2;
    assert!(count <= most, "{count} signals, expected at most {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_come_and_go() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    assert_eq!(node.managed().await, [PEER_2, PEER_3]);
    let mut signals = node.signals().await;
    node.change(|status| {
        let peers = Arc::make_mut(&mut status.peers);
        peers.remove(0);
        peers.push(peer(4));
    });
    let told = signals.next().await;
    assert_eq!(told, format!("{ROOT} InterfacesRemoved {PEER_2} {PEER}"));
    let added = "/org/flannelrs/Flannel1/peer/_100_96_4_0_24";
    let told = signals.next().await;
    assert_eq!(told, format!("{ROOT} InterfacesAdded {added} {PEER}"));
    assert_eq!(node.managed().await, [PEER_3, added]);

    // as many as before, so the count was not told
    node.change(|status| status.peers = Arc::default());
    for gone in [PEER_3, added] {
        let told = signals.next().await;
        assert_eq!(told, format!("{ROOT} InterfacesRemoved {gone} {PEER}"));
    }
    let told = signals.next().await;
    assert_eq!(
        told,
        format!("{ROOT} PropertiesChanged {MANAGER}\nPeerCount uint32 0\n")
    );
    assert_eq!(node.managed().await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn describe_is_the_whole_status() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let json: String = node.manager().await.call("Describe", &()).await.unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_the_service_and_its_answers_the_caller() {
    let Some(mut node) = Node::start(status()).await else {
        return;
    };
    let mut commands = node.commands.take().unwrap();
    let service = tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            let change = PlannedChange {
                verb: "add".to_owned(),
                object: "route 100.96.2.0/24".to_owned(),
            };
            match command {
                Command::Reload(answer) => answer.send(Err("line 3: no\0".to_owned())).unwrap(),
                Command::Reconcile(answer) => answer.send(Ok(vec![change])).unwrap(),
                Command::Plan(answer) => answer.send(Ok(Vec::new())).unwrap(),
                Command::Renumber(None, answer) => {
                    let subnet = Subnet::new("100.96.1.0/24".parse().unwrap());
                    let error = RenumberError::NothingToRenumber(subnet);
                    answer.send(Err(error)).unwrap();
                }
                Command::Renumber(Some(subnet), answer) => answer.send(Ok(subnet)).unwrap(),
            }
        }
    });
    let manager = node.manager().await;
    let plan: Vec<(String, String)> = manager.call("Plan", &()).await.unwrap();
    assert_eq!(plan, []);
    let error = manager.call::<_, _, ()>("Reload", &()).await.unwrap_err();
    assert_eq!(refusal(&error), "Failed: line 3: no\u{fffd}");
    if nix::unistd::getuid().is_root() {
        let done: Vec<(String, String)> = manager.call("Reconcile", &()).await.unwrap();
        assert_eq!(done, [("add".to_owned(), "route 100.96.2.0/24".to_owned())]);
        let renumber = async |subnet: &str| {
            let answer = manager.call::<_, _, String>("Renumber", &subnet).await;
            answer.map_err(|error| refusal(&error))
        };
        let taken = renumber("100.96.3.0/24").await;
        assert_eq!(taken.as_deref(), Ok("100.96.3.0/24"));
        let refused = renumber("").await.unwrap_err();
        assert!(
            refused.starts_with("NothingToRenumber: there is no need to leave 100.96.1.0/24"),
            "{refused}"
        );
        let refused = renumber("x").await.unwrap_err();
        assert!(refused.starts_with("InvalidSubnet: \"x\""), "{refused}");
    }

    service.abort();
    let _ = service.await;
    let error = manager.call::<_, _, ()>("Plan", &()).await.unwrap_err();
    assert_eq!(refusal(&error), "Unavailable: the service is stopping");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_service_does_not_hold_up_the_properties() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let manager = node.manager().await;
    let plans: Vec<JoinHandle<_>> = (0..3)
        .map(|_| {
            let manager = manager.clone();
            tokio::spawn(async move { manager.call::<_, _, ()>("Plan", &()).await })
        })
        .collect();
    let mut signals = node.signals().await;
    node.change(|status| status.mtu = 1400);
    assert!(signals.next().await.contains("MTU uint32 1400"));
    assert_eq!(
        node.properties(ROOT, MANAGER).await["MTU"],
        OwnedVariant::from(1400_u32)
    );
    assert!(plans.iter().all(|plan| !plan.is_finished()));
    let commands = node.commands.as_ref().unwrap();
    while commands.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(commands.len(), 1, "plans crowd the service's queue");
    plans.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_root_may_change_things() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    if !nix::unistd::getuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    for method in ["Reconcile", "Reload"] {
        let call = format!("call {NAME} {ROOT} {MANAGER} {method}");
        let Some(output) = node.bus.busctl_as_nobody(&call) else {
            return;
        };
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("the caller has uid 65534"), "{said}");
    }
    assert!(
        node.commands.as_ref().unwrap().is_empty(),
        "the service was asked"
    );
    let read = format!("get-property {NAME} {ROOT} {MANAGER} State");
    assert_eq!(said(node.bus.busctl_as_nobody(&read)), "s \"running\"\n");
    let describe = format!("call {NAME} {ROOT} {MANAGER} Describe");
    let described = said(node.bus.busctl_as_nobody(&describe));
    assert!(described.starts_with("s \"{"), "{described}");
}

#[tokio::test(flavor = "multi_thread")]
async fn busctl_finds_its_way() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let Some(tree) = node.bus.busctl(&format!("--list tree {NAME}")) else {
        return;
    };
    let tree = said(Some(tree));
    for path in [ROOT, PEER_2, PEER_3] {
        assert!(
            tree.lines().any(|line| line == path),
            "{path} not in\n{tree}"
        );
    }
    let members = said(
        node.bus
            .busctl(&format!("introspect {NAME} {ROOT} {MANAGER}")),
    );
    for member in [
        ".Reconcile method - a(ss)",
        ".Plan method - a(ss)",
        ".Describe method - s",
    ] {
        let squeezed: Vec<String> = members.lines().map(squeeze).collect();
        assert!(
            squeezed.iter().any(|l| l.starts_with(member)),
            "{member} not in\n{members}"
        );
    }
    let xml = said(node.bus.busctl(&format!(
        "call {NAME} {ROOT} org.freedesktop.DBus.Introspectable Introspect"
    )));
    assert!(xml.contains("Only root may call this."), "{xml}");
    assert!(xml.contains("org.freedesktop.DBus.ObjectManager"), "{xml}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_died_is_joined_again() {
    let Some(mut node) = Node::start(status()).await else {
        return;
    };
    node.bus.kill();
    node.change(|status| {
        status.mtu = 1400;
        Arc::make_mut(&mut status.peers).remove(0);
    });
    node.bus.run();
    node.reconnect().await;
    assert_eq!(
        node.properties(ROOT, MANAGER).await["MTU"],
        OwnedVariant::from(1400_u32)
    );
    assert_eq!(node.managed().await, [PEER_3]);
    // and it goes on
    let mut signals = node.signals().await;
    node.change(|status| status.mtu = 1300);
    assert!(signals.next().await.contains("MTU uint32 1300"));
}

/// All on one thread, and its log is read. The subscriber is for the whole process all the same:
/// tracing asks the thread that comes first by a log line whether anybody wants it.
#[tokio::test]
async fn the_log_tells_when_the_bus_comes_and_goes() {
    let mut log = tempfile::NamedTempFile::new().unwrap();
    let written = log.reopen().unwrap();
    let this = std::thread::current().id();
    let writer = move || -> Box<dyn Write> {
        if std::thread::current().id() == this {
            Box::new(written.try_clone().unwrap())
        } else {
            Box::new(std::io::sink())
        }
    };
    tracing_subscriber::fmt().with_writer(writer).init();
    let Some(mut node) = Node::start(status()).await else {
        return;
    };
    node.bus.kill();
    // time for more than one try
    sleep(Duration::from_secs(3)).await;
    node.bus.run();
    node.reconnect().await;
    node.serving.abort();
    let mut text = String::new();
    log.as_file_mut().read_to_string(&mut text).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains("INFO") && lines[0].contains("on D-Bus as"));
    assert!(lines[1].contains("WARN") && lines[1].contains("not on D-Bus"));
    assert!(lines[2].contains("INFO") && lines[2].contains("on D-Bus as"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_comes_late_is_joined() {
    let Some(bus) = PrivateBus::stopped() else {
        return;
    };
    let mut node = Node::on(bus, status());
    sleep(Duration::from_millis(300)).await;
    assert!(!node.serving.is_finished());
    node.bus.run();
    node.reconnect().await;
    assert_eq!(node.managed().await, [PEER_2, PEER_3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_left_and_taken_when_free() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let other = connect(&bus).await;
    let flags = RequestNameFlags::DO_NOT_QUEUE | RequestNameFlags::ALLOW_REPLACEMENT;
    other.request_name_with_flags(NAME, flags).await.unwrap();
    let mut node = Node::on(bus, status());
    sleep(Duration::from_millis(300)).await;
    assert!(!node.serving.is_finished());
    assert!(other.release_name(NAME).await.unwrap(), "it was taken away");
    node.reconnect().await;
    assert_eq!(node.managed().await, [PEER_2, PEER_3]);

    let flags = RequestNameFlags::DO_NOT_QUEUE | RequestNameFlags::REPLACE_EXISTING;
    let stolen = other.request_name_with_flags(NAME, flags).await;
    assert_eq!(stolen.unwrap_err(), zbus::Error::NameTaken);
}

/// Virtual time: it runs on whenever everybody waits.
#[tokio::test(start_paused = true)]
async fn a_bus_that_hangs_is_given_up_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let (_status, seen) = watch::channel(status());
    let (commands, _service) = mpsc::channel(1);
    let bus = Bus::At(format!("unix:path={}", socket.display()));
    let serving = tokio::spawn(serve_on(bus, seen, commands, Pulse::default()));
    let hour = Duration::from_secs(3600);
    let hung = timeout(hour, listener.accept()).await.unwrap().unwrap();
    let again = timeout(hour, listener.accept()).await.unwrap().unwrap();
    serving.abort();
    drop((hung, again));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_peers_at_once() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let start = Instant::now();
    node.change(|status| {
        let subnets = (0..2000).map(|n: u32| format!("10.{}.{}.0/24", n >> 8, n & 255));
        let peers = subnets.map(|subnet| PeerStatus { subnet, ..peer(2) });
        status.peers = Arc::new(peers.collect());
    });
    while node.managed().await.len() != 2000 {
        assert!(start.elapsed() < Duration::from_secs(30));
        sleep(Duration::from_millis(50)).await;
    }
    eprintln!("2,000 peers on the bus after {:?}", start.elapsed());
    let one = "/org/flannelrs/Flannel1/peer/_10_7_207_0_24";
    assert!(shown(&node.properties(one, PEER).await).contains("Subnet \"10.7.207.0/24\""));
    node.change(|status| status.peers = Arc::default());
    while !node.managed().await.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(50)).await;
    }
    eprintln!("and gone after {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_the_status() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let shown = run(&node.bus.address(), &["status"]).await;
    assert_eq!(shown.status.code(), Some(0));
    let text = said(Some(shown));
    assert!(text.starts_with("node1 is running\n"), "{text}");
    assert!(text.contains("peers      2 of 2 reachable\n"), "{text}");

    node.change(|status| status.state = State::Degraded);
    let json = run(&node.bus.address(), &["status", "--json"]).await;
    assert_eq!(json.status.code(), Some(3));
    let shown: Status = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(shown, *node.status.borrow());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_bears_a_reader_that_has_gone() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let (reader, mut writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(writer.write(b"x").is_err(), "the pipe is open");
    let mut command = command(&node.bus.address(), &["status"]);
    command.stdout(writer);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_prints_the_plan() {
    let Some(mut node) = Node::start(status()).await else {
        return;
    };
    let mut commands = node.commands.take().unwrap();
    let service = tokio::spawn(async move {
        let change = |verb: &str, object: &str| PlannedChange {
            verb: verb.to_owned(),
            object: object.to_owned(),
        };
        let plans = [
            Ok(vec![
                change("add", "link flannel.1"),
                change("write", "/run/x"),
            ]),
            Ok(Vec::new()),
            Err("cannot\nread".to_owned()),
        ];
        for plan in plans {
            match commands.recv().await {
                Some(Command::Plan(answer)) => answer.send(plan).unwrap(),
                other => panic!("{other:?}"),
            }
        }
    });
    let plan = run(&node.bus.address(), &["plan"]).await;
    assert_eq!(said(Some(plan)), "add link flannel.1\nwrite /run/x\n");
    let plan = run(&node.bus.address(), &["plan"]).await;
    assert_eq!(
        (plan.status.code(), said(Some(plan))),
        (Some(0), String::new())
    );
    let plan = run(&node.bus.address(), &["plan"]).await;
    assert_eq!(plan.status.code(), Some(1));
    let error = String::from_utf8(plan.stderr).unwrap();
    assert_eq!(error, "the service says: cannot\u{fffd}read\n");
    service.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_in_one_line_that_nobody_is_there() {
    let Some(mut bus) = PrivateBus::stopped() else {
        return;
    };
    for has_bus in [false, true] {
        if has_bus {
            bus.run();
        }
        for command in ["status", "plan"] {
            let output = run(&bus.address(), &[command]).await;
            assert_eq!(output.status.code(), Some(69), "{output:?}");
            assert!(output.stdout.is_empty());
            let error = String::from_utf8(output.stderr).unwrap();
            eprint!("{error}");
            assert!(
                error.starts_with("flannel-rs is not running, or has no D-Bus: "),
                "{error}"
            );
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}

/// Name and text of one of the service's own errors.
fn refusal(error: &zbus::Error) -> String {
    let zbus::Error::MethodError(name, text, _) = error else {
        panic!("{error:?}");
    };
    let kind = name.strip_prefix(ERROR_PREFIX).unwrap();
    let kind = kind.trim_start_matches('.');
    format!("{kind}: {}", text.as_deref().unwrap())
}

/// What a program that succeeded, or was not there, wrote.
fn said(output: Option<Output>) -> String {
    output.map_or_else(String::new, |output| {
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    })
}

fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Runs the command against a bus.
async fn run(address: &str, arguments: &[&str]) -> Output {
    let mut command = command(address, arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.unwrap().unwrap()
}

fn command(address: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flannel-rs"));
    command.args(arguments);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", address);
    command
}
