//! What `make install` and `make deb` lay out, and whether systemd's own tools like it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "clippy takes only functions marked #[test] for tests"
)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

mod contents;
mod package;
mod places;
mod units;

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");
const BINARY: &str = env!("CARGO_BIN_EXE_flannel-rs");

fn make(target: &str, variables: &[(&str, &OsStr)]) -> Command {
    // files must be readable by all whatever the umask is
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec make --silent \"$@\"", "make", target]);
    for (name, value) in variables {
        command.arg(format!("{name}={}", value.display()));
    }
    command
        .current_dir(PROJECT)
        .env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    command
}

fn run(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{stderr}");
    String::from_utf8(stdout).unwrap() + &stderr
}

/// Whether `tool` is there; says what is skipped without it.
fn have(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: this needs {tool}");
    }
    there
}

/// An installation for a systemd of this version. `None`, with a message, without make.
fn installed(systemd: &str) -> Option<TempDir> {
    let root = have("make").then(|| tempfile::tempdir().unwrap())?;
    let variables = [
        ("DESTDIR", root.path().as_os_str()),
        ("BINARY", OsStr::new(BINARY)),
        ("SYSTEMD_VERSION", OsStr::new(systemd)),
    ];
    run(&mut make("install", &variables));
    Some(root)
}

/// Every file below a folder with its mode, and every link with `None`.
fn files(folder: &Path) -> BTreeMap<PathBuf, Option<u32>> {
    fn walk(folder: &Path, base: &Path, found: &mut BTreeMap<PathBuf, Option<u32>>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_dir() {
                assert_eq!(mode, 0o755, "{}", path.display());
                walk(&path, base, found);
            } else {
                let name = path.strip_prefix(base).unwrap().to_owned();
                found.insert(name, metadata.is_file().then_some(mode));
            }
        }
    }
    let mut found = BTreeMap::new();
    let entries = fs::read_dir(folder).unwrap();
    for entry in entries.map(|entry| entry.unwrap().path()) {
        walk(&entry, folder, &mut found);
    }
    found
}
