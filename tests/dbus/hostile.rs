//! Callers who mean no good, and the service serves on.

use std::num::NonZero;
use std::time::Duration;

use flannel_rs::service::dbus::{NAME, ROOT};
use flannel_rs::service::status::Status;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use zbus::message::{Flags, Type};
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedVariant};

use crate::support::served::{MANAGER, Node, connect, status};

/// Reading works, and what changes is told.
async fn serves_on(node: &Node) {
    let checked = async {
        let mut signals = node.signals().await;
        node.change(|status| status.repairs += 1);
        assert!(signals.next().await.contains("RepairCount"));
        let all = node.properties(ROOT, MANAGER).await;
        assert_eq!(
            all["State"],
            OwnedVariant::try_from(zbus::Variant::from("running")).unwrap()
        );
    };
    timeout(Duration::from_secs(60), checked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_and_senseless_calls_are_answered_with_errors() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let huge = "x".repeat(4 << 20);
    let manager = node.manager().await;
    for (method, argument) in [
        ("Renumber", huge.as_str()),
        ("SetLogLevel", &huge),
        (&huge[..200], ""),
    ] {
        let error = manager
            .call::<_, _, ()>(method, &argument)
            .await
            .unwrap_err();
        assert!(error.to_string().len() < 2000);
    }
    manager
        .call::<_, _, ()>("Plan", &"too much")
        .await
        .unwrap_err();
    manager
        .call::<_, _, ()>("Renumber", &7_u32)
        .await
        .unwrap_err();
    let root = node.proxy(ROOT, "org.freedesktop.DBus.Properties").await;
    let set = (MANAGER, "State", zbus::Variant::from(huge.as_str()));
    root.call::<_, _, ()>("Set", &set).await.unwrap_err();
    let nowhere = node.proxy("/org/flannelrs/Flannel1/peer/_9", MANAGER).await;
    nowhere.call::<_, _, ()>("Plan", &()).await.unwrap_err();
    serves_on(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_plans_at_once_do_not_crowd_out_the_rest() {
    let Some(mut node) = Node::start(status()).await else {
        return;
    };
    // the service is busy, and answers none; the bus lets each caller wait for 128 answers
    let mut calls = Vec::new();
    for _ in 0..10 {
        let caller = connect(&node.bus).await;
        let manager = zbus::Proxy::new(&caller, NAME, ROOT, MANAGER)
            .await
            .unwrap();
        let call = || {
            let manager = manager.clone();
            tokio::spawn(async move { manager.call::<_, _, ()>("Plan", &()).await })
        };
        calls.extend((0..100).map(|_| call()));
    }
    while calls.iter().filter(|call| call.is_finished()).count() < 936 {
        sleep(Duration::from_millis(20)).await;
    }
    serves_on(&node).await;
    assert_eq!(node.commands.as_ref().unwrap().len(), 1);
    // it ends
    drop(node.commands.take());
    let mut stopped = 0;
    for answer in join_all(calls).await {
        let error = answer.unwrap().unwrap_err().to_string();
        let is_last = error.contains("the service is stopping");
        stopped += usize::from(is_last);
        assert!(
            is_last || error.contains("64 plans are being made"),
            "{error}"
        );
    }
    assert_eq!(stopped, 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_want_no_answer_or_leave_cost_nothing() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    for _ in 0..20 {
        let caller = connect(&node.bus).await;
        for flags in [Flags::empty(), Flags::NO_REPLY_EXPECTED] {
            for _ in 0..50 {
                let call = Message::method_call(ROOT, "Describe")
                    .destination(NAME)
                    .interface(MANAGER)
                    .with_flags(flags)
                    .build(&())
                    .unwrap();
                caller.send(&call).await.unwrap();
            }
        }
    }
    serves_on(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_who_does_not_read_holds_up_nobody() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    let deaf = deaf(&node).await;
    for round in 0..2000_u64 {
        node.change(|status| {
            status.repairs = 100 + round;
            status.node_name = "n".repeat(10_000);
        });
        let describe = node.manager().await;
        let json: String = describe.call("Describe", &()).await.unwrap();
        assert!(serde_json::from_str::<Status>(&json).unwrap().repairs >= 100);
    }
    serves_on(&node).await;
    drop(deaf);
}

/// Listens to everything, and reads none of it.
async fn deaf(node: &Node) -> (Connection, MessageStream) {
    let connection = connect(&node.bus).await;
    let rule = MatchRule::builder().msg_type(Type::Signal).build().unwrap();
    let stream = MessageStream::for_match_rule(rule, &connection, NonZero::new(1)).await;
    let monitor = zbus::Proxy::new(
        &connection,
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus.Monitoring",
    );
    let rules: Vec<String> = Vec::new();
    let become_one = monitor.await.unwrap();
    let _ = become_one
        .call_noreply("BecomeMonitor", &(rules, 0_u32))
        .await;
    (connection, stream.unwrap())
}
