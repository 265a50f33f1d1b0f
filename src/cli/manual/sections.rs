//! What the manual has beyond the arguments.

use std::io::{self, Write};

use clap_mangen::roff::{Roff, bold, italic, roman};

use super::super::error::EXIT_CODES;
use crate::config::Config;

/// Writes the sections that follow the options, for one page.
pub(super) fn write(name: &str, subcommands: &[String], page: &mut impl Write) -> io::Result<()> {
    let mut roff = Roff::new();
    exit_status(&mut roff);
    files(&mut roff);
    environment(&mut roff);
    examples(name, &mut roff);
    see_also(name, subcommands, &mut roff);
    roff.to_writer(page)
}

fn exit_status(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_CODES {
        roff.control("TP", []);
        roff.text([bold(code.to_string())]);
        roff.text([roman(*meaning)]);
    }
}

fn files(roff: &mut Roff) {
    let files = [
        (Config::FILE, "The host config."),
        (
            "/run/flannel/subnet.env",
            "The subnet and the MTU, for the flannel CNI plugin.",
        ),
        (
            "/run/flannel/docker.env",
            "The same as options for dockerd(8).",
        ),
        (
            "/var/lib/flannel-rs/",
            "The identity of the node, and its last lease.",
        ),
    ];
    roff.control("SH", ["FILES"]);
    for (path, content) in files {
        roff.control("TP", []);
        roff.text([italic(path)]);
        roff.text([roman(content)]);
    }
}

fn environment(roff: &mut Roff) {
    let variables = [
        (
            "DBUS_SYSTEM_BUS_ADDRESS",
            "The bus that the service is on, instead of the machine's system bus.",
        ),
        (
            "NO_COLOR",
            "Use no colours, if it is set to anything. There are none either where the output is not a terminal.",
        ),
    ];
    roff.control("SH", ["ENVIRONMENT"]);
    for (name, meaning) in variables {
        roff.control("TP", []);
        roff.text([bold(name)]);
        roff.text([roman(meaning)]);
    }
}

fn examples(name: &str, roff: &mut Roff) {
    roff.control("SH", ["EXAMPLES"]);
    for (_, command, what) in EXAMPLES.iter().filter(|(page, ..)| *page == name) {
        roff.control("TP", []);
        roff.text([bold(*command)]);
        roff.text([roman(*what)]);
    }
}

fn see_also(name: &str, subcommands: &[String], roff: &mut Roff) {
    let mut pages: Vec<_> = subcommands
        .iter()
        .map(|subcommand| format!("flannel-rs-{subcommand}(1)"))
        .collect();
    if name != "flannel-rs" {
        pages.push("flannel-rs(1)".to_owned());
    }
    let others = ["systemctl(1)", "busctl(1)", "journalctl(1)", "ip(8)"];
    pages.extend(others.map(str::to_owned));
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(pages.join(", "))]);
}

/// A page, a command line, and what it is for. Every page has one at least.
pub(super) const EXAMPLES: &[(&str, &str, &str)] = &[
    ("flannel-rs", "flannel-rs status", "How is this node?"),
    (
        "flannel-rs",
        "flannel-rs peers 100.96.2.7",
        "Which node has the container with this address, and is it reached?",
    ),
    ("flannel-rs", "flannel-rs monitor", "What is going on?"),
    (
        "daemon",
        "flannel-rs daemon --config ./config.toml",
        "Try a config out, as root. In earnest it is started by systemctl start flannel-rs.",
    ),
    (
        "check",
        "flannel-rs check && systemctl reload flannel-rs",
        "Apply a changed config, if it is right.",
    ),
    (
        "status",
        "systemctl start --no-block flannel-rs && flannel-rs status --wait --timeout 1m",
        "Start the service and see how it has gone.",
    ),
    (
        "status",
        "flannel-rs status --json | jq -r .subnet",
        "The subnet of this node.",
    ),
    (
        "status",
        "flannel-rs status --json | jq .traffic",
        "What this node has sent, received and dropped, with the udp backend.",
    ),
    (
        "describe",
        "flannel-rs describe | jq .interfaces",
        "The links as they should be and as they are.",
    ),
    (
        "peers",
        "flannel-rs peers 192.168.1.48",
        "What is known of the node with this public IP.",
    ),
    (
        "peers",
        "flannel-rs peers --json | jq -r '.[] | select(.path == \"none\") | .subnet'",
        "The subnets that are not reached.",
    ),
    (
        "monitor",
        "flannel-rs monitor --json | jq --unbuffered -c 'select(.event == \"fault\")'",
        "Faults as they come.",
    ),
    (
        "doctor",
        "flannel-rs doctor",
        "Containers do not reach each other: why not? To be asked as root.",
    ),
    (
        "doctor",
        "flannel-rs doctor --json | jq -r '.findings[].code'",
        "The names of what is wrong.",
    ),
    (
        "plan",
        "flannel-rs plan",
        "What differs from the plan right now.",
    ),
    (
        "plan",
        "flannel-rs plan --config /etc/flannel-rs/config.toml",
        "What would the service do here? To be asked before its first start, as root.",
    ),
    (
        "reconcile",
        "flannel-rs reconcile",
        "Do not wait for the next pass.",
    ),
    (
        "renumber",
        "flannel-rs renumber --yes 100.96.9.0/24",
        "Move this node to a subnet.",
    ),
    (
        "release",
        "flannel-rs release && systemctl disable --now flannel-rs",
        "Take this node out of the network for good.",
    ),
    (
        "cleanup",
        "flannel-rs cleanup",
        "Take this node out for a while; flannel-rs reload takes it in again.",
    ),
    (
        "cleanup",
        "flannel-rs cleanup --config /etc/flannel-rs/config.toml",
        "Remove what a service that does not run any more has left.",
    ),
    (
        "take-bridge",
        "flannel-rs take-bridge --restart-docker",
        "Docker came first and is told of the overlay now: give its bridge our address.",
    ),
    ("reload", "flannel-rs reload", "Apply a changed config."),
    (
        "log-level",
        "flannel-rs log-level debug",
        "See more in the journal.",
    ),
    (
        "log-level",
        "flannel-rs log-level",
        "What goes to the journal?",
    ),
    (
        "completions",
        "source <(flannel-rs completions bash)",
        "Complete in this shell.",
    ),
    (
        "man",
        "flannel-rs man /usr/local/share/man/man1",
        "Install the manual.",
    ),
];
