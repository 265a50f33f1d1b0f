use super::error::{DONE, Error, exit_code};
use super::*;
use crate::service::status::{InterfaceStatus, LinkStatus, PeerTraffic, State, Traffic};

#[test]
fn the_codes_of_status_tell_the_states_apart() {
    assert_eq!(exit_code(State::Running), 0);
    assert_eq!(exit_code(State::Degraded), 3);
    for state in [State::Waiting, State::Withdrawn, State::Stopping] {
        assert_eq!(exit_code(state), 4);
    }
}

#[test]
fn every_kind_of_failure_has_its_code() {
    let nothing = String::new;
    let codes = [
        (Error::NoBus(nothing()), 69),
        (Error::NotRunning, 69),
        (Error::Silent(nothing()), 69),
        (Error::NotPermitted(nothing()), 77),
        (Error::Refused(nothing()), 1),
        (Error::Argument(nothing()), 2),
        (Error::Answer(nothing()), 1),
        (Error::NoPeer(nothing(), nothing()), 68),
        (Error::Declined, 1),
        (Error::Service(StartError::NotPermitted), 77),
        (Error::Service(StartError::AlreadyRunning), 75),
    ];
    for (error, code) in codes {
        assert_eq!(error.exit_code(), code, "{error}");
        let documented = error::EXIT_CODES.iter().any(|(known, _)| *known == code);
        assert!(documented, "{code} is in no help");
    }
    assert_eq!(error::EXIT_CODES[0].0, DONE);
}

#[test]
fn nothing_turns_or_ends_a_line() {
    assert_eq!(
        output::printable("a\u{1b}[31m\nb"),
        "a\u{fffd}[31m\u{fffd}b"
    );
    assert_eq!(
        output::printable("a\u{202e}b\u{2028}c"),
        "a\u{fffd}b\u{fffd}c"
    );
    assert_eq!(output::printable("a\u{61c}b\u{85}c"), "a\u{fffd}b\u{fffd}c");
    assert_eq!(output::printable("größer → 1"), "größer → 1");
}

#[test]
fn json_is_the_same_document_without_what_a_terminal_obeys() {
    let hostile: String = ('\u{1}'..='\u{ffff}')
        .filter(|c| output::printable(&c.to_string()) == "\u{fffd}" && *c != '\u{fffd}')
        .collect();
    for some in [
        '\u{9b}', '\u{7f}', '\u{202e}', '\u{2066}', '\u{200f}', '\u{61c}',
    ] {
        assert!(hostile.contains(some), "{some:?}");
    }
    let document = serde_json::json!({"größer\u{9b}31m": [hostile, "→ \\u009b 😀"]});
    for json in [document.to_string(), format!("{document:#}")] {
        let shown = output::printable_json(&json);
        let back: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(back, document);
        let lines = shown.replace('\n', "");
        assert_eq!(output::printable(&lines), lines);
        assert!(shown.contains("größer\\u009b31m"), "{shown}");
    }
}

/// docs/cli.md
#[test]
fn the_document_has_every_subcommand_code_and_field() {
    const DOCUMENT: &str = include_str!("../../docs/cli.md");
    for subcommand in arguments::bare_command().get_subcommands() {
        let row = format!("\n| `{}", subcommand.get_name());
        assert!(DOCUMENT.contains(&row), "no row {row}");
    }
    for (code, _) in error::EXIT_CODES {
        assert!(DOCUMENT.contains(&format!("\n| {code} | ")), "no {code}");
    }
    let mut status = samples::running();
    status.interfaces = std::sync::Arc::new(vec![InterfaceStatus {
        name: "flannel.1".to_owned(),
        desired: None,
        observed: Some(LinkStatus {
            kind: "vxlan".to_owned(),
            mac: None,
            mtu: 1450,
            up: true,
            addresses: Vec::new(),
        }),
    }]);
    status.traffic = Some(Traffic::default());
    std::sync::Arc::make_mut(&mut status.peers)[0].traffic = Some(PeerTraffic::default());
    let json = serde_json::to_value(&status).unwrap();
    let parts = [
        &json,
        &json["datastore"],
        &json["provision"],
        &json["traffic"],
        &json["peers"][0],
        &json["peers"][0]["traffic"],
        &json["interfaces"][0],
        &json["interfaces"][0]["observed"],
    ];
    for part in parts {
        let fields = part.as_object().unwrap().keys();
        for field in fields {
            let words = DOCUMENT.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let is_there = words.into_iter().any(|word| word == field);
            assert!(is_there, "no field {field}");
        }
    }
}
