//! The command line. `daemon` runs the service; `check`, `plan --config` and `cleanup --config`
//! work without one; the rest talks to the running one over D-Bus and knows nothing else of it.

mod agent;
mod arguments;
mod bus;
mod change;
mod consent;
mod doctor;
mod error;
mod feed;
mod log_level;
mod manual;
mod monitor;
mod output;
mod peers;
#[cfg(test)]
mod samples;
mod status;
mod table;
mod traffic;
mod units;

use std::ffi::OsString;
use std::process::ExitCode;

use arguments::Task;
use error::{DONE, Error, USAGE};

use crate::service::start::{self, StartError};

/// Does what the arguments say and answers with the exit code. Errors go to stderr, in
/// one line; those of a config are followed by the place.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let task = match arguments::parse(arguments) {
        Ok(task) => task,
        Err(error) => return ExitCode::from(explain(&error)),
    };
    ExitCode::from(perform(task).unwrap_or_else(|error| {
        if let Error::Service(StartError::Config(error)) = &error {
            output::point_out(error);
        } else {
            output::complain(&error.to_string());
        }
        error.exit_code()
    }))
}

/// A page of help goes out as it is, a mistake as one line.
fn explain(error: &clap::Error) -> u8 {
    if let Some(mistake) = arguments::mistake(error) {
        output::complain(&mistake);
        return USAGE;
    }
    // nobody is there to be told of a reader that has gone
    let _ = error.print();
    if error.use_stderr() { USAGE } else { DONE }
}

fn perform(task: Task) -> Result<u8, Error> {
    match task {
        Task::Daemon { config } => start::run(&config)?,
        Task::Check { file } => start::check(file.as_deref())?,
        Task::Status {
            json,
            wait,
            timeout,
        } => return status::show(json.into(), wait.then_some(timeout)),
        Task::Describe => return status::show(output::Form::Json, None),
        Task::Peers { peer, json } => peers::show(peer.as_deref(), json.into())?,
        Task::Monitor { json } => monitor::run(json.into())?,
        Task::Doctor { json, no_probes } => return doctor::run(json.into(), no_probes.into()),
        Task::Plan { config, json } => change::plan(config.as_deref(), json.into())?,
        Task::Reconcile { json } => change::reconcile(json.into())?,
        Task::Renumber { subnet, yes } => change::renumber(subnet.as_deref(), yes.into())?,
        Task::Release { yes } => change::release(yes.into())?,
        Task::Cleanup { config, json, yes } => {
            change::clean_up(config.as_deref(), json.into(), yes.into())?;
        }
        Task::TakeBridge {
            restart_docker,
            json,
            yes,
        } => {
            change::take_bridge(json.into(), yes.into())?;
            if restart_docker {
                units::restart_docker(json.into())?;
            }
        }
        Task::Reload => change::reload()?,
        Task::LogLevel { level } => log_level::show_or_set(level.as_deref())?,
        Task::Completions { shell } => manual::print_completions(shell)?,
        Task::Man { directory } => manual::show_or_write(directory.as_deref())?,
    }
    Ok(DONE)
}

#[cfg(test)]
mod tests;
