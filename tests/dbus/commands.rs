//! What callers ask of the service, and what they are answered.

use std::sync::Arc;
use std::time::Duration;

use flannel_rs::cluster::subnet::Subnet;
use flannel_rs::service::dbus::ROOT;
use flannel_rs::service::status::{Command, News, PlannedChange, RenumberError, State, Status};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use zbus::OwnedVariant;

use crate::refusal;
use crate::support::served::{LINK, MANAGER, Node, status};

const ROUNDS: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn describe_is_the_whole_status() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let json: String = node.manager().await.call("Describe", &()).await.unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_reach_the_service_and_its_answers_the_caller() {
    let Some(mut node) = Node::start(status()).await else {
        return;
    };
    let mut commands = node.commands.take().unwrap();
    let service = tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            let change = PlannedChange {
                verb: "add".to_owned(),
                object: "route 100.96.2.0/24".to_owned(),
            };
            match command {
                Command::Reload(answer) => answer.send(Err("line 3: no\0".to_owned())).unwrap(),
                Command::Reconcile(answer) => answer.send(Ok(vec![change])).unwrap(),
                Command::Plan(answer) => answer.send(Ok(Vec::new())).unwrap(),
                Command::Renumber(None, answer) => {
                    let subnet = Subnet::new("100.96.1.0/24".parse().unwrap());
                    let error = RenumberError::NothingToRenumber(subnet);
                    answer.send(Err(error)).unwrap();
                }
                Command::Renumber(Some(subnet), answer) => answer.send(Ok(subnet)).unwrap(),
                Command::Release(answer) => {
                    answer.send(Err("no lease to release".to_owned())).unwrap();
                }
                Command::TakeBridge(answer) => answer.send(Err("ours".to_owned())).unwrap(),
                Command::Cleanup(_) | Command::SetLogLevel(..) => panic!("nobody asked"),
            }
        }
    });
    let manager = node.manager().await;
    let plan: Vec<(String, String)> = manager.call("Plan", &()).await.unwrap();
    assert_eq!(plan, []);
    if nix::unistd::getuid().is_root() {
        let error = manager.call::<_, _, ()>("Reload", &()).await.unwrap_err();
        assert_eq!(refusal(&error), "Failed: line 3: no\u{fffd}");
        let done: Vec<(String, String)> = manager.call("Reconcile", &()).await.unwrap();
        assert_eq!(done, [("add".to_owned(), "route 100.96.2.0/24".to_owned())]);
        let renumber = async |subnet: &str| {
            let answer = manager.call::<_, _, String>("Renumber", &subnet).await;
            answer.map_err(|error| refusal(&error))
        };
        let taken = renumber("100.96.3.0/24").await;
        assert_eq!(taken.as_deref(), Ok("100.96.3.0/24"));
        let refused = renumber("").await.unwrap_err();
        assert!(
            refused.starts_with("NothingToRenumber: there is no need to leave 100.96.1.0/24"),
            "{refused}"
        );
        let refused = renumber("x").await.unwrap_err();
        assert!(refused.starts_with("InvalidSubnet: \"x\""), "{refused}");
        let take = manager.call::<_, _, Vec<(String, String)>>("TakeBridge", &());
        assert_eq!(refusal(&take.await.unwrap_err()), "Failed: ours");
        let refused = manager.call::<_, _, String>("ReleaseLease", &()).await;
        let refused = refusal(&refused.unwrap_err());
        assert_eq!(refused, "Failed: no lease to release");
    }
    service.abort();
    let _ = service.await;
    let error = manager.call::<_, _, ()>("Plan", &()).await.unwrap_err();
    assert_eq!(refusal(&error), "Unavailable: the service is stopping");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_service_does_not_hold_up_the_properties() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let manager = node.manager().await;
    let plans: Vec<JoinHandle<_>> = (0..3)
        .map(|_| {
            let manager = manager.clone();
            tokio::spawn(async move { manager.call::<_, _, ()>("Plan", &()).await })
        })
        .collect();
    let mut signals = node.signals().await;
    node.change(|status| status.mtu = 1400);
    assert!(signals.next().await.contains("MTU uint32 1400"));
    assert_eq!(
        node.properties(ROOT, MANAGER).await["MTU"],
        OwnedVariant::from(1400_u32)
    );
    assert!(plans.iter().all(|plan| !plan.is_finished()));
    let commands = node.commands.as_ref().unwrap();
    while commands.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(commands.len(), 1, "plans crowd the service's queue");
    plans.iter().for_each(JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn news_are_told_and_old_ones_forgotten() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let mut signals = node.signals().await;
    let change = |object: &str| PlannedChange {
        verb: "replace".to_owned(),
        object: object.to_owned(),
    };
    let repaired = vec![change("link flannel.1"), change("route\0")];
    node.news.send(News::DriftRepaired(repaired)).unwrap();
    let told = signals.next().await;
    assert_eq!(
        told,
        format!("{ROOT} DriftRepaired replace link flannel.1\nreplace route\u{fffd}")
    );
    let subnet = Subnet::new("100.96.1.0/24".parse().unwrap());
    let conflict = |holder| News::SubnetConflict { subnet, holder };
    let holder = Some([192, 168, 1, 9].into());
    node.news.send(conflict(holder)).unwrap();
    let told = signals.next().await;
    assert_eq!(
        told,
        format!("{ROOT} SubnetConflict 100.96.1.0/24 \"192.168.1.9\"")
    );
    node.news.send(conflict(None)).unwrap();
    let told = signals.next().await;
    assert_eq!(told, format!("{ROOT} SubnetConflict 100.96.1.0/24 \"\""));

    // more than anybody reads: the last is told, and the sender never waits
    for many in 0..News::MOST_CHANGES + 100 {
        let repaired = vec![change("x"); many];
        node.news.send(News::DriftRepaired(repaired)).unwrap();
    }
    let mut last = 0;
    while last < News::MOST_CHANGES {
        last = signals.next().await.lines().count();
    }
    assert_eq!(last, News::MOST_CHANGES, "a huge one is cut");
    let said = format!("the first {}", News::MOST_CHANGES);
    let manual = include_str!("../../docs/dbus.md");
    let xml = include_str!("../../systemd/dbus-1/interfaces/org.flannelrs.Flannel1.Manager.xml");
    assert!(manual.contains(&said) && xml.contains(&said), "{said}");
}

