use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::cluster::acquire::Claim;
use crate::cluster::datastore::{Entry, Event, Revision, Snapshot, StoreError};
use crate::cluster::lease::BackendAttrs;
use crate::cluster::subnet::Subnet;
use crate::cluster::view::Record;
use crate::kernel::uplink::{DefaultRoute, Interface, InterfaceAddress, Interfaces};
use crate::service::status::PeerPath;

mod clones;
mod fleet;
mod leftovers;
mod renumber;
mod trust;
mod uplink;
mod withdrawal;

const CONFIG_1: &str = r#"{"Network":"100.96.0.0/16","Backend":{"Type":"vxlan"}}"#;
const NODE2: &str = r#"{"PublicIP":"192.168.1.48","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}}"#;
const DAY: Duration = Duration::from_secs(86_400);

fn config(text: &str) -> Config {
    Config::parse(text, Path::new("config.toml")).unwrap()
}

fn at(seconds: u64) -> Moment {
    Moment {
        since_boot: Duration::from_secs(seconds),
        wall_usec: 1_000_000 * seconds,
    }
}

/// A host with these interfaces and a default route over the first argument.
fn host(uplink: &str, interfaces: &[(&str, &str)]) -> Interfaces {
    let interface = |(name, address): &(&str, &str)| Interface {
        name: (*name).to_owned(),
        mtu: 1500,
        addresses: vec![InterfaceAddress {
            address: address.parse().unwrap(),
            permanent: true,
            deprecated: false,
        }],
    };
    Interfaces {
        interfaces: interfaces.iter().map(interface).collect(),
        default_routes: vec![DefaultRoute {
            metric: 0,
            interfaces: vec![uplink.to_owned()],
        }],
        reach: None,
    }
}

fn world(text: &str) -> World {
    let identity = Identity {
        name: "node1".into(),
        id: "00112233445566778899aabbccddeeff".into(),
        last: None,
        previous: None,
    };
    let mut world = World::new(config(text), identity, "etcd at x".into());
    world.uplink_seen(&host("eth0", &[("eth0", "192.168.1.47/24")]), at(0));
    world
}

fn entry(key: &str, value: &str, revision: i64) -> Entry {
    Entry {
        key: key.into(),
        value: value.into(),
        revision: Revision(revision),
        expires: true,
    }
}

fn snapshot(revision: i64, entries: Vec<Entry>) -> Snapshot {
    Snapshot {
        revision: Revision(revision),
        entries,
    }
}

fn subnet(key: &str) -> Subnet {
    Subnet::from_key(key).unwrap()
}

/// A world that has seen the config and node2, and holds 100.96.1.0/24 since second 0, written
/// at revision 5.
fn holding() -> World {
    let mut world = world("");
    let entries = vec![
        entry("config", CONFIG_1, 1),
        entry("subnets/100.96.2.0-24", NODE2, 2),
    ];
    assert!(world.listed(snapshot(2, entries), at(1)));
    world.acquired(Ok(held(&world, 5)), at(0));
    world.changed(vec![Event::Put(own(&world, 5))], at(1));
    world
}

fn held(world: &World, revision: i64) -> Held {
    Held {
        lease: Lease {
            subnet: subnet("100.96.1.0-24"),
            attrs: world.attrs().unwrap(),
        },
        revision: Revision(revision),
        ttl: Some(DAY),
    }
}

fn own(world: &World, revision: i64) -> Entry {
    let value = world.attrs().unwrap().to_json();
    entry("subnets/100.96.1.0-24", &value, revision)
}

fn codes(world: &World) -> Vec<String> {
    let faults = world.faults.list().into_iter();
    faults.map(|fault| fault.code).collect()
}

fn peers(world: &mut World) -> Vec<String> {
    let plan = world.plan().unwrap();
    plan.paths.keys().map(|subnet| subnet.key()).collect()
}

#[test]
fn nothing_is_done_or_planned_before_a_whole_list_was_seen() {
    let mut world = world("[network]\nnetwork = \"100.96.0.0/16\"\n");
    assert_eq!(world.duty(at(0)), None);
    assert_eq!(world.plan(), None);
    world.listed(snapshot(1, vec![]), at(1));
    assert!(matches!(world.duty(at(0)), Some(Task::Seed(_))));
}

#[test]
fn first_the_config_then_a_lease_then_quiet() {
    let mut world = world("[node]\nsubnet = \"100.96.7.0/24\"\n");
    world.listed(snapshot(1, vec![]), at(1));
    assert_eq!(world.duty(at(0)), None);
    assert_eq!(codes(&world), ["network-config"]);
    world.changed(vec![Event::Put(entry("config", CONFIG_1, 2))], at(1));
    assert!(codes(&world).is_empty());
    let Some(Task::Acquire(_, wish, _)) = world.duty(at(0)) else {
        panic!()
    };
    assert_eq!(wish.asked, Some(subnet("100.96.7.0-24")));
    let world = holding();
    assert_eq!(world.duty(at(1)), None);
}

