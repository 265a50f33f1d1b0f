use proptest::prelude::*;

use super::*;

fn table(routes: &[(&str, &str)]) -> Table {
    let parsed = routes
        .iter()
        .map(|(destination, peer)| (destination.parse().unwrap(), peer.parse().unwrap()));
    Table::new(parsed)
}

fn peer(table: &Table, destination: &str) -> Option<String> {
    let found = table.peer(destination.parse().unwrap());
    found.map(|peer| peer.to_string())
}

#[test]
fn an_empty_table_knows_nobody() {
    let empty = Table::new([]);
    assert_eq!(peer(&empty, "0.0.0.0"), None);
    assert_eq!(peer(&empty, "255.255.255.255"), None);
    assert_eq!(empty, Table::default());
}

#[test]
fn a_network_holds_from_its_first_to_its_last_address() {
    let table = table(&[
        ("100.96.2.0/24", "192.168.1.48"),
        ("100.96.3.0/24", "192.168.1.49"),
    ]);
    assert_eq!(peer(&table, "100.96.1.255"), None);
    assert_eq!(peer(&table, "100.96.2.0").unwrap(), "192.168.1.48");
    assert_eq!(peer(&table, "100.96.2.255").unwrap(), "192.168.1.48");
    assert_eq!(peer(&table, "100.96.3.0").unwrap(), "192.168.1.49");
    assert_eq!(peer(&table, "100.96.4.0"), None);
}

#[test]
fn the_longest_prefix_wins() {
    let table = table(&[
        ("10.1.2.3/32", "4.4.4.4"),
        ("10.0.0.0/8", "1.1.1.1"),
        ("10.1.2.0/24", "3.3.3.3"),
        ("10.1.0.0/16", "2.2.2.2"),
        ("0.0.0.0/0", "9.9.9.9"),
    ]);
    assert_eq!(peer(&table, "10.1.2.3").unwrap(), "4.4.4.4");
    assert_eq!(peer(&table, "10.1.2.4").unwrap(), "3.3.3.3");
    assert_eq!(peer(&table, "10.1.3.0").unwrap(), "2.2.2.2");
    assert_eq!(peer(&table, "10.2.0.0").unwrap(), "1.1.1.1");
    assert_eq!(peer(&table, "255.255.255.255").unwrap(), "9.9.9.9");
}

#[test]
fn tables_are_equal_if_they_answer_alike() {
    let halves = table(&[("10.0.1.0/25", "1.1.1.1"), ("10.0.1.128/25", "1.1.1.1")]);
    assert_eq!(halves, table(&[("10.0.1.0/24", "1.1.1.1")]));
    assert_eq!(halves, table(&[("10.0.1.77/24", "1.1.1.1")]));
    assert_ne!(halves, table(&[("10.0.1.0/24", "2.2.2.2")]));
}

#[test]
fn five_thousand_networks_are_all_found() {
    let networks: Vec<_> = (0..5000_u32)
        .map(|number| {
            let base = Ipv4Addr::from_bits(0x0a00_0000 + (number << 8));
            let peer = Ipv4Addr::from_bits(0xc0a8_0000 + number);
            (Ipv4Net::new(base, 24).unwrap(), peer)
        })
        .collect();
    let table = Table::new(networks.iter().rev().copied());
    for (network, peer) in networks {
        assert_eq!(table.peer(network.network()), Some(peer));
        assert_eq!(table.peer(network.broadcast()), Some(peer));
    }
}

/// The obvious way: try all, keep the longest, among equals the last.
fn slow(routes: &[(Ipv4Net, Ipv4Addr)], destination: Ipv4Addr) -> Option<Ipv4Addr> {
    routes
        .iter()
        .filter(|(network, _)| network.contains(&destination))
        .max_by_key(|(network, _)| network.prefix_len())
        .map(|&(_, peer)| peer)
}

/// Networks and addresses crowd into few bits, so that they nest, touch and repeat.
fn crowded() -> impl Strategy<Value = Ipv4Addr> {
    (any::<u32>(), 0_u32..29).prop_map(|(bits, spread)| {
        let high = if spread % 2 == 0 { 0 } else { u32::MAX };
        Ipv4Addr::from_bits((bits & 0x8000_00ff) ^ (high << spread))
    })
}

proptest! {
    #[test]
    fn answers_as_the_slow_way_does(
        routes in proptest::collection::vec((crowded(), 0_u8..=32, 1_u32..5), 0..40),
        probes in proptest::collection::vec(crowded(), 50),
    ) {
        let routes: Vec<_> = routes
            .into_iter()
            .map(|(base, length, peer)| {
                (Ipv4Net::new(base, length).unwrap(), Ipv4Addr::from_bits(peer))
            })
            .collect();
        let table = Table::new(routes.iter().copied());
        let edges = routes.iter().flat_map(|(network, _)| {
            let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
            [first, last, first.wrapping_sub(1), last.wrapping_add(1)]
        });
        for probe in probes.into_iter().chain(edges.map(Ipv4Addr::from_bits)) {
            prop_assert_eq!(table.peer(probe), slow(&routes, probe), "{}", probe);
        }
    }
}
