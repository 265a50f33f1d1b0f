//! How to reach etcd: endpoints, prefix, certificates, password.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use crate::cluster::datastore::StoreError;

/// Where etcd is and how to log in.
#[derive(Debug, Clone, Default)]
pub struct EtcdOptions {
    /// URLs such as `https://192.168.1.47:2379`, tried in order. Without a scheme it is `https`
    /// if there is [`EtcdOptions::tls`], else `http`.
    pub endpoints: Vec<String>,
    /// What the keys start with; flanneld's default is `/coreos.com/network`.
    pub prefix: String,
    /// Certificates. `https` without any trusts what the system trusts.
    pub tls: Option<TlsFiles>,
    /// User name and password.
    pub credentials: Option<Credentials>,
}

/// Certificates, as PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who may sign etcd's certificate; `None` is whom the system trusts.
    pub ca: Option<PathBuf>,
    /// Our certificate. Goes with [`TlsFiles::key`].
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// A user of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: Secret,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("«secret»")
    }
}

/// Limits that the library does not set by itself. PINGs more often than every 5 s, and etcd
/// cuts an idle watch (its `--grpc-keepalive-min-time`).
fn limits() -> ConnectOptions {
    ConnectOptions::new()
        .with_connect_timeout(Duration::from_secs(2))
        .with_keep_alive(Duration::from_secs(6), Duration::from_secs(2))
        .with_keep_alive_while_idle(true)
        .with_require_leader(true)
        .with_auto_token_refresh(true)
}

/// What to dial and how, per endpoint.
pub(super) fn dial(options: &EtcdOptions) -> Result<Vec<(String, ConnectOptions)>, StoreError> {
    if options.endpoints.is_empty() {
        return Err(refused("etcd", "no endpoints are given"));
    }
    let tls = match &options.tls {
        Some(files) => files.load()?,
        None => TlsOptions::new().with_native_roots(),
    };
    let dial = |text: &String| {
        let url = endpoint(text, options.tls.is_some())?;
        let secure = url.starts_with("https://");
        if !secure && options.tls.is_some() {
            let reason = "certificates are given but the endpoint is plain: write https://";
            return Err(refused(&url, reason));
        }
        let connect = if secure {
            limits().with_tls(tls.clone())
        } else {
            limits()
        };
        Ok((url, connect))
    };
    options.endpoints.iter().map(dial).collect()
}

impl TlsFiles {
    fn load(&self) -> Result<TlsOptions, StoreError> {
        const CERTIFICATE: &str = "CERTIFICATE-----";
        let mut tls = TlsOptions::new();
        tls = match &self.ca {
            Some(ca) => tls.ca_certificate(Certificate::from_pem(pem(ca, CERTIFICATE)?)),
            None => tls.with_native_roots(),
        };
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let cert = pem(cert, CERTIFICATE)?;
                Ok(tls.identity(Identity::from_pem(cert, pem(key, "PRIVATE KEY-----")?)))
            }
            (None, None) => Ok(tls),
            (Some(path), None) | (None, Some(path)) => {
                let reason = "a client certificate and its key go together, one is not given";
                Err(refused(&path.display().to_string(), reason))
            }
        }
    }
}

/// Reads a PEM file that has at least one block of a kind.
fn pem(path: &Path, kind: &str) -> Result<Vec<u8>, StoreError> {
    let doing = format!("reading {}", path.display());
    let bytes = std::fs::read(path).map_err(|e| refused(&doing, &e.to_string()))?;
    let found = std::str::from_utf8(&bytes).is_ok_and(|text| text.contains(kind));
    if found {
        return Ok(bytes);
    }
    let kind = kind.trim_end_matches('-').to_lowercase();
    Err(refused(&doing, &format!("not a PEM file with a {kind}")))
}

/// The URL of an endpoint, with scheme and port.
fn endpoint(text: &str, tls: bool) -> Result<String, StoreError> {
    let text = text.trim().trim_end_matches('/');
    let (scheme, authority) = match text.split_once("://") {
        Some((scheme, authority)) => (scheme.to_ascii_lowercase(), authority),
        None if tls => ("https".to_owned(), text),
        None => ("http".to_owned(), text),
    };
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    let host_is_fine = !host.is_empty() && (bracketed || host.chars().all(allowed));
    let port_is_fine = port.parse::<u16>().is_ok_and(|port| port != 0);
    if !matches!(scheme.as_str(), "http" | "https") || !host_is_fine || !port_is_fine {
        let shown: String = text
            .rsplit('@')
            .next()
            .unwrap_or("")
            .chars()
            .take(100)
            .collect();
        let reason = "not an endpoint such as https://192.168.1.47:2379";
        return Err(refused(&format!("etcd endpoint {shown:?}"), reason));
    }
    Ok(format!("{scheme}://{authority}"))
}

fn refused(doing: &str, reason: &str) -> StoreError {
    StoreError::Refused {
        doing: doing.to_owned(),
        reason: reason.to_owned(),
    }
}

/// What comes before a key: the prefix cleaned as Go's `path.Join` does it, and a slash.
///
/// `//a/./b/../c/` gives `/a/c/`. No leading slash is added where there is none: to etcd it is
/// another key (flannel facts §2.1).
pub(super) fn folder(prefix: &str) -> String {
    let rooted = prefix.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in prefix.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let root = if rooted { "/" } else { "" };
    parts
        .iter()
        .fold(root.to_owned(), |folder, part| folder + part + "/")
}

#[cfg(test)]
mod tests;
