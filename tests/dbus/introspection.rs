//! What the objects say of themselves, and the files that are installed with it.

use std::fs;
use std::path::PathBuf;

use flannel_rs::service::dbus::{NAME, ROOT};

use crate::support::served::{LINK, MANAGER, Node, PEER, status};
use crate::{LINK_1, PEER_2, PEER_3, said};

const LOG_CONTROL: &str = "/org/freedesktop/LogControl1";

/// With `FLANNEL_RS_BLESS` in the environment the files are written instead.
#[tokio::test(flavor = "multi_thread")]
async fn the_installed_interfaces_are_those_of_the_service() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    for (path, interface) in [(ROOT, MANAGER), (PEER_2, PEER), (LINK_1, LINK)] {
        let answered = file(&xml(&node, path).await, interface);
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("systemd/dbus-1/interfaces");
        let file = folder.join(format!("{interface}.xml"));
        if std::env::var_os("FLANNEL_RS_BLESS").is_some() {
            fs::write(&file, answered).unwrap();
            continue;
        }
        let installed = fs::read_to_string(&file).unwrap();
        assert!(
            installed == answered,
            "{} is not what the service answers; FLANNEL_RS_BLESS=1 cargo test --test dbus writes it anew\n{answered}",
            file.display()
        );
    }
}

/// An installed file: one interface alone.
fn file(introspection: &str, interface: &str) -> String {
    let start = format!("<interface name=\"{interface}\">");
    let lines = introspection
        .lines()
        .skip_while(|line| line.trim() != start);
    let end = "</interface>";
    let mut lines: Vec<_> = lines.collect();
    let length = lines.iter().position(|line| line.trim() == end).unwrap() + 1;
    lines.truncate(length);
    let body = lines.join("\n");
    format!(
        "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n<node>\n{body}\n</node>\n"
    )
}

async fn xml(node: &Node, path: &str) -> String {
    let object = node
        .proxy(path, "org.freedesktop.DBus.Introspectable")
        .await;
    object.call("Introspect", &()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_is_documented() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    for (path, interface) in [(ROOT, MANAGER), (PEER_2, PEER), (LINK_1, LINK)] {
        let text = file(&xml(&node, path).await, interface);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let members = ["<interface ", "<method ", "<signal ", "<property "];
        let mut documented = 0;
        for (line, before) in lines.iter().skip(1).zip(&lines) {
            if members.iter().any(|member| line.starts_with(member)) {
                documented += 1;
                let is_own = line.starts_with("<interface ");
                assert!(is_own || before.ends_with("-->"), "{line}");
            }
        }
        assert!(documented > 3, "{text}");
    }
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
    for path in [ROOT, PEER_2, PEER_3, LINK_1, LOG_CONTROL] {
        assert!(
            tree.lines().any(|line| line == path),
            "{path} not in\n{tree}"
        );
    }
    for (path, interface, expected) in MEMBERS {
        let words = format!("introspect {NAME} {path} {interface}");
        let members = said(node.bus.busctl(&words));
        let lines: Vec<_> = members.lines().map(squeeze).collect();
        for member in *expected {
            assert!(
                lines.iter().any(|line| line.starts_with(member)),
                "{member} not in\n{members}"
            );
        }
    }
}

fn squeeze(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Of an object and an interface, how busctl shows some members.
const MEMBERS: &[(&str, &str, &[&str])] = &[
    (
        ROOT,
        MANAGER,
        &[
            ".Reconcile method - a(ss)",
            ".ReleaseLease method - s",
            ".Renumber method s s",
            ".TakeBridge method - a(ss)",
            ".SubnetConflict signal ss -",
            ".DriftRepaired signal a(ss) -",
            ".LogLevel property s \"info\" emits-change",
        ],
    ),
    (PEER_2, PEER, &[".Path property s \"tunnel\" emits-change"]),
    (
        LINK_1,
        LINK,
        &[
            ".Name property s \"flannel.1\" const",
            ".Desired property a{sv} 5 ",
        ],
    ),
    (
        LOG_CONTROL,
        "org.freedesktop.LogControl1",
        &[
            ".LogLevel property s \"info\" writable",
            ".LogTarget property s \"console\" writable",
            ".SyslogIdentifier property s \"flannel-rs\" const",
        ],
    ),
    (
        LOG_CONTROL,
        "org.freedesktop.DBus.Properties",
        &[
            ".Get method ss v",
            ".GetAll method s a{sv}",
            ".Set method ssv -",
        ],
    ),
];
