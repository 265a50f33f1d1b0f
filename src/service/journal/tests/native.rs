//! What journald gets: a socket in its place, in a mount namespace of the test's own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::super::*;

/// The socket on which this thread, and the threads that it starts, find the journal.
fn journald() -> nix::Result<UnixDatagram> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(none, "/run", Some("tmpfs"), MsFlags::empty(), none)?;
    fs::create_dir_all("/run/systemd/journal").unwrap();
    let socket = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    let patience = Some(Duration::from_secs(10));
    socket.set_read_timeout(patience).unwrap();
    Ok(socket)
}

/// The fields of a message in the native protocol, each as often as it is there.
fn fields(mut bytes: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let (name, rest) = (&bytes[..end], &bytes[end + 1..]);
        if let Some(equals) = name.iter().position(|byte| *byte == b'=') {
            fields.push((text(&name[..equals]), text(&name[equals + 1..])));
            bytes = rest;
            continue;
        }
        let (length, rest) = rest.split_first_chunk::<8>().unwrap();
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap();
        fields.push((text(name), text(&rest[..length])));
        assert_eq!(rest[length], b'\n');
        bytes = &rest[length + 1..];
    }
    assert_eq!(bytes, b"");
    fields
}

/// What the journal gets when `say` is done, one message each.
fn received(say: fn()) -> Option<Vec<BTreeMap<String, String>>> {
    let work = move || {
        let journald = match journald() {
            Ok(journald) => journald,
            Err(error) => {
                eprintln!("skipped: no mount namespace: {error}");
                return None;
            }
        };
        let queue = Queue::start(|| journal().unwrap()).unwrap();
        let registry = tracing_subscriber::registry().with(Relay::new(queue.clone()));
        super::within(registry, say);
        queue.drain();
        journald.set_nonblocking(true).unwrap();
        let mut messages = Vec::new();
        let mut bytes = vec![0; 1 << 20];
        while let Ok(length) = journald.recv(&mut bytes) {
            let all = fields(&bytes[..length]);
            let unique: BTreeMap<_, _> = all.iter().cloned().collect();
            assert_eq!(unique.len(), all.len(), "{all:?}");
            // the first is empty and asks whether anybody is there
            messages.extend((!unique.is_empty()).then_some(unique));
        }
        Some(messages)
    };
    thread::spawn(work).join().unwrap()
}

fn shown<'m>(message: &'m BTreeMap<String, String>, fields: &[&str]) -> Vec<&'m str> {
    let field = |field: &&str| message.get(*field).map_or("-", String::as_str);
    fields.iter().map(field).collect()
}

#[test]
fn the_journal_gets_fields_to_filter_on() {
    let say = || {
        tracing::info!(
            message_id = Occasion::LeaseAcquired.id(),
            subnet = "100.96.1.0/24",
            public_ip = %std::net::Ipv4Addr::LOCALHOST,
            revision = 7,
            former = None::<&str>,
            "lease acquired"
        );
        tracing::warn!(fault = "kernel", "trouble");
        tracing::debug!("step");
        tracing::error!("end");
    };
    let Some(messages) = received(say) else {
        return;
    };
    let names = [
        "PRIORITY",
        "MESSAGE",
        "MESSAGE_ID",
        "SUBNET",
        "PUBLIC_IP",
        "REVISION",
        "FAULT",
    ];
    let id = Occasion::LeaseAcquired.id();
    let lease = [
        "6",
        "lease acquired subnet=100.96.1.0/24 public_ip=127.0.0.1 revision=7",
        id,
        "100.96.1.0/24",
        "127.0.0.1",
        "7",
        "-",
    ];
    assert_eq!(shown(&messages[0], &names), lease);
    assert!(!messages[0].contains_key("FORMER"));
    assert_eq!(messages[0]["SYSLOG_IDENTIFIER"], "flannel-rs");
    let trouble = ["4", "trouble fault=kernel", "-", "-", "-", "-", "kernel"];
    assert_eq!(shown(&messages[1], &names), trouble);
    let rest = |message| shown(message, &["PRIORITY", "MESSAGE"]);
    assert_eq!(
        [rest(&messages[2]), rest(&messages[3])],
        [["7", "step"], ["3", "end"]]
    );
    assert_eq!(messages.len(), 4);
}

#[test]
fn no_value_becomes_a_field() {
    let say = || {
        let hostile = "x\nPRIORITY=0\nMESSAGE_ID=00000000000000000000000000000000\n";
        tracing::info!(key = hostile, reason = %hostile, "{hostile}");
    };
    let Some(messages) = received(say) else {
        return;
    };
    let [message] = messages.as_slice() else {
        panic!("{messages:?}");
    };
    let shown = shown(message, &["PRIORITY", "MESSAGE_ID", "KEY"]);
    let key = r"x\nPRIORITY=0\nMESSAGE_ID=00000000000000000000000000000000\n";
    assert_eq!(shown, ["6", "-", key]);
    assert_eq!(message["REASON"], key);
    let quoted = key.replace('\\', r"\\");
    assert_eq!(
        message["MESSAGE"],
        format!("{key} key=\"{quoted}\" reason=\"{quoted}\"")
    );
}
