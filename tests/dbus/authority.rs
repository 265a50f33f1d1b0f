//! Who may do what: root everything, others what polkit grants.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use flannel_rs::service::dbus::{NAME, ROOT};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::polkit::Decision;
use crate::said;
use crate::scene::{Scene, call, nobody_waits_for_the_dialog, outcome, refused};
use crate::support::served::{MANAGER, Node, status};

#[tokio::test(flavor = "multi_thread")]
async fn without_polkit_only_root_may_change_things() {
    let Some(node) = Node::start(status()).await else {
        return;
    };
    for method in [
        "Reconcile",
        "Reload",
        "ReleaseLease",
        "Cleanup",
        "TakeBridge",
    ] {
        let call = format!("call {NAME} {ROOT} {MANAGER} {method}");
        let Some(output) = node.bus.busctl_as_nobody(&call) else {
            return;
        };
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected =
            "only root may do this: polkit, which could grant it to others, is not there";
        assert!(said.contains(expected), "{said}");
    }
    assert!(
        node.commands.as_ref().unwrap().is_empty(),
        "the service was asked"
    );
    let read = format!("get-property {NAME} {ROOT} {MANAGER} State");
    assert_eq!(said(node.bus.busctl_as_nobody(&read)), "s \"running\"\n");
    let describe = format!("call {NAME} {ROOT} {MANAGER} Describe");
    let described = said(node.bus.busctl_as_nobody(&describe));
    assert!(described.starts_with("s \"{"), "{described}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_needs_no_polkit() {
    let Some(mut scene) = Scene::set(Decision::No).await else {
        return;
    };
    let manager = scene.node.manager().await;
    manager.call::<_, _, ()>("Reload", &()).await.unwrap();
    assert!(!scene.polkit.was_asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_polkit_grants_is_done() {
    let Some(mut scene) = Scene::set(Decision::Yes).await else {
        return;
    };
    let installed = fs::read_to_string(ACTIONS).unwrap();
    let removed = "([('delete', 'link flannel.1')],)";
    let subnet = [("subnet", "100.96.7.0/24")].as_slice();
    let own = [("subnet", "100.96.1.0/24")].as_slice();
    for (words, answer, action, done, details) in [
        ("Reload", "()", "reload", "reload", [].as_slice()),
        ("Reconcile", "(@a(ss) [],)", "reconcile", "reconcile", &[]),
        (
            "Renumber 100.96.7.0/24",
            "('100.96.7.0/24',)",
            "renumber",
            "renumber 100.96.7.0/24",
            subnet,
        ),
        (
            "ReleaseLease",
            "('100.96.1.0/24',)",
            "release",
            "release",
            own,
        ),
        ("Cleanup", removed, "cleanup", "cleanup", &[]),
        ("TakeBridge", removed, "take-bridge", "take", &[]),
        (
            "SetLogLevel debug",
            "()",
            "set-log-level",
            "log at debug",
            &[],
        ),
    ] {
        let output = outcome(call(&scene.node, words)).await;
        assert_eq!(said(Some(output)), format!("{answer}\n"));
        let question = scene.polkit.question().await;
        assert_eq!(question.action, format!("{NAME}.{action}"));
        assert!(installed.contains(&format!("<action id=\"{NAME}.{action}\">")));
        assert!(
            question.subject.starts_with("system-bus-name \":1."),
            "{question:?}"
        );
        assert!(!question.may_ask, "gdbus did not allow it");
        for (key, value) in details {
            assert_eq!(question.details[*key], *value);
            assert!(question.details["polkit.message"].contains("$(subnet)"));
        }
        assert_eq!(scene.done.recv().await.unwrap(), done);
        assert!(!scene.polkit.was_asked(), "it is asked once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_polkit_does_not_grant_is_not_done() {
    let Some(mut scene) = Scene::set(Decision::No).await else {
        return;
    };
    let error = refused(call(&scene.node, "Reload")).await;
    assert!(
        error.contains("org.flannelrs.Flannel1.Error.NotAuthorized"),
        "{error}"
    );
    let text = "polkit does not grant org.flannelrs.Flannel1.reload to uid 65534; run this as root, or grant it";
    assert!(error.contains(text), "{error}");

    scene.polkit.decide(Decision::Challenge);
    let error = refused(call(&scene.node, "Cleanup")).await;
    let name = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired";
    assert!(error.contains(name), "{error}");
    let error = refused(call(&scene.node, "--interactive Cleanup")).await;
    assert!(error.contains("Error.NotAuthorized"), "{error}");
    assert!(error.contains("start an authentication agent"), "{error}");

    scene.polkit.decide(Decision::Dismissed);
    let error = refused(call(&scene.node, "--interactive ReleaseLease")).await;
    assert!(error.contains("was dismissed"), "{error}");

    let mut may_ask = Vec::new();
    while scene.polkit.was_asked() {
        may_ask.push(());
    }
    assert_eq!(may_ask.len(), 4);
    assert_eq!(scene.was_done(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_says_whether_a_person_may_be_asked() {
    let Some(mut scene) = Scene::set(Decision::Yes).await else {
        return;
    };
    outcome(call(&scene.node, "--interactive Reload")).await;
    assert!(scene.polkit.question().await.may_ask);
    outcome(call(&scene.node, "Reload")).await;
    assert!(!scene.polkit.question().await.may_ask);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_before_anybody_is_asked() {
    let Some(mut scene) = Scene::set(Decision::Yes).await else {
        return;
    };
    let error = refused(call(&scene.node, "--interactive Renumber 100.96.1.0/99")).await;
    assert!(error.contains("Error.InvalidSubnet"), "{error}");
    let long = format!("SetLogLevel {}", "x".repeat(100_000));
    let error = refused(call(&scene.node, &long)).await;
    assert!(
        error.contains("Error.InvalidLogLevel") && error.len() < 1000,
        "{error}"
    );
    assert!(!scene.polkit.was_asked());

    let error = refused(call(&scene.node, "SetLogLevel loud")).await;
    assert!(
        error.contains("Error.InvalidLogLevel: no such level"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_take_their_time() {
    let word = Arc::new(Notify::new());
    let Some(mut scene) = Scene::set(Decision::YesAfter(word.clone())).await else {
        return;
    };
    let call = call(&scene.node, "--interactive Cleanup");
    scene.polkit.question().await;
    nobody_waits_for_the_dialog(&scene.node).await;
    assert_eq!(scene.done.recv().await.unwrap(), "plan");
    assert_eq!(scene.was_done(), None);
    word.notify_one();
    assert!(outcome(call).await.status.success());
    assert_eq!(scene.done.recv().await.unwrap(), "cleanup");
}

/// The person has agreed to what the dialog named, and to nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_that_changes_behind_the_dialog_is_not_released() {
    let word = Arc::new(Notify::new());
    let Some(mut scene) = Scene::set(Decision::YesAfter(word.clone())).await else {
        return;
    };
    let call = call(&scene.node, "--interactive ReleaseLease");
    let question = scene.polkit.question().await;
    assert_eq!(question.details["subnet"], "100.96.1.0/24");
    scene
        .node
        .change(|status| status.subnet = Some("100.96.8.0/24".to_owned()));
    word.notify_one();
    let error = refused(call).await;
    let expected = "Error.Failed: nothing was released: the subnet was 100.96.1.0/24 when it was \
                    asked for, and is 100.96.8.0/24 now; call again";
    assert!(error.contains(expected), "{error}");
    assert_eq!(scene.was_done(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_caller_who_has_left_nothing_is_done() {
    let word = Arc::new(Notify::new());
    let Some(mut scene) = Scene::set(Decision::YesAfter(word.clone())).await else {
        return;
    };
    let mut call = call(&scene.node, "--interactive ReleaseLease");
    let question = scene.polkit.question().await;
    call.kill().unwrap();
    call.wait().unwrap();
    assert_eq!(
        scene.polkit.cancelled().await,
        question.id,
        "the dialog stays"
    );
    // the password comes too late
    word.notify_one();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(scene.was_done(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_dies_takes_the_open_questions_with_it() {
    let word = Arc::new(Notify::new());
    let Some(mut scene) = Scene::set(Decision::YesAfter(word.clone())).await else {
        return;
    };
    let call = call(&scene.node, "--interactive Cleanup");
    scene.polkit.question().await;
    scene.node.bus.kill();
    refused(call).await;
    scene.node.bus.run();
    scene.node.reconnect().await;
    word.notify_one();
    let manager = scene.node.manager().await;
    manager.call::<_, _, ()>("Reload", &()).await.unwrap();
    assert_eq!(scene.done.recv().await.unwrap(), "reload");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_user_takes_all_places_at_polkit() {
    let Some(mut scene) = Scene::set(Decision::Never).await else {
        return;
    };
    let mut calls = Vec::new();
    for _ in 0..4 {
        calls.push(call(&scene.node, "--interactive Reload"));
        scene.polkit.question().await;
    }
    let error = refused(call(&scene.node, "--interactive Reload")).await;
    assert!(
        error.contains("has yet to decide about 4 earlier calls of uid 65534"),
        "{error}"
    );
    let manager = scene.node.manager().await;
    manager.call::<_, _, ()>("Reload", &()).await.unwrap();

    // whoever goes makes room
    let mut first = calls.remove(0);
    first.kill().unwrap();
    first.wait().unwrap();
    scene.polkit.cancelled().await;
    scene.polkit.decide(Decision::Yes);
    sleep(Duration::from_millis(300)).await;
    let output = outcome(call(&scene.node, "Reload")).await;
    assert_eq!(said(Some(output)), "()\n");
    for mut call in calls {
        call.kill().unwrap();
        call.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_takes_the_name() {
    let Some(mut node) = Node::start(status()).await else {
        return;
    };
    let take =
        "call org.freedesktop.DBus / org.freedesktop.DBus RequestName su org.flannelrs.Flannel1 2";
    let Some(output) = node.bus.busctl_as_nobody(take) else {
        return;
    };
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("ccess denied") || said.contains("not allowed"),
        "{said}"
    );
    node.reconnect().await;
}

/// What polkit learns from the service's package.
const ACTIONS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/systemd/polkit-1/actions/org.flannelrs.Flannel1.policy"
);
