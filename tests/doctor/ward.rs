//! Nodes to examine.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::until;

/// Far more than three seconds of packets and the start of a process take on a busy machine.
const LONGEST: Duration = Duration::from_secs(15);

/// Three connected nodes, each on a bus of its own; `None` where there can be none.
pub(crate) fn cluster(backend: &str) -> Option<(Lab, [Node; 3])> {
    let lab = Lab::with_backend(Shape::Flat, &format!(r#"{{"Type":"{backend}"}}"#))?;
    let mut nodes = [1, 2, 3].map(|number| lab.node(number));
    for node in &mut nodes {
        if !node.start_bus() {
            return None;
        }
        node.start();
    }
    for node in &mut nodes {
        node.wait_until_ready();
        lab.container(node);
    }
    lab.wait_until_connected();
    for node in &nodes {
        until("the service is on the bus", || {
            node.program(&["status"]).0 == Some(0)
        });
    }
    Some((lab, nodes))
}

/// What the doctor says on a node, in JSON.
pub(crate) fn examine(node: &Node) -> Value {
    let began = Instant::now();
    let (code, stdout, stderr) = node.program(&["doctor", "--json"]);
    let took = began.elapsed();
    assert!(took < LONGEST, "it took {took:?}");
    let diagnosis: Value =
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
    let found = diagnosis["findings"].as_array().unwrap().len();
    let expected = if found == 0 { 0 } else { 5 };
    assert_eq!(code, Some(expected), "{diagnosis:#}{stderr}");
    diagnosis
}

/// The codes of what was found.
pub(crate) fn codes(diagnosis: &Value) -> Vec<&str> {
    let findings = diagnosis["findings"].as_array().unwrap();
    (findings.iter())
        .map(|finding| finding["code"].as_str().unwrap())
        .collect()
}

/// The fix of the first finding with this code.
pub(crate) fn fix<'a>(diagnosis: &'a Value, code: &str) -> Option<&'a str> {
    let mut findings = diagnosis["findings"].as_array().unwrap().iter();
    findings.find(|finding| finding["code"] == code)?["fix"].as_str()
}

/// Whether a program is installed; says so where not.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .unwrap();
    if !found.status.success() {
        eprintln!("skipped: {program} is not installed");
    }
    found.status.success()
}
