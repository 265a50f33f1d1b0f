use super::*;

fn refused(arguments: &[&str]) -> clap::Error {
    let all = ["flannel-rs"].iter().chain(arguments);
    parse(all.map(Into::into)).unwrap_err()
}

#[test]
fn they_are_consistent() {
    command().debug_assert();
}

#[test]
fn every_help_page_documents_the_codes() {
    let mut command = command();
    let help = command.render_help().to_string();
    assert!(help.contains("\n  69  the service"), "{help}");
    let own = |subcommand: &&mut clap::Command| subcommand.get_name() != "help";
    for subcommand in command.get_subcommands_mut().filter(own) {
        let help = subcommand.render_long_help().to_string();
        assert!(help.contains("Exit codes:"), "{help}");
    }
}

#[test]
fn a_mistake_is_one_line() {
    let expected = [
        (
            ["statsu"].as_slice(),
            "error: unrecognized subcommand 'statsu'; a similar subcommand exists: 'status'; \
             For more information, try '--help'",
        ),
        (
            &["completions", "bahs"],
            "error: invalid value 'bahs' for '<SHELL>' [possible values: bash, zsh, fish]; \
             a similar value exists: 'bash'; For more information, try '--help'",
        ),
        (
            &["completions"],
            "error: the following required arguments were not provided: <SHELL>; \
             For more information, try '--help'",
        ),
    ];
    for (arguments, expected) in expected {
        let error = refused(arguments);
        assert_eq!(mistake(&error).as_deref(), Some(expected));
    }
    for page in [["--help"], ["--version"]] {
        assert_eq!(mistake(&refused(&page)), None);
    }
    assert_eq!(mistake(&refused(&[])), None);
}

#[test]
fn a_limit_is_a_time_span_and_belongs_to_waiting() {
    assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
    assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
    assert!(duration("soon").is_err());
    assert!(mistake(&refused(&["status", "--timeout", "1s"])).is_some());
}
