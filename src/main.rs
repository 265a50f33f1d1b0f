//! The `flannel-rs` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    flannel_rs::cli::run(std::env::args_os())
}
