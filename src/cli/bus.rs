//! The running service, as the command line sees it.

use std::time::Duration;

use tokio::time::timeout;
use zbus::proxy::CacheProperties;
use zbus::{Connection, DBusError, connection};

use super::agent::Agent;
use super::error::Error;
use crate::service::dbus::ERROR_PREFIX;
use crate::service::status::{PlannedChange, Status};

/// Reading and asking must not start a service that somebody has stopped. What polkit guards
/// may ask for a password.
#[zbus::proxy(
    interface = "org.flannelrs.Flannel1.Manager",
    default_service = "org.flannelrs.Flannel1",
    default_path = "/org/flannelrs/Flannel1"
)]
trait Manager {
    #[zbus(no_autostart)]
    fn describe(&self) -> zbus::Result<String>;
    #[zbus(no_autostart)]
    fn plan(&self) -> zbus::Result<Vec<(String, String)>>;
    #[zbus(no_autostart, allow_interactive_auth)]
    fn reconcile(&self) -> zbus::Result<Vec<(String, String)>>;
    #[zbus(no_autostart, allow_interactive_auth)]
    fn reload(&self) -> zbus::Result<()>;
    #[zbus(no_autostart, allow_interactive_auth)]
    fn renumber(&self, subnet: &str) -> zbus::Result<String>;
    #[zbus(no_autostart, allow_interactive_auth)]
    fn release_lease(&self) -> zbus::Result<String>;
    #[zbus(no_autostart, allow_interactive_auth)]
    fn cleanup(&self) -> zbus::Result<Vec<(String, String)>>;
    #[zbus(no_autostart, allow_interactive_auth)]
    fn take_bridge(&self) -> zbus::Result<Vec<(String, String)>>;
    #[zbus(no_autostart, allow_interactive_auth)]
    fn set_log_level(&self, level: &str) -> zbus::Result<()>;
}

/// The service's status.
#[derive(Debug)]
pub(super) struct Description {
    /// As the service wrote it, with fields that this version may not know.
    pub(super) json: String,
    pub(super) status: Status,
}

/// The service's status.
pub(super) fn describe() -> Result<Description, Error> {
    block_on(async { Service::connect().await?.describe().await })?
}

/// What the service would change.
pub(super) fn plan() -> Result<Vec<PlannedChange>, Error> {
    ask(async |service| service.plan().await).map(changes)
}

/// Has the service make the host equal to the plan; answers with what was changed.
pub(super) fn reconcile() -> Result<Vec<PlannedChange>, Error> {
    order(async |service| service.reconcile().await).map(changes)
}

/// Has the service read its config again.
pub(super) fn reload() -> Result<(), Error> {
    order(async |service| service.reload().await)
}

/// Has the service take another subnet; empty is for any. Answers with the new one.
pub(super) fn renumber(subnet: &str) -> Result<String, Error> {
    order(async |service| service.renumber(subnet).await)
}

/// Has the service give its lease back; answers with the subnet.
pub(super) fn release() -> Result<String, Error> {
    order(async |service| service.release_lease().await)
}

/// Has the service remove what is its own from this host; answers with what that was.
pub(super) fn clean_up() -> Result<Vec<PlannedChange>, Error> {
    order(async |service| service.cleanup().await).map(changes)
}

/// Has the service make the bridge its own; answers with what was changed.
pub(super) fn take_bridge() -> Result<Vec<PlannedChange>, Error> {
    order(async |service| service.take_bridge().await).map(changes)
}

/// Has the service log at this level.
pub(super) fn set_log_level(level: &str) -> Result<(), Error> {
    order(async |service| service.set_log_level(level).await)
}

/// Changes as they come over the bus.
pub(super) fn changes(pairs: Vec<(String, String)>) -> Vec<PlannedChange> {
    let change = |(verb, object)| PlannedChange { verb, object };
    pairs.into_iter().map(change).collect()
}

