//! What can be asked of the command: the one place that help, completions and manual come from.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use super::error::EXIT_CODES;
use crate::config::Config;

#[derive(Debug, Parser)]
#[command(name = "flannel-rs", version, about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
pub(super) enum Task {
    /// Run the service in the foreground
    Daemon {
        /// The host config
        #[arg(long, value_name = "FILE", default_value = Config::FILE)]
        config: PathBuf,
    },
    /// Check a config file; silent if it is right
    ///
    /// Without FILE it checks /etc/flannel-rs/config.toml as the service on this host reads it:
    /// where that lists the nodes, this host has to be one of them. A FILE is checked for all
    /// hosts.
    Check {
        /// The host config
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show how this node is: its lease, its health, its peers
    ///
    /// The exit code tells the state.
    Status {
        /// Wait until the node is running, also for a service that has not been started yet
        #[arg(long)]
        wait: bool,
        /// How long to wait at most, such as 30s or 5m; a bare number is in seconds
        #[arg(long, value_name = "DURATION", requires = "wait", default_value = "5m", value_parser = duration)]
        timeout: Duration,
        /// Print all that the service knows, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print all that the service knows, as JSON; the same as status --json
    Describe,
    /// Show the other nodes: their subnets, where they are, how they are reached
    Peers {
        /// Only this one, with all that is known of it: a subnet, an address in one, or a public IP
        #[arg(value_name = "PEER")]
        peer: Option<String>,
        /// Print a JSON array, also of one peer
        #[arg(long)]
        json: bool,
    },
    /// Show what changes, as it does, a line each
    ///
    /// Tells of the state, of faults that come and go, of the lease, of peers, of what was
    /// repaired and of conflicts. Goes on while the service or the bus is away, and says so. Ends
    /// on Ctrl-C.
    Monitor {
        /// Print a JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Find what keeps containers from reaching each other, and how to put it right
    ///
    /// Reads the host's settings and sends real packets from a throw-away container, for three
    /// seconds at most; nothing that it does stays. Says what is wrong, and the fix. As root it
    /// looks at everything; else it says what it has left out.
    Doctor {
        /// Only read; send no packets
        #[arg(long)]
        no_probes: bool,
        /// Print a JSON object with "findings" and "omitted"
        #[arg(long)]
        json: bool,
    },
    /// Print what the service would change on this host right now, and change nothing
    ///
    /// One line per change. Prints nothing when there is nothing to change.
    Plan {
        /// Plan for a fresh service with this host config, instead of asking the running one
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print a JSON array of objects with "verb" and "object"
        #[arg(long)]
        json: bool,
    },
    /// Make the host equal to the plan now, and print what was changed
    ///
    /// The service does so by itself whenever something differs. One line per change.
    Reconcile {
        /// Print a JSON array of objects with "verb" and "object"
        #[arg(long)]
        json: bool,
    },
    /// Give this node's subnet up and take another; its containers have to be started again
    ///
    /// Without a subnet it takes the one that is called for: one of a changed network, the one
    /// that the host config or a reservation asks for, or any but one that somebody else has
    /// taken. Prints the new subnet. On a terminal it asks first.
    Renumber {
        /// The subnet to take, such as 100.96.3.0/24
        #[arg(value_name = "SUBNET")]
        subnet: Option<String>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Give this node's lease back and take it out of the network
    ///
    /// Removes the service's links, routes and files from this host, as cleanup does, and frees
    /// the subnet for others. The service runs on and takes no part until it is reloaded or
    /// started again. Prints the subnet. On a terminal it asks first.
    Release {
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Remove from this host all that the service has set up; the lease stays
    ///
    /// Removes links, routes and files. A running service takes no part until it is reloaded or
    /// started again. Prints what was removed, one line each. On a terminal it asks first.
    Cleanup {
        /// Clean up after a service that does not run, and had this host config
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print a JSON array of objects with "verb" and "object"
        #[arg(long)]
        json: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Make the bridge for containers the service's own, whoever has given it addresses
    ///
    /// Removes those addresses and gives the bridge this node's address and MTU. Containers that
    /// run on it lose the network until they are started again, and Docker puts its own address
    /// back when it is started the next time, unless it is told ours. Prints what was changed, one
    /// line each. On a terminal it asks first.
    TakeBridge {
        /// Then have systemd restart docker.service, with the rights of who calls
        #[arg(long)]
        restart_docker: bool,
        /// Print a JSON array of objects with "verb" and "object"
        #[arg(long)]
        json: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Have the service read its config again
    Reload,
    /// Show what goes to the log, or set it until the service ends
    LogLevel {
        /// off, error, warn, info, debug, trace, or directives such as info,flannel_rs=debug
        #[arg(value_name = "LEVEL")]
        level: Option<String>,
    },
    /// Print the completions for a shell
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Print the manual page, or write all of them
    Man {
        /// Write flannel-rs.1 and a page for each subcommand here
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

/// A shell to complete in.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Task, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    Ok(Arguments::from_arg_matches(&matches)?.task)
}

/// The definitions, with the exit codes on every page of help.
pub(super) fn command() -> clap::Command {
    let line = |(code, meaning): &(u8, &str)| format!("\n  {code:>2}  {meaning}");
    let codes: String = EXIT_CODES.iter().map(line).collect();
    let codes = format!("Exit codes:{codes}");
    bare_command()
        .after_help(codes.clone())
        .mut_subcommands(|subcommand| subcommand.after_help(codes.clone()))
}

/// The definitions alone.
pub(super) fn bare_command() -> clap::Command {
    Arguments::command()
}

/// What is wrong with the arguments, in one line; `None` for what is a page of help.
pub(super) fn mistake(error: &clap::Error) -> Option<String> {
    let is_page = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if is_page {
        return None;
    }
    let text = error.render().to_string();
    let parts = text
        .lines()
        .map(str::trim)
        .filter(|part| !part.is_empty() && !part.starts_with("Usage:"));
    let mut line = String::new();
    for part in parts {
        let part = part.trim_end_matches('.');
        let (separator, part) = match part.strip_prefix("tip: ") {
            Some(tip) => ("; ", tip),
            None if part.starts_with("For more") => ("; ", part),
            None => (" ", part),
        };
        if !line.is_empty() {
            line.push_str(separator);
        }
        line.push_str(part);
    }
    Some(line)
}

fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
