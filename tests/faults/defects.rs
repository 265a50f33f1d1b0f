//! Defects of flanneld that are none of ours, by their numbers in its list (flannel v0.28).
//!
//! Others have their tests elsewhere: 1 in `overlay::leases`
//! (`a_lease_that_somebody_takes_is_told_and_had_back_once_it_is_free`), 4 in
//! [`super::datastore`] (`compacted_while_cut_off`), 14 also in `datastore::etcd_access`.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::site::{Site, configured, endpoints, lab, one_member, put_lease};
use crate::support::etcd::{EtcdServer, EtcdSetup};
use crate::support::process::until;
use crate::support::relay::Relay;

const RELAY: &str = "192.168.1.1:2381";

fn through_relay() -> String {
    format!("[datastore]\nendpoints = [\"http://{RELAY}\"]\n")
}

#[test]
fn defect_02_a_first_list_that_fails_does_not_leave_it_deaf() {
    let Some(lab) = lab() else {
        return;
    };
    let members = one_member(&lab, EtcdSetup::default());
    for command in [
        "user add root:x",
        "user grant-role root root",
        "auth enable",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        members[0].etcdctl(&words);
    }
    let relay = Relay::inside(&lab.namespace("net"), RELAY, "192.168.1.1:2379");
    relay.refuse(true);
    let mut node = configured(&lab, 1, "", &through_relay());
    node.start();
    node.wait_for_status("waiting; datastore: listing the leases: etcd at http://192.168.1.1:2381");
    thread::sleep(Duration::from_secs(3));
    // errors of another kind: it answers, and says no
    relay.refuse(false);
    node.wait_for_status("user name is empty");
    thread::sleep(Duration::from_secs(2));
    members[0].etcdctl(&["--user=root:x", "auth", "disable"]);
    let ended = Instant::now();
    node.wait_until_ready();
    put_lease(&members[0], 9, 9);
    node.wait_for("ip -4 route", "100.96.9.0/24");
    eprintln!("ready and not deaf after {:.1?}", ended.elapsed());
    assert!(ended.elapsed() < Duration::from_secs(5));
    assert!(node.log().lines().count() < 12, "{}", node.log());
}

#[test]
fn defect_03_a_watch_that_fails_stops_no_renewal() {
    let Some(lab) = lab() else {
        return;
    };
    let members = one_member(&lab, EtcdSetup::default());
    let namespace = lab.namespace("net");
    let mut relay = Relay::inside(&namespace, RELAY, "192.168.1.1:2379");
    let tables = "[lease]\nttl = \"6s\"\nrenew-margin = \"4s\"\n";
    let site = Site::start(lab, members, tables, &through_relay());
    let revision = || site.lab.lease("100.96.1.0-24").expect("it lives").revision;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(13) {
        let before = revision();
        // all connections end, that of the watch among them
        drop(relay);
        relay = Relay::inside(&namespace, RELAY, "192.168.1.1:2379");
        until("a renewal after the watch has failed", || {
            revision() > before
        });
    }
    site.finish();
}

/// A list without a request per lease (defect 6) has none that can fail for a lease (defect 5).
#[test]
fn defects_05_and_06_no_lease_takes_a_request_of_its_own() {
    const LEASES: usize = 500;
    let Some(lab) = lab() else {
        return;
    };
    let members = one_member(&lab, EtcdSetup::default());
    members[0].etcdctl(&[
        "put",
        "/coreos.com/network/config",
        r#"{"Network":"100.96.0.0/15","Backend":{"Type":"vxlan"}}"#,
    ]);
    write_leases(&members[0], LEASES);
    let requests = [
        "Range",
        "Txn",
        "Put",
        "LeaseGrant",
        "LeaseTimeToLive",
        "Watch",
    ];
    let count = || requests.map(|method| members[0].served(method));
    let before = count();
    let mut node = configured(&lab, 1, "", &endpoints(&members));
    node.start();
    node.wait_until_ready();
    node.wait_for_status(&format!("{LEASES} of {LEASES} peers"));
    let after = count();
    let served: Vec<(&str, u64)> = (requests.into_iter())
        .zip(
            after
                .into_iter()
                .zip(before)
                .map(|(after, before)| after - before),
        )
        .collect();
    eprintln!("a start with {LEASES} leases: {served:?}");
    assert!(served.contains(&("LeaseTimeToLive", 0)), "{served:?}");
    let all: u64 = served.iter().map(|(_, count)| count).sum();
    assert!((3..=12).contains(&all), "{served:?}");
}

