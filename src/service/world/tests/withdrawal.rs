use super::*;
use crate::service::status::RenumberError;

const UNREACHABLE: &str = "no member answers";

fn unreachable() -> AcquireError {
    AcquireError::Store(StoreError::Unavailable {
        doing: "deleting".into(),
        reason: UNREACHABLE.into(),
    })
}

fn given_back() -> World {
    let mut world = holding();
    assert_eq!(world.release(), Ok(None));
    assert_eq!(world.released(Ok(true)), Ok(subnet("100.96.1.0-24")));
    let deleted = Event::Deleted {
        key: "subnets/100.96.1.0-24".into(),
        revision: Revision(6),
    };
    world.changed(vec![deleted], at(3));
    world
}

#[test]
fn first_the_lease_is_given_back_and_then_nothing_is_wanted() {
    let mut world = holding();
    let before = world.plan();
    assert_eq!(world.release(), Ok(None));
    let Some(Task::Release(held, _)) = world.duty(at(2)) else {
        panic!("{:?}", world.duty(at(2)))
    };
    assert_eq!(held.revision, Revision(5));
    assert!(!world.is_withdrawn());
    assert_eq!(world.plan(), before, "until it is given back");
    assert!(world.release().unwrap_err().contains("already"));
    assert!(world.withdraw().unwrap_err().contains("already"));
    assert!(matches!(
        world.renumber(None),
        Err(RenumberError::Failed(_))
    ));

    assert_eq!(world.released(Ok(true)), Ok(subnet("100.96.1.0-24")));
    assert!(world.is_withdrawn());
    assert_eq!((world.duty(at(3)), world.subnet()), (None, None));
    let plan = world.plan().unwrap();
    assert_eq!(
        (plan.kernel.clone(), plan.proxy.clone()),
        Default::default()
    );
    let files: Vec<_> = plan.obsolete.iter().collect();
    assert_eq!(files.len(), 2, "{files:?}");
    let overlay = "100.96.0.0/16".parse().ok();
    let scope = world.scope(&plan).unwrap();
    assert_eq!((scope.overlay, scope.own), (overlay, None));
    assert!(world.release().unwrap_err().contains("holds no lease"));
    assert_eq!(world.withdraw(), Ok(()));
}

#[test]
fn a_datastore_that_does_not_answer_changes_nothing() {
    let mut world = holding();
    let before = world.plan();
    assert_eq!(world.release(), Ok(None));
    let error = world.released(Err(unreachable())).unwrap_err();
    assert!(error.contains(UNREACHABLE), "{error}");
    assert_eq!((world.duty(at(2)), world.plan()), (None, before));
    // also where nobody can tell what became of it
    assert_eq!(world.release(), Ok(None));
    world.release_failed();
    assert_eq!((world.duty(at(2)), world.is_withdrawn()), (None, false));
}

#[test]
fn one_that_cannot_be_read_may_come_back_with_another_history() {
    let mut world = holding();
    let error = StoreError::Unavailable {
        doing: "watching".into(),
        reason: UNREACHABLE.into(),
    };
    world.lost(&error, at(2));
    assert_eq!(world.release(), Ok(None));
    let Some(Task::Release(held, _)) = world.duty(at(2)) else {
        panic!("{:?}", world.duty(at(2)))
    };
    assert_eq!(held.revision, Revision::default());
}

#[test]
fn without_a_lease_there_is_nothing_to_give_back_but_something_to_clean_up() {
    let mut world = world("");
    assert!(world.release().unwrap_err().contains("no lease yet"));
    world.identity.previous = Some(subnet("100.96.9.0-24"));
    assert_eq!(world.withdraw(), Ok(()));
    let plan = world.plan().unwrap();
    let about: Vec<_> = plan.obsolete.values().collect();
    assert_eq!(about, [&subnet("100.96.9.0-24"); 2]);
    assert!(world.scope(&plan).unwrap().overlay.is_some());
    world.listed(snapshot(2, vec![entry("config", CONFIG_1, 1)]), at(1));
    assert_eq!(world.duty(at(1)), None, "it takes no lease");
}

