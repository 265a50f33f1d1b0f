//! Whatever is there and whatever is wanted.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::kernel::firewall::{Firewall, ForeignChain, Leftover, Rule, Set, Table, Verdict};

const NAMES: [&str; 5] = ["eth0", "flannel.1", "flannel0", "docker0", "flannel.9"];

fn any_kind(name: &'static str) -> BoxedStrategy<LinkKind> {
    let other = Just(LinkKind::Other("dummy".to_owned()));
    match name {
        "eth0" => other.boxed(),
        "docker0" => prop_oneof![6 => Just(LinkKind::Bridge), 1 => other].boxed(),
        "flannel0" => prop_oneof![6 => Just(LinkKind::Tun), 1 => other].boxed(),
        _ => {
            let vxlan = (1..3u32, any::<bool>(), any::<bool>(), 1..3u8);
            let vxlan = vxlan.prop_map(|(vni, learning, gbp, local)| LinkKind::Vxlan {
                vni,
                port: 8472,
                local: std::net::Ipv4Addr::new(192, 168, 5, local),
                underlay: "eth0".to_owned(),
                learning,
                gbp,
            });
            prop_oneof![8 => vxlan, 1 => Just(LinkKind::Bridge), 1 => other].boxed()
        }
    }
}

fn any_link(name: &'static str) -> impl Strategy<Value = Link> {
    let may_be_marked = name != "eth0" && name != "flannel.9";
    let marked = any::<bool>().prop_map(move |m| m && may_be_marked);
    (any_kind(name), 1..3u8, 1400..1402u32, any::<bool>(), marked).prop_map(
        move |(kind, last, mtu, up, marked)| Link {
            mac: (kind != LinkKind::Tun).then(|| mac(last)),
            kind,
            mtu,
            up: up || name == "eth0",
            marked,
        },
    )
}

fn any_address() -> impl Strategy<Value = Address> {
    let addresses = [
        "100.96.1.0/32",
        "100.96.1.1/24",
        "100.96.1.9/24",
        "100.96.7.0/32",
        "172.17.0.1/16",
        "10.9.9.9/32",
    ];
    let pair = (
        prop::sample::select(&NAMES[..]),
        prop::sample::select(addresses.to_vec()),
    );
    pair.prop_map(|(link, text)| address(link, text))
}

fn any_route() -> impl Strategy<Value = (RouteKey, Route)> {
    let destination = prop_oneof![(1..6u8).prop_map(|n| format!("100.96.{n}.0/24"))];
    let link = prop::sample::select(&NAMES[..]);
    let gateway = prop::option::of((1..4u8).prop_map(|n| ip(&format!("192.168.5.{n}"))));
    let protocol = prop::sample::select(vec![3, 4, PROTOCOL]);
    (destination, link, gateway, any::<bool>(), protocol).prop_map(
        |(destination, link, gateway, dear, protocol)| {
            let key = RouteKey {
                metric: if dear { 100 } else { 0 },
                ..key(&destination)
            };
            let route = Route {
                nexthop: None,
                link: link.into(),
                gateway,
                onlink: false,
                source: None,
                protocol,
            };
            (key, route)
        },
    )
}

/// A nexthop object of ours, with its id and whether a route leads through it.
fn any_nexthop() -> impl Strategy<Value = (u32, Nexthop, bool)> {
    let link = prop::sample::select(&NAMES[..]);
    let hop = (link, 1..4u8).prop_map(|(link, n)| nexthop(&format!("192.168.5.{n}"), link));
    (1..6u32, hop, any::<bool>())
}

fn through(id: u32, hop: &Nexthop) -> Route {
    Route {
        nexthop: Some(id),
        ..onlink(&hop.gateway.to_string(), &hop.link)
    }
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    let any_rule = prop_oneof![
        Just(Rule::STRANGER),
        Just(rule(Verdict::Accept, "100.96.0.0/16")),
        Just(rule(Verdict::Drop, "203.0.113.0/24")),
    ];
    vec(any_rule, 0..3)
}

/// Our table, as it should be or in some other way.
fn any_table() -> impl Strategy<Value = Table> {
    let origins = Set::Origins([(ip("192.168.5.2"), net("100.96.2.0/24"))].into());
    let sets = btree_set(2..6u8, 0..4).prop_map(|last| hosts(&Vec::from_iter(last)));
    let set = prop_oneof![4 => sets, 1 => Just(origins)];
    let set = prop::option::weighted(0.9, set);
    (set, any_rules(), any::<bool>()).prop_map(|(set, rules, usual)| {
        let mut table = firewall().table.unwrap_or_default();
        table.sets = set
            .map(|set| ("peers".to_owned(), set))
            .into_iter()
            .collect();
        if !usual && let Some(chain) = table.chains.get_mut("input") {
            chain.rules = rules;
        }
        table
    })
}

