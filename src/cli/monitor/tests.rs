use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::super::bus::Description;
use super::*;
use crate::cli::samples::{NOW, running};
use crate::service::status::{Fault, PeerPath, PeerTraffic, PlannedChange, Traffic};

/// The lines after each of these statuses.
fn told(view: &mut View, status: &Status) -> String {
    let json = String::new();
    let status = status.clone();
    lines(
        view,
        Tidings::Described(Box::new(Description { json, status })),
    )
}

fn lines(view: &mut View, tidings: Tidings) -> String {
    let time = UNIX_EPOCH + Duration::from_micros(NOW);
    let events = view.take_in(tidings);
    let lines = events.iter().map(|event| event.lines(time, Palette::Plain));
    let stamp = "2027-01-15T08:00:00Z  ";
    lines.collect::<String>().replace(stamp, "")
}

/// A monitor that has seen the sample.
fn view() -> View {
    let mut view = View::default();
    assert_eq!(
        told(&mut view, &running()),
        "connected  node1 is running, 100.96.1.0/24, peers: 2, version 0.1.0\n"
    );
    view
}

fn fault(text: &str) -> Fault {
    Fault {
        code: "datastore".to_owned(),
        text: text.to_owned(),
        times: 1,
    }
}

#[test]
fn what_stays_is_no_news() {
    let mut status = running();
    let mut view = view();
    status.repairs += 1;
    status.datastore.revision += 1;
    assert_eq!(told(&mut view, &status), "");
    for packets in 1..3 {
        let sent_packets = packets;
        status.traffic = Some(Traffic {
            sent_packets,
            ..Traffic::default()
        });
        Arc::make_mut(&mut status.peers)[0].traffic = Some(PeerTraffic {
            sent_packets,
            ..PeerTraffic::default()
        });
        assert_eq!(told(&mut view, &status), "", "packets are no news");
    }
}

#[test]
fn state_faults_and_fields() {
    let mut view = view();
    let mut status = running();
    status.state = State::Degraded;
    status.faults = vec![fault("etcd is\naway")];
    let expected = "\
state      running -> degraded
fault      datastore: etcd is\u{fffd}away
";
    assert_eq!(told(&mut view, &status), expected);
    status.faults = vec![fault("etcd is still away")];
    assert_eq!(told(&mut view, &status), "");
    status = running();
    status.mtu = 0;
    status.subnet = Some("100.96.9.0/24".to_owned());
    status.lease_expires_usec = Some(NOW + 60_000_000);
    let expected = "\
state      degraded -> running
cleared    datastore
changed    subnet 100.96.1.0/24 -> 100.96.9.0/24
changed    mtu 1450 -> none
lease      expires 2027-01-15T08:01:00Z
";
    assert_eq!(told(&mut view, &status), expected);
    status.lease_expires_usec = Some(u64::MAX);
    let expected = "lease      expires after the year 9999\n";
    assert_eq!(told(&mut view, &status), expected);
}

#[test]
fn peers_come_change_and_go() {
    let mut view = view();
    let mut status = running();
    let peers = Arc::make_mut(&mut status.peers);
    let mut fourth = peers.remove(0);
    peers[0].path = PeerPath::None;
    peers[0].obstacle = Some("of another backend".to_owned());
    fourth.subnet = "100.96.4.0/24".to_owned();
    peers.push(fourth);
    let expected = "\
peer       - 100.96.2.0/24 192.168.1.48 vxlan 02:1a:5f:00:10:2b tunnel
peer       100.96.3.0/24 192.168.1.49 vxlan direct -> 192.168.1.49 vxlan not reached: of another backend
peer       + 100.96.4.0/24 192.168.1.48 vxlan 02:1a:5f:00:10:2b tunnel
";
    assert_eq!(told(&mut view, &status), expected);
}

#[test]
fn a_restart_is_told_as_such_and_not_as_a_loss_of_all_peers() {
    let mut view = view();
    let gone = lines(&mut view, Tidings::Gone(Error::NotRunning));
    assert!(
        gone.starts_with("gone       flannel-rs is not running: "),
        "{gone}"
    );
    let mut status = Status {
        state: State::Waiting,
        backend: None,
        subnet: None,
        peers: Arc::default(),
        ..running()
    };
    let expected = "connected  node1 is waiting, no subnet, peers: 0, version 0.1.0\n";
    assert_eq!(told(&mut view, &status), expected);
    status = running();
    Arc::make_mut(&mut status.peers).pop();
    let expected = "\
state      waiting -> running
peer       - 100.96.3.0/24 192.168.1.49 vxlan direct
";
    assert_eq!(told(&mut view, &status), expected);
}

#[test]
fn what_happens_is_told() {
    let mut view = view();
    let change = |verb: &str, object: &str| PlannedChange {
        verb: verb.to_owned(),
        object: object.to_owned(),
    };
    let changes = vec![change("add", "link flannel.1"), change("write", "file /x")];
    let expected = "repaired   add link flannel.1\nrepaired   write file /x\n";
    assert_eq!(lines(&mut view, Tidings::Repaired(changes)), expected);
    let conflict = |holder: &str| Tidings::Conflict {
        subnet: "100.96.1.0/24".to_owned(),
        holder: holder.to_owned(),
    };
    assert_eq!(
        lines(&mut view, conflict("192.168.1.49")),
        "conflict   100.96.1.0/24 is held by 192.168.1.49\n"
    );
    assert_eq!(
        lines(&mut view, conflict("")),
        "conflict   100.96.1.0/24 is held by another node\n"
    );
}

#[test]
fn programs_get_an_object_per_line() {
    let event = Event::State {
        from: State::Waiting,
        to: State::Running,
    };
    let time = UNIX_EPOCH + Duration::from_micros(NOW);
    let line = json_line(&event, time).unwrap();
    let expected = "{\"time\":\"2027-01-15T08:00:00.000Z\",\"event\":\"state\",\
                    \"from\":\"waiting\",\"to\":\"running\"}\n";
    assert_eq!(line, expected);
}

#[test]
fn a_line_of_json_cannot_talk_to_the_terminal() {
    let reason = "\u{9b}31m\u{202e}".to_owned();
    let line = json_line(&Event::Gone { reason }, UNIX_EPOCH).unwrap();
    assert!(line.contains(r#""\u009b31m\u202e""#), "{line:?}");
    assert_eq!(line.lines().count(), 1);
}
