//! `flannel-rs log-level`.

use super::bus;
use super::error::Error;
use super::output::{self, printable};

/// Prints the level, or sets it.
pub(super) fn show_or_set(level: Option<&str>) -> Result<(), Error> {
    match level {
        Some(level) => bus::set_log_level(level),
        None => {
            let level = bus::describe()?.status.log_level;
            output::print(&format!("{}\n", printable(&level)))?;
            Ok(())
        }
    }
}
