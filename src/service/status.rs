//! What outsiders see of the service, and what they may ask of it. Everything on D-Bus, in
//! `STATUS=` and in `flannel-rs status` is derived from one [`Status`].

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::cluster::network::Network;
use crate::cluster::subnet::Subnet;

pub use traffic::{PeerTraffic, Traffic};

mod traffic;

/// The service as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the running service.
    pub version: String,
    /// How far it has come.
    pub state: State,
    /// All that is wrong right now; empty when healthy.
    pub faults: Vec<Fault>,
    /// The node's name, from the config or the host name.
    pub node_name: String,
    /// The node's identity, 32 hexadecimal digits.
    pub node_id: String,
    /// The backend, such as `vxlan`; `None` before the network config was read.
    pub backend: Option<String>,
    /// The network in CIDR form; `None` before the network config was read.
    pub network: Option<String>,
    /// The own subnet in CIDR form; `None` before a lease is held.
    pub subnet: Option<String>,
    /// The interface to the other nodes.
    pub interface: Option<String>,
    /// The address that peers send to.
    pub public_ip: Option<Ipv4Addr>,
    /// The MTU for containers, in bytes; 0 while unknown.
    pub mtu: u32,
    /// When the lease expires, microseconds since 1970; `None` without a lease and for a
    /// reservation, which never does.
    pub lease_expires_usec: Option<u64>,
    /// The datastore.
    pub datastore: DatastoreStatus,
    /// What of the service's doings goes to the log: a level, or directives such as
    /// `info,flannel_rs=debug`.
    pub log_level: String,
    /// Every link that is ours or the containers', by name.
    #[serde(default)]
    pub interfaces: Arc<Vec<InterfaceStatus>>,
    /// Every other lease, by subnet. Shared: a status is made each second, peers seldom change.
    pub peers: Arc<Vec<PeerStatus>>,
    /// Entries of the datastore that pose as leases and are none.
    pub garbage: Vec<GarbageStatus>,
    /// When the kernel was last found or made equal to the plan, microseconds since 1970.
    pub last_reconcile_usec: Option<u64>,
    /// How many rows were put right that somebody else had changed.
    pub repairs: u64,
    /// What this host is to be beyond its links; `None` before a lease is held.
    #[serde(default)]
    pub provision: Option<Provision>,
    /// What was moved and dropped; only in an answer, and only if the service moves packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
}

/// What the service provides on this host beyond links and routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provision {
    /// The bridge for containers, if the service has it in hand.
    pub bridge: Option<String>,
    /// The UDP port of the tunnel; `None` for a backend without one.
    pub tunnel_port: Option<u16>,
    /// Whether what containers send to the outside is masqueraded.
    pub masquerade: bool,
    /// Whether the packet filter is told to let pass what containers send and get.
    pub forward: bool,
    /// Where `subnet.env` is.
    pub subnet_env: String,
    /// Where `docker.env` is.
    pub docker_env: String,
}

/// How far the service has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Something is missing that it cannot start without; the faults say what.
    Waiting,
    /// Everything is as it should be.
    Running,
    /// It forwards packets, but something is wrong; the faults say what.
    Degraded,
    /// It was asked to take no part in the network, until it is reloaded or started again.
    Withdrawn,
    /// It was told to stop.
    Stopping,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fault {
    /// A stable name to match on, such as `datastore`.
    pub code: String,
    /// What it is, and what to do about it, in one line.
    pub text: String,
    /// How often it was noticed since it came, at least once.
    pub times: u64,
}

/// The datastore as the service sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatastoreStatus {
    /// What and where it is.
    pub name: String,
    /// Whether it answers.
    pub connected: bool,
    /// The revision up to which it was read.
    pub revision: i64,
}

/// A peer as the service sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its subnet in CIDR form.
    pub subnet: String,
    /// Where tunnel packets to it go.
    pub public_ip: Ipv4Addr,
    /// Its backend.
    pub backend: String,
    /// The Ethernet address of its tunnel device, for vxlan.
    pub mac: Option<String>,
    /// How it is reached.
    pub path: PeerPath,
    /// Why it is not reached, if so.
    pub obstacle: Option<String>,
    /// As [`Status::traffic`], for a peer that it moves packets to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<PeerTraffic>,
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerPath {
    /// Through the tunnel device.
    Tunnel,
    /// By a plain route.
    Direct,
    /// Not at all.
    None,
}

/// A link as the service wants it and as it found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// What it should be; `None` for one of ours that has to go.
    pub desired: Option<LinkStatus>,
    /// What it was when the kernel was last read; `None` if it was not there.
    pub observed: Option<LinkStatus>,
}

/// What there is to say of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The kind in the words of ip(8): `vxlan`, `bridge`, `tun`, or the kernel's for another.
    pub kind: String,
    /// Its Ethernet address; `None` where it has none or it does not matter.
    pub mac: Option<String>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its IPv4 addresses with their prefix lengths.
    pub addresses: Vec<String>,
}