/// The pause between two rounds of signals must not show.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_what_the_properties_show() {
    if !nix::unistd::getuid().is_root() {
        println!("skipped: needs root, to be obeyed");
        return;
    }
    let Some(mut node) = Node::start(status()).await else {
        return;
    };
    let mut commands = node.commands.take().unwrap();
    let current = node.status.clone();
    let service = tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Reload(answer) => {
                    current.send_modify(|status| status.state = State::Running);
                    answer.send(Ok(())).unwrap();
                }
                Command::Cleanup(answer) => {
                    current.send_modify(|status| {
                        status.state = State::Withdrawn;
                        status.interfaces = Arc::default();
                    });
                    answer.send(Ok(Vec::new())).unwrap();
                }
                Command::SetLogLevel(level, answer) => {
                    current.send_modify(|status| status.log_level = level);
                    answer.send(Ok(())).unwrap();
                }
                Command::Reconcile(_)
                | Command::Plan(_)
                | Command::Renumber(..)
                | Command::TakeBridge(_)
                | Command::Release(_) => panic!("nobody asked"),
            }
        }
    });
    let manager = node.manager().await;
    let shows = async |property: &str| manager.get_property::<String>(property).await.unwrap();
    let start = Instant::now();
    for round in 0..ROUNDS {
        let level = ["debug", "warn"][round % 2];
        let _: Vec<(String, String)> = manager.call("Cleanup", &()).await.unwrap();
        assert_eq!(shows("State").await, "withdrawn", "round {round}");
        assert_eq!(node.managed_with(LINK).await, [""; 0], "round {round}");
        manager.call::<_, _, ()>("Reload", &()).await.unwrap();
        assert_eq!(shows("State").await, "running", "round {round}");
        manager
            .call::<_, _, ()>("SetLogLevel", &level)
            .await
            .unwrap();
        assert_eq!(shows("LogLevel").await, level, "round {round}");
    }
    let each = start.elapsed() / u32::try_from(ROUNDS).unwrap();
    eprintln!("{ROUNDS} rounds of three calls each, {each:?} a round");
    service.abort();
}
