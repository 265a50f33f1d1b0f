use super::*;

const NODE2: &str = r#"{"PublicIP":"192.168.1.48","PublicIPv6":null,"BackendType":"host-gw"}"#;

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

fn keys(view: &View) -> Vec<String> {
    view.records()
        .map(|record| record.lease.subnet.key())
        .collect()
}

#[test]
fn a_snapshot_drops_what_it_lacks_and_a_deletion_what_it_names() {
    let mut view = View::default();
    assert!(!view.is_complete());
    let both = vec![
        entry("subnets/10.5.2.0-24", NODE2, 3),
        entry("subnets/10.5.3.0-24", NODE2, 4),
    ];
    view.replace(snapshot(4, both));
    assert_eq!(keys(&view), ["10.5.2.0-24", "10.5.3.0-24"]);
    view.apply(Event::Deleted {
        key: "subnets/10.5.3.0-24".into(),
        revision: Revision(9),
    });
    assert_eq!((keys(&view).len(), view.revision()), (1, Revision(9)));
    view.replace(snapshot(10, vec![]));
    assert!(view.is_complete() && keys(&view).is_empty());
}

#[test]
fn garbage_is_counted_keeps_the_last_good_lease_and_holds_its_subnet() {
    let mut view = View::default();
    view.replace(snapshot(3, vec![entry("subnets/10.5.2.0-24", NODE2, 3)]));
    let broken = || entry("subnets/10.5.2.0-24", "{", 4);
    view.apply(Event::Put(broken()));
    assert_eq!(
        (keys(&view), view.garbage().len()),
        (vec!["10.5.2.0-24".to_owned()], 1)
    );
    let more = vec![
        broken(),
        entry("subnets/10.5.7.0-24", "?", 5),
        entry("subnets/foo", "{}", 5),
    ];
    view.replace(snapshot(6, more));
    assert_eq!(
        (keys(&view), view.garbage().len()),
        (vec!["10.5.2.0-24".to_owned()], 3)
    );
    assert!(view.taken().any(|taken| taken == subnet("10.5.7.0-24")));
    view.apply(Event::Put(entry("subnets/10.5.2.0-24", NODE2, 7)));
    assert_eq!(view.garbage().len(), 2);
}

#[test]
fn peers_leave_out_every_spelling_of_the_own_subnet() {
    let mut view = View::default();
    let keys = [
        "10.5.0.0-16",
        "10.5.1.0-24",
        "10.5.1.0-24&fd00::-64",
        "10.5.2.0-24",
    ];
    view.replace(snapshot(
        3,
        keys.map(|key| entry(&format!("subnets/{key}"), NODE2, 3))
            .into(),
    ));
    let peers: Vec<_> = view
        .peers(subnet("10.5.1.0-24"))
        .map(|lease| lease.subnet.key())
        .collect();
    // what only overlaps is somebody's, and to be told
    assert_eq!(peers, ["10.5.0.0-16", "10.5.2.0-24"]);
}

#[test]
fn the_config_and_foreign_entries_are_no_leases() {
    let mut view = View::default();
    view.replace(snapshot(
        3,
        vec![entry("config", "{}", 1), entry("notes", "x", 2)],
    ));
    assert_eq!(
        (view.config(), keys(&view).len(), view.garbage().len()),
        (Some(&b"{}"[..]), 0, 0)
    );
    view.apply(Event::Deleted {
        key: "config".into(),
        revision: Revision(4),
    });
    assert_eq!(view.config(), None);
}

#[test]
fn an_entry_that_does_not_expire_is_a_reservation() {
    let mut view = View::default();
    let reserved = Entry {
        expires: false,
        ..entry("subnets/10.5.2.0-24", NODE2, 3)
    };
    view.replace(snapshot(3, vec![reserved]));
    assert!(view.record(subnet("10.5.2.0-24")).unwrap().reserved);
}

#[test]
fn another_spelling_of_a_key_does_nothing_to_the_lease_under_the_right_one() {
    let mut view = View::default();
    view.replace(snapshot(3, vec![entry("subnets/10.5.2.0-24", NODE2, 3)]));
    let before: Vec<Record> = view.records().cloned().collect();
    for (name, revision) in [("10.5.2.7-24", 4), ("10.5.2.0-024", 5)] {
        let key = format!("subnets/{name}");
        view.apply(Event::Put(entry(&key, NODE2, revision)));
        assert!(view.garbage()[&key].reason.ends_with("is 10.5.2.0-24"));
        assert!(view.records().eq(&before), "{name}");
        view.apply(Event::Deleted {
            key,
            revision: Revision(9),
        });
        assert!(view.records().eq(&before), "{name}");
    }
    // nor does it keep a lease that has gone
    view.replace(snapshot(9, vec![entry("subnets/10.5.2.7-24", NODE2, 4)]));
    assert!(keys(&view).is_empty());
    assert!(
        view.taken().eq([subnet("10.5.2.0-24")]),
        "but it is not free"
    );
}
