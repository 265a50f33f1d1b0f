//! `flannel-rs monitor`.

mod event;

use std::time::SystemTime;

use serde::Serialize;

use super::bus;
use super::error::Error;
use super::feed::{Feed, Tidings};
use super::output::{self, Form, Palette, Reader};
use crate::service::status::{State, Status};
use event::Event;

/// Prints what happens until it is interrupted or nobody reads it any more.
pub(super) fn run(form: Form) -> Result<(), Error> {
    let palette = Palette::of_stdout();
    bus::block_on(async {
        let interrupted = tokio::signal::ctrl_c();
        tokio::select! {
            outcome = print_all(form, palette) => outcome,
            interrupted = interrupted => interrupted.map_err(Error::Start),
        }
    })?
}

async fn print_all(form: Form, palette: Palette) -> Result<(), Error> {
    let mut feed = Feed::default();
    let mut view = View::default();
    loop {
        let events = view.take_in(feed.next().await);
        let time = SystemTime::now();
        let line = |event: &Event| match form {
            Form::Text => Ok(event.lines(time, palette)),
            Form::Json => json_line(event, time),
        };
        let lines: String = events.iter().map(line).collect::<Result<_, _>>()?;
        if !lines.is_empty() && output::print(&lines)? == Reader::Gone {
            return Ok(());
        }
    }
}

fn json_line(event: &Event, time: SystemTime) -> Result<String, Error> {
    #[derive(Serialize)]
    struct Line<'a> {
        time: String,
        #[serde(flatten)]
        event: &'a Event,
    }
    let time = humantime::format_rfc3339_millis(time).to_string();
    let json = serde_json::to_string(&Line { time, event });
    let json = json.map_err(|error| Error::Output(error.into()))?;
    Ok(format!("{}\n", output::printable_json(&json)))
}

/// What was last known of the service.
#[derive(Default)]
struct View {
    known: Option<Status>,
    connected: bool,
}

impl View {
    /// What is new in these tidings.
    fn take_in(&mut self, tidings: Tidings) -> Vec<Event> {
        match tidings {
            Tidings::Gone(error) => {
                self.connected = false;
                let reason = error.to_string();
                vec![Event::Gone { reason }]
            }
            Tidings::Repaired(changes) => vec![Event::Repaired { changes }],
            Tidings::Conflict { subnet, holder } => vec![Event::Conflict { subnet, holder }],
            // what moves at every moment is no news
            Tidings::Described(description) => self.compare(description.status.without_traffic()),
        }
    }

    fn compare(&mut self, mut status: Status) -> Vec<Event> {
        let mut events = Vec::new();
        let has_come = !std::mem::replace(&mut self.connected, true);
        if has_come {
            events.push(Event::connected(&status));
        }
        match &self.known {
            None => events.extend(event::faults(&[], &status.faults)),
            Some(known) => {
                if status.state == State::Waiting {
                    // one that has just started does not know yet; that is no change
                    keep_what_comes_later(known, &mut status);
                }
                if !has_come {
                    events.extend(event::state(known, &status));
                }
                events.extend(event::changes(known, &status));
            }
        }
        self.known = Some(status);
        events
    }
}

fn keep_what_comes_later(known: &Status, status: &mut Status) {
    status.backend.clone_from(&known.backend);
    status.network.clone_from(&known.network);
    status.subnet.clone_from(&known.subnet);
    status.interface.clone_from(&known.interface);
    status.public_ip = known.public_ip;
    status.mtu = known.mtu;
    status.lease_expires_usec = known.lease_expires_usec;
    status.peers = known.peers.clone();
}

#[cfg(test)]
mod tests;
