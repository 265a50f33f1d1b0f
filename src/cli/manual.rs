//! The manual and the completions, from the definitions that the command itself runs by.

mod sections;

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::shells;
use clap_mangen::Man;

use super::arguments::{self, Shell};
use super::error::Error;
use super::output;

/// Prints what the shell is to load.
pub(super) fn print_completions(shell: Shell) -> Result<(), Error> {
    let mut command = arguments::bare_command();
    let mut script = Vec::new();
    let generate = match shell {
        Shell::Bash => generate_for(shells::Bash),
        Shell::Zsh => generate_for(shells::Zsh),
        Shell::Fish => generate_for(shells::Fish),
    };
    generate(&mut command, &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(())
}

type Generate = Box<dyn FnOnce(&mut Command, &mut Vec<u8>)>;

fn generate_for(shell: impl clap_complete::Generator + 'static) -> Generate {
    Box::new(|command, script| clap_complete::generate(shell, command, NAME, script))
}

/// Prints flannel-rs(1), or writes all pages into a folder.
pub(super) fn show_or_write(folder: Option<&Path>) -> Result<(), Error> {
    let pages = pages().map_err(Error::Output)?;
    let Some(folder) = folder else {
        let main = pages.iter().find(|page| page.file == MAIN_PAGE);
        output::print(main.map_or("", |page| &page.text))?;
        return Ok(());
    };
    for page in pages {
        let path = folder.join(page.file);
        fs::write(&path, page.text).map_err(|cause| Error::File { path, cause })?;
    }
    Ok(())
}

/// A page of the manual.
struct Page {
    file: String,
    text: String,
}

/// flannel-rs(1) and one for each subcommand.
fn pages() -> io::Result<Vec<Page>> {
    let mut all = arguments::bare_command().disable_help_subcommand(true);
    all.build();
    let subcommands = all.get_subcommands().cloned().collect::<Vec<_>>();
    let mut pages = vec![page(all)?];
    for subcommand in subcommands {
        pages.push(page(subcommand)?);
    }
    Ok(pages)
}

fn page(command: Command) -> io::Result<Page> {
    let name = command.get_display_name().unwrap_or(NAME).to_owned();
    let subcommands: Vec<_> = command
        .get_subcommands()
        .map(|subcommand| subcommand.get_name().to_owned())
        .collect();
    let has_options = command.get_arguments().next().is_some();
    let short_name = command.get_name().to_owned();
    let man = Man::new(command)
        .title(&name)
        .source(concat!("flannel-rs ", env!("CARGO_PKG_VERSION")))
        .manual("flannel-rs");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if has_options {
        man.render_options_section(&mut text)?;
    }
    if !subcommands.is_empty() {
        man.render_subcommands_section(&mut text)?;
    }
    sections::write(&short_name, &subcommands, &mut text)?;
    Ok(Page {
        file: format!("{name}.1"),
        text: String::from_utf8_lossy(&text).into_owned(),
    })
}

const NAME: &str = "flannel-rs";
const MAIN_PAGE: &str = "flannel-rs.1";

#[cfg(test)]
mod tests;
