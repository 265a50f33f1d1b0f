//! `[datastore]`: where the leases are.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::check::absolute;
use super::error::{Fault, nearest};
use super::fleet;
use super::raw::{self, Text};
use crate::cluster::fleet::Roster;
use crate::cluster::network::Network;

/// Where the leases are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datastore {
    /// All keys lie below; not empty, without a slash at its end. `/a` and `a` differ.
    pub prefix: String,
    /// What keeps them.
    pub store: Store,
}

/// What keeps the leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// An etcd cluster, version 3.
    Etcd(Etcd),
    /// A file, for the nodes of one machine.
    Local(Local),
    /// Nothing: the leases are declared here, the same on every host.
    Static(Roster),
}

/// How to reach an etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// `http://` or `https://` URLs, at least one, without user, path and query.
    pub endpoints: Vec<String>,
    /// What signs the servers' certificates; `None` is the system's roots.
    pub ca_file: Option<PathBuf>,
    /// What this host shows the servers.
    pub identity: Option<Identity>,
    /// Whom to log in as.
    pub user: Option<User>,
}

/// A path names a credential, and there are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{key} = \"{}\" names a systemd credential, but $CREDENTIALS_DIRECTORY is not set: start the \
     service by a unit with LoadCredential={}:FILE, or give the path of the file",
    path.display(), path.file_name().unwrap_or_default().display()
)]
pub struct CredentialError {
    key: &'static str,
    path: PathBuf,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, PEM.
    pub cert_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
}

/// An etcd user. The password itself never is in a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// The file that holds the password and nothing else.
    pub password_file: PathBuf,
}

/// A file as datastore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The file.
    pub path: PathBuf,
}

impl Etcd {
    /// The same with each path below `%d/` moved to the folder of the unit's credentials, which
    /// is `$CREDENTIALS_DIRECTORY` (systemd.exec(5), and `%d` in systemd.unit(5)).
    ///
    /// # Errors
    /// When there is such a path and no folder.
    pub fn with_credentials(mut self, folder: Option<&Path>) -> Result<Self, CredentialError> {
        let identity = self.identity.iter_mut();
        let identity = identity.flat_map(|identity| {
            [
                ("cert-file", &mut identity.cert_file),
                ("key-file", &mut identity.key_file),
            ]
        });
        let ca = self.ca_file.iter_mut().map(|path| ("ca-file", path));
        let user = self.user.iter_mut();
        let password = user.map(|user| ("password-file", &mut user.password_file));
        for (key, path) in ca.chain(identity).chain(password) {
            let Ok(name) = path.strip_prefix(CREDENTIALS) else {
                continue;
            };
            let Some(folder) = folder else {
                let path = path.clone();
                return Err(CredentialError { key, path });
            };
            *path = folder.join(name);
        }
        Ok(self)
    }
}

/// What stands for the folder of credentials in a path, as in unit files.
const CREDENTIALS: &str = "%d";

impl raw::Datastore {
    pub(super) fn check(self, network: Option<&Network>) -> Result<Datastore, Fault> {
        const TYPES: &str = "expected \"etcd\", \"local\" or \"static\"";
        let prefix = match &self.prefix {
            None => "/coreos.com/network".to_owned(),
            Some(text) => prefix(text)?,
        };
        let kind = self
            .kind
            .as_ref()
            .map(|kind| (kind, kind.get_ref().as_str()));
        let store = match kind {
            None | Some((_, "etcd")) => Store::Etcd(self.etcd()?),
            Some((_, "local")) => Store::Local(self.local()?),
            Some((text, "static")) => {
                self.refuse("\"static\", which is the list of nodes", &["nodes"])?;
                Store::Static(fleet::roster(text, &self.nodes, network)?)
            }
            Some((text, other)) => {
                let hint = nearest(other, ["etcd", "local", "static"].into_iter())
                    .map(|near| format!("did you mean \"{near}\"? "))
                    .unwrap_or_default();
                return Err(Fault::value(text, "type", &format!("{hint}{TYPES}")));
            }
        };
        Ok(Datastore { prefix, store })
    }

    fn local(self) -> Result<Local, Fault> {
        self.refuse("\"local\", which is a file", &["path", "prefix"])?;
        let path = match &self.path {
            None => PathBuf::from("/var/lib/flannel-rs/store.json"),
            Some(text) => absolute(text, "path")?,
        };
        Ok(Local { path })
    }

    /// Errs at the first key that a datastore of this kind does not have.
    fn refuse(&self, kind: &str, own: &[&str]) -> Result<(), Fault> {
        fn span<T>(value: &Option<Spanned<T>>) -> Option<Range<usize>> {
            value.as_ref().map(Spanned::span)
        }
        let given = [
            ("endpoints", span(&self.endpoints)),
            ("prefix", span(&self.prefix)),
            ("path", span(&self.path)),
            ("ca-file", span(&self.ca_file)),
            ("cert-file", span(&self.cert_file)),
            ("key-file", span(&self.key_file)),
            ("username", span(&self.username)),
            ("password-file", span(&self.password_file)),
            ("nodes", fleet::place(&self.nodes)),
        ];
        let mut foreign = given.into_iter().filter(|(key, _)| !own.contains(key));
        let Some((key, span)) = foreign.find_map(|(key, span)| Some((key, span?))) else {
            return Ok(());
        };
        let whose = match key {
            "nodes" => "static",
            "path" => "local",
            _ => "etcd",
        };
        let message =
            format!("{key} does not go with type = {kind}: remove it, or use type = \"{whose}\"");
        Err(Fault::new(span, message))
    }

