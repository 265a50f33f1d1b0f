use clap::CommandFactory;

use super::*;

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_codes_of_status_tell_the_states_apart() {
    assert_eq!(exit_code(State::Running), 0);
    assert_eq!(exit_code(State::Degraded), 3);
    assert_eq!(exit_code(State::Waiting), 4);
    assert_eq!(exit_code(State::Stopping), 4);
}

#[test]
fn no_service_is_told_apart_from_a_refusal() {
    assert_eq!(Error::Unreachable(String::new()).exit_code(), 69);
    assert_eq!(Error::Refused(String::new()).exit_code(), 1);
}

#[test]
fn every_help_page_documents_the_codes() {
    let mut command = Cli::command();
    assert!(
        command
            .render_help()
            .to_string()
            .contains("69  the service")
    );
    let own = |c: &&mut clap::Command| c.get_name() != "help";
    for subcommand in command.get_subcommands_mut().filter(own) {
        let help = subcommand.render_long_help().to_string();
        assert!(help.contains("Exit codes:"), "{help}");
    }
}
