//! The service, polkit, and callers who are not root.

use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use flannel_rs::cluster::subnet::Subnet;
use flannel_rs::service::dbus::{NAME, ROOT};
use flannel_rs::service::status::{Command, PlannedChange};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::LINK_1;
use crate::polkit::{Decision, Polkit};
use crate::support::served::{LINK, MANAGER, Node, PEER, peer, status};

/// A service that does all that it is asked and tells what that was; polkit; and people who are
/// not root.
pub(crate) struct Scene {
    pub(crate) node: Node,
    pub(crate) polkit: Polkit,
    pub(crate) done: mpsc::UnboundedReceiver<String>,
}

impl Scene {
    /// `None`, with a message, where it cannot be played.
    pub(crate) async fn set(decision: Decision) -> Option<Self> {
        let mut node = Node::start(status()).await?;
        node.bus.nobody("gdbus")?;
        let polkit = Polkit::start(&node.bus, decision).await;
        let done = obedient(&mut node);
        Some(Self { node, polkit, done })
    }

    /// Whether anything was done so far.
    pub(crate) fn was_done(&mut self) -> Option<String> {
        self.done.try_recv().ok()
    }
}

/// What the service is asked from now on; it does all of it.
fn obedient(node: &mut Node) -> mpsc::UnboundedReceiver<String> {
    let mut commands = node.commands.take().unwrap();
    let (tell, done) = mpsc::unbounded_channel();
    let subnet = || Subnet::new("100.96.1.0/24".parse().unwrap());
    let change = || PlannedChange {
        verb: "delete".to_owned(),
        object: "link flannel.1".to_owned(),
    };
    tokio::spawn(async move {
        while let Some(command) = commands.recv().await {
            let name = match command {
                Command::Reload(answer) => (answer.send(Ok(())).is_ok(), "reload".to_owned()),
                Command::Reconcile(answer) => {
                    (answer.send(Ok(Vec::new())).is_ok(), "reconcile".to_owned())
                }
                Command::Plan(answer) => (answer.send(Ok(Vec::new())).is_ok(), "plan".to_owned()),
                Command::Renumber(asked, answer) => {
                    let taken = asked.unwrap_or_else(subnet);
                    (answer.send(Ok(taken)).is_ok(), format!("renumber {taken}"))
                }
                Command::Release(answer) => {
                    (answer.send(Ok(subnet())).is_ok(), "release".to_owned())
                }
                Command::Cleanup(answer) => {
                    let removed = vec![change()];
                    (answer.send(Ok(removed)).is_ok(), "cleanup".to_owned())
                }
                Command::TakeBridge(answer) => {
                    let taken = vec![change()];
                    (answer.send(Ok(taken)).is_ok(), "take".to_owned())
                }
                Command::SetLogLevel(level, answer) if level == "loud" => {
                    let refusal = Err("no such level".to_owned());
                    (answer.send(refusal).is_ok(), "refused".to_owned())
                }
                Command::SetLogLevel(level, answer) => {
                    (answer.send(Ok(())).is_ok(), format!("log at {level}"))
                }
            };
            let _ = tell.send(name.1);
        }
    });
    done
}

/// A call of the manager by the user nobody, under way.
pub(crate) fn call(node: &Node, words: &str) -> Child {
    let mut words: Vec<_> = words.split(' ').map(str::to_owned).collect();
    let method = words
        .iter_mut()
        .find(|word| !word.starts_with('-'))
        .unwrap();
    *method = format!("--method={MANAGER}.{method}");
    let mut gdbus = node.bus.nobody("gdbus").unwrap();
    gdbus.args(["call", "--system", "--timeout=60"]);
    gdbus.args(["--dest", NAME, "--object-path", ROOT]);
    let gdbus = gdbus.args(words).stdin(Stdio::null());
    let gdbus = gdbus.stdout(Stdio::piped()).stderr(Stdio::piped());
    gdbus.spawn().unwrap()
}

pub(crate) async fn outcome(call: Child) -> Output {
    let ended = tokio::task::spawn_blocking(move || call.wait_with_output());
    timeout(Duration::from_secs(90), ended)
        .await
        .expect("an answer")
        .unwrap()
        .unwrap()
}

/// What a caller who is refused sees.
pub(crate) async fn refused(call: Child) -> String {
    let output = outcome(call).await;
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// The dialog is open; meanwhile everybody else is served, and all that changes is told.
pub(crate) async fn nobody_waits_for_the_dialog(node: &Node) {
    let mut signals = node.signals().await;
    node.change(|status| Arc::make_mut(&mut status.peers).push(peer(9)));
    assert!(signals.next().await.contains("InterfacesAdded"));
    assert!(signals.next().await.contains("PeerCount uint32 3"));
    let read = async {
        assert_eq!(node.managed_with(PEER).await.len(), 3);
        node.properties(ROOT, MANAGER).await;
        node.properties(LINK_1, LINK).await;
        let manager = node.manager().await;
        manager
            .call::<_, _, Vec<(String, String)>>("Plan", &())
            .await
    };
    timeout(Duration::from_secs(20), read)
        .await
        .unwrap()
        .unwrap();
}