#[test]
fn a_reservation_stays() {
    let mut world = holding();
    let mut reserved = held(&world, 5);
    reserved.ttl = None;
    world.hold(reserved, at(2));
    assert_eq!(world.release(), Ok(Some(subnet("100.96.1.0-24"))));
    assert!(world.is_withdrawn());
    assert_eq!(world.duty(at(2)), None);
    assert!(world.release().unwrap_err().contains("reserved"));
}

#[test]
fn while_it_moves_nobody_can_have_it_withdraw() {
    let mut world = holding();
    world.renumber(Some(subnet("100.96.7.0-24"))).unwrap();
    assert!(world.release().unwrap_err().contains("renumbered"));
    assert!(world.withdraw().unwrap_err().contains("renumbered"));
    assert!(matches!(world.duty(at(2)), Some(Task::Renumber(..))));
}

#[test]
fn after_a_clean_up_the_lease_is_left_to_run_out() {
    let mut world = holding();
    assert_eq!(world.withdraw(), Ok(()));
    let day = DAY.as_secs();
    world.aged(at(day - 1));
    assert_eq!(world.duty(at(day - 1)), None, "it is not renewed");
    assert_eq!(world.subnet(), Some(subnet("100.96.1.0-24")));
    world.aged(at(day + 1));
    assert_eq!((world.subnet(), world.duty(at(day + 1))), (None, None));
    assert!(!codes(&world).contains(&"lease-expired".to_owned()));
    // it can be given back before that
    let mut world = holding();
    world.withdraw().unwrap();
    assert_eq!(world.release(), Ok(None));
    assert!(matches!(world.duty(at(2)), Some(Task::Release(..))));
    assert!(world.is_withdrawn());
}

#[test]
fn peers_are_known_but_not_reached() {
    let mut world = given_back();
    let plan = world.plan().unwrap();
    let peers = world.peers(&plan);
    let subnets: Vec<&str> = peers.iter().map(|peer| peer.subnet.as_str()).collect();
    assert_eq!(subnets, ["100.96.2.0/24"]);
    assert_eq!(peers[0].path, PeerPath::None);
}

#[test]
fn a_reload_brings_it_back_with_the_same_subnet() {
    let mut world = given_back();
    world.reconfigure(config(""));
    assert!(!world.is_withdrawn());
    let Some(Task::Acquire(_, wish, _)) = world.duty(at(4)) else {
        panic!("{:?}", world.duty(at(4)))
    };
    let last = wish.last.map(|last| last.subnet);
    assert_eq!(last, Some(subnet("100.96.1.0-24")));

    // a lease that still lives is as good as before
    let mut world = holding();
    world.withdraw().unwrap();
    world.reconfigure(config(""));
    assert_eq!(world.duty(at(4)), None);
    assert!(world.plan().is_some_and(|plan| !plan.files.is_empty()));

    // one that somebody else has meanwhile is not fought over
    let mut world = holding();
    world.withdraw().unwrap();
    let stolen = Event::Put(entry("subnets/100.96.1.0-24", NODE2, 8));
    world.changed(vec![stolen], at(2));
    world.reconfigure(config(""));
    assert!(matches!(world.duty(at(4)), Some(Task::Acquire(..))));
}

#[test]
fn a_network_that_changes_meanwhile_is_taken_over() {
    let mut world = holding();
    world.withdraw().unwrap();
    let moved = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
    world.changed(vec![Event::Put(entry("config", moved, 8))], at(2));
    assert_eq!(codes(&world), [""; 0]);
    let plan = world.plan().unwrap();
    let overlay = "100.96.0.0/16".parse().ok();
    assert_eq!(world.scope(&plan).unwrap().overlay, overlay, "what it left");
    world.reconfigure(config(""));
    let Some(Task::Acquire(network, ..)) = world.duty(at(4)) else {
        panic!("{:?}", world.duty(at(4)))
    };
    assert_eq!(network.net.to_string(), "10.5.0.0/16");
}

#[test]
fn a_service_that_stops_says_what_stays() {
    let mut world = holding();
    assert!(
        world
            .farewell()
            .ends_with("the lease and the data path stay")
    );
    world.withdraw().unwrap();
    assert!(world.farewell().ends_with("and the lease stays"));
    assert!(given_back().farewell().ends_with("without a lease"));
}
