//! Without a service, without privileges, without packets.

use serde_json::Value;

use crate::support::process::until;
use crate::ward::{cluster, codes, examine, fix};

#[test]
fn what_is_left_out_is_told() {
    let Some((_lab, mut nodes)) = cluster("host-gw") else {
        return;
    };
    let node = &nodes[0];
    let (code, page, _) = node.program(&["doctor", "--no-probes"]);
    let start = "nothing found\nnot looked at: real packets";
    assert!(
        code == Some(0) && page.starts_with(start),
        "{code:?}: {page}"
    );

    // root without any capability is an ordinary user who may see the files of the test
    let program = env!("CARGO_BIN_EXE_flannel-rs");
    let bus = node.folder().join("bus");
    let page = node.must(&format!(
        "DBUS_SYSTEM_BUS_ADDRESS=unix:path={} setpriv --bounding-set=-all --inh-caps=-all \
         {program} doctor",
        bus.display()
    ));
    assert!(page.starts_with("nothing found\nnot looked at: "), "{page}");
    assert!(
        page.contains("CAP_NET_RAW, CAP_SYS_ADMIN: run it as root"),
        "{page}"
    );

    nodes[0].stop();
    let node = &nodes[0];
    node.must("echo 0 > /proc/sys/net/ipv4/ip_forward");
    let mut diagnosis = Value::Null;
    until("the service has left the bus", || {
        diagnosis = examine(node);
        codes(&diagnosis).contains(&"service")
    });
    assert_eq!(
        codes(&diagnosis),
        ["service", "forwarding"],
        "{diagnosis:#}"
    );
    assert_eq!(
        fix(&diagnosis, "service"),
        Some("systemctl start flannel-rs")
    );
    let omitted = diagnosis["omitted"][0]["what"].as_str().unwrap();
    assert!(omitted.contains("peers"), "{diagnosis:#}");
}
