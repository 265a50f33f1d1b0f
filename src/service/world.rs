//! All that the service knows, and what follows from it. No I/O and no clock: what is read from
//! outside comes in by a method, what is to be done goes out as a [`Duty`] or a [`Plan`].

use std::time::Duration;

use rand::Rng;

use super::clock::Moment;
use super::faults::{Code, Faults};
use super::memory::Identity;
use crate::cluster::acquire::{AcquireError, Held};
use crate::cluster::allocate::{self, Choice, Wish};
use crate::cluster::datastore::{CONFIG, Event, Revision, Snapshot, StoreError, lease_key};
use crate::cluster::lease::{Attrs, Lease, Vtep};
use crate::cluster::network::{Backend, Network};
use crate::cluster::view::View;
use crate::config::{Config, Store};
use crate::kernel::uplink::{Uplink, UplinkError};
use crate::mac::Mac;
use crate::plan::{self, Node, Plan};

mod report;
mod tenure;

/// How long the nodes get to claim their subnets again in a datastore that has forgotten them.
pub(super) const REGROUP: Duration = Duration::from_secs(15);

pub(super) use tenure::adopting;
use tenure::{Contest, Tenure};

/// What must be done at the datastore next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Duty {
    /// Write the network config, which the datastore lacks.
    Seed(Network),
    /// Take a subnet.
    Acquire(Network, Wish, Attrs),
    /// Write the own lease anew.
    Renew(Held, Attrs),
}

/// All that the service knows.
#[derive(Debug)]
pub(super) struct World {
    pub(super) config: Config,
    pub(super) identity: Identity,
    pub(super) faults: Faults,
    store_name: String,
    uplink: Option<Uplink>,
    network: Option<Network>,
    /// Why the network config could not be written to the datastore.
    unseeded: Option<String>,
    view: View,
    /// When the datastore was last heard of, be it by an error; since boot.
    heard: Option<Duration>,
    /// Until when a list that lacks a lease drops nobody; since boot.
    regroup_until: Option<Duration>,
    garbage_told: bool,
    tenure: Option<Tenure>,
    contest: Contest,
    /// The tunnel address found in the own lease, for its VNI: peers know it.
    adopted: Option<Vtep>,
}

impl World {
    pub(super) fn new(config: Config, identity: Identity, store_name: String) -> Self {
        Self {
            config,
            identity,
            faults: Faults::default(),
            store_name,
            uplink: None,
            network: None,
            unseeded: None,
            view: View::default(),
            heard: None,
            regroup_until: None,
            garbage_told: false,
            tenure: None,
            contest: Contest::default(),
            adopted: None,
        }
    }

    /// The host config was read again. What takes effect only at a start is pointed out, and
    /// stays what it was.
    pub(super) fn reconfigure(&mut self, mut config: Config) {
        let fixed = |config: &Config| {
            let Config {
                node,
                datastore,
                paths,
                log,
                ..
            } = config;
            (
                node.name.clone(),
                datastore.clone(),
                paths.state.clone(),
                log.level.clone(),
            )
        };
        let text = "node.name, [datastore], paths.state or log.level has changed; restart the \
                    service to apply it";
        let restart = fixed(&config) != fixed(&self.config);
        self.faults
            .note(Code::Config, restart.then(|| text.to_owned()));
        (
            config.node.name,
            config.datastore,
            config.paths.state,
            config.log.level,
        ) = fixed(&self.config);
        self.config = config;
        self.config_seen();
        self.compare_with_wish();
    }

    /// Supposes that this node gets the subnet that it would take now, for a dry run.
    pub(super) fn assume(&mut self, dice: &mut impl Rng, now: Moment) {
        if self.network.is_none() && self.view.config().is_none() {
            self.network.clone_from(&self.config.network);
        }
        let Some(Duty::Acquire(network, wish, attrs)) = self.duty(now) else {
            return;
        };
        let (subnet, own) = match allocate::choose(&network, &self.view, &wish, dice) {
            Choice::Keep(own) => (own.lease.subnet, Some(own)),
            Choice::Take(subnet) => (subnet, None),
            Choice::Discard(_) => return,
            Choice::Exhausted => {
                let error = AcquireError::Exhausted(network);
                return self.acquired(Err(error), now);
            }
        };
        let lease = Lease {
            subnet,
            attrs: adopting(attrs, own.as_ref()),
        };
        let revision = self.view.revision();
        self.hold(
            Held {
                lease,
                revision,
                ttl: None,
            },
            now,
        );
    }

