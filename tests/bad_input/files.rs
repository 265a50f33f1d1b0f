//! Folders that are full or cannot be written, and a config that turns bad.

use std::fs;

use nix::sys::signal::Signal;

use crate::VXLAN;
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;

#[test]
fn a_full_disk_is_named_and_nothing_is_left_half_written() {
    let Some((_lab, mut node)) = node_with_run_folder() else {
        return;
    };
    let run = node.folder().join("run");
    let (run, file) = (run.display(), run.join("subnet.env"));
    node.start_after(&format!(
        "mount -t tmpfs -o size=4k none {run}; echo full > {run}/other"
    ));
    node.wait_for_status(&format!(
        "waiting; files: cannot write {}: No space left on device (os error 28); make room on its \
         disk",
        file.display()
    ));
    assert!(!node.is_ready());
    node.beside(&format!("test \"$(ls {run})\" = other; rm {run}/other"));
    node.wait_until_ready();
    node.beside(&format!(
        "grep FLANNEL_SUBNET=100.96.1.1/24 {run}/subnet.env"
    ));
    node.wait_for_status("datastore ok");
}

#[test]
fn a_read_only_folder_is_named() {
    let Some((_lab, mut node)) = node_with_run_folder() else {
        return;
    };
    let run = node.folder().join("run");
    let (run, file) = (run.display(), run.join("subnet.env"));
    node.start_after(&format!("mount -t tmpfs -o ro none {run}"));
    node.wait_for_status(&format!(
        "waiting; files: cannot write {}: Read-only file system (os error 30); mount it writable, \
         or choose another place in [paths] or [docker]",
        file.display()
    ));
    assert!(!node.is_ready());
    node.beside(&format!("mount -o remount,rw {run}"));
    node.wait_until_ready();
    node.beside(&format!(
        "grep FLANNEL_SUBNET=100.96.1.1/24 {run}/subnet.env"
    ));
    node.wait_for_status("datastore ok");
}

#[test]
fn a_read_only_state_folder_costs_the_memory_alone() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    let state = node.folder().join("state");
    fs::create_dir(&state).unwrap();
    node.start_after(&format!("mount -t tmpfs -o ro none {}", state.display()));
    node.wait_until_ready();
    let line = node.wait_for_status("100.96.1.0/24 vxlan, 0 of 0 peers, lease 23h59m, state: ");
    let reason = format!("cannot write {}/", state.display());
    assert!(line.contains(&reason), "{line}");
    assert!(
        line.contains("Read-only file system (os error 30); mount it writable"),
        "{line}"
    );
    node.beside(&format!("mount -o remount,rw {}", state.display()));
    node.wait_for_status("datastore ok");
    node.beside(&format!(
        "test -s {0}/node-id && test -s {0}/lease.json",
        state.display()
    ));
}

#[test]
fn a_bad_config_at_a_reload_is_told_in_one_line_and_changes_nothing() {
    let Some(lab) = Lab::with_backend(Shape::Flat, VXLAN) else {
        return;
    };
    let mut node = lab.node(1);
    node.start();
    node.wait_until_ready();
    node.wait_for_status("datastore ok");
    let rows = node.rows();
    let good = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), good.replace("name =", "nam =")).unwrap();
    node.signal(Signal::SIGHUP);
    let line = node.wait_for_status(&format!(
        "config: {}:2:1: unknown key `nam` (did you mean `name`?)",
        node.config().display()
    ));
    assert!(!line.contains('^') && !line.contains('|'), "{line}");
    assert_eq!(node.rows(), rows);
    fs::write(node.config(), good).unwrap();
    node.signal(Signal::SIGHUP);
    node.wait_for_status("datastore ok");
    assert!(node.is_running());
}

/// A node whose `subnet.env` has a folder of its own, on which a test can mount something.
fn node_with_run_folder() -> Option<(Lab, Node)> {
    let lab = Lab::with_backend(Shape::Flat, VXLAN)?;
    let node = lab.node(1);
    fs::create_dir(node.folder().join("run")).unwrap();
    let text = fs::read_to_string(node.config()).unwrap();
    fs::write(
        node.config(),
        text.replace("/subnet.env", "/run/subnet.env"),
    )
    .unwrap();
    Some((lab, node))
}
