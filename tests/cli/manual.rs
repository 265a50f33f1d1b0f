//! The manual and the completions, as the programs that read them see them.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::run;

#[test]
fn the_manual_is_written_and_clean() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_str().unwrap();
    let nothing = (0, String::new(), String::new());
    assert_eq!(run(&["man", path]), nothing);
    let (code, main, _) = run(&["man"]);
    assert_eq!(code, 0);
    let written = fs::read_to_string(folder.path().join("flannel-rs.1")).unwrap();
    assert_eq!(main, written);
    for entry in fs::read_dir(folder.path()).unwrap() {
        lint(&entry.unwrap().path());
    }
    let (_, help, _) = run(&["--help"]);
    let commands = help.split("Commands:\n").nth(1).unwrap();
    let commands = commands.split("\n\n").next().unwrap();
    for line in commands.lines() {
        let name = line.split_whitespace().next().unwrap();
        let page = folder.path().join(format!("flannel-rs-{name}.1"));
        assert!(page.exists() || name == "help", "no page for {name}");
    }
}

fn lint(page: &Path) {
    let page = page.to_str().unwrap();
    for (program, arguments) in [
        ("groff", ["-man", "-ww", "-z", "-Tutf8"].as_slice()),
        ("mandoc", &["-T", "lint", "-W", "warning"]),
    ] {
        let Ok(output) = Command::new(program).args(arguments).arg(page).output() else {
            eprintln!("skipped: {program} is not installed");
            continue;
        };
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{page}: {said}");
    }
}

#[test]
fn a_manual_that_cannot_be_written_is_told() {
    let (code, stdout, stderr) = run(&["man", "/nowhere"]);
    assert!(
        stderr.starts_with("cannot write /nowhere/flannel-rs.1: "),
        "{stderr}"
    );
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (1, "", 1));
}

#[test]
fn shells_understand_their_completions() {
    let folder = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, stderr) = run(&["completions", shell]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert!(script.contains("log-level"), "{shell}");
        let file = folder.path().join(shell);
        fs::write(&file, script).unwrap();
        let Ok(output) = Command::new(shell).arg("-n").arg(&file).output() else {
            eprintln!("skipped: {shell} is not installed");
            continue;
        };
        assert!(output.status.success(), "{output:?}");
    }
}
