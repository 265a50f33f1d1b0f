//! Who may do what. Root may do everything; anybody else what polkit grants, and polkit may have
//! to ask a person first.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::StreamExt;
use tokio::time::{sleep, timeout};
use zbus::message::{Flags, Header, Type};
use zbus::names::UniqueName;
use zbus::proxy::CacheProperties;
use zbus::{Connection, MatchRule, MessageStream, fdo};
use zbus_polkit::policykit1::{
    AuthorityProxy, AuthorizationResult, CheckAuthorizationFlags, Subject,
};

use super::refusal::Refusal;
use super::{ANSWER_LIMIT, PERSON};

/// What polkit decides about, as in `systemd/polkit-1/actions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Reload,
    Reconcile,
    SetLogLevel,
    Renumber,
    Release,
    Cleanup,
    TakeBridge,
}

/// What one caller wants to do.
pub(super) struct Request<'a> {
    pub(super) action: Action,
    /// What the dialog can name. Only what was parsed: the caller must not write in the dialog.
    pub(super) details: BTreeMap<&'a str, &'a str>,
    pub(super) call: &'a Header<'a>,
    pub(super) connection: &'a Connection,
}

/// Decides, and remembers what is still to be decided.
#[derive(Debug, Default)]
pub(super) struct Authority {
    /// How many decisions each user waits for.
    waiting: Mutex<BTreeMap<u32, usize>>,
    /// Names the next question to polkit.
    next: AtomicU64,
}

impl Action {
    /// The name that polkit knows it by.
    pub(super) const fn id(self) -> &'static str {
        match self {
            Self::Reload => "org.flannelrs.Flannel1.reload",
            Self::Reconcile => "org.flannelrs.Flannel1.reconcile",
            Self::SetLogLevel => "org.flannelrs.Flannel1.set-log-level",
            Self::Renumber => "org.flannelrs.Flannel1.renumber",
            Self::Release => "org.flannelrs.Flannel1.release",
            Self::Cleanup => "org.flannelrs.Flannel1.cleanup",
            Self::TakeBridge => "org.flannelrs.Flannel1.take-bridge",
        }
    }
}

impl Authority {
    /// Waits until it is clear that the caller may do this and is still there.
    ///
    /// # Errors
    /// When it may not, and when that cannot be found out.
    pub(super) async fn allow(&self, request: Request<'_>) -> Result<(), Refusal> {
        let caller = request.call.sender();
        let caller = caller.ok_or_else(|| only_root("the caller has no name on the bus"))?;
        let uid = uid(request.connection, caller).await?;
        if uid == 0 {
            return Ok(());
        }
        let _place = self.queue(uid)?;
        self.ask_polkit(&request, caller, uid).await?;
        // the bus never gives a unique name twice
        match self::uid(request.connection, caller).await {
            Ok(still) if still == uid => Ok(()),
            _ => Err(gone()),
        }
    }

    async fn ask_polkit(
        &self,
        request: &Request<'_>,
        caller: &UniqueName<'_>,
        uid: u32,
    ) -> Result<(), Refusal> {
        let unclear = |error: zbus::Error| no_polkit(&error);
        let subject = Subject::new_for_message_header(request.call);
        let subject = subject.map_err(|error| only_root(&error.to_string()))?;
        let mut left = leaving(request.connection, caller).await?;
        let polkit = AuthorityProxy::builder(request.connection)
            .cache_properties(CacheProperties::No)
            .build();
        let polkit = polkit.await.map_err(unclear)?;
        let flags = request.call.primary().flags();
        let (flags, patience) = if flags.contains(Flags::ALLOW_INTERACTIVE_AUTH) {
            (CheckAuthorizationFlags::ALLOW_USER_INTERACTION, PERSON)
        } else {
            (CheckAuthorizationFlags::empty(), ANSWER_LIMIT)
        };
        let question = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let action = request.action.id();
        let details: HashMap<_, _> = request.details.iter().map(|(k, v)| (*k, *v)).collect();
        let check = polkit.check_authorization(&subject, action, &details, flags, &question);
        let refusal = tokio::select! {
            answer = check => {
                let answer = answer.map_err(unclear)?;
                return judge(&answer, flags, request.action, uid);
            }
            _ = left.next() => gone(),
            () = sleep(patience) => Refusal::NotAuthorized(format!(
                "polkit did not decide about {action} within {patience:?}; try again, or run this as root"
            )),
        };
        // closes the dialog; polkit that does not answer this either is left alone
        let _ = timeout(ANSWER_LIMIT, polkit.cancel_check_authorization(&question)).await;
        Err(refusal)
    }