prop_compose! {
    /// Any packet filter: ours or not, flanneld's, or one that the kernel does not show.
    fn any_filter()(
        table in prop::option::of(any_table()),
        passes in prop::collection::btree_map(
            prop::sample::select(&ForeignChain::ALL[..]), any_rules(), 0..4),
        leftovers in btree_set(
            prop::sample::select(vec![Leftover::NatChain, Leftover::TableV4]), 0..3),
        refuses in prop::bool::weighted(0.1),
    ) -> Firewall {
        match refuses {
            true => Firewall { refusal: Some("not there".to_owned()), ..Firewall::default() },
            false => Firewall { table, passes, leftovers, refusal: None },
        }
    }
}

prop_compose! {
    /// Any host: our things, others' things, left-overs of both.
    pub(super) fn any_host()(
        links in NAMES.map(|name| prop::option::weighted(0.7, any_link(name))),
        addresses in btree_set(any_address(), 0..8),
        routes in vec(any_route(), 0..12),
        peers in btree_set(2..6u8, 0..4),
        has_port in any::<bool>(),
        foreign_nexthops in prop::option::of(btree_set(1..6u32, 0..3)),
        nexthops in vec(any_nexthop(), 0..6),
        filter in any_filter(),
    ) -> KernelState {
        let mut state = host();
        state.firewall = filter;
        for (name, link) in NAMES.iter().zip(links) {
            state.links.extend(link.map(|link| ((*name).to_owned(), link)));
        }
        state.addresses = addresses;
        for peer in peers {
            add_peer(&mut state, peer);
        }
        state.routes.extend(routes);
        if has_port {
            state.ports.insert("veth1".to_owned(), port_of("docker0"));
        }
        // Rows live on links, routes on links that are up.
        let links = &state.links;
        let is_tunnel = |name: &str| links.get(name).is_some_and(|l| l.kind.is_tunnel());
        state.addresses.retain(|row| links.contains_key(&*row.link));
        state.neighbours.retain(|row, _| is_tunnel(&row.link));
        state.fdb.retain(|row, _| is_tunnel(&row.link));
        state.routes.retain(|_, route| links.get(&*route.link).is_some_and(|l| l.up));
        state.foreign_nexthops = foreign_nexthops;
        for (id, hop, route) in nexthops {
            let is_up = links.get(&*hop.link).is_some_and(|l| l.up);
            let is_ours = state.foreign_nexthops.as_ref().is_some_and(|ids| !ids.contains(&id));
            if is_up && is_ours && !state.nexthops.contains_key(&id) {
                let key = key(&format!("100.96.{id}.0/24"));
                state.routes.extend(route.then(|| (key, through(id, &hop))));
                state.nexthops.insert(id, hop);
            }
        }
        state.ports.retain(|_, port| {
            links.get(&port.bridge).is_some_and(|l| l.kind == LinkKind::Bridge)
        });
        state
    }
}

prop_compose! {
    /// Anything that a plan may say.
    pub(super) fn any_desired()(
        backend in 0..4u8,
        peers in btree_set(2..6u8, 0..4),
        with_bridge in any::<bool>(),
        table in prop::option::of(any_table()),
        forward in any::<bool>(),
    ) -> KernelState {
        let mut state = match backend {
            0 => vxlan(),
            1 => host_gw(),
            2 => udp(),
            _ => KernelState::default(),
        };
        if backend == 0 {
            peers.iter().for_each(|peer| add_peer(&mut state, *peer));
        }
        if with_bridge {
            state.links.extend(bridge().links);
            state.addresses.extend(bridge().addresses);
        }
        state.firewall.table = table;
        if forward {
            state.firewall.passes = firewall().passes;
        }
        state
    }
}

/// The rows that no plan may touch.
fn foreign(state: &KernelState, desired: &KernelState) -> KernelState {
    let scope = scope(desired);
    let mut kept = state.clone();
    let others = |name: &str| {
        let link = state.links.get(name);
        link.is_some_and(|link| !scope.concerns_link(name, link))
    };
    kept.links.retain(|name, _| others(name));
    kept.nexthops.clear();
    kept.addresses.retain(|row| others(&row.link));
    kept.neighbours.retain(|row, _| others(&row.link));
    kept.fdb.retain(|row, _| others(&row.link));
    kept.routes.retain(|key, route| {
        route.protocol != PROTOCOL
            && others(&route.link)
            && !desired.routes.contains_key(key)
            && !scope.is_stray(key, route)
    });
    kept.ports.retain(|_, port| others(&port.bridge));
    // whose chains they are stays as it is, and a step never makes or removes one
    kept.firewall.table = None;
    kept.firewall.passes.values_mut().for_each(Vec::clear);
    if desired.firewall != Firewall::default() {
        kept.firewall.leftovers.clear();
    }
    kept
}

