//! `[datastore]`: where the leases are.

use std::path::PathBuf;

use toml::Spanned;

use super::check::absolute;
use super::error::{Fault, nearest};
use super::raw::{self, Text};

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

impl raw::Datastore {
    pub(super) fn check(self) -> Result<Datastore, Fault> {
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
                let reason = "not in this version of flannel-rs, expected \"etcd\" or \"local\"";
                return Err(Fault::value(text, "type", reason));
            }
            Some((text, other)) => {
                let hint = nearest(other, ["etcd", "local"].into_iter())
                    .map(|near| format!("did you mean \"{near}\"? "))
                    .unwrap_or_default();
                let reason = format!("{hint}expected \"etcd\" or \"local\"");
                return Err(Fault::value(text, "type", &reason));
            }
        };
        Ok(Datastore { prefix, store })
    }

    fn local(self) -> Result<Local, Fault> {
        let endpoints = self.endpoints.as_ref().map(Spanned::span);
        let span = |text: &Text| text.as_ref().map(Spanned::span);
        for (key, span) in [
            ("endpoints", endpoints),
            ("ca-file", span(&self.ca_file)),
            ("cert-file", span(&self.cert_file)),
            ("key-file", span(&self.key_file)),
            ("username", span(&self.username)),
            ("password-file", span(&self.password_file)),
        ] {
            if let Some(span) = span {
                let message = format!(
                    "{key} does not go with type = \"local\", which is a file: \
                     remove it, or use type = \"etcd\""
                );
                return Err(Fault::new(span, message));
            }
        }
        let path = match &self.path {
            None => PathBuf::from("/var/lib/flannel-rs/store.json"),
            Some(text) => absolute(text, "path")?,
        };
        Ok(Local { path })
    }

    fn etcd(self) -> Result<Etcd, Fault> {
        if let Some(path) = &self.path {
            let message = "path goes with type = \"local\" only: an etcd is named by endpoints";
            return Err(Fault::new(path.span(), message));
        }
        let (cert, key) = (&self.cert_file, &self.key_file);
        let identity = match both(("cert-file", cert), ("key-file", key))? {
            None => None,
            Some((cert, key)) => Some(Identity {
                cert_file: absolute(cert, "cert-file")?,
                key_file: absolute(key, "key-file")?,
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
                password_file: absolute(password, "password-file")?,
            }),
        };
        let ca_file = self.ca_file.as_ref();
        let ca_file = ca_file.map(|text| absolute(text, "ca-file")).transpose()?;
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
