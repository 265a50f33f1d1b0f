//! What the files of certificates and password say.
//!
//! They are read for each call: whoever rotates them need not tell the service. A connection
//! that was made with other contents is replaced.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use tokio::task::spawn_blocking;

use super::failure::{Cause, Failure};
use super::options::{Credentials, TlsFiles, refused};
use crate::cluster::datastore::StoreError;

/// More than any such file holds; what is read stays in memory.
const LARGEST_FILE: u64 = 1 << 20;
/// The limit for connecting, of which the TLS handshake is a part.
pub(super) const CONNECT: Duration = Duration::from_secs(3);

/// Where certificates and password are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) tls: Option<TlsFiles>,
    pub(super) credentials: Option<Credentials>,
}

/// What was there when a connection was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    tls: Option<Pems>,
    login: Option<Login>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pems {
    ca: Option<Secret>,
    /// Our certificate and its key.
    identity: Option<(Secret, Secret)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Login {
    username: String,
    password: Secret,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("«secret»")
    }
}

impl Files {
    /// Reads them.
    pub(super) fn read(&self) -> Result<Access, StoreError> {
        let login = |user: &Credentials| {
            let path = &user.password_file;
            let text = text(path).map_err(|error| {
                let doing = format!("cannot read the password of etcd in {}", path.display());
                refused(&doing, &error.to_string())
            })?;
            Ok(Login {
                username: user.username.clone(),
                // editors leave a line end
                password: Secret(text.trim_end_matches(['\r', '\n']).to_owned()),
            })
        };
        Ok(Access {
            tls: self.tls.as_ref().map(Pems::read).transpose()?,
            login: self.credentials.as_ref().map(login).transpose()?,
        })
    }

    /// Reads them beside the calls: a file may lie on a slow file system.
    pub(super) async fn read_again(&self) -> Result<Access, Failure> {
        let files = self.clone();
        match spawn_blocking(move || files.read()).await {
            Ok(Ok(access)) => Ok(access),
            Ok(Err(error)) => Err(Failure::new(Cause::Refused, error.to_string())),
            Err(error) => Err(Failure::new(Cause::Unreachable, error.to_string())),
        }
    }
}

impl Access {
    /// How to connect to an endpoint, without the login.
    ///
    /// The limits are those that the library does not set by itself. PINGs more often than every
    /// 5 s, and etcd cuts an idle watch (its `--grpc-keepalive-min-time`); a slow server gets as
    /// long for a PING as for anything else.
    pub(super) fn anonymous(&self, url: &str) -> ConnectOptions {
        let options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_keep_alive(Duration::from_secs(6), Duration::from_secs(3))
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if url.starts_with("https://") {
            options.with_tls(self.trust())
        } else {
            options
        }
    }

    /// How to connect to an endpoint and log in, if there is anybody to log in as.
    pub(super) fn logged_in(&self, url: &str) -> ConnectOptions {
        let options = self.anonymous(url);
        match &self.login {
            Some(login) => options.with_user(&login.username, &login.password.0),
            None => options,
        }
    }

    fn trust(&self) -> TlsOptions {
        let tls = TlsOptions::new();
        let Some(pems) = &self.tls else {
            return tls.with_native_roots();
        };
        let tls = match &pems.ca {
            Some(ca) => tls.ca_certificate(Certificate::from_pem(&ca.0)),
            None => tls.with_native_roots(),
        };
        match &pems.identity {
            Some((cert, key)) => tls.identity(Identity::from_pem(&cert.0, &key.0)),
            None => tls,
        }
    }
}

impl Pems {
    fn read(files: &TlsFiles) -> Result<Self, StoreError> {
        const CERTIFICATE: &str = "CERTIFICATE-----";
        let ca = files.ca.as_deref().map(|ca| pem(ca, CERTIFICATE));
        let identity = match (&files.cert, &files.key) {
            (Some(cert), Some(key)) => {
                Some((pem(cert, CERTIFICATE)?, pem(key, "PRIVATE KEY-----")?))
            }
            (None, None) => None,
            (Some(path), None) | (None, Some(path)) => {
                let reason = "a client certificate and its key go together, one is not given";
                return Err(refused(&path.display().to_string(), reason));
            }
        };
        Ok(Self {
            ca: ca.transpose()?,
            identity,
        })
    }
}

/// Reads a PEM file that has at least one block of a kind.
fn pem(path: &Path, kind: &str) -> Result<Secret, StoreError> {
    let doing = format!("reading {}", path.display());
    let text = match text(path) {
        Ok(text) => text,
        // no text at all is no PEM either
        Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
        Err(error) => return Err(refused(&doing, &error.to_string())),
    };
    if text.contains(kind) {
        return Ok(Secret(text));
    }
    let kind = kind.trim_end_matches('-').to_lowercase();
    Err(refused(&doing, &format!("not a PEM file with a {kind}")))
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(LARGEST_FILE)
        .read_to_string(&mut text)?;
    if read as u64 == LARGEST_FILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
