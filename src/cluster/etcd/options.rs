//! How to reach etcd: endpoints, prefix, certificates, password.

use std::path::PathBuf;

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

/// Certificates, as PEM files. Read anew for each connection, so they may be rotated.
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
    /// The file that holds the user's password and nothing else; a line end does not count.
    pub password_file: PathBuf,
}

/// The URLs of the endpoints.
pub(super) fn urls(options: &EtcdOptions) -> Result<Vec<String>, StoreError> {
    if options.endpoints.is_empty() {
        return Err(refused("etcd", "no endpoints are given"));
    }
    let url = |text: &String| {
        let url = endpoint(text, options.tls.is_some())?;
        if !url.starts_with("https://") && options.tls.is_some() {
            let reason = "certificates are given but the endpoint is plain: write https://";
            return Err(refused(&url, reason));
        }
        Ok(url)
    };
    options.endpoints.iter().map(url).collect()
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

pub(super) fn refused(doing: &str, reason: &str) -> StoreError {
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
