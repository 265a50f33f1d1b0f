use super::super::directory::CurrentDirectory;
use super::super::table::Table;
use super::*;

const PEER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 48);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 49);

fn network() -> Ipv4Net {
    "100.96.0.0/16".parse().unwrap()
}

fn admits(origins: &Origins, directory: &Directory, from: Ipv4Addr, source: &str) -> bool {
    let source = source.parse().unwrap();
    origins.inspect(directory).admits(from, source)
}

fn written() -> CurrentDirectory {
    let current = CurrentDirectory::new(1);
    current.replace(&Table::new([
        ("100.96.2.0/24".parse().unwrap(), PEER),
        ("100.96.3.0/24".parse().unwrap(), OTHER),
        ("100.96.4.0/24".parse().unwrap(), PEER),
    ]));
    current
}

#[test]
fn sources_belong_to_the_host_with_their_subnet() {
    let (origins, current) = (Origins::new(Some(network())), written());
    let directory = current.load();
    for (from, source, expected) in [
        (PEER, "100.96.2.0", true),
        (PEER, "100.96.2.255", true),
        (PEER, "100.96.4.7", true),
        (PEER, "100.96.3.7", false),
        (OTHER, "100.96.3.7", true),
        (OTHER, "100.96.2.7", false),
        // the own subnet, and one that is nobody's
        (PEER, "100.96.1.7", false),
        (PEER, "100.96.200.7", false),
        (PEER, "100.96.0.0", false),
        (PEER, "100.96.255.255", false),
        // outside of the network
        (PEER, "100.95.255.255", true),
        (PEER, "100.97.0.0", true),
        (PEER, "192.168.1.48", true),
        (OTHER, "0.0.0.0", true),
        // no peer at all
        (Ipv4Addr::new(192, 168, 1, 99), "100.96.2.7", false),
        (Ipv4Addr::new(192, 168, 1, 99), "10.0.0.1", true),
    ] {
        let told = admits(&origins, &directory, from, source);
        assert_eq!(told, expected, "{source} from {from}");
    }
}

#[test]
fn what_was_answered_before_does_not_count_for_others() {
    let (origins, current) = (Origins::new(Some(network())), written());
    let directory = current.load();
    let mut inspection = origins.inspect(&directory);
    let container = Ipv4Addr::new(100, 96, 2, 7);
    for _ in 0..2 {
        assert!(inspection.admits(PEER, container));
        assert!(inspection.admits(PEER, container));
        assert!(!inspection.admits(OTHER, container));
        assert!(inspection.admits(OTHER, Ipv4Addr::new(100, 96, 3, 7)));
        assert!(!inspection.admits(PEER, Ipv4Addr::new(100, 96, 3, 7)));
    }
}

#[test]
fn all_may_come_where_nobody_asks_and_before_the_first_table() {
    let current = CurrentDirectory::new(1);
    let origins = Origins::new(Some(network()));
    assert!(admits(&origins, &current.load(), PEER, "100.96.2.7"));
    assert!(admits(&origins, &current.load(), PEER, "100.96.1.7"));
    current.replace(&Table::default());
    let empty = current.load();
    assert!(!admits(&origins, &empty, PEER, "100.96.2.7"), "a table");
    origins.ask(None);
    for source in ["100.96.2.7", "0.0.0.0", "0.0.0.1", "255.255.255.255"] {
        assert!(admits(&origins, &empty, PEER, source), "{source}");
    }
    origins.ask(Some("0.0.0.0/0".parse().unwrap()));
    for source in ["100.96.2.7", "0.0.0.0", "0.0.0.1", "255.255.255.255"] {
        assert!(!admits(&origins, &empty, PEER, source), "{source}");
    }
    origins.ask(Some("100.96.2.7/32".parse().unwrap()));
    assert!(!admits(&origins, &empty, PEER, "100.96.2.7"));
    assert!(admits(&origins, &empty, PEER, "100.96.2.8"));
}

#[test]
fn a_forger_is_told_of_once_in_a_while() {
    let (origins, current) = (Origins::new(Some(network())), written());
    let directory = current.load();
    let told = || origins.told.lock().unwrap().to_owned();
    let mut inspection = origins.inspect(&directory);
    assert!(inspection.admits(PEER, Ipv4Addr::new(100, 96, 2, 7)));
    origins.tell(&inspection);
    assert_eq!(told(), None, "nothing to tell");
    assert!(!inspection.admits(OTHER, Ipv4Addr::new(100, 96, 2, 7)));
    origins.tell(&inspection);
    let first = told();
    assert!(first.is_some());
    origins.tell(&inspection);
    assert_eq!(told(), first, "too soon");
    let earlier = Instant::now().checked_sub(SILENCE);
    *origins.told.lock().unwrap() = earlier;
    origins.tell(&inspection);
    assert!(told() > earlier);
}
