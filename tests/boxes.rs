//! Who may import whom: docs/architecture.md, section "The boxes".

#![expect(
    clippy::unwrap_used,
    reason = "clippy takes only functions marked #[test] for tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each box may import of the others. `mac` is a leaf that all may use.
const RULES: &[(&str, &[&str])] = &[
    ("mac", &[]),
    ("cluster", &[]),
    ("kernel", &[]),
    ("proxy", &[]),
    ("plan", &["cluster", "kernel", "proxy"]),
    ("config", &["cluster", "kernel", "proxy"]),
    ("service", &["cluster", "config", "kernel", "plan", "proxy"]),
    ("doctor", &["cluster", "kernel", "service"]),
    ("cli", &["config", "doctor", "service"]),
];

/// Of `service` the command line knows only what a client of the bus needs, and where the two
/// subcommands that work without a running service begin.
const CLI: &[&str] = &["dbus", "start", "status"];
/// What the doctor may know of `service`: what it says of itself.
const DOCTOR: &[&str] = &["status"];
/// Only these of `kernel` may be known to pure code: types, not the running kernel.
const PURE_KERNEL: &[&str] = &["firewall", "passage", "state", "uplink"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let nested = folders.iter().flat_map(|folder| sources(folder));
    let rust = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"));
    rust.chain(nested).collect()
}

/// The boxes and modules that a file names: `("kernel", "state")` for `crate::kernel::state::…`.
fn imports(text: &str) -> Vec<(String, String)> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let word = |text: &str| -> String {
            text.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        };
        let first = word(rest);
        let after = rest[first.len()..].strip_prefix("::").unwrap_or("");
        match after.strip_prefix('{') {
            None => found.push((first, word(after))),
            Some(group) => {
                let group = group.split(';').next().unwrap_or("");
                let names = group.split([',', '{', '}', '\n', ' ']).map(word);
                let names = names.filter(|name| name.starts_with(char::is_lowercase));
                found.extend(names.map(|name| (first.clone(), name)));
            }
        }
    }
    found
}

#[test]
fn boxes_import_only_what_they_may() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let rules: BTreeMap<&str, &[&str]> = RULES.iter().copied().collect();
    let mut broken = Vec::new();
    let mut seen = 0;
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).unwrap().to_owned();
        let first = relative.components().next().unwrap().as_os_str();
        let name = Path::new(first)
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let Some(allowed) = rules.get(name.as_str()) else {
            assert!(
                ["lib", "main"].contains(&name.as_str()),
                "{name} is in no box"
            );
            continue;
        };
        for (other, module) in imports(&fs::read_to_string(&path).unwrap()) {
            seen += 1;
            let fine = other == name
                || other == "mac"
                || allowed.contains(&other.as_str())
                    && (name != "cli" || other != "service" || CLI.contains(&module.as_str()))
                    && (name != "doctor"
                        || other != "service"
                        || DOCTOR.contains(&module.as_str()))
                    && (!["plan", "config"].contains(&name.as_str())
                        || other != "kernel"
                        || PURE_KERNEL.contains(&module.as_str()));
            if !fine {
                broken.push(format!("{} imports {other}::{module}", relative.display()));
            }
        }
    }
    assert!(
        seen > 100,
        "only {seen} imports found: does the test still read them?"
    );
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn imports_are_read_in_all_their_forms() {
    let text = "use crate::kernel::state::{Link, Route};\nuse crate::proxy::{Settings, table::Table};\n\
                // crate::cluster::etcd\nlet x = crate::plan::previous_subnet(y);\n";
    let found: Vec<String> = imports(text)
        .iter()
        .map(|(a, b)| format!("{a} {b}"))
        .collect();
    assert_eq!(
        found,
        ["kernel state", "proxy table", "plan previous_subnet"]
    );
}
