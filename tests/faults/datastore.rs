//! What etcd can do: be away, slow, wrong, without a leader, full, restored, or locked.

use std::fs;
use std::time::{Duration, Instant};

use crate::site::{OFTEN, Site, endpoints, lab, one_member, put_config, put_lease, three_members};
use crate::support::etcd::{ClientCertificate, EtcdSetup};
use crate::support::relay::Relay;

/// Long enough for a log without bounds to show.
const LONG: Duration = Duration::from_secs(15);
/// A fault that comes and goes, and the wording that goes with it.
const LINES: usize = 4;
/// Where a relay to the one member listens.
const RELAY: &str = "192.168.1.1:2381";

/// Two nodes on one member.
fn plain(tables: &str) -> Option<Site> {
    let lab = lab()?;
    let members = one_member(&lab, EtcdSetup::default());
    let datastore = endpoints(&members);
    Some(Site::start(lab, members, tables, &datastore))
}

/// Two nodes on three members, of which the first leads and is the first to be asked.
fn three() -> Option<Site> {
    let lab = lab()?;
    let members = three_members(&lab);
    let datastore = endpoints(&members);
    Some(Site::start(lab, members, OFTEN, &datastore))
}

fn relay(site: &Site) -> Relay {
    Relay::inside(&site.lab.namespace("net"), RELAY, "192.168.1.1:2379")
}

/// Two nodes on one member behind a relay.
fn relayed(tables: &str) -> Option<(Site, Relay)> {
    let lab = lab()?;
    let members = one_member(&lab, EtcdSetup::default());
    let relay = Relay::inside(&lab.namespace("net"), RELAY, "192.168.1.1:2379");
    let datastore = format!("[datastore]\nendpoints = [\"http://{RELAY}\"]\n");
    Some((Site::start(lab, members, tables, &datastore), relay))
}

#[test]
fn absent() {
    let Some(mut site) = plain(OFTEN) else {
        return;
    };
    site.members[0].kill();
    site.wait_for_fault("connection refused; trying again");
    site.hold(LONG);
    site.members[0].restart();
    site.is_right_again("absent", Instant::now(), LINES);
    site.finish();
}

#[test]
fn slow() {
    let Some((mut site, relay)) = relayed(OFTEN) else {
        return;
    };
    // long enough for renewals, and for a PING
    for (milliseconds, seconds) in [(1000, 3), (2500, 7)] {
        relay.delay_answers(Duration::from_millis(milliseconds));
        site.hold(Duration::from_secs(seconds));
        site.is_right_again(&format!("{milliseconds} ms slow"), Instant::now(), 0);
    }
    relay.delay_answers(Duration::ZERO);
    site.is_right_again("slow", Instant::now(), 0);
    site.finish();
}

#[test]
fn answering_errors() {
    let Some(mut site) = plain(OFTEN) else {
        return;
    };
    for command in [
        "user add root:x",
        "user grant-role root root",
        "auth enable",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        site.members[0].etcdctl(&words);
    }
    site.members[0].restart();
    site.wait_for_fault("user name is empty: give a user name and a password");
    site.hold(Duration::from_secs(4));
    site.members[0].etcdctl(&["--user=root:x", "auth", "disable"]);
    site.is_right_again("answering errors", Instant::now(), LINES);
    site.finish();
}

#[test]
fn leader_lost() {
    let Some(mut site) = three() else {
        return;
    };
    site.members[0].kill();
    site.members[1].wait_until_it_answers();
    site.is_right_again("leader lost", Instant::now(), LINES);
    // asked first by whoever starts now, and no hindrance
    site.nodes[0].kill();
    let start = Instant::now();
    site.nodes[0].start();
    site.nodes[0].wait_until_ready();
    eprintln!(
        "ready {:.1?} after a start with a dead first endpoint",
        start.elapsed()
    );
    assert!(start.elapsed() < Duration::from_secs(5));
    site.finish();
}

