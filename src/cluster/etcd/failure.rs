//! What went wrong at an endpoint, in one line.
//!
//! The client library's errors nest six deep and name types. What matters to a person is the
//! innermost one, and to the code whether the next endpoint may do better.

use std::time::Duration;

use etcd_client::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster::datastore::StoreError;

/// The limit for finding out why a connection ends.
const EXAMINATION: Duration = Duration::from_millis(500);

/// gRPC status codes, as numbered in its specification.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const DATA_LOSS: i32 = 15;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// Who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Another endpoint, or time.
    Unreachable,
    /// Another endpoint, or whoever set up TLS.
    Misfit,
    /// Whoever set up the cluster.
    Refused,
    /// Whoever set up the cluster: a login was sent and it has none.
    NoLogin,
    /// Whoever runs etcd: it takes no more writes.
    Full,
    /// A new list.
    Compacted,
    /// Whoever wrote what is there.
    Corrupt,
}

/// One endpoint's failure, or that of all.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    pub(super) reason: String,
    stage: Stage,
}

/// How far a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There was nobody to take it.
    Unsent,
    /// Nor anybody to say so.
    Unreached,
    /// The connection ended, whenever that was.
    Cut,
    /// The server said no.
    Answered,
    /// It was sent and that was that.
    Silent,
}

impl Failure {
    pub(super) fn new(cause: Cause, reason: String) -> Self {
        Self {
            cause,
            reason,
            stage: Stage::Answered,
        }
    }

    pub(super) fn no_answer(limit: Duration) -> Self {
        let reason = format!("no answer in {} s", limit.as_secs());
        Self::new(Cause::Unreachable, reason).in_stage(Stage::Silent)
    }

    const fn in_stage(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// Whether it may have been carried out all the same.
    pub(super) fn is_unsure(&self) -> bool {
        match self.stage {
            Stage::Unsent | Stage::Unreached => false,
            Stage::Cut | Stage::Answered | Stage::Silent => self.cause == Cause::Unreachable,
        }
    }

    /// Whether it took no time, so that another try does no harm.
    pub(super) fn is_quick(&self) -> bool {
        match self.stage {
            Stage::Unsent | Stage::Cut | Stage::Answered => self.cause == Cause::Unreachable,
            Stage::Unreached | Stage::Silent => false,
        }
    }

    /// The failure of all endpoints.
    pub(super) fn of_all(failures: impl Iterator<Item = Self>) -> Self {
        let mut all = Self::new(Cause::Unreachable, String::new());
        for failure in failures {
            if all.reason.is_empty() {
                all.reason = failure.reason;
            } else {
                all.reason = format!("{}; {}", all.reason, failure.reason);
            }
            // what somebody must act upon outweighs what may pass
            if failure.cause != Cause::Unreachable {
                all.cause = failure.cause;
            }
        }
        all
    }

    /// Whether every endpoint would say the same.
    pub(super) fn concerns_all(&self) -> bool {
        match self.cause {
            Cause::Unreachable | Cause::Misfit => false,
            Cause::Refused | Cause::NoLogin | Cause::Full | Cause::Compacted | Cause::Corrupt => {
                true
            }
        }
    }

    /// Whether a new connection, with a new login, may do better.
    pub(super) const fn blames_connection(&self) -> bool {
        match self.cause {
            Cause::Unreachable | Cause::Misfit | Cause::Refused | Cause::NoLogin => true,
            Cause::Full | Cause::Compacted | Cause::Corrupt => false,
        }
    }

    /// Names the endpoint.
    pub(super) fn at(mut self, endpoint: &str) -> Self {
        self.reason = format!("etcd at {endpoint}: {}", self.reason);
        self
    }

    pub(super) fn while_doing(self, doing: &str) -> StoreError {
        let (doing, reason) = (doing.to_owned(), self.reason);
        match self.cause {
            Cause::Unreachable | Cause::Compacted => StoreError::Unavailable { doing, reason },
            Cause::Misfit | Cause::Refused | Cause::NoLogin | Cause::Full => {
                StoreError::Refused { doing, reason }
            }
            Cause::Corrupt => StoreError::Corrupt { doing, reason },
        }
    }

    /// Looks why a connection ended again and again: no error tells plain text from TLS, or
    /// that a client certificate is missing (TLS 1.3 says so when it seems to be over).
    pub(super) async fn examined(self, endpoint: &str) -> Self {
        if self.stage != Stage::Cut || self.cause != Cause::Unreachable {
            return self;
        }
        let Some((scheme, address)) = endpoint.split_once("://") else {
            return self;
        };
        let reason = match (scheme, language(address).await) {
            ("http", Some(Language::Tls)) => "it speaks TLS: write https:// and give its CA",
            ("https", Some(Language::Plain)) => "it does not speak TLS: write http://",
            ("https", Some(Language::Tls)) => {
                "it ends TLS connections: it wants a client certificate, or another one"
            }
            _ => return self,
        };
        Self::new(Cause::Misfit, reason.to_owned())
    }
}

enum Language {
    Plain,
    Tls,
}

/// What a server speaks, by what it says to either beginning of a talk.
async fn language(address: &str) -> Option<Language> {
    // a ClientHello without content: any TLS server answers with an alert (RFC 8446 §5.1, §6)
    let tls = first_words::<2>(address, &[22, 3, 1, 0, 4, 1, 0, 0, 0]);
    let plain = first_words::<5>(address, b"GET /version HTTP/1.0\r\n\r\n");
    match tokio::join!(timeout(EXAMINATION, tls), timeout(EXAMINATION, plain)) {
        (Ok(Some([21, 3])), _) => Some(Language::Tls),
        (_, Ok(Some(words))) if words == *b"HTTP/" => Some(Language::Plain),
        _ => None,
    }
}

/// The first bytes that a server says to `greeting`.
async fn first_words<const N: usize>(address: &str, greeting: &[u8]) -> Option<[u8; N]> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(greeting).await.ok()?;
    let mut words = [0; N];
    stream.read_exact(&mut words).await.ok()?;
    Some(words)
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        match error {
            Error::GRpcStatus(status) => match std::error::Error::source(status) {
                Some(source) => of_connection(&innermost(source)),
                None => of_status(i32::from(status.code()), status.message()),
            },
            Error::TransportError(error) => of_connection(&innermost(error)),
            Error::InvalidArgs(text) | Error::Internal(text) | Error::EndpointError(text) => {
                of_connection(text)
            }
            Error::InvalidUri(_)
            | Error::IoError(_)
            | Error::WatchError(_)
            | Error::Utf8Error(_)
            | Error::LeaseKeepAliveError(_)
            | Error::ElectError(_)
            | Error::InvalidMetadataValue(_)
            | Error::EndpointsNotManaged => of_connection(&error.to_string()),
        }
    }
}

