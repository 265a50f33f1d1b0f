//! The `flannel-rs` command.

use std::process::ExitCode;

use clap::Parser;
use flannel_rs::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
