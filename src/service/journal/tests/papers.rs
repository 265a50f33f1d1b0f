//! What the documentation and the message catalog say of the occasions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::Occasion;

const CATALOG: &str = "systemd/catalog/flannel-rs.catalog";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn occasions() -> BTreeMap<String, String> {
    let occasion = |occasion: &Occasion| (occasion.id().to_owned(), occasion.name().to_owned());
    Occasion::ALL.iter().map(occasion).collect()
}

#[test]
fn the_documentation_has_every_occasion_with_its_number() {
    let text = fs::read_to_string(path("docs/journal.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`'));
        let (name, id) = (cells.nth(1)?, cells.next()?);
        (id.len() == 32).then(|| (id.to_owned(), name.to_owned()))
    });
    let rows: Vec<(String, String)> = rows.collect();
    assert_eq!(rows.len(), Occasion::ALL.len(), "one row each");
    assert_eq!(rows.into_iter().collect::<BTreeMap<_, _>>(), occasions());
}

/// The first comment line of each block is the name.
#[test]
fn the_catalog_explains_every_occasion() {
    let text = fs::read_to_string(path(CATALOG)).unwrap();
    let mut blocks = BTreeMap::new();
    for block in text.split("\n-- ").skip(1) {
        let (id, rest) = block.split_once('\n').unwrap();
        let (header, explanation) = rest.split_once("\n\n").unwrap();
        for field in ["Subject: ", "Defined-By: flannel-rs", "Documentation: "] {
            let has = header.lines().any(|line| line.starts_with(field));
            assert!(has, "{id} has no {field}");
        }
        assert!(explanation.trim().len() > 40, "{id} is explained");
        blocks.insert(id.to_owned(), ());
    }
    let expected: BTreeMap<_, _> = occasions().into_keys().map(|id| (id, ())).collect();
    assert_eq!(blocks, expected);
    // the name stands above each block
    for (id, name) in occasions() {
        let heading = format!("# {name}\n-- {id}\n");
        assert!(text.contains(&heading), "no {heading:?}");
    }
}

#[test]
fn journalctl_takes_the_catalog() {
    let root = tempfile::TempDir::new().unwrap();
    let folder = root.path().join("usr/lib/systemd/catalog");
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(root.path().join("var/lib/systemd/catalog")).unwrap();
    fs::copy(path(CATALOG), folder.join("flannel-rs.catalog")).unwrap();
    let journalctl = |argument: &str| {
        let mut command = Command::new("journalctl");
        let root = format!("--root={}", root.path().display());
        command.args([&root, "--no-pager", argument]).output()
    };
    let Ok(output) = journalctl("--update-catalog") else {
        eprintln!("skipped: no journalctl here");
        return;
    };
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let output = journalctl("--dump-catalog").unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for id in occasions().keys() {
        assert!(
            text.contains(&format!("-- {id}")),
            "{id} in {text} {output:?}"
        );
    }
}
