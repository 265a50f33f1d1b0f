//! The `Manager` interface: this node.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, interface};

use super::authority::Action;
use super::orders::Orders;
use super::refusal::Refusal;
use super::{optional, pairs, text};
use crate::proxy::counters::Meter;
use crate::service::status::{Command, Status, Traffic};

mod guarded;

/// This node on the bus. Only `&self` methods and a shared status: a method that waits for the
/// service keeps zbus's lock on the object, and must not hold up the properties.
pub(super) struct Manager {
    /// What the properties show, and what signals have told of.
    pub(super) published: watch::Receiver<Arc<Status>>,
    /// The status of this moment.
    pub(super) current: watch::Receiver<Status>,
    pub(super) meter: watch::Receiver<Option<Meter>>,
    pub(super) orders: Arc<Orders>,
}

/// The overlay network as this node has it: its lease, its health, and what to ask of it.
#[interface(name = "org.flannelrs.Flannel1.Manager")]
impl Manager {
    /// Read the configuration file again and act on it; a node that was withdrawn by ReleaseLease
    /// or Cleanup takes part again. Answers once the file is read.
    ///
    /// Errors: Failed (the file has a mistake, which the text names; nothing changes).
    ///
    /// Root may call it; others need the polkit action org.flannelrs.Flannel1.reload, and get
    /// NotAuthorized, or InteractiveAuthorizationRequired where a password would do and the call
    /// does not allow to ask for it.
    async fn reload(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        self.allow(Action::Reload, &call, connection).await?;
        Ok(self.orders.ask(Command::Reload).await??)
    }

