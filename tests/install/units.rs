//! What systemd and its tools make of the files.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{PROJECT, have, installed, run};

const RELOAD: &str = "10-notify-reload.conf";
const STEPS: &str = "10-restart-steps.conf";

#[test]
fn drop_ins_follow_systemds_version() {
    let Some(root) = installed("252.39-1~deb12u1") else {
        return;
    };
    let folder = root
        .path()
        .join("usr/lib/systemd/system/flannel-rs.service.d");
    let place = |version: &str| {
        let script = Path::new(PROJECT).join("packaging/drop-ins");
        run(Command::new(script)
            .args([version, "/usr/share/flannel-rs", "/usr/lib/systemd/system"])
            .arg(root.path()));
        let names = fs::read_dir(&folder).into_iter().flatten();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert!(!folder.exists());
    assert_eq!(place("253"), [RELOAD]);
    assert_eq!(place("257.1-3"), [RELOAD, STEPS]);
    assert_eq!(place("253~rc1"), [RELOAD]);
    // no systemd, as in a container that a package is unpacked in
    assert_eq!(place(""), [""; 0]);
    assert!(!folder.exists());
}

/// The installation as a root of its own, with the units of this host that ours refers to.
fn with_host_units(root: &Path) -> bool {
    let host = ["/usr/lib/systemd/system", "/lib/systemd/system"].map(Path::new);
    let Some(host) = host
        .into_iter()
        .find(|folder| folder.join("sysinit.target").exists())
    else {
        eprintln!("skipped: this needs systemd's units");
        return false;
    };
    run(Command::new("cp")
        .args(["-RPn"])
        .arg(host.join("."))
        .arg(root.join("usr/lib/systemd/system")));
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/sh", root.join("bin/sh")).unwrap();
    true
}

fn systemd_version() -> Option<u32> {
    let output =
        have("systemd-analyze").then(|| run(Command::new("systemd-analyze").arg("--version")))?;
    output.split([' ', '.', '~', '-']).nth(1)?.parse().ok()
}

#[test]
fn systemd_has_nothing_to_say_about_the_unit() {
    let Some(version) = systemd_version() else {
        return;
    };
    let Some(root) = installed(&version.to_string()) else {
        return;
    };
    if !with_host_units(root.path()) {
        return;
    }
    let verify = |root: &Path| {
        let option = format!("--root={}", root.display());
        let words = [
            "verify",
            "--man=no",
            "--recursive-errors=no",
            &option,
            "flannel-rs.service",
        ];
        let output = Command::new("systemd-analyze")
            .args(words)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(verify(root.path()), (true, String::new()));
    // the proof that it looks: a misspelt key is told
    let unit = root
        .path()
        .join("usr/lib/systemd/system/flannel-rs.service");
    let text = fs::read_to_string(&unit).unwrap();
    fs::write(&unit, text.replace("\nPrivateTmp=", "\nPrivateTemp=")).unwrap();
    assert!(verify(root.path()).1.contains("PrivateTemp"));
}

/// Every peer that was measured has more: networkd 2.8, tailscaled 9.6.
#[test]
fn the_unit_is_exposed_by_two_at_most() {
    if systemd_version().is_none() {
        return;
    }
    let unit = Path::new(PROJECT).join("systemd/system/flannel-rs.service");
    let security = |threshold: &str| {
        Command::new("systemd-analyze")
            .args(["security", "--no-pager", "--offline=true", threshold])
            .arg(&unit)
            .output()
            .unwrap()
    };
    let output = security("--threshold=20");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(
        !security("--threshold=5").status.success(),
        "the threshold is not looked at"
    );
}

#[test]
fn systemds_tools_read_the_other_files() {
    let Some(root) = installed("252") else { return };
    if have("systemd-sysusers") {
        let option = format!("--root={}", root.path().display());
        let output =
            run(Command::new("systemd-sysusers").args([&option, "--dry-run", "flannel-rs.conf"]));
        assert!(output.contains("user 'flannel-rs'"), "{output}");
    }
    let sysctl =
        fs::read_to_string(root.path().join("usr/lib/sysctl.d/50-flannel-rs.conf")).unwrap();
    let mut keys = sysctl.lines().filter(|line| !line.starts_with('#'));
    for key in &mut keys {
        let (key, _) = key.split_once(" = ").unwrap();
        let file = Path::new("/proc/sys").join(key.replace('.', "/"));
        assert!(file.exists(), "the kernel has no {key}");
    }
}

#[test]
fn iproute2_names_our_routes() {
    let text =
        fs::read_to_string(Path::new(PROJECT).join("systemd/iproute2/rt_protos.d/flannel-rs.conf"));
    let text = text.unwrap();
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let words: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(words, ["96", "flannel"]);
    assert_eq!(lines.next(), None);
}