/// Names of links that converging has to leave as they are.
fn barred(report: &Report) -> BTreeSet<&str> {
    let name = |obstacle: &'_ Obstacle| match obstacle {
        Obstacle::Foreign { link, .. }
        | Obstacle::InTheWay { link, .. }
        | Obstacle::Missing { link }
        | Obstacle::InUse { link, .. } => link.clone(),
        Obstacle::NoFirewall { .. } | Obstacle::Blocked(_) => String::new(),
    };
    let names: BTreeSet<String> = report.obstacles.iter().map(name).collect();
    NAMES.into_iter().filter(|n| names.contains(*n)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn foreign_rows_survive_any_plan(state in any_host(), desired in any_desired()) {
        let mut kernel = Fake::new(state.clone());
        go(&mut kernel, &desired);
        let kept = foreign(&state, &desired);
        prop_assert_eq!(foreign(&kernel.state, &desired), kept);
    }

    #[test]
    fn foreign_rows_survive_also_where_everything_is_observed(
        state in any_host(),
        desired in any_desired(),
    ) {
        let mut kernel = Fake::new(state.clone());
        let found = diff(&state, &desired, &scope(&desired));
        run(kernel.apply(&found.changes)).unwrap();
        let kept = foreign(&state, &desired);
        prop_assert_eq!(foreign(&kernel.state, &desired), kept);
    }

    #[test]
    fn outside_addresses_survive_on_links_that_stay(state in any_host(), desired in any_desired()) {
        let mut kernel = Fake::new(state.clone());
        let report = go(&mut kernel, &desired);
        for row in &state.addresses {
            let outside = row.address.addr().octets()[..2] != [100, 96];
            let goes = report.applied.contains(&Change::DelLink(row.link.to_string()));
            prop_assert!(!outside || goes || kernel.state.addresses.contains(row), "{row:?}");
        }
    }

    #[test]
    fn any_host_settles_and_has_what_is_wanted(state in any_host(), desired in any_desired()) {
        let mut kernel = Fake::new(state);
        let report = go(&mut kernel, &desired);
        prop_assert!(report.settled, "{report:#?}");
        prop_assert!(report.passes <= 1, "{report:#?}");
        prop_assert_eq!(&report.failed, &[]);
        let barred = barred(&report);
        let free = |link: &str| !barred.contains(link);
        let shown = kernel.shown(&scope(&desired));
        for (name, link) in desired.links.iter().filter(|(name, _)| free(name)) {
            let found = &shown.links[name];
            if link.kind == LinkKind::Bridge {
                prop_assert_eq!(&found.kind, &link.kind);
            } else {
                prop_assert_eq!(found, link);
            }
        }
        for row in desired.addresses.iter().filter(|row| free(&row.link)) {
            prop_assert!(shown.addresses.contains(row), "{row:?}");
        }
        let mut wanted = desired.clone();
        wanted.neighbours.retain(|row, _| free(&row.link));
        wanted.fdb.retain(|row, _| free(&row.link));
        // What is not shown of a tunnel is still there.
        let mut found = shown;
        for (key, route) in &kernel.state.routes {
            let on = desired.links.get(&*route.link);
            if on.is_some_and(|link| link.kind.is_tunnel()) {
                found.routes.insert(*key, route.clone());
            }
        }
        found.neighbours.retain(|row, _| free(&row.link));
        found.fdb.retain(|row, _| free(&row.link));
        prop_assert_eq!(found.neighbours, wanted.neighbours);
        prop_assert_eq!(found.fdb, wanted.fdb);
        wanted.routes.retain(|_, route| free(&route.link));
        let of_barred = |key: &RouteKey| {
            desired.routes.get(key).is_some_and(|route| !free(&route.link))
        };
        found.routes.retain(|key, route| {
            !of_barred(key) && (free(&route.link) || route.protocol == PROTOCOL)
        });
        prop_assert_eq!(found.routes, wanted.routes);
        prop_assert!(found.nexthops.is_empty());
        let refuses = found.firewall.refusal.is_some();
        let told = report.obstacles.iter().any(|o| matches!(o, Obstacle::NoFirewall { .. }));
        prop_assert_eq!(told, refuses && wanted.firewall != Firewall::default());
        if !refuses {
            prop_assert_eq!(found.firewall.table, wanted.firewall.table);
            for (chain, rules) in &found.firewall.passes {
                let wanted = wanted.firewall.passes.get(chain);
                prop_assert_eq!(&rules[..], wanted.map_or(&[][..], Vec::as_slice));
            }
        }
    }

    #[test]
    fn cleaning_up_leaves_nothing_of_ours(state in any_host()) {
        let mut kernel = Fake::new(state);
        let nothing = KernelState::default();
        let report = run(converge(&mut kernel, &nothing, &Scope::default())).unwrap();
        prop_assert!(report.settled);
        for (name, link) in &kernel.state.links {
            let in_use = kernel.state.ports.values().any(|port| port.bridge == *name);
            let strange = matches!(link.kind, LinkKind::Other(_));
            prop_assert!(!link.marked || in_use || strange, "{name}");
        }
        prop_assert!(kernel.state.routes.values().all(|r| r.protocol != PROTOCOL));
        prop_assert!(kernel.state.nexthops.is_empty());
        prop_assert_eq!(&kernel.state.firewall.table, &None);
        prop_assert!(kernel.state.firewall.passes.values().all(Vec::is_empty));
    }
}