    /// The interface to the other nodes was looked for. Without a new one the last stays: its
    /// default route may be gone for a moment, its traffic is not.
    pub(super) fn uplink_seen(&mut self, found: Result<Uplink, UplinkError>) {
        match found {
            Ok(uplink) => {
                self.faults.clear(Code::Uplink);
                if self.uplink.as_ref() != Some(&uplink) {
                    tracing::info!(interface = uplink.name, address = %uplink.address,
                        public_ip = %uplink.public_ip, mtu = uplink.mtu, "uplink");
                    self.uplink = Some(uplink);
                }
            }
            Err(error) => self.faults.note(Code::Uplink, Some(error.to_string())),
        }
    }

    /// A whole list came in. Answers whether it is believed: one that lacks a lease that we hold,
    /// or whose history has gone back, comes from a datastore that was emptied or restored. All
    /// nodes claim their subnets again then, and get [`REGROUP`] to do so before one is dropped.
    pub(super) fn listed(&mut self, snapshot: Snapshot, now: Moment) -> bool {
        if self.has_forgotten(&snapshot) && self.regroup_until.is_none() {
            tracing::warn!("the datastore was emptied or restored; keeping all peers meanwhile");
            self.regroup_until = Some(now.since_boot + REGROUP);
        }
        let believed = self
            .regroup_until
            .is_none_or(|until| now.since_boot >= until);
        if believed {
            self.regroup_until = None;
            self.view.replace(snapshot);
        } else {
            self.view.extend(snapshot);
        }
        self.view_changed(now);
        believed
    }

    /// Whether a list shows that the datastore has forgotten our lease, or some of its history.
    fn has_forgotten(&mut self, snapshot: &Snapshot) -> bool {
        let restarted = snapshot.revision < self.view.revision();
        let Some(tenure) = &mut self.tenure else {
            return false;
        };
        let subnet = tenure.held.lease.subnet;
        let key = lease_key(subnet);
        let known = self.view.record(subnet).is_some();
        let missing = known && !snapshot.entries.iter().any(|entry| entry.key == key);
        // a list that was under way while the lease was written tells nothing about it
        let outdated = !restarted && snapshot.revision < tenure.held.revision;
        if restarted {
            // in the new history our revision may be another's: let no fence hold by chance
            tenure.held.revision = Revision::default();
        }
        let forgotten = restarted || (missing && !outdated);
        tenure.disturbed |= forgotten;
        forgotten
    }

    /// Changes came in; none is a sign of life.
    pub(super) fn changed(&mut self, events: Vec<Event>, now: Moment) {
        for event in events {
            self.view.apply(event);
        }
        self.view_changed(now);
    }

    fn view_changed(&mut self, now: Moment) {
        self.heard = Some(now.since_boot);
        self.faults.clear(Code::Datastore);
        self.own_entry_seen();
        self.config_seen();
        self.compare_with_wish();
        let garbage = self.view.garbage().first_key_value();
        if let Some((key, first)) = garbage.filter(|_| !self.garbage_told) {
            tracing::warn!(
                key,
                reason = first.reason,
                "an entry that is no lease is passed over"
            );
        }
        self.garbage_told = garbage.is_some();
    }

    /// Whether the datastore was heard of within `limit`, be it by an error.
    pub(super) fn heard_within(&self, limit: Duration, now: Moment) -> bool {
        let since = |heard| now.since_boot.saturating_sub(heard);
        self.heard.is_some_and(|heard| since(heard) <= limit)
    }

    /// The datastore cannot be read. Everything known stays in force.
    pub(super) fn lost(&mut self, error: &StoreError, now: Moment) {
        self.heard = Some(now.since_boot);
        let text = match error {
            StoreError::Unavailable { .. } => format!("{error}; trying again"),
            StoreError::Refused { .. } | StoreError::Corrupt { .. } => error.to_string(),
        };
        self.faults.note(Code::Datastore, Some(text));
    }

    /// Takes over the network config if it can be used.
    fn config_seen(&mut self) {
        let parsed = match self.view.config().map(std::str::from_utf8) {
            None => {
                let text = match (&self.config.network, &self.network) {
                    (Some(_), _) => self.unseeded.clone(),
                    (None, Some(_)) => Some(format!(
                        "the network config {} is gone; the last one stays in force, but new \
                         nodes wait for it: put it back",
                        self.config_place()
                    )),
                    (None, None) => Some(format!(
                        "there is no network config {}: put one there, or add [network] to this \
                         node's config",
                        self.config_place()
                    )),
                };
                self.faults.note(Code::NetworkConfig, text);
                return;
            }
            Some(Ok(text)) => Network::from_json(text).map_err(|error| error.to_string()),
            Some(Err(error)) => Err(error.to_string()),
        };
        let network = match parsed {
            Ok(network) => network,
            Err(reason) => {
                let meanwhile = match self.network {
                    Some(_) => "; the one before stays in force",
                    None => "",
                };
                let place = self.config_place();
                let text = format!("the network config {place}: {reason}{meanwhile}");
                self.faults.note(Code::NetworkConfig, Some(text));
                return;
            }
        };
        self.unseeded = None;
        self.faults.clear(Code::NetworkConfig);
        let own = self.tenure.as_ref().map(|tenure| tenure.held.lease.subnet);
        if let Some(own) = own.filter(|own| !network.allows(*own)) {
            let text = format!(
                "the network config has changed to {}, which has no place for {own}; \
                 the one before stays in force",
                network.net
            );
            self.faults.note(Code::RenumberRequired, Some(text));
            return;
        }
        self.faults.clear(Code::RenumberRequired);
        if self.network.as_ref() != Some(&network) {
            tracing::info!(network = %network.net, backend = network.backend.name(), "network config");
            self.network = Some(network);
        }
    }

