use super::*;
use crate::kernel::change::Obstacle;
use crate::kernel::passage::{ALL, Blockage, Passage};

const LINKS: [&str; 3] = ["docker0", "eth0", "flannel.1"];

fn wanted(opens: bool) -> KernelState {
    let passage = Passage {
        forwards: true,
        visitors: [ip("192.168.5.2")].into(),
        ..Passage::default()
    };
    KernelState {
        passages: LINKS.map(|link| (link.to_owned(), passage.clone())).into(),
        opens_passages: opens,
        ..KernelState::default()
    }
}

fn found(closed: &[&str], all: bool) -> KernelState {
    let passage = |forwards| Passage {
        forwards,
        ..Passage::default()
    };
    let links = LINKS.map(|link| (link.to_owned(), passage(!closed.contains(&link))));
    let mut state = KernelState {
        passages: links.into(),
        ..KernelState::default()
    };
    state.passages.insert(ALL.to_owned(), passage(all));
    state
}

fn blocked(found: &KernelState) -> Vec<Obstacle> {
    let wanted = wanted(false);
    let diff = diff(found, &wanted, &scope(&wanted));
    assert_eq!(diff.changes, []);
    diff.obstacles
}

#[test]
fn the_whole_host_is_blamed_only_if_it_is_the_whole_host() {
    let links = |links: &[&str]| {
        let links = links.iter().map(ToString::to_string).collect();
        vec![Obstacle::Blocked(Blockage::Links(links))]
    };
    let everywhere = vec![Obstacle::Blocked(Blockage::Everywhere)];
    assert_eq!(blocked(&found(&LINKS, false)), everywhere);
    assert_eq!(blocked(&found(&LINKS, true)), links(&LINKS));
    assert_eq!(blocked(&found(&LINKS[1..], false)), links(&LINKS[1..]));
    assert_eq!(blocked(&found(&[], false)), []);
    let mut without_bridge = found(&LINKS, false);
    without_bridge.passages.remove("docker0");
    assert_eq!(blocked(&without_bridge), everywhere);
    assert_eq!(blocked(&KernelState::default()), []);
}

#[test]
fn what_is_wanted_open_is_opened_and_no_more() {
    let wanted = wanted(true);
    assert_eq!(
        changes(&found(&["docker0"], false), &wanted),
        ["set link docker0 forwarding on"]
    );
    let mut filtered = found(&[], true);
    let uplink = filtered.passages.get_mut("eth0").unwrap();
    uplink.rejected = [ip("192.168.5.2")].into();
    assert_eq!(
        changes(&filtered, &wanted),
        ["set link eth0 rp_filter loose"]
    );
    let uplink = filtered.passages.get_mut("eth0").unwrap();
    uplink.rejected = [ip("192.168.5.9")].into();
    assert_eq!(changes(&filtered, &wanted), [""; 0], "no peer any more");
}
