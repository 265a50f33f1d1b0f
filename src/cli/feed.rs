//! What can be heard of the service, over its restarts and those of the bus.
//!
//! Signals carry no status: any of them has the service asked for the whole of it.

use std::future::pending;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, sleep, sleep_until};
use zbus::fdo::{self, DBusProxy};
use zbus::message::Type;
use zbus::{MatchRule, Message, MessageStream};

use super::bus::{self, Description, PATIENCE, Service};
use super::error::Error;
use crate::service::dbus::NAME;
use crate::service::status::PlannedChange;

/// Something heard.
pub(super) enum Tidings {
    /// How the service is; it may be as before.
    Described(Box<Description>),
    /// It put right what somebody else had changed.
    Repaired(Vec<PlannedChange>),
    /// Somebody else holds its subnet.
    Conflict {
        subnet: String,
        /// Empty if unknown.
        holder: String,
    },
    /// It cannot be asked. Told once for each reason.
    Gone(Error),
}

/// The listener.
#[derive(Default)]
pub(super) struct Feed {
    wire: Option<Wire>,
    /// When to ask the service how it is.
    due: Option<Instant>,
    /// Why it could not be asked, if that was told.
    trouble: Option<String>,
}

impl Feed {
    /// What is heard next. Never ends; waits for the bus and the service to come.
    pub(super) async fn next(&mut self) -> Tidings {
        loop {
            let told = match &mut self.wire {
                None => self.connect().await,
                Some(wire) => {
                    tokio::select! {
                        heard = wire.signals.next() => match heard {
                            Some(Ok(signal)) => self.hear(&signal),
                            Some(Err(_)) | None => self.disconnect(),
                        },
                        () = at(self.due) => self.ask().await,
                    }
                }
            };
            if let Some(tidings) = told {
                return tidings;
            }
        }
    }

    async fn connect(&mut self) -> Option<Tidings> {
        match Wire::open().await {
            Ok(wire) => {
                self.wire = Some(wire);
                self.due = Some(Instant::now());
                None
            }
            Err(error) => {
                let told = self.gone(error);
                if told.is_none() {
                    sleep(PAUSE).await;
                }
                told
            }
        }
    }

    fn disconnect(&mut self) -> Option<Tidings> {
        self.wire = None;
        self.gone(Error::NoBus("it closed the connection".to_owned()))
    }

    async fn ask(&mut self) -> Option<Tidings> {
        self.due = None;
        match self.wire.as_ref()?.service.describe().await {
            Ok(description) => {
                self.trouble = None;
                Some(Tidings::Described(Box::new(description)))
            }
            Err(error) => {
                // the bus tells when a service comes that was not there
                let comes = matches!(error, Error::NotRunning);
                self.due = (!comes).then(|| Instant::now() + PAUSE);
                self.gone(error)
            }
        }
    }

    fn gone(&mut self, error: Error) -> Option<Tidings> {
        let trouble = error.to_string();
        if self.trouble.as_ref() == Some(&trouble) {
            return None;
        }
        self.trouble = Some(trouble);
        Some(Tidings::Gone(error))
    }

    /// Only what the bus says, and what comes from whoever it says has the name.
    fn hear(&mut self, signal: &Message) -> Option<Tidings> {
        let header = signal.header();
        if header.message_type() != Type::Signal {
            return None;
        }
        let wire = self.wire.as_mut()?;
        let sender = header.sender()?.as_str();
        let member = header.member()?.as_str();
        if sender == BUS && member == "NameOwnerChanged" {
            let (_, _, owner): (String, String, String) = signal.body().deserialize().ok()?;
            wire.owner = owner;
            return self.owner_changed();
        }
        if sender != wire.owner {
            return None;
        }
        let settled = Instant::now() + SETTLE;
        self.due.get_or_insert(settled);
        match member {
            "DriftRepaired" => {
                let changes = signal.body().deserialize().ok()?;
                Some(Tidings::Repaired(bus::changes(changes)))
            }
            "SubnetConflict" => {
                let (subnet, holder) = signal.body().deserialize().ok()?;
                Some(Tidings::Conflict { subnet, holder })
            }
            _ => None,
        }
    }

    fn owner_changed(&mut self) -> Option<Tidings> {
        let owner = &self.wire.as_ref()?.owner;
        if owner.is_empty() {
            self.due = None;
            self.gone(Error::NotRunning)
        } else {
            self.due = Some(Instant::now());
            None
        }
    }
}

/// Two connections to the bus. What is not read from one fills it up and would hold up an answer
/// behind it.
struct Wire {
    signals: MessageStream,
    service: Service,
    /// The unique name of whoever has the service's name; empty if nobody has it.
    owner: String,
}

impl Wire {
    async fn open() -> Result<Self, Error> {
        let connection = bus::connect().await?;
        let signals = MessageStream::from(&connection);
        let dbus = bus::within(PATIENCE, DBusProxy::new(&connection)).await?;
        let comes_and_goes = async {
            let rule = MatchRule::builder().msg_type(Type::Signal).sender(BUS);
            let rule = rule.member("NameOwnerChanged").arg(0, NAME).build()?;
            Ok(dbus.add_match_rule(rule).await?)
        };
        bus::within(PATIENCE, comes_and_goes).await?;
        let owner = async {
            match dbus.get_name_owner(NAME.try_into()?).await {
                Ok(owner) => Ok(owner.to_string()),
                Err(fdo::Error::NameHasNoOwner(_)) => Ok(String::new()),
                Err(error) => Err(error.into()),
            }
        };
        let owner = bus::within(PATIENCE, owner).await?;
        let all_of_it = async {
            let rule = MatchRule::builder().msg_type(Type::Signal).sender(NAME);
            Ok(dbus.add_match_rule(rule.build()?).await?)
        };
        bus::within(PATIENCE, all_of_it).await?;
        Ok(Self {
            signals,
            service: Service::connect().await?,
            owner,
        })
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => pending().await,
    }
}

const BUS: &str = "org.freedesktop.DBus";

/// A burst of signals becomes one question.
const SETTLE: Duration = Duration::from_millis(50);

/// Between two attempts to reach what is not there.
const PAUSE: Duration = Duration::from_millis(500);