/// By what etcd answered.
fn of_status(code: i32, text: &str) -> Failure {
    let has = |part: &str| text.contains(part);
    let hint = |cause, hint: &str| Failure::new(cause, format!("{}: {hint}", line(text)));
    match code {
        _ if has("authentication is not enabled") => {
            hint(Cause::NoLogin, "a user is configured, but etcd has none")
        }
        // the server forgot our session, or logins were switched on: a new client helps
        _ if has("auth store is old") || has("invalid auth token") => {
            Failure::new(Cause::Unreachable, line(text))
        }
        code::INVALID_ARGUMENT if has("user name is empty") => {
            hint(Cause::Refused, "give a user name and a password")
        }
        code::INVALID_ARGUMENT if has("authentication failed") => {
            hint(Cause::Refused, "check user name and password")
        }
        code::PERMISSION_DENIED => hint(Cause::Refused, "the user may not use the prefix"),
        code::UNAUTHENTICATED => hint(Cause::Refused, "check user name and password"),
        code::UNIMPLEMENTED => hint(Cause::Misfit, "not an etcd with the v3 API"),
        code::RESOURCE_EXHAUSTED if has("database space exceeded") => {
            let reason = "etcd is out of space: compact and defragment it, then run \
                          etcdctl alarm disarm";
            Failure::new(Cause::Full, reason.to_owned())
        }
        code::OUT_OF_RANGE if has("compacted") => Failure::new(Cause::Compacted, line(text)),
        code::OUT_OF_RANGE if has("too large") => hint(
            Cause::Corrupt,
            "something else than leases lies under the prefix",
        ),
        code::DATA_LOSS => Failure::new(Cause::Corrupt, line(text)),
        code::INVALID_ARGUMENT | code::FAILED_PRECONDITION => {
            Failure::new(Cause::Refused, line(text))
        }
        _ => Failure::new(Cause::Unreachable, line(text)),
    }
}

/// By what the connection's error says; its types belong to crates that are not ours to name.
fn of_connection(text: &str) -> Failure {
    let has = |part: &str| text.contains(part);
    let misfit = |hint: &str| Failure::new(Cause::Misfit, format!("{}: {hint}", line(text)));
    if has("UnknownIssuer") {
        misfit("no CA that we trust has signed its certificate, check the CA file")
    } else if has("invalid peer certificate") {
        misfit("its certificate does not fit this endpoint")
    } else if has("InvalidContentType") || has("corrupt message") {
        misfit("it does not speak TLS: write http://")
    } else if has("fatal alert") {
        misfit("it does not take our client certificate, or wants one")
    } else if has("keys may not be consistent") {
        let reason = "our certificate and its key do not go together";
        Failure::new(Cause::Misfit, reason.to_owned())
    } else if has("close_notify") {
        Failure::new(Cause::Unreachable, "it ended the connection".to_owned()).in_stage(Stage::Cut)
    } else if has("native certs") || has("NativeCertsNotFound") {
        misfit("the system trusts no CA: give one")
    } else if has("PEM") || has("private key") || has("certificate") || has("InvalidArgs") {
        misfit("check the certificate files")
    } else {
        // An unreachable network or host may also end a connection that carried the request.
        let unreachable = |text| Failure::new(Cause::Unreachable, line(text));
        if has("refused") || has("dns error") {
            unreachable(text).in_stage(Stage::Unsent)
        } else if has("deadline has elapsed") {
            unreachable("nobody answers there").in_stage(Stage::Unreached)
        } else if has("timed out") {
            unreachable(text).in_stage(Stage::Silent)
        } else {
            unreachable(text).in_stage(Stage::Cut)
        }
    }
}

/// The deepest cause: the outer ones repeat it or name types.
fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> String {
    let mut error: &'a (dyn std::error::Error + 'static) = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// One line of at most 200 characters, in our spelling.
pub(super) fn line(text: &str) -> String {
    let text = text.strip_prefix("etcdserver: ").unwrap_or(text);
    let text = text.split(" (os error").next().unwrap_or(text);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text.chars().take(200).collect();
    let mut characters = text.chars();
    match (characters.next(), characters.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(characters).collect()
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests;
