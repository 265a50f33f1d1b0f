//! What is asked of the service, and what becomes of it.

use std::io::Write;
use std::process::{Command, Stdio};

use flannel_rs::service::status::{Fault, PeerTraffic, State, Status, Traffic};
use serde_json::{Value, json};

use crate::fake::{Fake, Reply, command, finish, open_folder, run};
use crate::support::bus::PrivateBus;
use crate::support::served::{self, Node, status};

fn done(stdout: &str) -> (i32, String, String) {
    (0, stdout.to_owned(), String::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_done_and_said() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let fake = Fake::obliging(&bus, &status()).await;
    let changes = "delete link flannel.1\nwrite file /x\u{fffd}[31m\n";
    let expected = [
        ("plan", "Plan", changes),
        ("reconcile", "Reconcile!", changes),
        ("cleanup", "Cleanup!", changes),
        ("cleanup --yes", "Cleanup!", changes),
        ("take-bridge", "TakeBridge!", changes),
        ("take-bridge --yes", "TakeBridge!", changes),
        ("release -y", "ReleaseLease!", "100.96.1.0/24\n"),
        ("renumber", "Renumber!", "100.96.9.0/24\n"),
        (
            "renumber 100.96.9.0/24",
            "Renumber 100.96.9.0/24!",
            "100.96.9.0/24\n",
        ),
        ("log-level", "Describe", "info\n"),
        ("log-level debug", "SetLogLevel debug!", ""),
    ];
    for (arguments, call, stdout) in expected {
        let words: Vec<_> = arguments.split(' ').collect();
        assert_eq!(run(&bus, &words).await, done(stdout), "{arguments}");
        let calls = std::mem::take(&mut *fake.calls.lock().unwrap());
        assert_eq!(calls, [call], "{arguments}");
    }
}

/// A reload succeeds also where a part of the config waits for a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_tells_what_takes_a_restart() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let fault = |code: &str, text: &str| Fault {
        code: code.to_owned(),
        text: text.to_owned(),
        times: 1,
    };
    let mut status = status();
    status.faults = vec![fault("config", "restart it"), fault("peers", "one is away")];
    let fake = Fake::obliging(&bus, &status).await;
    let told = (0, String::new(), "restart it\n".to_owned());
    assert_eq!(run(&bus, &["reload"]).await, told);
    assert_eq!(*fake.calls.lock().unwrap(), ["Reload!", "Describe"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_the_documented_json() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let mut status = status();
    status.traffic = Some(Traffic {
        sent_packets: 7,
        ..Traffic::default()
    });
    std::sync::Arc::make_mut(&mut status.peers)[0].traffic = Some(PeerTraffic {
        received_bytes: u64::MAX,
        ..PeerTraffic::default()
    });
    let _fake = Fake::obliging(&bus, &status).await;
    let changes = json!([
        {"verb": "delete", "object": "link flannel.1"},
        {"verb": "write", "object": "file /x\u{1b}[31m"},
    ]);
    for subcommand in ["plan", "reconcile", "cleanup", "take-bridge"] {
        let (code, stdout, _) = run(&bus, &[subcommand, "--json"]).await;
        let shown: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((code, &shown), (0, &changes), "{subcommand}");
        assert!(!stdout.contains('\u{1b}'));
    }
    let described = run(&bus, &["describe"]).await;
    assert_eq!(described, run(&bus, &["status", "--json"]).await);
    let shown: Status = serde_json::from_str(&described.1).unwrap();
    assert_eq!(shown, status);

    let (_, stdout, _) = run(&bus, &["peers", "--json"]).await;
    let peers: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(peers, serde_json::to_value(&*status.peers).unwrap());
    let (_, stdout, _) = run(&bus, &["peers", "--json", "100.96.3.9"]).await;
    let peers: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(peers, serde_json::to_value([served::peer(3)]).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_json_can_talk_to_the_terminal() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let hostile = "\u{9b}31m\u{202e}\u{61c}\u{7f}";
    let mut shown = status();
    shown.node_name = hostile.to_owned();
    std::sync::Arc::make_mut(&mut shown.peers)[0].backend = hostile.to_owned();
    let json = serde_json::to_string(&shown).unwrap();
    let _fake = Fake::start(&bus, move |member| match member {
        "Describe" => Reply::Text(json.clone()),
        _ => Reply::Changes(vec![("add".to_owned(), hostile.to_owned())]),
    })
    .await;
    for arguments in ["describe", "status --json", "peers --json", "plan --json"] {
        let words: Vec<_> = arguments.split(' ').collect();
        let (code, stdout, _) = run(&bus, &words).await;
        assert_eq!(code, 0, "{arguments}");
        assert!(
            stdout.contains(r"\u009b31m\u202e\u061c\u007f"),
            "{stdout:?}"
        );
        let bare = |c: char| hostile.contains(c) && !c.is_ascii_alphanumeric();
        assert!(!stdout.contains(bare), "{arguments}: {stdout:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_shown_as_the_service_has_them() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let table = "\
SUBNET         PUBLIC IP     BACKEND  PATH    MAC/WHY NOT
100.96.2.0/24  192.168.1.48  vxlan    tunnel  02:00:00:00:00:02
100.96.3.0/24  192.168.1.49  vxlan    tunnel  02:00:00:00:00:03
";
    assert_eq!(run(&node.bus, &["peers"]).await, done(table));
    let (code, stdout, stderr) = run(&node.bus, &["peers", "100.96.3.0/24"]).await;
    assert!(
        stdout.starts_with("100.96.3.0/24\n  public IP "),
        "{stdout}"
    );
    assert_eq!((code, stderr.as_str()), (0, ""));
    for unknown in ["100.96.9.0/24", "10.0.0.1", "node2"] {
        let (code, stdout, stderr) = run(&node.bus, &["peers", unknown]).await;
        let start = format!("no peer is {unknown}; ");
        assert!(stderr.starts_with(&start), "{stderr}");
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (68, "", 1));
    }
    node.change(|status| status.peers = std::sync::Arc::default());
    assert_eq!(run(&node.bus, &["peers"]).await, done("no peers\n"));
}

const OWN: &str = "org.flannelrs.Flannel1.Error";
const STANDARD: &str = "org.freedesktop.DBus.Error";

/// Name of the error, exit code, and how the line begins.
const REFUSALS: &[(&str, &str, i32, &str)] = &[
    (OWN, "NotAuthorized", 77, "not permitted: no\u{fffd}way"),
    (
        STANDARD,
        "InteractiveAuthorizationRequired",
        77,
        "not permitted: a password",
    ),
    (STANDARD, "AccessDenied", 77, "not permitted: no\u{fffd}way"),
    (OWN, "Failed", 1, "the service says: no\u{fffd}way\n"),
    (OWN, "SubnetTaken", 1, "the service says: no\u{fffd}way\n"),
    (OWN, "InvalidSubnet", 2, "the service says: no\u{fffd}way\n"),
    (
        OWN,
        "InvalidLogLevel",
        2,
        "the service says: no\u{fffd}way\n",
    ),
    (
        OWN,
        "Unavailable",
        69,
        "flannel-rs does not answer: no\u{fffd}way; try ",
    ),
    (
        STANDARD,
        "UnknownMethod",
        1,
        "the service's answer is not understood, ",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_one_line_and_has_its_code() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    for (prefix, kind, code, start) in REFUSALS {
        let fake = Fake::start(&bus, move |_| {
            Reply::Error(format!("{prefix}.{kind}"), "no\nway".to_owned())
        })
        .await;
        for arguments in [
            ["reload"].as_slice(),
            &["reconcile"],
            &["release"],
            &["cleanup", "--json"],
            &["take-bridge", "--restart-docker"],
            &["renumber", "100.96.9.0/24"],
            &["log-level", "debug"],
        ] {
            let (given, stdout, stderr) = run(&bus, arguments).await;
            assert!(stderr.starts_with(start), "{arguments:?} {kind}: {stderr}");
            assert_eq!(
                (given, stdout.as_str()),
                (*code, ""),
                "{arguments:?} {kind}"
            );
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
        }
        fake.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_understood_is_named_as_such() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    for reply in [
        || Reply::Text("{\"version\":".to_owned()),
        || Reply::Text("[]".to_owned()),
        || Reply::Nothing,
    ] {
        let fake = Fake::start(&bus, move |_| reply()).await;
        for arguments in [["status"].as_slice(), &["status", "--wait"], &["peers"]] {
            let (code, stdout, stderr) = run(&bus, arguments).await;
            let start = "the service's answer is not understood, is it of another version";
            assert!(stderr.starts_with(start), "{stderr}");
            assert_eq!((code, stdout.as_str(), stderr.lines().count()), (1, "", 1));
        }
        fake.stop().await;
    }
    let fake = Fake::start(&bus, |_| Reply::Crash).await;
    let (code, _, stderr) = run(&bus, &["status"]).await;
    assert!(
        stderr.starts_with("flannel-rs does not answer: "),
        "{stderr}"
    );
    assert_eq!((code, stderr.lines().count()), (69, 1));
    drop(fake);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bus_or_a_service_all_say_so_in_one_line() {
    let Some(mut bus) = PrivateBus::stopped() else {
        return;
    };
    for (has_bus, start) in [
        (false, "there is no system bus: "),
        (true, "flannel-rs is not running: nobody on the bus is "),
    ] {
        if has_bus {
            bus.run();
        }
        for arguments in [
            "status",
            "describe",
            "peers",
            "peers 10.0.0.1",
            "plan",
            "plan --json",
            "reconcile",
            "renumber",
            "release",
            "cleanup",
            "take-bridge --restart-docker",
            "reload",
            "log-level",
            "log-level debug",
            "status --wait --timeout 1s",
        ] {
            let words: Vec<_> = arguments.split(' ').collect();
            let (code, stdout, stderr) = run(&bus, &words).await;
            let last = stderr.lines().last().unwrap_or_default();
            assert!(last.starts_with(start), "{arguments}: {stderr}");
            assert_eq!((code, stdout.as_str()), (69, ""), "{arguments}");
            let lines = 1 + usize::from(arguments.contains("--wait"));
            assert_eq!(stderr.lines().count(), lines, "{stderr}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_may_read() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let folder = open_folder();
    for arguments in ["status", "peers", "describe", "log-level", "status --wait"] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command
            .arg(folder.path().join("flannel-rs"))
            .args(arguments.split(' '));
        command.env("DBUS_SYSTEM_BUS_ADDRESS", node.bus.address());
        let (code, stdout, stderr) = finish(command).await;
        assert_eq!((code, stderr.as_str()), (0, ""), "{arguments}");
        assert!(!stdout.is_empty(), "{arguments}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_gone_is_no_error() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let _fake = Fake::obliging(&bus, &status()).await;
    for arguments in [
        "status",
        "describe",
        "peers",
        "plan",
        "monitor",
        "man",
        "completions zsh",
    ] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        assert!(writer.write(b"x").is_err(), "the pipe is open");
        let mut command = command(&bus, &arguments.split(' ').collect::<Vec<_>>());
        command
            .stdout(writer)
            .stderr(Stdio::piped())
            .stdin(Stdio::null());
        let ended = tokio::task::spawn_blocking(move || command.spawn()?.wait_with_output());
        let output = ended.await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_the_exit_code() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    for (state, expected) in [
        (State::Running, 0),
        (State::Degraded, 3),
        (State::Waiting, 4),
        (State::Withdrawn, 4),
        (State::Stopping, 4),
    ] {
        node.change(|status| status.state = state);
        for arguments in [["status"].as_slice(), &["status", "--json"], &["describe"]] {
            let (code, stdout, stderr) = run(&node.bus, arguments).await;
            assert_eq!((code, stderr.as_str()), (expected, ""), "{state}");
            assert!(stdout.contains(state.name()), "{stdout}");
        }
    }
}
