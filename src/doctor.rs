//! What keeps containers from reaching each other, and what to do about it.
//!
//! [`look::look`] reads, [`probe::probe`] sends real packets, and both fill an
//! [`examination::Examination`]; [`checks::findings`] is pure and says what is wrong. Nothing that is
//! changed here stays.

pub mod checks;
pub mod examination;
mod finding;
pub mod host;
pub mod look;
pub mod probe;
mod rtnetlink;

use std::fs;

use examination::{Examination, Vantage};
pub use finding::{Diagnosis, Finding, Omission};
use host::Host;

use crate::service::status::Status;

/// Whether packets are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probing {
    /// If this process may.
    Packets,
    /// It was asked not to.
    Reading,
}

/// Examines this host. `status` is what the service says, or why it does not answer.
#[must_use]
pub fn diagnose(status: Result<&Status, String>, probing: Probing) -> Diagnosis {
    let mut examination = Examination::default();
    let mut omitted = Vec::new();
    match status {
        Ok(status) => {
            examination.faults.clone_from(&status.faults);
            examination.host = Host::of(status);
            if examination.host.is_none() {
                let why = "the service has no lease, and so no plan, yet: see its findings";
                omitted.push(Omission::new(PEERS, why));
            }
        }
        Err(silence) => {
            examination.silence = Some(silence);
            let why = "the service knows what should be there, and it does not answer";
            omitted.push(Omission::new(PEERS, why));
        }
    }
    if let Err(error) = look::look(&mut examination) {
        let why = format!("the kernel does not answer: {error}");
        omitted.push(Omission::new("links, addresses, routes", why));
    }
    if let Err(error) = look::look_at_filter(&mut examination) {
        let why = format!("the kernel shows it to root alone: {error}");
        omitted.push(Omission::new("the packet filter", why));
    }
    send(&mut examination, probing, &mut omitted);
    Diagnosis {
        vantage: examination.probes.as_ref().map(|probes| {
            let bridge = examination.host.as_ref().and_then(|h| h.bridge.clone());
            described(probes.vantage, &bridge.unwrap_or_default())
        }),
        findings: checks::findings(&examination),
        omitted,
    }
}

/// Sends packets, or says why not.
fn send(examination: &mut Examination, probing: Probing, omitted: &mut Vec<Omission>) {
    let Some(host) = &examination.host else {
        return;
    };
    let missing = missing();
    if probing == Probing::Reading {
        omitted.push(Omission::new(PACKETS, "--no-probes was given"));
        return;
    }
    if !missing.is_empty() {
        let why = format!("this process lacks {}: run it as root", missing.join(", "));
        omitted.push(Omission::new(PACKETS, why));
        return;
    }
    match probe::probe(host, &examination.links) {
        Ok(probes) => {
            let more = host.peers.len().saturating_sub(probes.peers.len());
            if more > 0 {
                let what = format!("packets to {more} more peers");
                let why = format!("only the first {} are sent any", probe::MOST_PEERS);
                omitted.push(Omission::new(what, why));
            }
            examination.probes = Some(probes);
        }
        Err(error) => {
            let why = format!("the system refuses: {error}");
            omitted.push(Omission::new(PACKETS, why));
        }
    }
}

fn described(vantage: Vantage, bridge: &str) -> String {
    match vantage {
        Vantage::Container(address) => format!("a throw-away container, {address} on {bridge}"),
        Vantage::Host => {
            "this host itself, as there is no bridge to hang a container on".to_owned()
        }
    }
}

/// The capabilities that this process lacks to send packets from a container (capabilities(7)).
fn missing() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let held = held.unwrap_or_default();
    let needed = [
        (12, "CAP_NET_ADMIN"),
        (13, "CAP_NET_RAW"),
        (21, "CAP_SYS_ADMIN"),
    ];
    let lacking = needed.iter().filter(|(bit, _)| held >> bit & 1 == 0);
    lacking.map(|(_, name)| *name).collect()
}

const PEERS: &str = "peers, addresses, files, packets";
const PACKETS: &str = "real packets to peers, neighbours and the outside";