/// Leases of hosts that are not there.
fn write_leases(server: &EtcdServer, count: usize) {
    let granted = server.etcdctl(&["lease", "grant", "600"]);
    let lease = granted.split_whitespace().nth(1).unwrap().to_owned();
    let numbers: Vec<usize> = (0..count).collect();
    // a transaction may have 128 parts
    for chunk in numbers.chunks(100) {
        let puts = chunk.iter().map(|number| {
            let (high, low) = (number / 250, number % 250 + 3);
            let value = format!(
                r#"{{"PublicIP":"192.168.{}.{low}","BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:{high:02x}:{low:02x}"}}}}"#,
                high + 10
            );
            let key = format!("/coreos.com/network/subnets/100.{}.{low}.0-24", 96 + high);
            format!("put --lease={lease} {key} {value:?}")
        });
        server.transact(&puts.collect::<Vec<_>>());
    }
}

#[test]
fn defect_13_the_password_is_logged_at_no_level() {
    const PASSWORD: &str = "correct-horse-battery";
    let Some(lab) = lab() else {
        return;
    };
    let login = Some(("root".to_owned(), PASSWORD.to_owned()));
    let setup = EtcdSetup {
        login,
        ..EtcdSetup::default()
    };
    let members = one_member(&lab, setup);
    let password = lab.folder().join("password");
    let store = format!(
        "{}username = \"root\"\npassword-file = {password:?}\n",
        endpoints(&members)
    );
    // the second is that of all libraries, too
    for level in ["trace", "trace,flannel_rs=trace"] {
        fs::write(&password, format!("{PASSWORD}-wrong\n")).unwrap();
        let mut node = configured(&lab, 1, &format!("[log]\nlevel = {level:?}\n"), &store);
        node.start();
        node.wait_for_status("check user name and password");
        fs::write(&password, format!("{PASSWORD}\n")).unwrap();
        node.wait_until_ready();
        let log = node.log();
        assert!(log.contains("TRACE") || level == "trace", "{log}");
        assert!(!log.contains(PASSWORD), "at {level}");
        // as bytes are shown, too
        let bytes = format!("{:?}", PASSWORD.as_bytes());
        assert!(!log.contains(bytes.trim_matches(['[', ']'])), "at {level}");
        node.kill();
    }
}

#[test]
fn defect_14_a_ca_alone_means_tls() {
    let Some(lab) = lab() else {
        return;
    };
    let members = one_member(&lab, EtcdSetup::default());
    let authority = lab.folder().join("tls");
    crate::support::certificates::Certificates::make(&authority, [192, 168, 1, 1].into());
    let ca = format!("ca-file = {:?}\n", authority.join("ca.pem"));
    let plain = endpoints(&members);
    // a plain endpoint with a CA is a mistake, not a wish for plain text
    let mut node = configured(&lab, 1, "", &format!("{plain}{ca}"));
    let config = node.config().display().to_string();
    let (code, _, stderr) = node.program(&["daemon", "--config", &config]);
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("https://"), "{stderr}");
    // and a server that speaks plain text is not spoken to
    let mut node2 = configured(
        &lab,
        2,
        "",
        &format!("{}{ca}", plain.replace("http:", "https:")),
    );
    node2.start();
    node2.wait_for_status("it does not speak TLS: write http://");
    thread::sleep(Duration::from_secs(2));
    assert!(node2.is_running() && !node2.is_ready());
    let keys = members[0].etcdctl(&[
        "get",
        "--prefix",
        "--keys-only",
        "/coreos.com/network/subnets/",
    ]);
    assert_eq!(keys.trim(), "");
    node.kill();
}
