//! The Debian package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contents::{ZSH_COMPLETIONS_OF_DEBIAN, expected, has_a_manual, take_manual};
use crate::{BINARY, PROJECT, files, have, run};

/// A package of version 1.2.3, alone in the folder.
fn package(folder: &Path) -> PathBuf {
    let script = Path::new(PROJECT).join("packaging/debian/build");
    run(Command::new("sh")
        .args(["-c", "umask 077; exec \"$@\"", "sh"])
        .arg(script)
        .args([BINARY, "1.2.3"])
        .arg(folder)
        .env("DPKG_DEB_COMPRESSOR_TYPE", "none"));
    let file = fs::read_dir(folder).unwrap().next();
    file.unwrap().unwrap().path()
}

#[test]
fn the_package_holds_what_install_lays_out() {
    if !(have("make") && have("dpkg-deb") && have("dpkg-shlibdeps")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = package(folder.path());
    let name = file.file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with("flannel-rs_1.2.3_") && name.ends_with(".deb"),
        "{name}"
    );

    let listed = run(Command::new("dpkg-deb").arg("--contents").arg(&file));
    assert!(
        listed.lines().all(|line| line.contains(" root/root ")),
        "{listed}"
    );

    let root = folder.path().join("root");
    run(Command::new("dpkg-deb")
        .arg("--raw-extract")
        .args([&file, &root]));
    let control = |name: &str| fs::read_to_string(root.join("DEBIAN").join(name)).unwrap();
    assert!(control("control").contains("\nVersion: 1.2.3\n"));
    assert!(
        control("control").contains("\nDepends: libc6 (>= "),
        "{}",
        control("control")
    );
    assert!(!control("control").contains("@ARCH") && !control("control").contains("@SIZE"));
    for script in ["postinst", "prerm", "postrm"] {
        run(Command::new("sh")
            .arg("-n")
            .arg(root.join("DEBIAN").join(script)));
    }
    let sums = root.join("DEBIAN/md5sums");
    run(Command::new("md5sum")
        .args(["--check", "--quiet"])
        .arg(sums)
        .current_dir(&root));
    let configs: Vec<_> = files(&root.join("etc")).into_keys().collect();
    let configs = configs
        .iter()
        .map(|path| format!("/etc/{}\n", path.display()));
    assert_eq!(control("conffiles"), configs.collect::<String>());

    let mut found = files(&root);
    found.retain(|path, _| !path.starts_with("DEBIAN"));
    assert!(has_a_manual(&take_manual(&mut found, ".1.gz")));
    let mut expected = expected();
    for file in [
        ZSH_COMPLETIONS_OF_DEBIAN,
        "usr/share/doc/flannel-rs/changelog.gz",
        "usr/share/doc/flannel-rs/copyright",
        "usr/share/lintian/overrides/flannel-rs",
    ] {
        expected.insert(file.into(), Some(0o644));
    }
    expected.insert("usr/lib/flannel-rs/drop-ins".into(), Some(0o755));
    assert_eq!(found, expected);
}
