//! The network config: what the cluster agreed on.

use super::World;
use crate::cluster::datastore::{CONFIG, StoreError};
use crate::cluster::network::Network;
use crate::config::Store;
use crate::service::faults::Code;
use crate::service::journal::Occasion;

impl World {
    /// The network config was written, or somebody else was faster.
    pub(in crate::service) fn seeded(&mut self, result: Result<bool, StoreError>) {
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

    /// Takes over the network config if it can be used.
    pub(super) fn config_seen(&mut self) {
        self.refused = None;
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
        // a node that takes no part needs no place
        let own = self.subnet().filter(|_| !self.is_withdrawn());
        if let Some(own) = own.filter(|own| !network.allows(*own)) {
            let text = format!(
                "the network config has changed to {}, which has no place for {own}; the one \
                 before stays in force until this node is moved: flannel-rs renumber",
                network.net
            );
            self.faults.note(Code::RenumberRequired, Some(text));
            self.refused = Some(network);
            return;
        }
        self.faults.clear(Code::RenumberRequired);
        if self.network.as_ref() != Some(&network) {
            tracing::info!(
                message_id = Occasion::NetworkChanged.id(),
                network = %network.net,
                backend = network.backend.name(),
                revision = %self.view.revision(),
                "network config"
            );
            self.network = Some(network);
        }
    }

    /// The network config's key as other tools know it, and where it is.
    fn config_place(&self) -> String {
        let datastore = &self.config.datastore;
        match &datastore.store {
            Store::Etcd(_) => format!("{}/{CONFIG} in {}", datastore.prefix, self.store_name),
            Store::Local(_) => format!("in {}", self.store_name),
            Store::Static(_) => format!("of {}", self.store_name),
        }
    }
}