    /// Make the kernel equal to the plan now, and answer with what was changed, as pairs of a
    /// verb ("add", "set", "replace", "delete", "write") and an object in the words of ip(8).
    ///
    /// Errors: Failed (the kernel refused a change, or the service is too busy).
    ///
    /// Root may call it; others need the polkit action org.flannelrs.Flannel1.reconcile, and get
    /// NotAuthorized, or InteractiveAuthorizationRequired where a password would do and the call
    /// does not allow to ask for it.
    #[zbus(out_args("changes"))]
    async fn reconcile(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(String, String)>, Refusal> {
        self.allow(Action::Reconcile, &call, connection).await?;
        let changes = self.orders.ask(Command::Reconcile).await??;
        Ok(pairs(changes))
    }

    /// What Reconcile would change right now, in the same form. Changes nothing and needs no
    /// authorization.
    ///
    /// Errors: Failed (the kernel cannot be read, or too many wait for a plan), Unavailable (the
    /// service is stopping; every method may say so).
    #[zbus(out_args("changes"))]
    async fn plan(&self) -> Result<Vec<(String, String)>, Refusal> {
        self.orders.plan().await.map(pairs)
    }

    /// Give this node's subnet up and take another: the given one, such as "100.96.3.0/24", or,
    /// if it is empty, whichever the faults call for: one of a changed network, the one that the
    /// configuration or a reservation asks for, or any but one that somebody else has taken.
    /// Answers with the new subnet, once this host has its interfaces, routes and files for it. The
    /// node's containers have to be started again.
    ///
    /// Errors: InvalidSubnet (the argument is not a subnet), OutsideNetwork (it is not one of the
    /// network), SubnetTaken (somebody has it), NothingToRenumber (it was empty, and there is no
    /// need to move), Failed (no lease is held yet, the datastore does not answer, or the subnet was
    /// taken and this host cannot follow yet, which is tried again).
    ///
    /// Root may call it; others need the polkit action org.flannelrs.Flannel1.renumber, and get
    /// NotAuthorized, or InteractiveAuthorizationRequired where a password would do and the call
    /// does not allow to ask for it.
    #[zbus(out_args("taken"))]
    async fn renumber(
        &self,
        subnet: &str,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, Refusal> {
        self.move_to(subnet, &call, connection).await
    }

    /// Give the lease back and take no further part in the network: remove from this host all
    /// that is the service's, its interfaces, routes and files, and stay withdrawn until Reload
    /// or a restart. Answers with the subnet that was given back, such as "100.96.1.0/24", which
    /// another node may take from then on. Containers of this host lose the network.
    ///
    /// Errors: Failed (no lease is held, it is no longer the one that somebody was asked about, or
    /// the datastore does not answer; or the lease was given back, but the bridge is still there,
    /// because something hangs on it).
    ///
    /// Root may call it; others need the polkit action org.flannelrs.Flannel1.release, and get
    /// NotAuthorized, or InteractiveAuthorizationRequired where a password would do and the call
    /// does not allow to ask for it.
    #[zbus(out_args("subnet"))]
    async fn release_lease(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<String, Refusal> {
        self.give_back(&call, connection).await
    }

    /// Remove from this host all that is the service's, its interfaces, routes and files, and
    /// stay withdrawn until Reload or a restart. The lease stays, so that the node has the same
    /// subnet when it comes back. Answers with what was removed, in the form of Reconcile.
    /// Containers of this host lose the network.
    ///
    /// Errors: Failed (the kernel refused a change, the bridge is still there because something
    /// hangs on it, or the service is too busy).
    ///
    /// Root may call it; others need the polkit action org.flannelrs.Flannel1.cleanup, and get
    /// NotAuthorized, or InteractiveAuthorizationRequired where a password would do and the call
    /// does not allow to ask for it.
    #[zbus(out_args("changes"))]
    async fn cleanup(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(String, String)>, Refusal> {
        self.allow(Action::Cleanup, &call, connection).await?;
        let removed = self.orders.ask(Command::Cleanup).await??;
        Ok(pairs(removed))
    }

    /// Make the bridge for containers the service's own, whoever has given it addresses: remove
    /// those, give it this node's address and MTU. Answers with what was changed on it, in the
    /// form of Reconcile. Nothing about containers is changed: those that run have to be started
    /// again, and Docker puts its own address back unless it is told ours (docs/docker.md).
    ///
    /// Errors: Failed (the bridge is the service's and as it should be, manage-bridge is false, no
    /// lease is held, the kernel refused a change, or the service is too busy).
    ///
    /// Root may call it; others need the polkit action org.flannelrs.Flannel1.take-bridge, and get
    /// NotAuthorized, or InteractiveAuthorizationRequired where a password would do and the call
    /// does not allow to ask for it.
    #[zbus(out_args("changes"))]
    async fn take_bridge(
        &self,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<Vec<(String, String)>, Refusal> {
        self.allow(Action::TakeBridge, &call, connection).await?;
        let changes = self.orders.ask(Command::TakeBridge).await??;
        Ok(pairs(changes))
    }

    /// Log at this level until the service ends: "error", "warn", "info", "debug" or "trace", or
    /// directives such as "info,flannel_rs=debug". The level in the configuration counts again
    /// from the next start on.
    ///
    /// Errors: InvalidLogLevel (it is no such level; the old one stays).
    ///
    /// Root may call it; others need the polkit action org.flannelrs.Flannel1.set-log-level, and get
    /// NotAuthorized, or InteractiveAuthorizationRequired where a password would do and the call
    /// does not allow to ask for it.
    async fn set_log_level(
        &self,
        level: &str,
        #[zbus(header)] call: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<(), Refusal> {
        if level.len() > LONGEST_LEVEL {
            let cause = format!("a level has at most {LONGEST_LEVEL} letters");
            return Err(Refusal::InvalidLogLevel(cause));
        }
        self.allow(Action::SetLogLevel, &call, connection).await?;
        let set = |answer| Command::SetLogLevel(level.to_owned(), answer);
        self.orders
            .ask(set)
            .await?
            .map_err(Refusal::InvalidLogLevel)
    }

    /// Everything that the service knows about itself and its peers at this moment, as a JSON
    /// object. Needs no authorization.
    #[zbus(out_args("json"))]
    fn describe(&self) -> Result<String, Refusal> {
        let mut status = self.current.borrow().clone();
        let meter = self.meter.borrow().clone();
        if let Some(meter) = meter {
            status = status.with_traffic(&meter);
        }
        serde_json::to_string_pretty(&status).map_err(|error| Refusal::Failed(error.to_string()))
    }

    /// Interfaces, routes or other rows that somebody else had changed were put right, in the
    /// form of Reconcile; at most the first 1000 of them.
    #[zbus(signal)]
    pub(super) async fn drift_repaired(
        emitter: &SignalEmitter<'_>,
        changes: Vec<(String, String)>,
    ) -> zbus::Result<()>;

    /// Somebody else holds the subnet of this node. The holder is an IPv4 address, empty if it
    /// cannot be read.
    #[zbus(signal)]
    pub(super) async fn subnet_conflict(
        emitter: &SignalEmitter<'_>,
        subnet: &str,
        holder: &str,
    ) -> zbus::Result<()>;

    /// The version of the running service.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> String {
        text(&self.published.borrow().version)
    }

    /// How far the service has come: "waiting" (something is missing that it cannot start
    /// without), "running", "degraded" (it forwards packets, but something is wrong), "withdrawn"
    /// (it was asked to take no part, by ReleaseLease or Cleanup) or "stopping". More may come.
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

    /// What goes to the log: a level, or directives such as "info,flannel_rs=debug".
    #[zbus(property)]
    fn log_level(&self) -> String {
        text(&self.published.borrow().log_level)
    }

    /// What this node has moved and dropped since its udp data plane began, by the names
    /// "sent-packets", "sent-bytes", "received-packets", "received-bytes", for packets dropped
    /// "dropped-" and the cause, "answered-no-route" and "answered-too-big-for-path" for senders
    /// that were told, and "receive-errors". More names may come. Read at the time of the call; no
    /// signal tells of a change. Empty where the kernel moves the packets, with other backends.
    #[zbus(property(emits_changed_signal = "false"))]
    fn traffic(&self) -> BTreeMap<&str, u64> {
        let meter = self.meter.borrow();
        let totals = meter.as_ref().map(|meter| Traffic::from(meter.totals()));
        totals
            .map(|traffic| traffic.named().into())
            .unwrap_or_default()
    }

    /// How many rows in the kernel were put right that somebody else had changed, since the
    /// service started.
    #[zbus(property)]
    fn repair_count(&self) -> u64 {
        self.published.borrow().repairs
    }
}

/// Room for a few directives; each copy of the status carries the level.
const LONGEST_LEVEL: usize = 1000;
