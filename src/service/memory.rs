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
    /// The file with the machine's id.
    machine_id: PathBuf,
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

impl Identity {
    /// The subnet that the files for others speak of, if it was this service that wrote them: a
    /// lease of another subnet says that somebody else has written since.
    pub(super) fn left_behind(&self) -> Option<Subnet> {
        let ours = |subnet: &Subnet| self.last.is_none_or(|last| last.subnet == *subnet);
        self.previous.filter(ours)
    }
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
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            machine_id: "/etc/machine-id".into(),
        }
    }

    /// Who this node is, with `name` from the config, and the `subnet.env` that an earlier
    /// service may have left.
    #[must_use]
    pub(super) fn identity(&self, name: Option<&str>, subnet_env: &Path) -> Identity {
        let name = name.map_or_else(host_name, str::to_owned);
        let subnet_env = fs::read_to_string(subnet_env).ok();
        let ours = !self.is_foreign();
        if !ours {
            tracing::warn!(
                folder = %self.folder.display(),
                "the state folder was copied from another machine, by its machine-id; starting anew"
            );
        }
        Identity {
            id: self
                .kept_id()
                .filter(|_| ours)
                .unwrap_or_else(|| self.derived_id(&name)),
            name,
            last: self.last().filter(|_| ours),
            previous: subnet_env.as_deref().and_then(previous_subnet),
        }
    }

    /// Whether the folder comes from a machine with another machine id, as in a cloned disk whose
    /// machine id was renewed: its lease is that machine's then.
    fn is_foreign(&self) -> bool {
        let kept = fs::read_to_string(self.folder.join("machine"));
        let now = self.machine_id().map(|id| hash(["machine", &id, ""]));
        let kept = kept.map(|text| text.trim().to_owned());
        // what cannot be told is no reason to give up a lease
        kept.ok().zip(now).is_some_and(|(kept, now)| kept != now)
    }

    /// `None` in a container without one.
    fn machine_id(&self) -> Option<String> {
        let text = fs::read_to_string(&self.machine_id).ok()?;
        Some(text.trim().to_owned()).filter(|id| !id.is_empty())
    }

    /// Once kept it stays, also if the node is renamed.
    fn kept_id(&self) -> Option<String> {
        let text = fs::read_to_string(self.folder.join("node-id")).ok()?;
        Some(text.trim().to_owned()).filter(|id| is_hash(id))
    }

    /// Made from the machine id and the name, so that several nodes can live on one machine and a
    /// lost state folder gives the same identity again.
    fn derived_id(&self, name: &str) -> String {
        // without a machine id any identity will do as long as it is kept
        let random = || rand::random::<u128>().to_string();
        hash(["node", &self.machine_id().unwrap_or_else(random), name])
    }

    /// Keeps the identity for good.
    ///
    /// # Errors
    /// [`FileError`].
    pub(super) fn keep(&self, identity: &Identity) -> Result<(), FileError> {
        let path = self.folder.join("lease.json");
        if self.is_foreign() && fs::exists(&path).unwrap_or(true) {
            // before the folder becomes ours: it must not pass for our lease then
            fs::remove_file(&path).map_err(|source| FileError { path, source })?;
        }
        let text = format!("{}\n", identity.id);
        files::write(&self.folder.join("node-id"), &text)?;
        if let Some(machine) = self.machine_id() {
            let text = hash(["machine", &machine, ""]) + "\n";
            files::write(&self.folder.join("machine"), &text)?;
        }
        Ok(())
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

/// What the host calls itself.
pub(super) fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    let name = name.and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "localhost".to_owned())
}

/// 32 hexadecimal digits. The machine id itself is not to be published (machine-id(5)), so it goes
/// through this.
fn hash([what, machine, name]: [&str; 3]) -> String {
    let digest = Sha256::new()
        .chain_update(format!("flannel-rs {what} "))
        .chain_update(machine)
        .chain_update([0])
        .chain_update(name)
        .finalize();
    digest.iter().take(16).map(|b| format!("{b:02x}")).collect()
}

fn is_hash(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
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
    /// A disk that was cloned, with a machine id of its own or with the same one.
    #[test]
    fn a_state_folder_of_another_machine_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let (env, id) = (folder.path().join("env"), folder.path().join("id"));
        let memory = Memory {
            folder: folder.path().join("state"),
            machine_id: id.clone(),
        };
        let written = Written {
            subnet: Subnet::from_key("100.96.1.0-24").unwrap(),
            revision: Revision(7),
            public_ip: Ipv4Addr::new(192, 168, 1, 47),
        };
        fs::write(&id, "one\n").unwrap();
        let original = memory.identity(Some("node1"), &env);
        memory.keep(&original).unwrap();
        memory.remember(written).unwrap();
        for machine in ["one", "", " \n"] {
            fs::write(&id, machine).unwrap();
            let again = memory.identity(Some("node1"), &env);
            assert_eq!((again.id, again.last), (original.id.clone(), Some(written)));
        }
        fs::write(&id, "two\n").unwrap();
        for _ in 0..2 {
            let clone = memory.identity(Some("node1"), &env);
            assert_ne!(clone.id, original.id);
            assert_eq!(clone.last, None);
            memory.keep(&clone).unwrap();
        }
        memory.remember(written).unwrap();
        assert_eq!(memory.identity(Some("node1"), &env).last, Some(written));
    }

    /// Of a version that did not note the machine.
    #[test]
    fn a_state_folder_without_a_machine_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let id = "00112233445566778899aabbccddeeff";
        fs::write(folder.path().join("node-id"), id).unwrap();
        let memory = Memory::new(folder.path().to_owned());
        assert_eq!(memory.identity(Some("x"), Path::new("")).id, id);
    }
}