#[test]
fn one_of_three_dead() {
    let Some(mut site) = three() else {
        return;
    };
    // frozen is worse than dead: nothing says so
    site.members[0].stop();
    site.members[1].wait_until_it_answers();
    let began = Instant::now();
    site.hold(Duration::from_secs(11));
    site.is_right_again("one of three frozen, while it is", Instant::now(), LINES);
    site.members[0].cont();
    site.is_right_again("one of three frozen", Instant::now(), LINES);
    assert!(began.elapsed() < LONG * 2);
    site.members[0].kill();
    site.is_right_again("one of three killed", Instant::now(), LINES);
    site.finish();
}

#[test]
fn quorum_lost() {
    let Some(mut site) = three() else {
        return;
    };
    site.members[1].stop();
    site.members[2].kill();
    site.wait_for_fault("datastore: ");
    site.hold(Duration::from_secs(5));
    site.members[1].cont();
    site.members[0].wait_until_it_answers();
    site.is_right_again("quorum lost", Instant::now(), LINES);
    site.finish();
}

#[test]
fn compacted_while_cut_off() {
    let Some((mut site, way)) = relayed(OFTEN) else {
        return;
    };
    put_lease(&site.members[0], 60, 0x60);
    let entry = "02:00:00:00:00:60";
    for node in &site.nodes {
        node.wait_for("bridge fdb show dev flannel.1", entry);
    }
    drop(way);
    site.wait_for_fault("connection refused; trying again");
    // its MAC changes in the gap, and the watch could not tell
    put_lease(&site.members[0], 60, 0x61);
    site.members[0].etcdctl(&["put", "/other", "x"]);
    site.members[0].compact();
    let (_way, ended) = (relay(&site), Instant::now());
    for node in &site.nodes {
        node.wait_for("bridge fdb show dev flannel.1", "02:00:00:00:00:61");
        node.wait_for_end("bridge fdb show dev flannel.1", entry);
    }
    eprintln!("changed MAC seen after {:.1?}", ended.elapsed());
    assert!(ended.elapsed() < Duration::from_secs(5));
    site.members[0].etcdctl(&["del", "/coreos.com/network/subnets/100.96.60.0-24"]);
    for node in &site.nodes {
        node.wait_for_end("ip -4 route", "100.96.60.0/24");
    }
    site.is_right_again("compacted", Instant::now(), LINES);
    site.finish();
}

#[test]
fn restored_from_a_backup() {
    let Some(mut site) = plain(OFTEN) else {
        return;
    };
    let backup = site.members[0].save();
    for (another, what) in [(false, "restored"), (true, "restored as another cluster")] {
        for _ in 0..20 {
            site.members[0].etcdctl(&["put", "/other", "x"]);
        }
        site.members[0].restore(&backup, another);
        site.is_right_again(what, Instant::now(), 2 * LINES);
    }
    site.finish();
}

#[test]
fn created_anew() {
    let Some(mut site) = plain(OFTEN) else {
        return;
    };
    site.members[0].restart_empty();
    // all claim their subnets again before anybody may miss one
    site.hold(Duration::from_secs(3));
    put_config(&site.members[0]);
    site.is_right_again("created anew", Instant::now(), 2 * LINES);
    for key in ["1", "2"] {
        let key = format!("/coreos.com/network/subnets/100.96.{key}.0-24");
        assert!(site.members[0].etcdctl(&["get", &key]).contains("VtepMAC"));
    }
    site.finish();
}

#[test]
fn full() {
    let Some(lab) = lab() else {
        return;
    };
    let setup = EtcdSetup {
        arguments: &["--quota-backend-bytes=1048576"],
        ..EtcdSetup::default()
    };
    let members = one_member(&lab, setup);
    let datastore = endpoints(&members);
    let mut site = Site::start(lab, members, OFTEN, &datastore);
    site.members[0].fill();
    site.wait_for_fault(
        "etcd is out of space: compact and defragment it, then run etcdctl alarm disarm",
    );
    site.hold(Duration::from_secs(5));
    site.members[0].make_room();
    site.is_right_again("full", Instant::now(), LINES);
    site.finish();
}