#[test]
fn a_lease_is_renewed_an_hour_before_its_end_and_missed_after_it() {
    let mut world = holding();
    assert_eq!(world.duty(at(82_799)), None);
    assert!(matches!(world.duty(at(82_800)), Some(Task::Renew(..))));
    world.changed(vec![], at(86_390));
    world.aged(at(86_399));
    assert!(codes(&world).is_empty());
    world.aged(at(86_400));
    assert_eq!(codes(&world), ["lease-expired"]);
    let renewed = held(&world, 9);
    world.renewed(Ok(Claim::Held(renewed)), at(86_401));
    world.aged(at(86_402));
    assert!(codes(&world).is_empty());
    assert_eq!(world.duty(at(86_402)), None);
}

#[test]
fn a_sighting_older_than_the_own_write_says_nothing() {
    let mut world = holding();
    let renewed = held(&world, 9);
    world.renewed(Ok(Claim::Held(renewed)), at(1));
    // the event of the write before, still under way
    world.changed(vec![Event::Put(own(&world, 5))], at(1));
    assert_eq!(world.duty(at(2)), None);
    // a list that was begun before the write
    assert!(world.listed(snapshot(6, vec![entry("config", CONFIG_1, 1)]), at(1)));
    assert_eq!(world.duty(at(2)), None);
    world.changed(vec![Event::Put(own(&world, 9))], at(1));
    assert_eq!(world.duty(at(3)), None);
}

#[test]
fn a_lost_or_overwritten_own_entry_is_looked_into() {
    for event in [
        Event::Deleted {
            key: "subnets/100.96.1.0-24".into(),
            revision: Revision(8),
        },
        Event::Put(entry("subnets/100.96.1.0-24", NODE2, 8)),
    ] {
        let mut world = holding();
        world.changed(vec![event], at(1));
        assert!(matches!(world.duty(at(1)), Some(Task::Renew(..))));
        assert!(world.plan().is_some(), "forwarding goes on");
    }
}

#[test]
fn a_subnet_taken_by_another_is_a_conflict_and_the_plan_stays() {
    let mut world = holding();
    let before = world.plan();
    let other = Lease {
        subnet: subnet("100.96.1.0-24"),
        attrs: Attrs::from_json(NODE2.as_bytes()).unwrap(),
    };
    world.changed(
        vec![Event::Put(entry("subnets/100.96.1.0-24", NODE2, 8))],
        at(1),
    );
    world.renewed(Ok(Claim::Taken(other)), at(1));
    assert_eq!(codes(&world), ["subnet-conflict"]);
    assert_eq!(world.plan(), before);
    assert_eq!(world.subnet(), Some(subnet("100.96.1.0-24")));
    let again = held(&world, 12);
    world.renewed(Ok(Claim::Held(again)), at(2));
    assert!(codes(&world).is_empty());
}

#[test]
fn a_datastore_that_forgot_our_lease_drops_nobody_before_all_had_time_to_come_back() {
    let mut world = holding();
    let config = || entry("config", CONFIG_1, 1);
    assert!(!world.listed(snapshot(9, vec![config()]), at(1)));
    assert_eq!(peers(&mut world), ["100.96.2.0-24"]);
    assert!(matches!(world.duty(at(1)), Some(Task::Renew(..))));
    let back = held(&world, 10);
    world.renewed(Ok(Claim::Held(back)), at(2));
    let entries = || vec![config(), own(&holding(), 10)];
    assert!(!world.listed(snapshot(10, entries()), at(15)));
    assert_eq!(peers(&mut world), ["100.96.2.0-24"]);
    assert!(world.listed(snapshot(10, entries()), at(16)));
    assert!(peers(&mut world).is_empty());
    assert_eq!(world.duty(at(17)), None);
}

/// Not for ever: here our lease cannot be written back.
#[test]
fn a_datastore_that_does_not_take_our_lease_is_believed_in_the_end() {
    let mut world = holding();
    let empty = || snapshot(9, vec![entry("config", CONFIG_1, 1)]);
    assert!(!world.listed(empty(), at(1)));
    assert!(world.listed(empty(), at(16)));
    assert!(world.listed(empty(), at(17)));
    assert!(peers(&mut world).is_empty());
    assert!(matches!(world.duty(at(17)), Some(Task::Renew(..))));
}

