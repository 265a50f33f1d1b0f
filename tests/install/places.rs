//! What `make install` puts where.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contents::{ZSH_COMPLETIONS, expected, has_a_manual, take_manual};
use crate::{BINARY, PROJECT, files, have, installed, make, run};

#[test]
fn everything_has_its_place_and_nothing_else_is_there() {
    let Some(root) = installed("252") else { return };
    let mut found = files(root.path());
    assert!(has_a_manual(&take_manual(&mut found, ".1")));
    let mut expected = expected();
    expected.insert(ZSH_COMPLETIONS.into(), Some(0o644));
    assert_eq!(found, expected);
}

#[test]
fn uninstall_keeps_the_config_and_what_is_not_ours() {
    let Some(root) = installed("257") else { return };
    let foreign = root.path().join("usr/lib/sysctl.d/10-foreign.conf");
    fs::write(&foreign, "").unwrap();
    let variables = [
        ("DESTDIR", root.path().as_os_str()),
        ("BINARY", BINARY.as_ref()),
    ];
    run(make("uninstall", &variables).env("SYSTEMD_VERSION", "257"));
    let left: Vec<PathBuf> = files(root.path()).into_keys().collect();
    let left: Vec<&str> = left.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(
        left,
        [
            "etc/flannel-rs/config.toml",
            "usr/lib/sysctl.d/10-foreign.conf"
        ]
    );
    assert!(!root.path().join("usr/share/flannel-rs").exists());
}

#[test]
fn an_installed_config_is_not_overwritten() {
    let Some(root) = installed("252") else { return };
    let config = root.path().join("etc/flannel-rs/config.toml");
    run(Command::new(BINARY).arg("check").arg(&config));
    fs::write(&config, "[node]\nname = \"mine\"\n").unwrap();
    let variables = [
        ("DESTDIR", root.path().as_os_str()),
        ("BINARY", BINARY.as_ref()),
    ];
    run(&mut make("install", &variables));
    assert_eq!(
        fs::read_to_string(&config).unwrap(),
        "[node]\nname = \"mine\"\n"
    );
}

#[test]
fn another_prefix_is_meant_everywhere() {
    if !have("make") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let variables = [
        ("DESTDIR", root.path().as_os_str()),
        ("BINARY", BINARY.as_ref()),
        ("PREFIX", "/usr/local".as_ref()),
        ("SYSTEMD_VERSION", "257".as_ref()),
    ];
    run(&mut make("install", &variables));
    assert!(!root.path().join("usr/bin").exists());
    let folder = root.path().join("usr/local/lib/systemd/system");
    let unit = fs::read_to_string(folder.join("flannel-rs.service")).unwrap();
    assert!(
        unit.contains("\nExecStart=/usr/local/bin/flannel-rs daemon\n"),
        "{unit}"
    );
    let drop_in = folder.join("flannel-rs.service.d/10-notify-reload.conf");
    let target = fs::read_link(drop_in).unwrap();
    let target = root.path().join(target.strip_prefix("/").unwrap());
    let text = fs::read_to_string(target).unwrap();
    assert!(
        text.contains("\nExecReload=/usr/local/bin/flannel-rs check\n"),
        "{text}"
    );
}

/// The config that is installed says nothing, and what it suggests is right.
#[test]
fn the_installed_config_is_a_comment() {
    let text = fs::read_to_string(Path::new(PROJECT).join("packaging/config.toml")).unwrap();
    assert!(
        text.lines()
            .all(|line| line.is_empty() || line.starts_with('#'))
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let suggested = text.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => key,
        _ => "",
    });
    fs::write(&file, suggested.collect::<Vec<_>>().join("\n")).unwrap();
    run(Command::new(BINARY).arg("check").arg(&file));
}
