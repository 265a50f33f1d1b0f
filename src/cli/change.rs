//! The subcommands that change something, or show what would be changed.

use std::path::Path;

use super::bus;
use super::consent::{self, Consent};
use super::error::Error;
use super::output::{self, Form, printable};
use crate::service::start;
use crate::service::status::PlannedChange;

/// Has the service read its config again, and tells what of it takes a restart: the service goes
/// on with the rest, and has that as a fault.
pub(super) fn reload() -> Result<(), Error> {
    bus::reload()?;
    let description = bus::describe()?;
    let faults = description.status.faults.iter();
    for fault in faults.filter(|fault| fault.code == "config") {
        output::complain(&fault.text);
    }
    Ok(())
}

/// `plan`: of the running service, or of a fresh one with this config.
pub(super) fn plan(config: Option<&Path>, form: Form) -> Result<(), Error> {
    let changes = match config {
        None => bus::plan()?,
        Some(config) => start::plan(config)?,
    };
    print(&changes, form)
}

/// `reconcile`.
pub(super) fn reconcile(form: Form) -> Result<(), Error> {
    print(&bus::reconcile()?, form)
}

/// `cleanup`: of the running service, or after one with this config.
pub(super) fn clean_up(config: Option<&Path>, form: Form, consent: Consent) -> Result<(), Error> {
    let changes = match config {
        None => {
            consent::seek(consent, || {
                Ok(format!(
                    "This removes the overlay network from {}: links, routes and files. Its \
                     containers are cut off until flannel-rs is reloaded or started again.",
                    name()?
                ))
            })?;
            bus::clean_up()?
        }
        Some(config) => {
            consent::seek(consent, || {
                let what = "This removes the links, routes and files of flannel-rs from this host.";
                Ok(what.to_owned())
            })?;
            start::cleanup(config)?
        }
    };
    print(&changes, form)
}

/// `release`.
pub(super) fn release(consent: Consent) -> Result<(), Error> {
    consent::seek(consent, || {
        Ok(format!(
            "This gives the lease of {} back and removes the overlay network from it. Its \
             containers are cut off, and others may take the subnet.",
            name()?
        ))
    })?;
    print_subnet(&bus::release()?)
}

/// `renumber`.
pub(super) fn renumber(subnet: Option<&str>, consent: Consent) -> Result<(), Error> {
    consent::seek(consent, || {
        Ok(format!(
            "This gives the subnet of {} up for {}. Its containers are cut off until they are \
             started again.",
            name()?,
            subnet.unwrap_or("another")
        ))
    })?;
    print_subnet(&bus::renumber(subnet.unwrap_or_default())?)
}

/// `take-bridge`.
pub(super) fn take_bridge(form: Form, consent: Consent) -> Result<(), Error> {
    consent::seek(consent, || {
        Ok(format!(
            "This takes the bridge for containers of {} from whoever has it. Containers that run \
             on it are cut off until they are started again.",
            name()?
        ))
    })?;
    print(&bus::take_bridge()?, form)
}

/// The node and its subnet.
fn name() -> Result<String, Error> {
    let status = bus::describe()?.status;
    Ok(match status.subnet {
        Some(subnet) => format!("{} ({subnet})", status.node_name),
        None => status.node_name,
    })
}

fn print(changes: &[PlannedChange], form: Form) -> Result<(), Error> {
    match form {
        Form::Json => output::print_json(changes)?,
        Form::Text => output::print(&text(changes))?,
    };
    Ok(())
}

fn text(changes: &[PlannedChange]) -> String {
    changes.iter().map(|change| line(change) + "\n").collect()
}

/// A change in words.
pub(super) fn line(change: &PlannedChange) -> String {
    let (verb, object) = (printable(&change.verb), printable(&change.object));
    format!("{verb} {object}")
}

fn print_subnet(subnet: &str) -> Result<(), Error> {
    output::print(&format!("{}\n", printable(subnet)))?;
    Ok(())
}
