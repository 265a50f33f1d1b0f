use std::net::Ipv4Addr;
use std::sync::Arc;

use rand::SeedableRng;

use super::*;
use crate::cluster::lease::BackendAttrs;
use crate::cluster::memory::Memory;

const DAY: Duration = Duration::from_secs(86_400);
const NODE1: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 47);
const NODE2: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 48);

/// Four subnets: 10.5.0.4/30 to 10.5.0.16/30.
fn network() -> Network {
    let json = r#"{"Network":"10.5.0.0/27","SubnetLen":30,"SubnetMax":"10.5.0.16"}"#;
    Network::from_json(json).unwrap()
}

fn attrs(public_ip: Ipv4Addr) -> Attrs {
    Attrs {
        public_ip,
        public_ipv6: None,
        backend: BackendAttrs::HostGw,
    }
}

fn wish(public_ip: Ipv4Addr) -> Wish {
    Wish {
        public_ip,
        last: None,
        previous: None,
        asked: None,
    }
}

fn claimant(store: &Memory) -> Claimant<'_, Memory> {
    Claimant::new(store, DAY, StdRng::from_rng(&mut rand::rng()))
}

async fn renew(store: &Memory, held: &Held, public_ip: Ipv4Addr) -> Result<Claim, AcquireError> {
    claimant(store).renew(held, attrs(public_ip)).await
}

async fn renumber(
    store: &Memory,
    network: &Network,
    held: &Held,
    goal: Goal,
) -> Result<Held, AcquireError> {
    let attrs = attrs(NODE1);
    claimant(store).renumber(network, held, goal, attrs).await
}

async fn join(store: &Memory, public_ip: Ipv4Addr) -> Result<Held, AcquireError> {
    let wish = wish(public_ip);
    claimant(store)
        .acquire(&network(), &wish, |_| attrs(public_ip))
        .await
}

async fn view(store: &Memory) -> View {
    list(store).await.unwrap()
}

/// What somebody who knows no fences would do: flanneld's put.
async fn overwrite(store: &Memory, held: &Held, value: &str) {
    let view = view(store).await;
    let key = lease_key(held.lease.subnet);
    let revision = view.record(held.lease.subnet).map(|record| record.revision);
    let fence = revision.map_or(Fence::Absent, Fence::Unchanged);
    let put = Put {
        key: &key,
        value,
        fence,
        ttl: Some(DAY),
    };
    let stored = store.put(put).await.unwrap();
    assert!(matches!(stored, Outcome::Stored { .. }));
}

#[tokio::test]
async fn a_lease_is_written_in_flanneld_s_words_and_found_again() {
    let store = Memory::new();
    let held = join(&store, NODE1).await.unwrap();
    assert_eq!(held.ttl, Some(DAY));
    let entries = store.list().await.unwrap().entries;
    let value = r#"{"PublicIP":"192.168.1.47","PublicIPv6":null,"BackendType":"host-gw"}"#;
    assert_eq!(entries[0].value, value.as_bytes());
    assert!(entries[0].expires);
    let again = join(&store, NODE1).await.unwrap();
    assert_eq!(again.lease, held.lease);
    assert_eq!(view(&store).await.records().count(), 1);
}

#[tokio::test]
async fn no_two_nodes_get_one_subnet_and_the_fifth_gets_none() {
    let store = Memory::new();
    let takers = (1..=4).map(|host| {
        let store = store.clone();
        tokio::spawn(async move { join(&store, Ipv4Addr::new(192, 168, 1, host)).await })
    });
    let mut subnets = Vec::new();
    for taker in takers.collect::<Vec<_>>() {
        subnets.push(taker.await.unwrap().unwrap().lease.subnet);
    }
    subnets.sort();
    subnets.dedup();
    assert_eq!(subnets.len(), 4);
    let error = join(&store, NODE1).await.unwrap_err();
    assert!(matches!(error, AcquireError::Exhausted { .. }));
    let text = error.to_string();
    assert!(text.contains("from 10.5.0.4 to 10.5.0.16"), "{text}");
}

