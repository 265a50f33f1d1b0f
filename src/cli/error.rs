//! Why a command was not done, and the exit codes.

use std::io;
use std::path::PathBuf;

use crate::service::start::StartError;
use crate::service::status::State;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Nobody can be asked.
    #[error("there is no system bus: {0}; try `systemctl status dbus`")]
    NoBus(String),
    /// The bus knows no such name.
    #[error(
        "flannel-rs is not running: nobody on the bus is org.flannelrs.Flannel1; \
         try `systemctl status flannel-rs`"
    )]
    NotRunning,
    /// It is there, or was, but does not answer.
    #[error("flannel-rs does not answer: {0}; try `systemctl status flannel-rs`")]
    Silent(String),
    /// The service, polkit or the bus does not let this user do it.
    #[error("not permitted: {0}")]
    NotPermitted(String),
    /// The service answered that it did not do it.
    #[error("the service says: {0}")]
    Refused(String),
    /// The service answered that it cannot do this with these arguments.
    #[error("the service says: {0}")]
    Argument(String),
    /// The service answered in a way that this version does not understand.
    #[error(
        "the service's answer is not understood, is it of another version than this command? {0}"
    )]
    Answer(String),
    /// No peer is the one that was named.
    #[error("no peer is {0}; name one by its subnet, an address in it, or its public IP{1}")]
    NoPeer(String, String),
    /// The person who was asked did not say yes.
    #[error("nothing was changed")]
    Declined,
    /// systemd was to restart a unit.
    #[error("{unit} was not restarted: {cause}")]
    Unit {
        /// The unit.
        unit: &'static str,
        /// Why not, and what to do.
        cause: String,
    },
    /// No output.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// No file.
    #[error("cannot write {}: {cause}", path.display())]
    File {
        /// What was to be written.
        path: PathBuf,
        /// Why it was not.
        #[source]
        cause: io::Error,
    },
    /// No runtime.
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    /// The service could not start, or not be planned.
    #[error(transparent)]
    Service(#[from] StartError),
}

impl Error {
    pub(super) const fn exit_code(&self) -> u8 {
        match self {
            Self::NoBus(_) | Self::NotRunning | Self::Silent(_) => UNREACHABLE,
            Self::NotPermitted(_) => NOT_PERMITTED,
            Self::Argument(_) => USAGE,
            Self::NoPeer(..) => NO_PEER,
            Self::Service(error) => error.exit_code(),
            Self::Refused(_)
            | Self::Answer(_)
            | Self::Declined
            | Self::Unit { .. }
            | Self::Output(_)
            | Self::File { .. }
            | Self::Start(_) => FAILED,
        }
    }
}

/// What `status` exits with.
pub(super) const fn exit_code(state: State) -> u8 {
    match state {
        State::Running => DONE,
        State::Degraded => DEGRADED,
        State::Waiting | State::Withdrawn | State::Stopping => NOT_READY,
    }
}

pub(super) const DONE: u8 = 0;
const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
const DEGRADED: u8 = 3;
const NOT_READY: u8 = 4;
pub(super) const FINDINGS: u8 = 5;
/// `EX_NOHOST` of sysexits.h; the further ones are from there too.
const NO_PEER: u8 = 68;
const UNREACHABLE: u8 = 69;
/// The last four are those of [`StartError::exit_code`].
const REFUSED: u8 = 71;
const RUNNING_ALREADY: u8 = 75;
const NOT_PERMITTED: u8 = 77;
const CONFIG: u8 = 78;

/// Every exit code and what it says: for the help and the manual.
pub(super) const EXIT_CODES: &[(u8, &str)] = &[
    (DONE, "done; for status: the node is running"),
    (FAILED, "it went wrong, stderr says why"),
    (USAGE, "the arguments are wrong"),
    (
        DEGRADED,
        "status: the node forwards packets, but something is wrong",
    ),
    (
        NOT_READY,
        "status: the node is waiting for something, withdrawn, or stopping",
    ),
    (FINDINGS, "doctor: something is wrong on this host"),
    (NO_PEER, "peers: there is no such peer"),
    (
        UNREACHABLE,
        "the service or the bus is not there, or does not answer",
    ),
    (
        REFUSED,
        "daemon, plan, cleanup: the system refused something",
    ),
    (
        RUNNING_ALREADY,
        "daemon, cleanup: it is running already in this network namespace",
    ),
    (NOT_PERMITTED, "this user, or process, may not do that"),
    (CONFIG, "the config file is wrong"),
];