    fn etcd(self) -> Result<Etcd, Fault> {
        if let Some(path) = &self.path {
            let message = "path goes with type = \"local\" only: an etcd is named by endpoints";
            return Err(Fault::new(path.span(), message));
        }
        if let Some(span) = fleet::place(&self.nodes) {
            let message = "nodes goes with type = \"static\" only: an etcd holds the leases itself";
            return Err(Fault::new(span, message));
        }
        let (cert, key) = (&self.cert_file, &self.key_file);
        let identity = match both(("cert-file", cert), ("key-file", key))? {
            None => None,
            Some((cert, key)) => Some(Identity {
                cert_file: secret(cert, "cert-file")?,
                key_file: secret(key, "key-file")?,
            }),
        };
        let (name, password) = (&self.username, &self.password_file);
        let user = match both(("username", name), ("password-file", password))? {
            None => None,
            Some((name, _)) if name.get_ref().is_empty() => {
                return Err(Fault::value(name, "username", "expected a name"));
            }
            Some((name, password)) => Some(User {
                name: name.get_ref().clone(),
                password_file: secret(password, "password-file")?,
            }),
        };
        let ca_file = self.ca_file.as_ref();
        let ca_file = ca_file.map(|text| secret(text, "ca-file")).transpose()?;
        let endpoints = self.endpoints()?;
        Ok(Etcd {
            endpoints,
            ca_file,
            identity,
            user,
        })
    }

    fn endpoints(&self) -> Result<Vec<String>, Fault> {
        const EXAMPLE: &str = "expected at least one URL such as \"https://192.168.1.47:2379\"";
        let endpoints = match &self.endpoints {
            None => vec!["http://127.0.0.1:2379".to_owned()],
            Some(list) if list.get_ref().is_empty() => {
                return Err(Fault::value(list, "endpoints", EXAMPLE));
            }
            Some(list) => (list.get_ref().iter().map(endpoint)).collect::<Result<_, _>>()?,
        };
        let plain = endpoints.iter().find(|url| url.starts_with("http:"));
        for (key, text) in [("ca-file", &self.ca_file), ("cert-file", &self.cert_file)] {
            if let (Some(text), Some(url)) = (text, plain) {
                let message = format!(
                    "{key} would not be used for the endpoint \"{url}\": \
                     write https:// in all endpoints, or remove it"
                );
                return Err(Fault::new(text.span(), message));
            }
        }
        Ok(endpoints)
    }
}

/// An absolute path, or `%d/` and the name of a credential, which systemd allows no slash in.
fn secret(text: &Spanned<String>, key: &str) -> Result<PathBuf, Fault> {
    let path = Path::new(text.get_ref());
    let Ok(name) = path.strip_prefix(CREDENTIALS) else {
        return absolute(text, key);
    };
    let name = name.to_str().unwrap_or_default();
    if name.is_empty() || name == ".." || name.contains(['/', '\0', ':']) {
        let reason = "expected %d/ and the name of a credential, such as \"%d/etcd-key\"";
        return Err(Fault::value(text, key, reason));
    }
    Ok(path.to_owned())
}

type Named<'a> = (&'static str, &'a Text);
type Pair<'a> = (&'a Spanned<String>, &'a Spanned<String>);

/// Two keys that need each other.
fn both<'a>(first: Named<'a>, second: Named<'a>) -> Result<Option<Pair<'a>>, Fault> {
    let alone = |text: &Spanned<String>, key, missing| {
        let message = format!("{key} is of no use without {missing}: give both or neither");
        Err(Fault::new(text.span(), message))
    };
    match (first.1, second.1) {
        (None, None) => Ok(None),
        (Some(one), Some(two)) => Ok(Some((one, two))),
        (Some(one), None) => alone(one, first.0, second.0),
        (None, Some(two)) => alone(two, second.0, first.0),
    }
}

/// Cleaned as Go's `path.Join` does it in flanneld, so that both mean the same keys.
fn prefix(text: &Spanned<String>) -> Result<String, Fault> {
    let words: Vec<&str> = (text.get_ref().split('/'))
        .filter(|word| !word.is_empty())
        .collect();
    let odd = |word: &&str| matches!(*word, "." | "..") || word.contains(char::is_control);
    if words.is_empty() || words.iter().any(odd) {
        let reason = "expected a key such as \"/coreos.com/network\"";
        return Err(Fault::value(text, "prefix", reason));
    }
    let slash = if text.get_ref().starts_with('/') {
        "/"
    } else {
        ""
    };
    Ok(format!("{slash}{}", words.join("/")))
}

fn endpoint(text: &Spanned<String>) -> Result<String, Fault> {
    const REASON: &str = "expected a URL such as \"https://192.168.1.47:2379\"";
    let error = || Fault::value(text, "endpoint", REASON);
    let url = text.get_ref().trim_end_matches('/');
    if url.contains('@') {
        let message = "an endpoint holds no user and password: use username and password-file";
        return Err(Fault::new(text.span(), message));
    }
    let (scheme, rest) = url.split_once("://").ok_or_else(error)?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (rest, None),
    };
    // `parse` alone would take a plus sign
    let digits = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let port_fits =
        port.is_none_or(|port| digits(port) && port.parse::<u16>().is_ok_and(|port| port > 0));
    let host_fits = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.chars().all(fits)
        }
    };
    if !matches!(scheme, "http" | "https") || !port_fits || !host_fits {
        return Err(error());
    }
    Ok(url.to_owned())
}