    /// A place among those who wait: no user can take them all from the others.
    fn queue(&self, uid: u32) -> Result<Place<'_>, Refusal> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = waiting.values().sum();
        let own = waiting.entry(uid).or_default();
        if *own >= QUESTIONS_PER_USER || all >= QUESTIONS {
            return Err(Refusal::Failed(format!(
                "polkit has yet to decide about {own} earlier calls of uid {uid}, {all} in all; answer or cancel those first"
            )));
        }
        *own += 1;
        Ok(Place {
            authority: self,
            uid,
        })
    }
}

/// One place among those who wait, free again when dropped.
struct Place<'a> {
    authority: &'a Authority,
    uid: u32,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let waiting = self.authority.waiting.lock();
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = waiting.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                waiting.remove(&self.uid);
            }
        }
    }
}

/// Asks the bus who the caller is: the bus knows it from the socket, so nobody can pretend.
async fn uid(connection: &Connection, caller: &UniqueName<'_>) -> Result<u32, Refusal> {
    let look_up = async {
        let bus = fdo::DBusProxy::new(connection).await?;
        bus.get_connection_unix_user(caller.to_owned().into()).await
    };
    match timeout(ANSWER_LIMIT, look_up).await {
        Ok(Ok(uid)) => Ok(uid),
        Ok(Err(error)) => Err(only_root(&error.to_string())),
        Err(_) => Err(only_root("the bus does not say who the caller is")),
    }
}

/// Ends its silence when the caller leaves the bus: a unique name has one owner or none.
async fn leaving(
    connection: &Connection,
    caller: &UniqueName<'_>,
) -> Result<MessageStream, Refusal> {
    let watch = async {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member("NameOwnerChanged")
            .arg(0, caller.as_str())
            .build()?;
        MessageStream::for_match_rule(rule, connection, None).await
    };
    match timeout(ANSWER_LIMIT, watch).await {
        Ok(Ok(left)) => Ok(left),
        Ok(Err(error)) => Err(only_root(&error.to_string())),
        Err(_) => Err(only_root("the bus does not answer")),
    }
}

fn judge(
    answer: &AuthorizationResult,
    flags: CheckAuthorizationFlags,
    action: Action,
    uid: u32,
) -> Result<(), Refusal> {
    let action = action.id();
    let said = |key| answer.details.get(key).is_some_and(|said| !said.is_empty());
    if answer.is_authorized {
        return Ok(());
    }
    if answer.is_challenge && flags.is_empty() {
        return Err(Refusal::InteractiveAuthorizationRequired(format!(
            "{action} needs a password; allow interactive authorization with the call, or run this as root"
        )));
    }
    Err(Refusal::NotAuthorized(if said("polkit.dismissed") {
        format!("the request to authenticate for {action} was dismissed; try again")
    } else if answer.is_challenge {
        format!(
            "{action} needs a password, and nobody was there to ask for it; start an authentication agent such as pkttyagent(1), or run this as root"
        )
    } else {
        format!(
            "polkit does not grant {action} to uid {uid}; run this as root, or grant it by a rule in /etc/polkit-1/rules.d"
        )
    }))
}

/// What it means that polkit gave no answer.
fn no_polkit(error: &zbus::Error) -> Refusal {
    use fdo::Error::{NameHasNoOwner, ServiceUnknown, SpawnServiceNotFound};
    let absent = matches!(error, zbus::Error::FDO(error)
        if matches!(**error, ServiceUnknown(_) | NameHasNoOwner(_) | SpawnServiceNotFound(_)));
    match absent {
        true => only_root("polkit, which could grant it to others, is not there"),
        false => only_root(&format!("polkit cannot say who else may: {error}")),
    }
}

fn only_root(cause: &str) -> Refusal {
    Refusal::NotAuthorized(format!("only root may do this: {cause}"))
}

fn gone() -> Refusal {
    Refusal::NotAuthorized("the caller has left the bus; nothing was done".to_owned())
}

/// How many questions may be open at polkit, and how many of them for one user.
const QUESTIONS: usize = 32;
const QUESTIONS_PER_USER: usize = 4;
