//! `org.freedesktop.LogControl1`, so that `systemctl service-log-level flannel-rs` works.
//!
//! What its properties mean: org.freedesktop.LogControl1(5).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::watch;
use zbus::message::Header;
use zbus::names::InterfaceName;
use zbus::object_server::{DispatchResult, Interface, InterfaceRef};
use zbus::{BoxDBusError, Connection, OwnedVariant, Variant, fdo, interface};

use super::LOG_CONTROL;
use super::authority::{Action, Request};
use super::orders::Orders;
use super::refusal::Refusal;
use crate::service::journal;
use crate::service::status::{Command, Status};

/// The log of the service on the bus.
pub(super) struct LogControl {
    pub(super) current: watch::Receiver<Status>,
    pub(super) orders: Arc<Orders>,
}

/// What the service logs, and where to.
#[interface(name = "org.freedesktop.LogControl1")]
impl LogControl {
    /// The least urgent messages that are logged, in the words of syslog. Writing needs
    /// org.flannelrs.Flannel1.set-log-level; "emerg", "alert" and "crit" are as "err", "notice"
    /// is as "info".
    #[zbus(property(emits_changed_signal = "false"))]
    fn log_level(&self) -> String {
        syslog_word(&self.current.borrow().log_level).to_owned()
    }

    #[zbus(property)]
    async fn set_log_level(
        &self,
        level: String,
        #[zbus(header)] call: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        let nobody = || Refusal::NotAuthorized("only a call can change the log level".to_owned());
        let call = call.as_ref().ok_or_else(nobody)?;
        let level = our_word(&level)?;
        let request = Request {
            action: Action::SetLogLevel,
            details: BTreeMap::from([("level", level)]),
            call,
            connection,
        };
        self.orders.allow(request).await?;
        let set = |answer| Command::SetLogLevel(level.to_owned(), answer);
        self.orders
            .ask(set)
            .await?
            .map_err(Refusal::InvalidLogLevel)
    }

    /// Where messages go: "journal", or "console" for standard error. Cannot be changed.
    #[zbus(property(emits_changed_signal = "false"))]
    fn log_target(&self) -> String {
        let target = if journal::is_journal() {
            "journal"
        } else {
            "console"
        };
        target.to_owned()
    }

    #[zbus(property)]
    fn set_log_target(&self, _target: String) -> fdo::Result<()> {
        Err(fdo::Error::NotSupported(
            "the log goes to standard error, wherever that leads; change StandardError= of the unit"
                .to_owned(),
        ))
    }

    /// How messages are marked in the journal.
    #[zbus(property(emits_changed_signal = "const"))]
    fn syslog_identifier(&self) -> &str {
        "flannel-rs"
    }
}

/// The `org.freedesktop.DBus.Properties` of this object. The one that zbus puts up keeps the lock
/// on the tree of all objects while a setter waits, and this setter may wait for a person who
/// looks for a password.
pub(super) struct Settings;

#[interface(name = "org.freedesktop.DBus.Properties", introspection_docs = false)]
impl Settings {
    async fn get(
        &self,
        interface_name: InterfaceName<'_>,
        property_name: &str,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<OwnedVariant, BoxDBusError> {
        let object = object(&interface_name, connection).await?;
        let (server, emitter) = (connection.object_server(), object.signal_emitter());
        let shown = object.get().await;
        let value = Interface::get(&*shown, property_name, server, connection, None, emitter);
        value.await.unwrap_or_else(|| Err(unknown(property_name)))
    }

    async fn get_all(
        &self,
        interface_name: InterfaceName<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<HashMap<String, OwnedVariant>, BoxDBusError> {
        let object = object(&interface_name, connection).await?;
        let (server, emitter) = (connection.object_server(), object.signal_emitter());
        let shown = object.get().await;
        let all = shown.get_all(server, connection, None, emitter);
        Ok(all.await?)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "three are the method's, and the caller is known by the header"
    )]
    async fn set(
        &self,
        interface_name: InterfaceName<'_>,
        property_name: &str,
        value: Variant<'_>,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> Result<(), BoxDBusError> {
        let object = object(&interface_name, connection).await?;
        let (server, emitter) = (connection.object_server(), object.signal_emitter());
        let shown = object.get().await;
        let call = Some(&call);
        match shown.set(property_name, &value, server, connection, call, emitter) {
            DispatchResult::Async(done) => done.await,
            DispatchResult::NotFound | DispatchResult::RequiresMut => Err(unknown(property_name)),
        }
    }
}

async fn object(
    interface: &InterfaceName<'_>,
    connection: &Connection,
) -> Result<InterfaceRef<LogControl>, BoxDBusError> {
    if *interface != LogControl::name() {
        let unknown = fdo::Error::UnknownInterface(format!("Unknown interface '{interface}'"));
        return Err(unknown.into());
    }
    let server = connection.object_server();
    Ok(server.interface(LOG_CONTROL).await?)
}

fn unknown(property: &str) -> BoxDBusError {
    fdo::Error::UnknownProperty(format!("Unknown property '{property}'")).into()
}

/// The service's own word for a level of syslog.
fn our_word(level: &str) -> Result<&'static str, Refusal> {
    match level {
        "emerg" | "alert" | "crit" | "err" => Ok("error"),
        "warning" => Ok("warn"),
        "notice" | "info" => Ok("info"),
        "debug" => Ok("debug"),
        other => {
            let shown: String = other.chars().take(100).collect();
            Err(Refusal::InvalidLogLevel(format!(
                "{shown:?} is none of emerg, alert, crit, err, warning, notice, info, debug"
            )))
        }
    }
}

/// Of several directives, such as `warn,flannel_rs=debug`, the one that lets most through.
fn syslog_word(directives: &str) -> &'static str {
    let level = |directive: &str| {
        let level = directive.rsplit('=').next().unwrap_or_default();
        match level.trim().to_ascii_lowercase().as_str() {
            "off" => 0,
            "error" => 1,
            "warn" => 2,
            "debug" | "trace" => 4,
            _ => 3,
        }
    };
    let most = directives.split(',').map(level).max();
    ["emerg", "err", "warning", "info", "debug"][most.unwrap_or(3)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_syslog_and_ours() {
        for (ours, theirs) in [
            ("off", "emerg"),
            ("error", "err"),
            ("WARN", "warning"),
            ("info", "info"),
            ("trace", "debug"),
            ("", "info"),
            ("warn,flannel_rs=debug", "debug"),
            ("flannel_rs[span]=error, warn", "warning"),
        ] {
            assert_eq!(syslog_word(ours), theirs, "{ours}");
        }
        for word in ["err", "warning", "info", "debug"] {
            assert_eq!(syslog_word(our_word(word).unwrap()), word);
        }
        let refusal = our_word(&"x".repeat(1_000_000)).unwrap_err();
        assert!(format!("{refusal:?}").len() < 1000);
    }
}
