use std::sync::Arc;

use super::*;
use crate::cli::samples::{NOW, running};
use crate::service::status::{Fault, GarbageStatus, Traffic};

#[test]
fn a_running_node_with_its_peers() {
    let expected = "\
node1 is running
  subnet     100.96.1.0/24 of 100.96.0.0/16, MTU 1450
  backend    vxlan over eth0, public IP 192.168.1.47
  lease      expires in 23h 59m
  datastore  etcd at http://192.168.1.47:2379: connected, revision 42
  kernel     equal to the plan 3s ago, 0 repairs
  peers      2 of 2 reachable

SUBNET         PUBLIC IP     BACKEND  PATH    MAC/WHY NOT
100.96.2.0/24  192.168.1.48  vxlan    tunnel  02:1a:5f:00:10:2b
100.96.3.0/24  192.168.1.49  vxlan    direct
";
    assert_eq!(text(&running(), NOW, Palette::Plain), expected);
}

#[test]
fn a_node_that_moves_packets_itself_tells_how_many() {
    let mut status = running();
    status.traffic = Some(Traffic {
        sent_bytes: 1_250_000_000,
        received_bytes: 12_000,
        dropped_no_route: 3,
        ..Traffic::default()
    });
    let page = text(&status, NOW, Palette::Plain);
    let expected = "\
  peers      2 of 2 reachable
  traffic    sent 1.2 GB, received 12.0 kB, dropped 3: 3 no route

SUBNET ";
    assert!(page.contains(expected), "{page}");
}

#[test]
fn a_degraded_node_names_its_faults_and_the_peers_it_does_not_reach() {
    let mut status = running();
    status.state = State::Degraded;
    status.faults = vec![
        fault("datastore", "etcd does not answer; trying on"),
        fault("peer", "100.96.3.0/24 is not reached"),
    ];
    status.datastore.connected = false;
    status.lease_expires_usec = Some(NOW - 61_000_000);
    status.repairs = 1;
    Arc::make_mut(&mut status.peers)[1].path = PeerPath::None;
    Arc::make_mut(&mut status.peers)[1].obstacle = Some("not on the network of eth0".to_owned());
    status.garbage = vec![GarbageStatus {
        key: "subnets/x".to_owned(),
        reason: "not a lease key".to_owned(),
    }];
    let expected = "\
node1 is degraded
! datastore: etcd does not answer; trying on
! peer: 100.96.3.0/24 is not reached
  subnet     100.96.1.0/24 of 100.96.0.0/16, MTU 1450
  backend    vxlan over eth0, public IP 192.168.1.47
  lease      expired 1m 1s ago
  datastore  etcd at http://192.168.1.47:2379: unreachable, last seen revision 42
  kernel     equal to the plan 3s ago, 1 repair
  peers      1 of 2 reachable
  ignored    subnets/x: not a lease key

SUBNET         PUBLIC IP     BACKEND  PATH    MAC/WHY NOT
100.96.2.0/24  192.168.1.48  vxlan    tunnel  02:1a:5f:00:10:2b
100.96.3.0/24  192.168.1.49  vxlan    none    not on the network of eth0
";
    assert_eq!(text(&status, NOW, Palette::Plain), expected);
}

#[test]
fn a_waiting_node_knows_little() {
    let status = Status {
        state: State::Waiting,
        faults: vec![fault("datastore", "waiting for etcd")],
        backend: None,
        network: None,
        subnet: None,
        interface: None,
        public_ip: None,
        mtu: 0,
        lease_expires_usec: None,
        peers: Arc::default(),
        last_reconcile_usec: None,
        ..running()
    };
    let expected = "\
node1 is waiting
! datastore: waiting for etcd
  subnet     none yet
  backend    unknown
  lease      none yet
  datastore  etcd at http://192.168.1.47:2379: connected, revision 42
  kernel     not yet equal to the plan, 0 repairs
  peers      none
";
    assert_eq!(text(&status, NOW, Palette::Plain), expected);
}

#[test]
fn a_withdrawn_node_is_not_about_to_get_a_lease() {
    let status = Status {
        state: State::Withdrawn,
        subnet: None,
        lease_expires_usec: None,
        ..running()
    };
    let page = text(&status, NOW, Palette::Plain);
    assert!(
        page.starts_with("node1 is withdrawn\n  subnet     none of "),
        "{page}"
    );
    assert!(page.contains("\n  lease      none\n"), "{page}");
}

#[test]
fn a_reservation_never_expires() {
    let mut status = running();
    status.lease_expires_usec = None;
    let page = text(&status, NOW, Palette::Plain);
    assert!(
        page.contains("  lease      reserved, never expires\n"),
        "{page}"
    );
}

#[test]
fn text_from_peers_cannot_command_the_terminal() {
    let mut status = running();
    status.node_name = "n\x1b[31m".to_owned();
    Arc::make_mut(&mut status.peers)[0].backend = "\x1b]0;x\x07\r\nnode1 is running".to_owned();
    Arc::make_mut(&mut status.peers)[1].obstacle = Some("\u{9b}31m".to_owned());
    let page = text(&status, NOW, Palette::Plain);
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!page.contains(control), "{page:?}");
    assert_eq!(page.lines().count(), 11, "{page}");
}

#[test]
fn colour_marks_the_state_and_ends_there() {
    let page = text(&running(), NOW, Palette::Colour);
    assert!(
        page.starts_with("node1 is \x1b[32mrunning\x1b[0m\n"),
        "{page:?}"
    );
    assert_eq!(page.matches('\x1b').count(), 2);
}

#[test]
fn spans_show_two_units() {
    let spans = [
        (0, "0s"),
        (59, "59s"),
        (60, "1m"),
        (3_605, "1h"),
        (86_399, "23h 59m"),
        (200_000, "2d 7h"),
    ];
    for (seconds, expected) in spans {
        assert_eq!(span(seconds * 1_000_000), expected);
    }
}

fn fault(code: &str, text: &str) -> Fault {
    Fault {
        code: code.to_owned(),
        text: text.to_owned(),
        times: 1,
    }
}