/// etcd restored from a backup: history goes back. A revision of before may be another's now.
#[test]
fn a_history_that_went_back_leads_to_a_new_write_and_drops_nobody() {
    let mut world = holding();
    let node3 = Event::Put(entry("subnets/100.96.3.0-24", NODE2, 40));
    world.changed(vec![node3], at(1));
    let entries = vec![entry("config", CONFIG_1, 1), own(&world, 5)];
    assert!(!world.listed(snapshot(7, entries), at(1)));
    assert_eq!(peers(&mut world).len(), 2);
    let Some(Task::Renew(held, _)) = world.duty(at(1)) else {
        panic!()
    };
    assert_eq!(held.revision, Revision(0));
}

#[test]
fn a_lost_network_config_is_written_again_as_it_is_in_force() {
    let mut world = holding();
    let lost = || Event::Deleted {
        key: "config".into(),
        revision: Revision(9),
    };
    world.changed(vec![lost()], at(1));
    assert_eq!(
        (world.duty(at(1)), codes(&world)),
        (None, vec!["network-config".to_owned()])
    );
    world.reconfigure(config("[network]\nnetwork = \"10.5.0.0/16\"\n"));
    let Some(Task::Seed(network)) = world.duty(at(1)) else {
        panic!()
    };
    assert_eq!(network.net.to_string(), "100.96.0.0/16");
}

#[test]
fn an_own_lease_that_turned_into_garbage_is_looked_into() {
    let mut world = holding();
    world.changed(
        vec![Event::Put(entry("subnets/100.96.1.0-24", "{", 8))],
        at(1),
    );
    assert!(matches!(world.duty(at(1)), Some(Task::Renew(..))));
}

/// Two nodes behind one address, or with one `node.public-ip`.
#[test]
fn a_fight_over_the_own_lease_slows_down_and_is_told() {
    let mut world = holding();
    assert_eq!(world.truce(), None);
    let mut truces = Vec::new();
    for round in 1..=7 {
        let theirs = entry("subnets/100.96.1.0-24", NODE2, 10 * round);
        world.changed(vec![Event::Put(theirs)], at(1));
        let ours = held(&world, 10 * round + 1);
        world.renewed(Ok(Claim::Retaken(ours)), at(1));
        truces.push(world.truce().unwrap().as_secs());
        let told = codes(&world) == ["subnet-conflict"];
        assert_eq!(told, round >= 3, "round {round}");
    }
    assert_eq!(truces, [1, 2, 4, 8, 16, 30, 30]);
    world.changed(vec![Event::Put(own(&world, 71))], at(2));
    world.aged(at(62));
    assert_eq!((world.truce(), codes(&world).len()), (None, 0));
}

#[test]
fn a_lease_that_came_too_late_for_its_network_is_not_held() {
    let mut world = world("");
    let moved = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
    world.listed(snapshot(1, vec![entry("config", moved, 1)]), at(0));
    let late = held(&world, 5);
    world.acquired(Ok(late), at(0));
    assert_eq!(world.subnet(), None);
    assert!(matches!(world.duty(at(1)), Some(Task::Acquire(..))));
}

#[test]
fn a_silent_datastore_is_a_fault() {
    let mut world = holding();
    world.aged(at(90));
    assert!(codes(&world).is_empty());
    world.aged(at(92));
    assert_eq!(codes(&world), ["datastore"]);
    world.changed(vec![], at(123));
    assert!(codes(&world).is_empty());
}

#[test]
fn a_lease_that_need_not_be_written_any_more_is_no_fault() {
    let mut world = holding();
    world.renewed(Err(AcquireError::Contended), at(1));
    assert_eq!(codes(&world), ["lease"]);
    world.aged(at(2));
    assert!(codes(&world).is_empty());
}

#[test]
fn the_expiry_follows_a_clock_that_was_set() {
    let mut world = holding();
    let set = Moment {
        wall_usec: 1_700_000_000_000_000,
        ..at(10)
    };
    world.aged(set);
    let expires = world.status(Arc::default()).lease_expires_usec;
    assert_eq!(
        expires,
        Some(1_700_000_000_000_000 - 10_000_000 + 86_400_000_000)
    );
}

#[test]
fn an_unreachable_datastore_changes_nothing() {
    let mut world = holding();
    let before = world.plan();
    let error = StoreError::Unavailable {
        doing: "listing".into(),
        reason: "connection refused".into(),
    };
    world.lost(&error, at(1));
    assert_eq!(codes(&world), ["datastore"]);
    assert_eq!(world.plan(), before);
    world.changed(vec![], at(1));
    assert!(codes(&world).is_empty());
}