/// An etcd with a user, and nodes that log in as that.
fn with_login(arguments: &'static [&'static str]) -> Option<Site> {
    let lab = lab()?;
    let setup = EtcdSetup {
        login: Some(("root".to_owned(), "first".to_owned())),
        arguments,
        ..EtcdSetup::default()
    };
    let members = one_member(&lab, setup);
    let password = lab.folder().join("password");
    fs::write(&password, "first\n").unwrap();
    let login = format!("username = \"root\"\npassword-file = {password:?}\n");
    let datastore = format!("{}{login}", endpoints(&members));
    Some(Site::start(lab, members, OFTEN, &datastore))
}

#[test]
fn token_expired() {
    let Some(mut site) = with_login(&["--auth-token-ttl=1"]) else {
        return;
    };
    // renewals every two seconds find it expired
    site.hold(Duration::from_secs(6));
    site.is_right_again("token expired", Instant::now(), 0);
    // this forgets it, too
    site.members[0].restart();
    site.is_right_again("token forgotten", Instant::now(), LINES);
    site.finish();
}

#[test]
fn password_changed() {
    let Some(mut site) = with_login(&[]) else {
        return;
    };
    site.members[0].change_password("second");
    site.members[0].restart();
    site.wait_for_fault("check user name and password");
    site.hold(Duration::from_secs(4));
    fs::write(site.lab.folder().join("password"), "second\n").unwrap();
    site.is_right_again("password changed", Instant::now(), LINES);
    site.finish();
}

#[test]
fn certificates_rotated() {
    let Some(lab) = lab() else {
        return;
    };
    let setup = EtcdSetup {
        tls: Some(ClientCertificate::Required),
        ..EtcdSetup::default()
    };
    let members = one_member(&lab, setup);
    let file = |name: &str| members[0].certificates().file(name);
    let files = format!(
        "ca-file = {:?}\ncert-file = {:?}\nkey-file = {:?}\n",
        file("ca.pem"),
        file("client.pem"),
        file("client.key")
    );
    let datastore = format!("{}{files}", endpoints(&members));
    let mut site = Site::start(lab, members, OFTEN, &datastore);
    let key = site.members[0].certificates().file("client.key");
    let former = fs::read(&key).unwrap();
    site.members[0].replace_certificates();
    // one file is late
    let new = fs::read(&key).unwrap();
    fs::write(&key, former).unwrap();
    site.members[0].restart();
    site.wait_for_fault("datastore: ");
    site.wait_for_fault("our certificate and its key do not go together");
    site.hold(Duration::from_secs(4));
    fs::write(&key, new).unwrap();
    site.is_right_again("certificates rotated", Instant::now(), LINES);
    site.finish();
}

/// etcd's answers do not leave its host, and nothing says so.
#[test]
fn black_holed() {
    let Some(mut site) = plain(OFTEN) else {
        return;
    };
    let hole = |site: &Site, verb: &str| {
        let script = format!("for i in 47 48; do ip route {verb} blackhole 192.168.1.$i; done");
        site.lab.must("net", &script);
    };
    // a short one may pass unnoticed, and must not be felt for long
    hole(&site, "add");
    site.hold(Duration::from_secs(5));
    hole(&site, "del");
    site.is_right_again("short black hole", Instant::now(), LINES);
    hole(&site, "add");
    let began = Instant::now();
    site.wait_for_fault("datastore: ");
    eprintln!("the hole was noticed after {:.1?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(15));
    site.hold(Duration::from_secs(6));
    hole(&site, "del");
    site.is_right_again("black hole", Instant::now(), LINES);
    site.finish();
}

#[test]
fn frozen() {
    let Some(mut site) = plain(OFTEN) else {
        return;
    };
    site.members[0].stop();
    site.wait_for_fault("no answer in 3 s; trying again");
    site.hold(Duration::from_secs(5));
    site.members[0].cont();
    site.is_right_again("frozen", Instant::now(), LINES);
    site.finish();
}