/// What polkit guards.
fn order<T>(order: impl AsyncFnOnce(ManagerProxy<'static>) -> zbus::Result<T>) -> Result<T, Error> {
    block_on(async {
        let service = Service::connect().await?;
        // after the connection: the agent has no limit of its own for a bus that is silent
        let _agent = Agent::start();
        within(PERSON, order(service.manager)).await
    })?
}

fn ask<T>(
    question: impl AsyncFnOnce(ManagerProxy<'static>) -> zbus::Result<T>,
) -> Result<T, Error> {
    block_on(async {
        let service = Service::connect().await?;
        within(PATIENCE, question(service.manager)).await
    })?
}

/// Runs a conversation on this thread.
pub(super) fn block_on<T>(conversation: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    Ok(runtime.block_on(conversation))
}

/// A connection to the system bus.
pub(super) async fn connect() -> Result<Connection, Error> {
    let bus = timeout(PATIENCE, connection::Builder::system().build()).await;
    let bus = bus.map_err(|_| Error::NoBus(format!("no answer within {PATIENCE:?}")))?;
    bus.map_err(|error| Error::NoBus(error.to_string()))
}

/// The service at the end of a connection, whether it is there or not.
pub(super) struct Service {
    manager: ManagerProxy<'static>,
}

impl Service {
    pub(super) async fn connect() -> Result<Self, Error> {
        let bus = connect().await?;
        let manager = ManagerProxy::builder(&bus)
            .cache_properties(CacheProperties::No)
            .build();
        let manager = within(PATIENCE, manager).await?;
        Ok(Self { manager })
    }

    pub(super) async fn describe(&self) -> Result<Description, Error> {
        let json = within(PATIENCE, self.manager.describe()).await?;
        let status = serde_json::from_str(&json);
        let status = status.map_err(|error| Error::Answer(error.to_string()))?;
        Ok(Description { json, status })
    }
}

/// Waits for an answer, for so long.
pub(super) async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = zbus::Result<T>>,
) -> Result<T, Error> {
    match timeout(patience, answer).await {
        Ok(answer) => answer.map_err(|error| no_answer(&error)),
        Err(_) => Err(Error::Silent(format!("no answer within {patience:?}"))),
    }
}

/// What it means that a call failed, by the name of the error where it has one.
fn no_answer(error: &zbus::Error) -> Error {
    let Some((name, text)) = reply(error) else {
        return if let zbus::Error::InputOutput(cause) = error {
            Error::Silent(format!("the bus has gone: {cause}"))
        } else {
            Error::Answer(error.to_string())
        };
    };
    if let Some(kind) = name.strip_prefix(ERROR_PREFIX) {
        return match kind {
            ".Unavailable" => Error::Silent(text),
            ".NotAuthorized" => Error::NotPermitted(text),
            ".InvalidSubnet" | ".InvalidLogLevel" => Error::Argument(text),
            _ => Error::Refused(text),
        };
    }
    match name.strip_prefix("org.freedesktop.DBus.Error.") {
        // what dbus-daemon and dbus-broker say of a name that nobody has
        Some("ServiceUnknown" | "NameHasNoOwner") => Error::NotRunning,
        Some("InteractiveAuthorizationRequired") => {
            let text = "a password is needed, and nothing here can ask for it; do it as root, such \
                        as with sudo, or on a terminal, where polkit's pkttyagent can";
            Error::NotPermitted(text.to_owned())
        }
        Some("AccessDenied" | "AuthFailed") => Error::NotPermitted(text),
        Some(
            "UnknownMethod"
            | "UnknownInterface"
            | "UnknownObject"
            | "UnknownProperty"
            | "InvalidArgs"
            | "InvalidSignature"
            | "InconsistentMessage",
        ) => Error::Answer(text),
        // such as NoReply: it went away over the question
        _ => Error::Silent(format!("{name}: {text}")),
    }
}

/// Name and text of an error that somebody has replied with.
pub(super) fn reply(error: &zbus::Error) -> Option<(String, String)> {
    if let zbus::Error::MethodError(name, text, _) = error {
        return Some((name.to_string(), text.clone().unwrap_or_default()));
    }
    let zbus::Error::FDO(error) = error else {
        return None;
    };
    let text = error.description().unwrap_or_default();
    Some((error.name().to_string(), text.to_owned()))
}

/// Longer than the service takes for any answer, also to say that it is busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// For what may ask somebody for a password, and is then done: longer than the service takes for
/// both, so that it is the service that says what has become of it.
pub(super) const PERSON: Duration = Duration::from_secs(360);

#[cfg(test)]
mod tests;