#[test]
fn a_bad_network_config_is_told_and_the_last_good_one_stays() {
    let mut world = holding();
    let before = world.plan();
    world.changed(
        vec![Event::Put(entry("config", r#"{"Network":"x"}"#, 8))],
        at(1),
    );
    assert_eq!(codes(&world), ["network-config"]);
    let text = world.faults.list().remove(0).text;
    assert!(text.contains("Network = \"x\""), "{text}");
    assert_eq!(world.plan(), before);
    let deleted = Event::Deleted {
        key: "config".into(),
        revision: Revision(9),
    };
    world.changed(vec![deleted], at(1));
    assert_eq!(world.plan(), before);
}

#[test]
fn a_config_without_room_for_the_own_subnet_is_not_followed() {
    let mut world = holding();
    let before = world.plan();
    let moved = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
    world.changed(vec![Event::Put(entry("config", moved, 8))], at(1));
    assert_eq!(codes(&world), ["renumber-required"]);
    assert_eq!(world.plan(), before);
    world.changed(vec![Event::Put(entry("config", CONFIG_1, 9))], at(1));
    assert!(codes(&world).is_empty());
}

#[test]
fn another_backend_is_planned_at_once_and_told_to_the_peers() {
    let mut world = holding();
    let udp = r#"{"Network":"100.96.0.0/16","Backend":{"Type":"udp"}}"#;
    world.changed(vec![Event::Put(entry("config", udp, 8))], at(1));
    let plan = world.plan().unwrap();
    assert!(plan.proxy.is_some() && !plan.kernel.links.contains_key("flannel.1"));
    let Some(Task::Renew(_, attrs)) = world.duty(at(1)) else {
        panic!()
    };
    assert_eq!(attrs.backend, BackendAttrs::Udp);
}

#[test]
fn the_tunnel_address_of_the_own_lease_is_kept() {
    let world = holding();
    let derived = world.attrs().unwrap();
    let record = Record {
        lease: Lease {
            subnet: subnet("100.96.1.0-24"),
            attrs: Attrs::from_json(NODE2.as_bytes()).unwrap(),
        },
        revision: Revision(1),
        reserved: false,
    };
    assert_eq!(adopting(derived.clone(), None), derived);
    let mut unusable = record.clone();
    if let BackendAttrs::Vxlan(vtep) = &mut unusable.lease.attrs.backend {
        vtep.mac = Some(Mac::new([1, 0, 0, 0, 0, 2]));
    }
    assert_eq!(adopting(derived.clone(), Some(&unusable)), derived);
    let adopted = adopting(derived, Some(&record));
    let mut taken = held(&world, 9);
    taken.lease.attrs = adopted.clone();
    let mut world = holding();
    world.renewed(Ok(Claim::Held(taken)), at(1));
    assert_eq!(world.attrs(), Some(adopted));
    assert_eq!(world.duty(at(2)), None);
}

#[test]
fn another_subnet_than_asked_for_is_told() {
    let mut world = world("[node]\nsubnet = \"100.96.2.0/24\"\n");
    let entries = vec![
        entry("config", CONFIG_1, 1),
        entry("subnets/100.96.2.0-24", NODE2, 2),
    ];
    world.listed(snapshot(2, entries), at(1));
    let got = held(&world, 5);
    world.acquired(Ok(got), at(0));
    assert!(codes(&world).is_empty(), "who was faster is not seen yet");
    world.changed(vec![Event::Put(own(&world, 5))], at(1));
    assert_eq!(codes(&world), ["other-subnet"]);
    let text = world.faults.list().remove(0).text;
    assert!(text.contains("which 192.168.1.48 has"), "{text}");
}

#[test]
fn a_reload_says_what_takes_a_restart() {
    let mut world = holding();
    world.reconfigure(config("[docker]\nmanage-bridge = false\n"));
    assert!(codes(&world).is_empty());
    let plan = world.plan().unwrap();
    assert!(!plan.kernel.links.contains_key("docker0"));
    world.reconfigure(config("[log]\nlevel = \"debug\"\n"));
    assert!(codes(&world).is_empty());
    for _ in 0..2 {
        world.reconfigure(config("[datastore]\ntype = \"local\"\n"));
        assert_eq!(codes(&world), ["config"]);
    }
    world.reconfigure(config(""));
    assert!(codes(&world).is_empty());
}

#[test]
fn the_status_tells_subnet_expiry_and_peers() {
    let mut world = holding();
    world.changed(
        vec![Event::Put(entry("subnets/100.96.3.0-24", "{]", 8))],
        at(1),
    );
    let plan = world.plan().unwrap();
    let status = world.status(Arc::new(world.peers(&plan)));
    assert_eq!(status.subnet.as_deref(), Some("100.96.1.0/24"));
    assert_eq!(status.lease_expires_usec, Some(86_400_000_000));
    assert_eq!(status.mtu, 1450);
    assert_eq!(status.peers.len(), 1);
    assert_eq!(status.peers[0].path, PeerPath::Tunnel);
    assert_eq!(status.peers[0].mac.as_deref(), Some("02:00:00:00:00:02"));
    assert_eq!(status.garbage[0].key, "subnets/100.96.3.0-24");
    assert!(status.datastore.connected);
}
