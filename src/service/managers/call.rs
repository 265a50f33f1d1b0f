//! A call of a manager: limited in time, and answered by whoever had the name when it was looked
//! for. A name without an owner is never called, so nothing is started by it.

use std::fs;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};
use zbus::names::OwnedUniqueName;
use zbus::{Connection, DBusError, Type, fdo};

/// A manager that is on the bus.
pub(super) struct Manager<'a> {
    connection: &'a Connection,
    owner: OwnedUniqueName,
    /// The end of this look at it.
    until: Instant,
}

/// Where a method is: path of the object, interface.
pub(super) type Place<'a> = (&'a str, &'a str);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Silence {
    /// It has left the bus; nothing is wrong.
    #[error("it has left the bus")]
    Gone,
    #[error("it did not answer within {LIMIT:?}")]
    Late,
    /// An error of its own, by the name on the bus.
    #[error("{text}")]
    Error { name: String, text: String },
    #[error("its answer makes no sense: {0}")]
    Nonsense(String),
}

impl<'a> Manager<'a> {
    /// Whoever has the name, if anybody has who manages the network that we are in.
    pub(super) async fn find(connection: &'a Connection, name: &'a str) -> Option<Self> {
        let find = async {
            let bus = fdo::DBusProxy::new(connection).await.ok()?;
            let owner = bus.get_name_owner(name.try_into().ok()?).await.ok()?;
            let asked = owner.as_ref().to_owned().into();
            let process = bus.get_connection_unix_process_id(asked).await.ok();
            let is_elsewhere = process.is_some_and(is_elsewhere);
            (!is_elsewhere).then_some(owner)
        };
        let owner = timeout(LIMIT, find).await.ok()??;
        Some(Self {
            connection,
            owner,
            until: Instant::now() + LIMIT,
        })
    }

    /// Calls a method, and takes the answer if it has the form that it should have.
    ///
    /// # Errors
    /// [`Silence`].
    pub(super) async fn call<B, R>(
        &self,
        (path, interface): Place<'_>,
        method: &str,
        body: &B,
    ) -> Result<R, Silence>
    where
        B: Serialize + Type,
        R: DeserializeOwned + Type,
    {
        let owner = Some(self.owner.as_str());
        let call = self
            .connection
            .call_method(owner, path, Some(interface), method, body);
        let answer = timeout_at(self.until, call).await;
        let answer = answer.map_err(|_| Silence::Late)?;
        let answer = answer.map_err(|error| silence(&error))?;
        let body = answer.body();
        body.deserialize()
            .map_err(|error| Silence::Nonsense(brief(&error.to_string())))
    }
}

/// Whether a process is known to be in another network namespace: one bus may serve several. Who
/// may not look is in the host's, as the package's service is.
fn is_elsewhere(process: u32) -> bool {
    let theirs = fs::read_link(format!("/proc/{process}/ns/net"));
    let ours = fs::read_link("/proc/thread-self/ns/net");
    matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs != ours)
}

fn silence(error: &zbus::Error) -> Silence {
    if let zbus::Error::MethodError(name, text, _) = error {
        let text = text.as_deref().unwrap_or("no reason given");
        return Silence::Error {
            name: name.to_string(),
            text: brief(text),
        };
    }
    if let zbus::Error::FDO(error) = error {
        if is_gone(error) {
            return Silence::Gone;
        }
        return Silence::Error {
            name: error.name().to_string(),
            text: brief(&error.to_string()),
        };
    }
    if matches!(error, zbus::Error::InputOutput(_)) {
        return Silence::Gone;
    }
    Silence::Nonsense(brief(&error.to_string()))
}

/// It was there when it was looked for, and is called by the name that it had then.
fn is_gone(error: &fdo::Error) -> bool {
    use fdo::Error::{Disconnected, NameHasNoOwner, NoReply, ServiceUnknown};
    matches!(
        error,
        ServiceUnknown(_) | NameHasNoOwner(_) | NoReply(_) | Disconnected(_)
    )
}

/// Words of somebody else, for a text of ours.
pub(super) fn brief(text: &str) -> String {
    const LONGEST: usize = 200;
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let mut brief: String = text.chars().take(LONGEST).map(plain).collect();
    if text.chars().nth(LONGEST).is_some() {
        brief.push('…');
    }
    brief
}

/// For one look at a manager. firewalld asks polkit in the meantime, and may be busy with its rules.
const LIMIT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_others_are_short_and_plain() {
        assert_eq!(brief("it is\nso\u{7}"), "it is so ");
        let long = brief(&"ä".repeat(100_000));
        assert_eq!(long.chars().count(), 201, "{long}");
        assert!(long.ends_with("ä…"), "{long}");
        assert_eq!(brief(&"a".repeat(200)), "a".repeat(200));
    }
}
