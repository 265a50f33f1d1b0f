//! The `Manager` interface: this node.

use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::timeout;
use zbus::message::Header;
use zbus::{Connection, fdo, interface};

use super::text;
use crate::cluster::subnet::Subnet;
use crate::service::status::{Command, PlannedChange, RenumberError, Status};

/// This node on the bus. Only `&self` methods and a shared status: a method that waits for the
/// service keeps zbus's lock on the object, and must not hold up the properties.
pub(super) struct Manager {
    /// What the properties show, and what signals have told of.
    pub(super) published: watch::Receiver<Arc<Status>>,
    /// The status of this moment.
    pub(super) current: watch::Receiver<Status>,
    pub(super) commands: mpsc::Sender<Command>,
    /// Everybody may ask for a plan, so at most one of those waits among the commands.
    pub(super) plan_turn: Mutex<()>,
}

/// What a method answers when it does not do what was asked.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.flannelrs.Flannel1.Error")]
pub(super) enum Error {
    /// The caller may not do this.
    NotAuthorized(String),
    /// It went wrong; the text says what and why.
    Failed(String),
    /// The service is stopping.
    Unavailable(String),
    /// The argument is not a subnet.
    InvalidSubnet(String),
    /// The node has the subnet that it should have.
    NothingToRenumber(String),
    /// The subnet is not one of the network.
    OutsideNetwork(String),
    /// Somebody has the subnet.
    SubnetTaken(String),
}

impl From<String> for Error {
    fn from(cause: String) -> Self {
        Self::Failed(text(&cause))
    }
}

impl From<RenumberError> for Error {
    fn from(error: RenumberError) -> Self {
        let cause = text(&error.to_string());
        match error {
            RenumberError::NothingToRenumber(_) => Self::NothingToRenumber(cause),
            RenumberError::OutsideNetwork { .. } => Self::OutsideNetwork(cause),
            RenumberError::SubnetTaken { .. } => Self::SubnetTaken(cause),
            RenumberError::NoLease | RenumberError::UnderWay | RenumberError::Failed(_) => {
                Self::Failed(cause)
            }
        }
    }
}

