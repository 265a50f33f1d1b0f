//! The log level where systemctl(1) looks for it.

use std::sync::Arc;
use std::time::Duration;

use flannel_rs::service::dbus::NAME;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::polkit::Decision;
use crate::said;
use crate::scene::{Scene, nobody_waits_for_the_dialog};
use crate::support::served::{Node, status};

const PATH: &str = "/org/freedesktop/LogControl1";
const INTERFACE: &str = "org.freedesktop.LogControl1";

fn get(node: &Node, property: &str) -> String {
    let words = format!("get-property {NAME} {PATH} {INTERFACE} {property}");
    said(node.bus.busctl(&words))
}

fn set(property: &str, value: &str) -> String {
    format!("set-property {NAME} {PATH} {INTERFACE} {property} s {value}")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_read_by_everybody() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let level = get(&node, "LogLevel");
    if level.is_empty() {
        return;
    }
    assert_eq!(level, "s \"info\"\n");
    assert_eq!(get(&node, "LogTarget"), "s \"console\"\n");
    assert_eq!(get(&node, "SyslogIdentifier"), "s \"flannel-rs\"\n");
    node.change(|status| status.log_level = "warn,flannel_rs=trace".to_owned());
    assert_eq!(get(&node, "LogLevel"), "s \"debug\"\n");

    let all = node.properties(PATH, INTERFACE).await;
    assert_eq!(all.len(), 3, "{all:?}");
    let unknown = format!("get-property {NAME} {PATH} {INTERFACE} Colour");
    let output = node.bus.busctl(&unknown).unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("Unknown property 'Colour'"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_written_by_root_and_by_whom_polkit_lets() {
    let Some(mut scene) = Scene::set(Decision::Yes).await else {
        return;
    };
    let Some(output) = scene.node.bus.busctl(&set("LogLevel", "warning")) else {
        return;
    };
    assert_eq!(said(Some(output)), "");
    assert_eq!(scene.done.recv().await.unwrap(), "log at warn");
    assert!(!scene.polkit.was_asked());

    let output = scene.node.bus.busctl_as_nobody(&set("LogLevel", "debug"));
    assert_eq!(said(output), "");
    assert_eq!(scene.done.recv().await.unwrap(), "log at debug");
    let question = scene.polkit.question().await;
    assert_eq!(question.action, "org.flannelrs.Flannel1.set-log-level");
    assert_eq!(question.details["level"], "debug");

    scene.polkit.decide(Decision::No);
    let error = |words: &str| {
        let output = scene.node.bus.busctl_as_nobody(words).unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let refusal = error(&set("LogLevel", "err"));
    assert!(refusal.contains("polkit does not grant"), "{refusal}");
    let refusal = error(&set("LogLevel", "loud"));
    assert!(refusal.contains("is none of emerg, alert"), "{refusal}");
    let refusal = error(&set("LogTarget", "kmsg"));
    assert!(refusal.contains("StandardError="), "{refusal}");
    assert!(!error(&set("SyslogIdentifier", "x")).is_empty());
    assert!(!error(&set("Colour", "x")).is_empty());
    assert_eq!(scene.was_done(), None);
}

/// zbus's own way to set a property would hold up everybody until the dialog is closed.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_who_sets_it() {
    let word = Arc::new(Notify::new());
    let Some(mut scene) = Scene::set(Decision::YesAfter(word.clone())).await else {
        return;
    };
    let mut busctl = scene.node.bus.nobody("busctl").unwrap();
    busctl.arg(format!("--address={}", scene.node.bus.address()));
    let words = set("LogLevel", "debug");
    let mut busctl = busctl.args(words.split(' ')).spawn().unwrap();
    scene.polkit.question().await;
    nobody_waits_for_the_dialog(&scene.node).await;
    assert_eq!(get(&scene.node, "LogLevel"), "s \"info\"\n");
    assert_eq!(scene.done.recv().await.unwrap(), "plan");
    word.notify_one();
    while busctl.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(scene.done.recv().await.unwrap(), "log at debug");
}
