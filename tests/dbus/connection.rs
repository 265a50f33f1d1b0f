//! A bus that comes late, goes, hangs, or gives the name to somebody else.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use flannel_rs::service::dbus::{Bus, NAME, ROOT, serve_on};
use flannel_rs::service::duty::Pulse;
use tokio::net::UnixListener;
use tokio::time::{sleep, timeout};
use zbus::OwnedVariant;
use zbus::fdo::RequestNameFlags;

use crate::support::bus::PrivateBus;
use crate::support::served::{LINK, MANAGER, Node, connect, ends, status};
use crate::{LINK_1, PEER_2, PEER_3};

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
    assert_eq!(node.managed_with(LINK).await, [LINK_1]);
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
    let (ends, _status, _service) = ends(status());
    let bus = Bus::At(format!("unix:path={}", socket.display()));
    let serving = tokio::spawn(serve_on(bus, ends, Pulse::default()));
    let hour = Duration::from_secs(3600);
    let hung = timeout(hour, listener.accept()).await.unwrap().unwrap();
    let again = timeout(hour, listener.accept()).await.unwrap().unwrap();
    serving.abort();
    drop((hung, again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_without_the_policy_refuses_the_name_until_it_has_it() {
    let Some(mut bus) = PrivateBus::without_policy() else {
        return;
    };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: who is not root may own any name on a test's bus");
        return;
    }
    bus.run();
    let mut node = Node::on(bus, status());
    sleep(Duration::from_millis(300)).await;
    let client = connect(&node.bus).await;
    let refused = client.request_name(NAME).await.unwrap_err();
    assert!(
        refused.to_string().contains("not allowed to own"),
        "{refused}"
    );
    assert!(!node.serving.is_finished());
    node.bus.install_policy();
    node.reconnect().await;
    assert_eq!(node.managed().await, [PEER_2, PEER_3]);
}