    /// The network config's key as other tools know it, and where it is.
    fn config_place(&self) -> String {
        let datastore = &self.config.datastore;
        match &datastore.store {
            Store::Etcd(_) => format!("{}/{CONFIG} in {}", datastore.prefix, self.store_name),
            Store::Local(_) => format!("in {}", self.store_name),
        }
    }

    /// What must be done at the datastore at `now`, if anything.
    pub(super) fn duty(&self, now: Moment) -> Option<Duty> {
        if !self.view.is_complete() {
            return None;
        }
        let network = self.network.as_ref();
        // the one in force goes before the one in the host config
        let seed = network.or(self.config.network.as_ref());
        let seed = seed.filter(|_| self.view.config().is_none() && self.config.network.is_some());
        let seed = || seed.cloned().map(Duty::Seed);
        self.lease_duty(now).or_else(seed)
    }

    fn lease_duty(&self, now: Moment) -> Option<Duty> {
        let network = self.network.as_ref()?;
        let attrs = self.attrs()?;
        let Some(tenure) = &self.tenure else {
            let wish = Wish {
                public_ip: attrs.public_ip,
                last: self.identity.last,
                previous: self.identity.previous,
                asked: self.config.node.subnet,
            };
            return Some(Duty::Acquire(network.clone(), wish, attrs));
        };
        let margin = self.config.lease.renew_margin;
        let due = tenure.left(now).is_some_and(|left| left <= margin);
        (due || tenure.disturbed || tenure.held.lease.attrs != attrs)
            .then(|| Duty::Renew(tenure.held.clone(), attrs))
    }

    /// What the own lease should say.
    pub(super) fn attrs(&self) -> Option<Attrs> {
        let (network, uplink) = (self.network.as_ref()?, self.uplink.as_ref()?);
        Some(plan::attrs(network, uplink, self.mac(network)))
    }

    fn mac(&self, network: &Network) -> Mac {
        let vni = match &network.backend {
            Backend::Vxlan(vxlan) => vxlan.vni,
            Backend::HostGw | Backend::Udp { .. } => 0,
        };
        let adopted = self.adopted.filter(|vtep| vtep.vni == Some(vni));
        let derived = || plan::vtep_mac(&self.identity.id, vni);
        adopted.and_then(|vtep| vtep.mac).unwrap_or_else(derived)
    }

    /// The network config was written, or somebody else was faster.
    pub(super) fn seeded(&mut self, result: Result<bool, StoreError>) {
        self.unseeded = None;
        match result {
            Ok(true) => tracing::info!("wrote the network config of this node to the datastore"),
            Ok(false) => tracing::info!("the datastore has got a network config meanwhile"),
            Err(error) => {
                // not a fault of reading: a list that comes in does not put it right
                self.unseeded = Some(error.to_string());
                self.config_seen();
            }
        }
    }

    /// This node, once all that a plan needs is known. Nothing may be planned, and so swept,
    /// before a whole list was seen.
    pub(super) fn node(&self) -> Option<Node> {
        let tenure = self.tenure.as_ref().filter(|_| self.view.is_complete())?;
        let docker = &self.config.docker;
        Some(Node {
            network: self.network.clone()?,
            lease: Lease {
                subnet: tenure.held.lease.subnet,
                attrs: self.attrs()?,
            },
            uplink: self.uplink.clone()?,
            bridge: docker.manage_bridge.then(|| docker.bridge.clone()),
            subnet_env: self.config.paths.subnet_env.clone(),
            docker_env: self.config.paths.docker_env.clone(),
        })
    }

    /// What this host should be.
    pub(super) fn plan(&mut self) -> Option<Plan> {
        let node = self.node()?;
        let plan = plan::plan(&node, self.view.peers(node.lease.subnet));
        self.faults.note(Code::Backend, plan.objection.clone());
        self.faults.note(Code::Peers, report::unreachable(&plan));
        Some(plan)
    }
}

#[cfg(test)]
mod tests;
