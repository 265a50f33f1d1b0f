//! The command line. `daemon` runs the service, `check` and `plan --config` work without one; the
//! rest talks to the running one over D-Bus and knows nothing else of it.

mod bus;
mod output;
mod status;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::service::start::{self, StartError};
use crate::service::status::{PlannedChange, State};

/// The arguments of `flannel-rs`.
#[derive(Debug, Parser)]
#[command(name = "flannel-rs", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run the service in the foreground
    #[command(after_help = EXIT_CODES)]
    Daemon {
        /// The host config
        #[arg(long, value_name = "FILE", default_value = Config::FILE)]
        config: PathBuf,
    },
    /// Check a config file; silent if it is right
    #[command(after_help = EXIT_CODES)]
    Check {
        /// The host config
        #[arg(value_name = "FILE", default_value = Config::FILE)]
        file: PathBuf,
    },
    /// Print what the service would change in the kernel right now, and change nothing
    ///
    /// One line per change. Prints nothing when there is nothing to change.
    #[command(after_help = EXIT_CODES)]
    Plan {
        /// Plan for a fresh service with this host config, instead of asking the running one
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show how this node is: its lease, its health, its peers
    #[command(after_help = EXIT_CODES)]
    Status {
        /// Print all that the service knows, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Give this node's subnet up and take another; its containers have to be started again
    ///
    /// Without a subnet it takes the one that is called for: one of a changed network, the one
    /// that the host config or a reservation asks for, or any but one that somebody else has
    /// taken. Prints the new subnet.
    #[command(after_help = EXIT_CODES)]
    Renumber {
        /// The subnet to take, such as 100.96.3.0/24
        subnet: Option<String>,
    },
}

/// Does what the arguments say and answers with the exit code. Errors go to stderr, in
/// one line; those of a config are followed by the place.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    ExitCode::from(perform(cli.task).unwrap_or_else(|error| {
        if let Error::Service(StartError::Config(error)) = &error {
            output::point_out(error);
        } else {
            output::complain(&error.to_string());
        }
        error.exit_code()
    }))
}

fn perform(task: Task) -> Result<u8, Error> {
    match task {
        Task::Daemon { config } => {
            start::run(&config)?;
            Ok(DONE)
        }
        Task::Check { file } => {
            Config::load(&file).map_err(StartError::from)?;
            Ok(DONE)
        }
        Task::Plan { config: None } => print_plan(&bus::plan()?),
        Task::Plan {
            config: Some(config),
        } => print_plan(&start::plan(&config)?),
        Task::Status { json: false } => status::for_people(),
        Task::Status { json: true } => status::as_json(),
        Task::Renumber { subnet } => {
            let subnet = bus::renumber(subnet.as_deref().unwrap_or_default())?;
            output::print(&format!("{}\n", output::printable(&subnet)))?;
            Ok(DONE)
        }
    }
}

fn print_plan(changes: &[PlannedChange]) -> Result<u8, Error> {
    let line = |change: &PlannedChange| {
        let (verb, object) = (&change.verb, &change.object);
        let (verb, object) = (output::printable(verb), output::printable(object));
        format!("{verb} {object}\n")
    };
    let text: String = changes.iter().map(line).collect();
    output::print(&text)?;
    Ok(DONE)
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// Nobody answers on the bus.
    #[error("flannel-rs is not running, or has no D-Bus: {0}; try `systemctl status flannel-rs`")]
    Unreachable(String),
    /// The service answered that it did not do it.
    #[error("the service says: {0}")]
    Refused(String),
    /// The service answered in a way that this version does not understand.
    #[error(
        "the service's answer is not understood, is it of another version than this command? {0}"
    )]
    Answer(String),
    /// No output.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// No runtime.
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    /// The service could not start, or not be planned.
    #[error(transparent)]
    Service(#[from] StartError),
}

impl Error {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable(_) => UNREACHABLE,
            Self::Service(error) => error.exit_code(),
            Self::Refused(_) | Self::Answer(_) | Self::Output(_) | Self::Start(_) => FAILED,
        }
    }
}

/// What `status` exits with.
const fn exit_code(state: State) -> u8 {
    match state {
        State::Running => DONE,
        State::Degraded => DEGRADED,
        State::Waiting | State::Stopping => NOT_READY,
    }
}

const DONE: u8 = 0;
const FAILED: u8 = 1;
const DEGRADED: u8 = 3;
const NOT_READY: u8 = 4;
/// `EX_UNAVAILABLE` of sysexits.h.
const UNREACHABLE: u8 = 69;

const EXIT_CODES: &str = "\
Exit codes:
   0  done; for status: the node is running
   1  it went wrong, stderr says why
   2  the arguments are wrong
   3  status: the node forwards packets, but something is wrong
   4  status: the node is waiting for something, or stopping
  69  the service or the bus is not there
  71  daemon, plan: the system refused something
  75  daemon: it is running already in this network namespace
  77  daemon: CAP_NET_ADMIN is missing
  78  the config file is wrong";

#[cfg(test)]
mod tests;
