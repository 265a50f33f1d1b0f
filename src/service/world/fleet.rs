//! A fleet that is declared in the host config. This node's entry is what the config says, so
//! there is nothing to renew and nobody to defend it against.

use super::World;
use crate::cluster::fleet;
use crate::cluster::subnet::Subnet;
use crate::config::{Config, Store};
use crate::mac::Mac;
use crate::service::status::RenumberError;

impl World {
    /// Whether the leases are declared.
    pub(super) const fn is_declared(&self) -> bool {
        matches!(self.config.datastore.store, Store::Static(_))
    }

    /// The Ethernet address of the tunnel device that the others compute for this node.
    pub(super) fn declared_mac(&self, vni: u32) -> Option<Mac> {
        let name = self.config.node.name.as_deref();
        let name = name.filter(|_| self.is_declared())?;
        Some(fleet::vtep_mac(name, vni))
    }

    /// The host config was read again: of a fleet, its list is taken over. If only one of the two
    /// is a fleet, what comes with the datastore stays with the one in force until a restart.
    pub(super) fn redeclare(&mut self, config: &mut Config) {
        let declares = |config: &Config| matches!(config.datastore.store, Store::Static(_));
        match (declares(&self.config), declares(config)) {
            (true, true) => {
                self.config.datastore = config.datastore.clone();
                if config.node.name != self.config.node.name {
                    // another name takes a restart, and with it what is the other node's
                    config.node.public_ip = self.config.node.public_ip;
                    config.node.subnet = self.config.node.subnet;
                }
            }
            (false, false) => {}
            (true, false) | (false, true) => {
                config.node = self.config.node.clone();
                config.network.clone_from(&self.config.network);
            }
        }
    }

    /// In a fleet a node can only go where the config puts it.
    pub(super) fn may_be_renumbered(&self, asked: Option<Subnet>) -> Result<(), RenumberError> {
        let declared = self.config.node.subnet.filter(|_| self.is_declared());
        let Some(declared) = declared else {
            return Ok(());
        };
        if asked.is_none_or(|asked| asked == declared) && self.subnet() != Some(declared) {
            return Ok(());
        }
        Err(RenumberError::Failed(format!(
            "the fleet is declared in the config, which gives this node {declared}: to move it, \
             change its subnet in [datastore.nodes] on all nodes, reload them, and renumber it"
        )))
    }
}
