//! What a node remembers over a restart: who it is, and which lease it wrote last.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files::{self, FileError};
use crate::cluster::allocate::Written;
use crate::cluster::datastore::Revision;
use crate::cluster::subnet::Subnet;
use crate::plan::previous_subnet;

/// The state folder.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    folder: PathBuf,
}

/// Who this node is.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// The node's name.
    pub(super) name: String,
    /// Its identity, 32 hexadecimal digits.
    pub(super) id: String,
    /// The lease that it wrote last, before this process.
    pub(super) last: Option<Written>,
    /// The subnet that it had according to `subnet.env`.
    pub(super) previous: Option<Subnet>,
}

/// `lease.json`.
#[derive(Serialize, Deserialize)]
struct LeaseFile {
    subnet: String,
    revision: i64,
    public_ip: Ipv4Addr,
}

impl Memory {
    /// The state folder at `folder`, which is made at the first write.
    #[must_use]
    pub(super) const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Who this node is, with `name` from the config, and the `subnet.env` that an earlier
    /// service may have left.
    #[must_use]
    pub(super) fn identity(&self, name: Option<&str>, subnet_env: &Path) -> Identity {
        let host_name = || nix::unistd::gethostname().ok()?.into_string().ok();
        let name = name.map(str::to_owned).or_else(host_name);
        let name = name.unwrap_or_else(|| "localhost".to_owned());
        let subnet_env = fs::read_to_string(subnet_env).ok();
        Identity {
            id: self.node_id(&name),
            name,
            last: self.last(),
            previous: subnet_env.as_deref().and_then(previous_subnet),
        }
    }

    /// Once kept it stays, also if the node is renamed. It is made from the machine id and the
    /// name, so that several nodes can live on one machine and a lost state folder gives the same
    /// identity again; the machine id itself is not to be published (machine-id(5)), so it goes
    /// through a hash.
    fn node_id(&self, name: &str) -> String {
        let known = fs::read_to_string(self.folder.join("node-id"));
        let known = known.map(|text| text.trim().to_owned());
        let valid = |id: &String| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(id) = known.ok().filter(valid) {
            return id;
        }
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let machine = match machine.trim() {
            // a container without one: any identity will do as long as it is kept
            "" => rand::random::<u128>().to_string(),
            id => id.to_owned(),
        };
        let digest = Sha256::new()
            .chain_update("flannel-rs node ")
            .chain_update(machine)
            .chain_update([0])
            .chain_update(name)
            .finalize();
        digest.iter().take(16).map(|b| format!("{b:02x}")).collect()
    }

    /// Keeps the identity for good.
    ///
    /// # Errors
    /// [`FileError`].
    pub(super) fn keep(&self, identity: &Identity) -> Result<(), FileError> {
        let text = format!("{}\n", identity.id);
        files::write(&self.folder.join("node-id"), &text).map(drop)
    }

    /// The lease that was written last, if any is known.
    fn last(&self) -> Option<Written> {
        let path = self.folder.join("lease.json");
        let text = fs::read_to_string(&path)
            .inspect_err(|error| {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read the last lease");
                }
            })
            .ok()?;
        let file: LeaseFile = serde_json::from_str(&text).ok()?;
        Some(Written {
            subnet: Subnet::from_key(&file.subnet).ok()?,
            revision: Revision(file.revision),
            public_ip: file.public_ip,
        })
    }

    /// Remembers the lease that was just written.
    ///
    /// # Errors
    /// [`FileError`]; the node will then be known by its public IP alone, as flanneld's are.
    pub(super) fn remember(&self, written: Written) -> Result<(), FileError> {
        let file = LeaseFile {
            subnet: written.subnet.key(),
            revision: written.revision.0,
            public_ip: written.public_ip,
        };
        let text = serde_json::to_string(&file).unwrap_or_default() + "\n";
        files::write(&self.folder.join("lease.json"), &text).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_stays_and_differs_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let env = folder.path().join("subnet.env");
        fs::write(&env, "FLANNEL_SUBNET=100.96.3.1/24\n").unwrap();
        let memory = Memory::new(folder.path().join("a"));
        let identity = memory.identity(Some("node1"), &env);
        assert_eq!(identity.id.len(), 32);
        assert_eq!(identity.previous, Subnet::from_key("100.96.3.0-24").ok());
        memory.keep(&identity).unwrap();
        assert_eq!(memory.identity(Some("renamed"), &env).id, identity.id);
        let other = Memory::new(folder.path().join("b"));
        assert_ne!(other.identity(Some("node2"), &env).id, identity.id);
    }

    #[test]
    fn the_last_lease_comes_back_and_nonsense_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path().to_owned());
        assert_eq!(memory.last(), None);
        let written = Written {
            subnet: Subnet::from_key("100.96.1.0-24").unwrap(),
            revision: Revision(7),
            public_ip: Ipv4Addr::new(192, 168, 1, 47),
        };
        memory.remember(written).unwrap();
        assert_eq!(memory.last(), Some(written));
        for text in ["", "{}", r#"{"subnet":"x","revision":1}"#] {
            fs::write(folder.path().join("lease.json"), text).unwrap();
            assert_eq!(memory.last(), None);
        }
    }
}
