//! Where nothing is wrong, nothing is found, and nothing stays.

use crate::ward::{cluster, examine};

fn nothing_is_found(backend: &str) {
    let Some((_lab, nodes)) = cluster(backend) else {
        return;
    };
    for node in &nodes {
        let before = (node.shown("ip -o link"), node.rows());
        let diagnosis = examine(node);
        assert_eq!(
            diagnosis["findings"],
            serde_json::json!([]),
            "{diagnosis:#}"
        );
        assert_eq!(diagnosis["omitted"], serde_json::json!([]), "{diagnosis:#}");
        let vantage = diagnosis["vantage"].as_str().unwrap();
        assert!(vantage.ends_with(" on docker0"), "{vantage}");
        assert_eq!((node.shown("ip -o link"), node.rows()), before);
        let known = node.shown("ip neighbour show dev docker0");
        let probe = format!("100.96.{}.25", node.number);
        assert!(!known.contains(&probe), "{known}");
    }
    let (code, page, stderr) = nodes[0].program(&["doctor"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{page}");
    assert!(
        page.starts_with("nothing found\npackets were sent from "),
        "{page}"
    );
}

#[test]
fn nothing_is_found_with_vxlan() {
    nothing_is_found("vxlan");
}

#[test]
fn nothing_is_found_with_udp() {
    nothing_is_found("udp");
}

#[test]
fn nothing_is_found_with_host_gw() {
    nothing_is_found("host-gw");
}
