//! All that the service knows, and what follows from it. No I/O and no clock: what is read from
//! outside comes in by a method, what is to be done goes out as a [`Task`] or a [`Plan`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use rand::Rng;

use super::cleanup::Remains;
use super::clock::Moment;
use super::faults::{Code, Faults, Subject};
use super::memory::Identity;
use crate::cluster::acquire::{AcquireError, Held};
use crate::cluster::allocate::{self, Choice, Goal, Wish};
use crate::cluster::datastore::Revision;
use crate::cluster::lease::{Attrs, Lease, Vtep};
use crate::cluster::network::{Backend, Network};
use crate::cluster::subnet::Subnet;
use crate::cluster::view::View;
use crate::config::Config;
use crate::kernel::Scope;
use crate::kernel::uplink::Uplink;
use crate::mac::Mac;
use crate::plan::{self, Node, Plan};

mod agreement;
mod fleet;
mod leftovers;
mod renumber;
mod report;
mod tenure;
mod trust;
mod uplink;
mod withdrawal;

use renumber::Move;
pub(super) use tenure::adopting;
use tenure::{Contest, Tenure};
pub(super) use trust::REGROUP;
use trust::Trust;
use uplink::Rival;

/// What must be done at the datastore next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Task {
    /// Write the network config, which the datastore lacks.
    Seed(Network),
    /// Take a subnet.
    Acquire(Network, Wish, Attrs),
    /// Write the own lease anew.
    Renew(Held, Attrs),
    /// Take another subnet in place of the own lease.
    Renumber(Network, Held, Goal, Attrs),
    /// Give the own lease back; if it was written anew, it may say this.
    Release(Held, Attrs),
}