/// The overlay network as this node has it: its lease, its health, and what to ask of it.
#[interface(name = "org.flannelrs.Flannel1.Manager")]
impl Manager {
    /// Read the configuration file again and act on it. Only root may call this.
    async fn reload(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Error> {
        only_root(&header, connection).await?;
        self.ask(Command::Reload).await
    }

    /// Make the kernel equal to the plan now, and answer with what was changed, as pairs of a
    /// verb ("add", "set", "replace", "delete", "write") and an object in the words of ip(8).
    /// Only root may call this.
    #[zbus(out_args("changes"))]
    async fn reconcile(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(String, String)>, Error> {
        only_root(&header, connection).await?;
        self.ask(Command::Reconcile).await.map(pairs)
    }

    /// What Reconcile would change right now, in the same form. Changes nothing.
    #[zbus(out_args("changes"))]
    async fn plan(&self) -> Result<Vec<(String, String)>, Error> {
        let _turn = timeout(ANSWER_LIMIT, self.plan_turn.lock())
            .await
            .map_err(|_| late())?;
        self.ask(Command::Plan).await.map(pairs)
    }

    /// Give this node's subnet up and take another: the given one, such as "100.96.3.0/24", or,
    /// if it is empty, whichever the faults call for: one of a changed network, the one that the
    /// configuration or a reservation asks for, or any but one that somebody else has taken.
    /// Answers with the new subnet. The node's containers have to be started again. Only root
    /// may call this.
    #[zbus(out_args("subnet"))]
    async fn renumber(
        &self,
        subnet: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, Error> {
        only_root(&header, connection).await?;
        let invalid = || {
            let shown: String = subnet.chars().take(100).collect();
            Error::InvalidSubnet(format!("{shown:?} is not a subnet such as 100.96.1.0/24"))
        };
        let asked = match subnet {
            "" => None,
            text => Some(text.parse::<Ipv4Net>().map_err(|_| invalid())?),
        };
        let asked = asked.map(Subnet::new);
        let taken = self.ask(|answer| Command::Renumber(asked, answer)).await?;
        Ok(taken.to_string())
    }

    /// Everything that the service knows about itself and its peers at this moment, as a JSON
    /// object.
    #[zbus(out_args("json"))]
    fn describe(&self) -> Result<String, Error> {
        let status = self.current.borrow().clone();
        serde_json::to_string_pretty(&status).map_err(|error| Error::Failed(error.to_string()))
    }

    /// The version of the running service.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        text(&self.published.borrow().version)
    }

    /// How far the service has come: "waiting" (something is missing that it cannot start
    /// without), "running", "degraded" (it forwards packets, but something is wrong) or
    /// "stopping".
    #[zbus(property)]
    fn state(&self) -> String {
        self.published.borrow().state.name().to_owned()
    }

    /// All that is wrong right now, as pairs of a stable code to match on and a line for
    /// people. Empty when healthy.
    #[zbus(property)]
    fn health(&self) -> Vec<(String, String)> {
        let status = self.published.borrow();
        let faults = status.faults.iter();
        faults.map(|f| (text(&f.code), text(&f.text))).collect()
    }

    /// The backend that carries packets: "vxlan", "host-gw" or "udp". Empty while unknown.
    #[zbus(property)]
    fn backend(&self) -> String {
        optional(self.published.borrow().backend.as_ref())
    }

    /// The node's name, from the configuration or the host name.
    #[zbus(property)]
    fn node_name(&self) -> String {
        text(&self.published.borrow().node_name)
    }

    /// The node's identity, 32 hexadecimal digits. The same node gets the same subnet.
    #[zbus(property)]
    fn node_id(&self) -> String {
        text(&self.published.borrow().node_id)
    }

    /// The network that all subnets are part of, such as "100.96.0.0/16". Empty while unknown.
    #[zbus(property)]
    fn network(&self) -> String {
        optional(self.published.borrow().network.as_ref())
    }

    /// The subnet that this node has leased, such as "100.96.1.0/24". Empty without a lease.
    #[zbus(property)]
    fn subnet(&self) -> String {
        optional(self.published.borrow().subnet.as_ref())
    }

    /// The address that peers send to. Empty while unknown.
    #[zbus(property, name = "PublicIP")]
    fn public_ip(&self) -> String {
        let address = self.published.borrow().public_ip;
        address.map(|a| a.to_string()).unwrap_or_default()
    }

    /// The MTU for containers, in bytes. 0 while unknown.
    #[zbus(property, name = "MTU")]
    fn mtu(&self) -> u32 {
        self.published.borrow().mtu
    }

    /// When the lease expires, in microseconds since 1970. 0 without a lease and for a
    /// reservation, which never expires.
    #[zbus(property, name = "LeaseExpiresUSec")]
    fn lease_expires_usec(&self) -> u64 {
        self.published.borrow().lease_expires_usec.unwrap_or(0)
    }

    /// Whether the datastore answers: "connected" or "unreachable". Peers known so far stay
    /// reachable without it.
    #[zbus(property)]
    fn datastore_state(&self) -> String {
        let connected = self.published.borrow().datastore.connected;
        let state = if connected {
            "connected"
        } else {
            "unreachable"
        };
        state.to_owned()
    }

    /// The revision up to which the datastore was read.
    #[zbus(property)]
    fn datastore_revision(&self) -> i64 {
        self.published.borrow().datastore.revision
    }

    /// How many other nodes hold a lease. Each is an object of its own.
    #[zbus(property)]
    fn peer_count(&self) -> u32 {
        u32::try_from(self.published.borrow().peers.len()).unwrap_or(u32::MAX)
    }

    /// When the kernel was last found or made equal to the plan, in microseconds since 1970.
    /// 0 if it never was.
    #[zbus(property, name = "LastReconcileUSec")]
    fn last_reconcile_usec(&self) -> u64 {
        self.published.borrow().last_reconcile_usec.unwrap_or(0)
    }

    /// How many rows in the kernel were put right that somebody else had changed.
    #[zbus(property)]
    fn repair_count(&self) -> u64 {
        self.published.borrow().repairs
    }
}

impl Manager {
    async fn ask<T, E: Into<Error>>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Command,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            let sent = self.commands.send(command(answer)).await;
            sent.map_err(|_| stopping())?;
            let answer = answered.await.map_err(|_| stopping())?;
            answer.map_err(Into::into)
        };
        let answer = timeout(ANSWER_LIMIT, exchange).await;
        answer.unwrap_or_else(|_| Err(late()))
    }
}

/// Asks the bus who the caller is: the bus knows it from the socket, so nobody can pretend.
async fn only_root(header: &Header<'_>, connection: &Connection) -> Result<(), Error> {
    let refused = |cause: &str| Error::NotAuthorized(format!("only root may do this: {cause}"));
    let caller = header
        .sender()
        .ok_or_else(|| refused("the caller has no name on the bus"))?;
    let look_up = async {
        let bus = fdo::DBusProxy::new(connection).await?;
        bus.get_connection_unix_user(caller.to_owned().into()).await
    };
    match timeout(ANSWER_LIMIT, look_up).await {
        Ok(Ok(0)) => Ok(()),
        Ok(Ok(uid)) => Err(refused(&format!("the caller has uid {uid}"))),
        Ok(Err(error)) => Err(refused(&error.to_string())),
        Err(_) => Err(refused("the bus does not say who the caller is")),
    }
}

fn stopping() -> Error {
    Error::Unavailable("the service is stopping".to_owned())
}

fn late() -> Error {
    Error::Failed(format!(
        "the service is busy and did not answer within {ANSWER_LIMIT:?}; what was asked may still be done"
    ))
}

fn optional(value: Option<&String>) -> String {
    value.map(|value| text(value)).unwrap_or_default()
}

fn pairs(changes: Vec<PlannedChange>) -> Vec<(String, String)> {
    let pair = |change: PlannedChange| (text(&change.verb), text(&change.object));
    changes.into_iter().map(pair).collect()
}

/// Less than the 25 s after which clients of D-Bus give up by themselves, so that they hear why.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
