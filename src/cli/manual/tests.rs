use super::*;

#[test]
fn every_subcommand_has_a_page_with_all_sections() {
    let pages = pages().unwrap();
    let files: Vec<_> = pages.iter().map(|page| page.file.as_str()).collect();
    assert!(files.contains(&MAIN_PAGE), "{files:?}");
    for subcommand in arguments::bare_command().get_subcommands() {
        let file = format!("flannel-rs-{}.1", subcommand.get_name());
        assert!(files.contains(&file.as_str()), "no {file}");
    }
    for page in &pages {
        for section in [
            ".TH ",
            ".SH NAME\n",
            ".SH SYNOPSIS\n",
            ".SH DESCRIPTION\n",
            ".SH OPTIONS\n",
            ".SH \"EXIT STATUS\"\n",
            ".SH FILES\n",
            ".SH EXAMPLES\n.TP\n",
            ".SH \"SEE ALSO\"\n",
        ] {
            assert!(page.text.contains(section), "{}: no {section}", page.file);
        }
    }
}

#[test]
fn every_example_is_a_command_that_is_understood() {
    for (page, example, _) in sections::EXAMPLES {
        let commands = example.split(['|', '&', '(', ')']);
        let ours = commands.filter_map(|command| command.trim().strip_prefix("flannel-rs"));
        let mut found = 0;
        for arguments in ours {
            found += 1;
            let words = arguments.split_whitespace().map(Into::into);
            let parsed = arguments::parse([NAME.into()].into_iter().chain(words));
            assert!(parsed.is_ok(), "{page}: {example}: {parsed:?}");
        }
        assert!(found > 0, "{page}: {example}");
    }
}