/// All that the service knows.
#[derive(Debug)]
pub(super) struct World {
    pub(super) config: Config,
    pub(super) identity: Identity,
    pub(super) faults: Faults,
    store_name: String,
    uplink: Option<Uplink>,
    rival: Rival,
    network: Option<Network>,
    /// The network config in the datastore that has no place for the own subnet.
    refused: Option<Network>,
    /// The renumbering under way.
    moving: Option<Move>,
    /// Whether the own lease is being given back.
    releasing: bool,
    /// What this host is to be rid of, while the node takes no part in the network.
    withdrawn: Option<Remains>,
    /// Files of ours where none of ours is wanted any more, and which subnet they are about.
    abandoned: BTreeMap<PathBuf, Subnet>,
    /// The subnet before the last one.
    left: Option<Subnet>,
    /// Why the network config could not be written to the datastore.
    unseeded: Option<String>,
    view: View,
    trust: Trust,
    garbage_told: bool,
    tenure: Option<Tenure>,
    contest: Contest,
    /// The lease by which somebody else has the own subnet.
    taken_by: Option<Lease>,
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
            rival: Rival::default(),
            network: None,
            refused: None,
            moving: None,
            releasing: false,
            withdrawn: None,
            abandoned: BTreeMap::new(),
            left: None,
            unseeded: None,
            view: View::default(),
            trust: Trust::default(),
            garbage_told: false,
            tenure: None,
            contest: Contest::default(),
            taken_by: None,
            adopted: None,
        }
    }

    /// The host config was read again. What takes effect only at a start is pointed out, and
    /// stays what it was. A node that has withdrawn takes part again.
    pub(super) fn reconfigure(&mut self, mut config: Config) {
        self.redeclare(&mut config);
        let fixed = |config: &Config| {
            let Config {
                node,
                datastore,
                paths,
                ..
            } = config;
            (node.name.clone(), datastore.clone(), paths.state.clone())
        };
        let text = "node.name, [datastore] or paths.state has changed; restart the service to \
                    apply it";
        let restart = fixed(&config) != fixed(&self.config);
        self.faults
            .note(Code::Config, restart.then(|| text.to_owned()));
        (config.node.name, config.datastore, config.paths.state) = fixed(&self.config);
        self.abandon(&config);
        self.config = config;
        self.rival = Rival::Welcome;
        self.take_part();
        self.config_seen();
        self.compare_with_wish();
    }

    /// Supposes that this node gets the subnet that it would take now, for a dry run.
    pub(super) fn assume(&mut self, dice: &mut impl Rng, now: Moment) {
        if self.network.is_none() && self.view.config().is_none() {
            self.network.clone_from(&self.config.network);
        }
        let Some(Task::Acquire(network, wish, attrs)) = self.duty(now) else {
            return;
        };
        let (subnet, own) = match allocate::choose(&network, &self.view, &wish, dice) {
            Choice::Keep(own) => (own.lease.subnet, Some(own)),
            Choice::Take(subnet) => (subnet, None),
            Choice::Discard(_) | Choice::Occupied(_) => return,
            Choice::Exhausted => {
                let error = AcquireError::exhausted(&network, &self.view);
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

    fn view_changed(&mut self, now: Moment) {
        self.trust.answered(now);
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

    /// What must be done at the datastore at `now`, if anything.
    pub(super) fn duty(&self, now: Moment) -> Option<Task> {
        if self.releasing || self.is_withdrawn() {
            return self.releasing_duty();
        }
        if !self.view.is_complete() {
            return None;
        }
        let network = self.network.as_ref();
        // the one in force goes before the one in the host config
        let seed = network.or(self.config.network.as_ref());
        let seed = seed.filter(|_| self.view.config().is_none() && self.config.network.is_some());
        let seed = || seed.cloned().map(Task::Seed);
        self.lease_duty(now).or_else(seed)
    }

    fn lease_duty(&self, now: Moment) -> Option<Task> {
        if let Some(duty) = self.moving_duty() {
            return Some(duty);
        }
        let network = self.network.as_ref()?;
        let attrs = self.attrs()?;
        let Some(tenure) = &self.tenure else {
            let wish = Wish {
                public_ip: attrs.public_ip,
                last: self.identity.last.filter(|_| !self.is_declared()),
                previous: self.identity.previous,
                asked: self.config.node.subnet,
            };
            return Some(Task::Acquire(network.clone(), wish, attrs));
        };
        if self.is_declared() {
            return None;
        }
        let margin = self.config.lease.renew_margin;
        let due = tenure.left(now).is_some_and(|left| left <= margin);
        (due || tenure.disturbed || tenure.held.lease.attrs != attrs)
            .then(|| Task::Renew(self.fenced(&tenure.held), attrs))
    }

    /// The own lease as a fence for the next write. A datastore that cannot be read may come back
    /// with another history, in which our revision is another's: no fence may hold by chance.
    fn fenced(&self, held: &Held) -> Held {
        let mut held = held.clone();
        if self.trust.is_lost() {
            held.revision = Revision::default();
        }
        held
    }

    /// What the own lease should say.
    pub(super) fn attrs(&self) -> Option<Attrs> {
        self.attrs_in(self.network.as_ref()?)
    }

    fn attrs_in(&self, network: &Network) -> Option<Attrs> {
        let uplink = self.uplink.as_ref()?;
        Some(plan::attrs(network, uplink, self.mac(network)))
    }

    /// The Ethernet address of the tunnel device. A cloned machine derives the same from the same
    /// machine-id: of the two, the one with the higher subnet changes to another.
    fn mac(&self, network: &Network) -> Mac {
        let vni = match &network.backend {
            Backend::Vxlan(vxlan) => vxlan.vni,
            Backend::HostGw | Backend::Udp { .. } => 0,
        };
        if let Some(mac) = self.declared_mac(vni) {
            return mac;
        }
        let adopted = self.adopted.filter(|vtep| vtep.vni == Some(vni));
        let derived = || plan::vtep_mac(&self.identity.id, vni);
        let mac = adopted.and_then(|vtep| vtep.mac).unwrap_or_else(derived);
        match self.subnet().filter(|own| self.is_lower_clone(*own, mac)) {
            Some(own) => plan::vtep_mac(&format!("{} {own}", self.identity.id), vni),
            None => mac,
        }
    }

    /// Whether another machine with a lower subnet has this Ethernet address.
    fn is_lower_clone(&self, own: Subnet, mac: Mac) -> bool {
        let ours = |ip| self.uplink.as_ref().is_some_and(|u| u.public_ip == ip);
        let lower = self.view.peers(own).take_while(|peer| peer.subnet < own);
        lower
            .filter(|peer| !ours(peer.attrs.public_ip))
            .any(|peer| peer.attrs.backend.mac() == Some(mac))
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
            daemon_json: docker.daemon_json.clone(),
            firewall: self.config.firewall,
            repair: self.config.host.repair,
            tuning: self.config.udp,
        })
    }

    /// What part of the kernel's state is our business under this plan.
    pub(super) fn scope(&self, plan: &Plan) -> Option<Scope> {
        if let Some(remains) = &self.withdrawn {
            return Some(remains.scope.clone());
        }
        let node = self.node()?;
        let scope = Scope::new(&plan.kernel, node.network.net, node.lease.subnet.v4());
        Some(scope.moved_from(self.former()))
    }

    /// What this host should be.
    pub(super) fn plan(&mut self) -> Option<Plan> {
        if let Some(remains) = &self.withdrawn {
            return Some(remains.plan.clone());
        }
        let node = self.node()?;
        let peers = self.view.peers(node.lease.subnet);
        let mut plan = plan::plan(&node, peers.filter(|peer| !self.is_of_a_move(peer)));
        plan.obsolete.clone_from(&self.abandoned);
        self.faults.note(Code::Backend, plan.objection.clone());
        let (peer, text) = report::unreachable(&plan).unzip();
        let subject = Subject {
            peer,
            ..Subject::default()
        };
        self.faults.note_of(subject, Code::Peers, text);
        Some(plan)
    }
}

#[cfg(test)]
mod tests;