/// An entry that poses as a lease and is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarbageStatus {
    /// Its key without the prefix.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Status {
    /// One line for `systemctl status`.
    #[must_use]
    pub fn line(&self, now_usec: u64) -> String {
        let fault = self.faults.first();
        let fault = fault.map(|fault| format!("{}: {}", fault.code, fault.text));
        if self.state == State::Waiting {
            return format!("waiting; {}", fault.as_deref().unwrap_or("starting"));
        }
        if self.state == State::Withdrawn {
            let fault = fault.map(|fault| format!(" ({fault})")).unwrap_or_default();
            let lease = self
                .subnet
                .as_deref()
                .map(|subnet| match self.lease_text(now_usec) {
                    None => format!("{subnet} stays reserved; "),
                    Some(lease) => format!("{subnet} is not renewed, {lease}; "),
                });
            return format!(
                "withdrawn; {}systemctl reload flannel-rs brings this node back{fault}",
                lease.unwrap_or_default(),
            );
        }
        let reached = self
            .peers
            .iter()
            .filter(|peer| peer.path != PeerPath::None)
            .count();
        format!(
            "{} {}, {reached} of {} peers, {}, {}",
            self.subnet.as_deref().unwrap_or("no subnet"),
            self.backend.as_deref().unwrap_or("no backend"),
            self.peers.len(),
            self.lease_text(now_usec).as_deref().unwrap_or("reserved"),
            fault.as_deref().unwrap_or("datastore ok"),
        )
    }

    /// How long the lease still lives; `None` for one that never expires.
    fn lease_text(&self, now_usec: u64) -> Option<String> {
        let minutes = self.lease_expires_usec?.saturating_sub(now_usec) / 60_000_000;
        Some(format!("lease {}h{:02}m", minutes / 60, minutes % 60))
    }
}

impl State {
    /// The name on D-Bus and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Withdrawn => "withdrawn",
            Self::Stopping => "stopping",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PeerPath {
    /// The name on D-Bus and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Direct => "direct",
            Self::None => "none",
        }
    }
}

impl fmt::Display for PeerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What outsiders may ask of the service.
#[derive(Debug)]
pub enum Command {
    /// Read the host config again.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Make the kernel equal to the plan now; answers with what was changed.
    Reconcile(oneshot::Sender<Result<Vec<PlannedChange>, String>>),
    /// What a reconciliation would change.
    Plan(oneshot::Sender<Result<Vec<PlannedChange>, String>>),
    /// Give the subnet up and take another: this one, or whichever the faults call for. Answers
    /// with the new one.
    Renumber(
        Option<Subnet>,
        oneshot::Sender<Result<Subnet, RenumberError>>,
    ),
    /// Give the lease back and take no further part in the network. Answers with the subnet.
    Release(oneshot::Sender<Result<Subnet, String>>),
    /// Take no further part in the network and remove all that is ours from this host; the lease
    /// stays. Answers with what was removed.
    Cleanup(oneshot::Sender<Result<Vec<PlannedChange>, String>>),
    /// Make the containers' bridge ours, whoever has given it addresses; answers with what was
    /// changed on it.
    TakeBridge(oneshot::Sender<Result<Vec<PlannedChange>, String>>),
    /// Log at this level from now on, until the service ends.
    SetLogLevel(String, oneshot::Sender<Result<(), String>>),
}

/// Something that happened, as opposed to how things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Rows that somebody else had changed were put right.
    DriftRepaired(Vec<PlannedChange>),
    /// Somebody else holds the subnet of this node.
    SubnetConflict {
        /// The subnet.
        subnet: Subnet,
        /// Who holds it, if that can be read.
        holder: Option<Ipv4Addr>,
    },
}

impl News {
    /// So many changes of one repair are told at most, as a message on the bus has its limits.
    pub const MOST_CHANGES: usize = 1000;
}

/// The node keeps its subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenumberError {
    /// It has none, or does not know enough yet.
    #[error("this node holds no lease yet")]
    NoLease,
    /// It is where it should be.
    #[error("there is no need to leave {0}; to move all the same, name a subnet")]
    NothingToRenumber(Subnet),
    /// The subnet is no part of the network.
    #[error("{subnet} is not one of the /{} subnets from {} to {} of {}",
        network.subnet_len, network.first, network.last, network.net)]
    OutsideNetwork {
        /// What was asked for.
        subnet: Subnet,
        /// The network that the node would be in.
        network: Box<Network>,
    },
    /// Somebody has the subnet.
    #[error("{subnet} is taken{}", holder.map(|ip| format!(" by {ip}")).unwrap_or_default())]
    SubnetTaken {
        /// What was asked for.
        subnet: Subnet,
        /// Who has it, if that can be read.
        holder: Option<Ipv4Addr>,
    },
    /// It is moving already.
    #[error("this node is being renumbered already")]
    UnderWay,
    /// It went wrong at the datastore.
    #[error("{0}")]
    Failed(String),
}

/// One change to the kernel or to a file, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedChange {
    /// What is done: `add`, `set`, `replace`, `delete`, `write`.
    pub verb: String,
    /// What it is done to, in the words of iproute2, such as
    /// `route 100.96.2.0/24 via 100.96.2.0 dev flannel.1 onlink`.
    pub object: String,
}
