//! The host config: what this host should be.
//!
//! A TOML text becomes a [`Config`] in two steps. `raw` is the shape, read strictly by serde
//! with the position of every value; the checks beside it turn that shape into types which
//! cannot hold nonsense, and point at the offending text where they refuse. Neither does I/O, so
//! `flannel-rs check FILE` says the same on every host.

mod check;
mod datastore;
mod error;
mod fleet;
mod network;
mod node;
mod raw;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use check::log_level;
pub use datastore::{CredentialError, Datastore, Etcd, Identity, Local, Store, User};
pub use error::ConfigError;
pub use node::{Interface, Node, Pattern};

use crate::cluster::network::Network;
use crate::kernel::firewall::Wishes;
use crate::proxy::Tuning;

/// What this host should be. The empty file is a valid one and means every default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This host within the cluster.
    pub node: Node,
    /// Where the leases are.
    pub datastore: Datastore,
    /// What to write to a datastore that holds no network config; never over another. A fleet
    /// has no other.
    pub network: Option<Network>,
    /// The containers' bridge.
    pub docker: Docker,
    /// What is wanted of the packet filter.
    pub firewall: Wishes,
    /// What may be done to the host besides.
    pub host: Host,
    /// How the udp backend moves packets.
    pub udp: Tuning,
    /// How long the lease lasts and when it is renewed.
    pub lease: Lease,
    /// Where this service writes.
    pub paths: Paths,
    /// What is logged.
    pub log: Log,
}

/// The containers' bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// Whether this service creates the bridge and gives it its address.
    pub manage_bridge: bool,
    /// The bridge's interface name.
    pub bridge: String,
    /// Where dockerd's options go in the form of its `daemon.json`, if anywhere; absolute, and
    /// not `/etc/docker/daemon.json`, which is the administrator's.
    pub daemon_json: Option<PathBuf>,
}

/// What may be done to the host besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Host {
    /// Whether forwarding and the reverse path filter of the links that packets take are put
    /// right, and not only pointed out.
    pub repair: bool,
}

/// How long the lease lasts and when it is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// What is asked of the datastore: whole seconds, from 2 s to etcd's limit of
    /// 9,000,000,000 s.
    pub ttl: Duration,
    /// How long before its end a lease is renewed: above zero and below `ttl`.
    pub renew_margin: Duration,
}

/// Where this service writes; all absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The folder of the node's identity and its last lease.
    pub state: PathBuf,
    /// flannel's `subnet.env`, which the CNI plugin reads.
    pub subnet_env: PathBuf,
    /// Docker's options.
    pub docker_env: PathBuf,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// `tracing` directives, separated by commas: a level such as `info`, or `target=level`.
    pub level: String,
}

impl Config {
    /// Where files for other programs go.
    pub fn files_for_others(&self) -> impl Iterator<Item = &PathBuf> {
        let paths = [&self.paths.subnet_env, &self.paths.docker_env];
        paths.into_iter().chain(&self.docker.daemon_json)
    }

    /// Where the config is when no other file is named.
    pub const FILE: &str = "/etc/flannel-rs/config.toml";

    /// A config that is larger is refused unread; all options of the service fit in 4 kB.
    const MAX_BYTES: u64 = 1 << 20;

    /// Reads the config in `file`, for no host in particular: in a fleet, a node that has no name
    /// in it is not looked for.
    ///
    /// # Errors
    /// When the file cannot be read, is not text, or is not a valid config. None of these goes
    /// away by itself: the process should end with `EX_CONFIG` (78), which the unit file takes
    /// as "do not restart".
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(&Self::read(file)?, file)
    }

    /// Reads the config in `file` on the host with this name. In a fleet, `node` then has this
    /// node's name, public IP and subnet, as the fleet has them.
    ///
    /// # Errors
    /// As [`Config::load`], and when the fleet has no such node.
    pub fn load_on(host: &str, file: &Path) -> Result<Self, ConfigError> {
        Self::parse_on(Some(host), &Self::read(file)?, file)
    }

    fn read(file: &Path) -> Result<String, ConfigError> {
        let unread = |e: &std::io::Error| {
            ConfigError::whole_file(file, format!("the config cannot be read: {e}"))
        };
        let mut bytes = Vec::new();
        std::fs::File::open(file)
            .and_then(|open| open.take(Self::MAX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|e| unread(&e))?;
        if bytes.len() as u64 > Self::MAX_BYTES {
            let message = "larger than 1 MiB: this is no config of flannel-rs".to_owned();
            return Err(ConfigError::whole_file(file, message));
        }
        String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            let line = 1 + e.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
            let message = format!("line {line} is not UTF-8 text, which TOML has to be");
            ConfigError::whole_file(file, message)
        })
    }

    /// Reads the config in `text`; `file` is named in errors and not touched.
    ///
    /// # Errors
    /// The first thing that is wrong, with its position and what would be right.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        Self::parse_on(None, text, file)
    }

    fn parse_on(host: Option<&str>, text: &str, file: &Path) -> Result<Self, ConfigError> {
        toml::from_str::<raw::Config>(text)
            .map_err(|e| error::Fault::from_toml(text, &e))
            .and_then(|raw| raw.check(host))
            .map_err(|fault| fault.in_text(text, file))
    }
}

#[cfg(test)]
mod tests;