#[tokio::test]
async fn a_reservation_is_taken_and_stays_one() {
    let store = Memory::new();
    let value = attrs(NODE1).to_json();
    let key = "subnets/10.5.0.12-30";
    let put = Put {
        key,
        value: &value,
        fence: Fence::Absent,
        ttl: None,
    };
    store.put(put).await.unwrap();
    let held = join(&store, NODE1).await.unwrap();
    assert_eq!(
        (lease_key(held.lease.subnet).as_str(), held.ttl),
        (key, None)
    );
    let renewed = renew(&store, &held, NODE1).await.unwrap();
    let Claim::Held(renewed) = renewed else {
        panic!("{renewed:?}")
    };
    assert_eq!(renewed.ttl, None);
    assert!(!store.list().await.unwrap().entries[0].expires);
    // the administrator takes it back: what is claimed again is an ordinary lease
    assert!(store.delete(key, renewed.revision).await.unwrap());
    let again = renew(&store, &renewed, NODE1).await.unwrap();
    assert!(matches!(again, Claim::Retaken(held) if held.ttl == Some(DAY)));
}

#[tokio::test]
async fn an_own_lease_that_no_longer_fits_is_deleted() {
    let store = Memory::new();
    let old = Network::from_json(r#"{"Network":"10.9.0.0/16"}"#).unwrap();
    let wish = wish(NODE1);
    let held = claimant(&store)
        .acquire(&old, &wish, |_| attrs(NODE1))
        .await;
    let held = held.unwrap();
    let moved = join(&store, NODE1).await.unwrap();
    assert_ne!(moved.lease.subnet, held.lease.subnet);
    assert_eq!(view(&store).await.records().count(), 1);
}

#[tokio::test]
async fn renewal_writes_anew_and_keeps_the_subnet() {
    let store = Memory::new();
    let held = join(&store, NODE1).await.unwrap();
    let renewed = renew(&store, &held, NODE2).await.unwrap();
    let Claim::Held(renewed) = renewed else {
        panic!("{renewed:?}")
    };
    assert!(renewed.revision > held.revision);
    assert_eq!(renewed.lease.attrs.public_ip, NODE2);
    assert_eq!(renewed.lease.subnet, held.lease.subnet);
}

#[tokio::test]
async fn a_lease_that_was_deleted_or_expired_is_claimed_again() {
    let store = Memory::new();
    let held = join(&store, NODE1).await.unwrap();
    store.expire(&lease_key(held.lease.subnet));
    let claim = renew(&store, &held, NODE1).await.unwrap();
    assert!(matches!(claim, Claim::Retaken(again) if again.lease == held.lease));
}

#[tokio::test]
async fn a_write_of_ours_that_came_from_elsewhere_is_taken_over() {
    let store = Memory::new();
    let held = join(&store, NODE1).await.unwrap();
    overwrite(
        &store,
        &held,
        r#"{"PublicIP":"192.168.1.47","PublicIPv6":null}"#,
    )
    .await;
    let claim = renew(&store, &held, NODE1).await.unwrap();
    assert!(matches!(claim, Claim::Retaken(again) if again.lease == held.lease));
}

#[tokio::test]
async fn an_unreadable_own_lease_is_written_anew() {
    let store = Memory::new();
    let held = join(&store, NODE1).await.unwrap();
    overwrite(&store, &held, "{").await;
    let claim = renew(&store, &held, NODE1).await.unwrap();
    assert!(matches!(claim, Claim::Retaken(again) if again.lease == held.lease));
}

/// The complaint behind flannel#1289: a late renewal took the subnet from its new owner.
#[tokio::test]
async fn a_subnet_of_somebody_else_is_never_taken() {
    let store = Memory::new();
    let held = join(&store, NODE1).await.unwrap();
    let theirs = attrs(NODE2).to_json();
    overwrite(&store, &held, &theirs).await;
    let claim = renew(&store, &held, NODE1).await.unwrap();
    assert!(matches!(claim, Claim::Taken(other) if other.attrs.public_ip == NODE2));
    assert!(!release(&store, &held).await.unwrap());
    let entries = store.list().await.unwrap().entries;
    assert_eq!(entries[0].value, theirs.as_bytes());
}

/// The same IPv4 subnet under the key of a dual-stack node (flannel trap T15).
#[tokio::test]
async fn the_other_spelling_of_a_subnet_counts_as_taken() {
    let store = Memory::new();
    let held = join(&store, NODE1).await.unwrap();
    let key = lease_key(held.lease.subnet);
    store.expire(&key);
    let dual = format!("{key}&fd00::-64");
    let value = attrs(NODE2).to_json();
    let put = Put {
        key: &dual,
        value: &value,
        fence: Fence::Absent,
        ttl: None,
    };
    store.put(put).await.unwrap();
    let claim = renew(&store, &held, NODE1).await.unwrap();
    assert!(matches!(claim, Claim::Taken(_)));
    let moved = join(&store, NODE1).await.unwrap();
    assert!(!moved.lease.subnet.overlaps(held.lease.subnet));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_found() {
    let store = Memory::new();
    store.lose_answers(1);
    assert!(matches!(
        join(&store, NODE1).await,
        Err(AcquireError::Store(_))
    ));
    let held = join(&store, NODE1).await.unwrap();
    assert_eq!(view(&store).await.records().count(), 1);
    store.lose_answers(1);
    assert!(renew(&store, &held, NODE1).await.is_err());
    let claim = renew(&store, &held, NODE1).await.unwrap();
    assert!(matches!(claim, Claim::Retaken(_)));
}

#[tokio::test]
async fn release_gives_the_lease_back() {
    let store = Memory::new();
    let held = join(&store, NODE1).await.unwrap();
    assert!(release(&store, &held).await.unwrap());
    assert!(!release(&store, &held).await.unwrap());
    assert!(store.list().await.unwrap().entries.is_empty());
}

async fn give_back(store: &Memory, held: &Held) -> bool {
    let attrs = &held.lease.attrs;
    claimant(store).release(held, attrs).await.unwrap()
}

#[tokio::test]
async fn a_lease_written_anew_by_a_lost_call_is_given_back_too() {
    let store = Memory::new();
    let held = join(&store, NODE1).await.unwrap();
    store.lose_answers(1);
    assert!(renew(&store, &held, NODE1).await.is_err());
    assert!(!release(&store, &held).await.unwrap());
    assert!(give_back(&store, &held).await);
    assert!(store.list().await.unwrap().entries.is_empty());
    assert!(!give_back(&store, &held).await);
}

#[tokio::test]
async fn a_lease_is_given_back_though_the_answer_is_lost() {
    let store = Memory::new();
    let held = join(&store, NODE1).await.unwrap();
    store.lose_answers(1);
    assert!(give_back(&store, &held).await);
    assert!(store.list().await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn neither_a_reservation_nor_the_lease_of_another_is_given_back() {
    let store = Memory::new();
    let held = join(&store, NODE1).await.unwrap();
    overwrite(&store, &held, &attrs(NODE2).to_json()).await;
    assert!(!give_back(&store, &held).await);
    let reserved = Put {
        key: &lease_key(held.lease.subnet),
        value: &held.lease.attrs.to_json(),
        fence: Fence::Unchanged(view(&store).await.revision()),
        ttl: None,
    };
    store.put(reserved).await.unwrap();
    assert!(!give_back(&store, &held).await);
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
}

/// As after a datastore was lost that may come back with another history.
#[tokio::test]
async fn a_lease_of_an_unknown_revision_is_known_by_what_it_says() {
    let store = Memory::new();
    let mut held = join(&store, NODE1).await.unwrap();
    held.revision = Revision::default();
    let claim = renew(&store, &held, NODE1).await.unwrap();
    assert!(matches!(claim, Claim::Held(again) if again.lease == held.lease));
    overwrite(&store, &held, &attrs(NODE2).to_json()).await;
    let claim = renew(&store, &held, NODE1).await.unwrap();
    assert!(matches!(claim, Claim::Taken(_)));
}

/// Nodes that come and go at random on one store: at no time do two hold one subnet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_nodes_on_few_subnets_never_share_one() {
    let store = Memory::new();
    let owners = Arc::new(std::sync::Mutex::new(std::collections::BTreeMap::new()));
    let nodes = (1..=8).map(|host| {
        let (store, owners) = (store.clone(), owners.clone());
        tokio::spawn(async move {
            let address = Ipv4Addr::new(192, 168, 1, host);
            for _ in 0..20 {
                let Ok(held) = join(&store, address).await else {
                    continue;
                };
                let key = held.lease.subnet.key();
                let other = owners.lock().unwrap().insert(key.clone(), address);
                assert_eq!(other, None, "{key} has two owners");
                tokio::task::yield_now().await;
                owners.lock().unwrap().remove(&key);
                assert!(release(&store, &held).await.unwrap());
            }
        })
    });
    for node in nodes.collect::<Vec<_>>() {
        node.await.unwrap();
    }
}

#[tokio::test]
async fn a_move_takes_the_new_subnet_and_gives_the_old_one_back() {
    let store = Memory::new();
    let held = join(&store, NODE1).await.unwrap();
    let free = network().subnets().find(|free| *free != held.lease.subnet);
    let goal = Goal::Exactly(free.unwrap());
    let network = network();
    let moved = renumber(&store, &network, &held, goal).await;
    let moved = moved.unwrap();
    assert_eq!((Some(moved.lease.subnet), moved.ttl), (free, Some(DAY)));
    let view = view(&store).await;
    let keys: Vec<Subnet> = view.records().map(|record| record.lease.subnet).collect();
    assert_eq!(keys, [moved.lease.subnet]);
}

#[tokio::test]
async fn a_move_leaves_what_is_not_ours_to_give_back() {
    let store = Memory::new();
    let network = network();
    let held = join(&store, NODE1).await.unwrap();
    let theirs = attrs(NODE2).to_json();
    overwrite(&store, &held, &theirs).await;
    let stays = Goal::Exactly(held.lease.subnet);
    let error = renumber(&store, &network, &held, stays).await;
    let text = error.unwrap_err().to_string();
    assert_eq!(text, format!("{} is taken by {NODE2}", held.lease.subnet));
    let rather = Goal::Rather(held.lease.subnet);
    let moved = renumber(&store, &network, &held, rather).await;
    assert_ne!(moved.unwrap().lease.subnet, held.lease.subnet);
    let view = view(&store).await;
    let other = view.record(held.lease.subnet).unwrap();
    assert_eq!(other.lease.attrs.public_ip, NODE2);
}

#[tokio::test]
async fn a_full_network_is_told_with_who_holds_it() {
    let store = Memory::new();
    let mut holders = Vec::new();
    for host in 1..=4 {
        holders.push(
            join(&store, Ipv4Addr::new(192, 168, 1, host))
                .await
                .unwrap(),
        );
    }
    overwrite(&store, &holders[2], "{").await;
    let first = &holders[0];
    renew(&store, first, first.lease.attrs.public_ip)
        .await
        .unwrap();
    let text = join(&store, NODE1).await.unwrap_err().to_string();
    let expected = format!(
        "no free subnet: all /30 subnets from 10.5.0.4 to 10.5.0.16 are leased (3 leases, 1 \
         more unreadable, longest not renewed {} of 192.168.1.2); release leases of nodes that \
         are gone, or widen the network",
        holders[1].lease.subnet
    );
    assert_eq!(text, expected);
    let other = Goal::Any;
    let moved = renumber(&store, &network(), &holders[3], other).await;
    assert!(matches!(moved, Err(AcquireError::Exhausted { .. })));
}
