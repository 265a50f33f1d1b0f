//! A stand-in for polkitd that decides as it is told, and tells what it was asked.

use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use zbus::{Connection, OwnedVariant};
use zbus_polkit::policykit1::AuthorizationResult;

use crate::support::bus::PrivateBus;
use crate::support::served::connect;

/// How it decides.
#[derive(Clone)]
pub(crate) enum Decision {
    Yes,
    No,
    /// A password is needed, and nobody is there to ask for it.
    Challenge,
    /// The person closed the dialog.
    Dismissed,
    Never,
    /// Yes, once somebody says so.
    YesAfter(Arc<Notify>),
}

/// What it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) subject: String,
    pub(crate) action: String,
    pub(crate) details: BTreeMap<String, String>,
    pub(crate) may_ask: bool,
    pub(crate) id: String,
}

pub(crate) struct Polkit {
    decision: Arc<Mutex<Decision>>,
    questions: mpsc::UnboundedReceiver<Question>,
    cancelled: mpsc::UnboundedReceiver<String>,
    _connection: Connection,
}

impl Polkit {
    pub(crate) async fn start(bus: &PrivateBus, decision: Decision) -> Self {
        let decision = Arc::new(Mutex::new(decision));
        let (asked, questions) = mpsc::unbounded_channel();
        let (cancel, cancelled) = mpsc::unbounded_channel();
        let authority = Authority {
            decision: decision.clone(),
            asked,
            cancel,
        };
        let connection = connect(bus).await;
        let path = "/org/freedesktop/PolicyKit1/Authority";
        let server = connection.object_server();
        assert!(server.at(path, authority).await.unwrap().is_none());
        let name = "org.freedesktop.PolicyKit1";
        connection.request_name(name).await.unwrap();
        Self {
            decision,
            questions,
            cancelled,
            _connection: connection,
        }
    }

    pub(crate) fn decide(&self, decision: Decision) {
        *self.decision.lock().unwrap() = decision;
    }

    /// The next question.
    pub(crate) async fn question(&mut self) -> Question {
        let next = timeout(Duration::from_secs(20), self.questions.recv()).await;
        next.expect("polkit is asked").unwrap()
    }

    /// Whether there was any further question so far.
    pub(crate) fn was_asked(&mut self) -> bool {
        self.questions.try_recv().is_ok()
    }

    /// The next question that was taken back.
    pub(crate) async fn cancelled(&mut self) -> String {
        let next = timeout(Duration::from_secs(20), self.cancelled.recv()).await;
        next.expect("the question is taken back").unwrap()
    }
}

struct Authority {
    decision: Arc<Mutex<Decision>>,
    asked: mpsc::UnboundedSender<Question>,
    cancel: mpsc::UnboundedSender<String>,
}

#[zbus::interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Authority {
    #[expect(clippy::too_many_arguments, reason = "they are polkit's")]
    async fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action_id: String,
        details: BTreeMap<String, String>,
        flags: u32,
        cancellation_id: String,
    ) -> AuthorizationResult {
        let (kind, name) = subject;
        let question = Question {
            subject: format!("{kind} {}", &*name["name"]),
            action: action_id,
            details,
            may_ask: flags == 1,
            id: cancellation_id,
        };
        let decision = self.decision.lock().unwrap().clone();
        self.asked.send(question).unwrap();
        let answer = |is_authorized, is_challenge| AuthorizationResult {
            is_authorized,
            is_challenge,
            details: HashMap::new(),
        };
        match decision {
            Decision::Yes => answer(true, false),
            Decision::No => answer(false, false),
            Decision::Challenge => answer(false, true),
            Decision::Dismissed => AuthorizationResult {
                details: HashMap::from([("polkit.dismissed".to_owned(), "true".to_owned())]),
                ..answer(false, false)
            },
            Decision::Never => pending().await,
            Decision::YesAfter(word) => {
                word.notified().await;
                answer(true, false)
            }
        }
    }

    fn cancel_check_authorization(&self, cancellation_id: String) {
        self.cancel.send(cancellation_id).unwrap();
    }
}
