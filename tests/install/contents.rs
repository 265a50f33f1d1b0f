//! What an installation holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::PROJECT;

/// Where each file of a folder of the project belongs, its folders included.
const FOLDERS: &[(&str, &str)] = &[
    ("systemd/system", "usr/lib/systemd/system"),
    ("systemd/since-253", "usr/share/flannel-rs/since-253"),
    ("systemd/since-254", "usr/share/flannel-rs/since-254"),
    ("systemd/sysusers.d", "usr/lib/sysusers.d"),
    ("systemd/sysctl.d", "usr/lib/sysctl.d"),
    ("systemd/modules-load.d", "usr/lib/modules-load.d"),
    ("systemd/network", "usr/lib/systemd/network"),
    ("systemd/networkd.conf.d", "usr/lib/systemd/networkd.conf.d"),
    ("systemd/system-preset", "usr/lib/systemd/system-preset"),
    ("systemd/catalog", "usr/lib/systemd/catalog"),
    ("systemd/NetworkManager", "usr/lib/NetworkManager"),
    ("systemd/dbus-1", "usr/share/dbus-1"),
    ("systemd/polkit-1", "usr/share/polkit-1"),
    ("systemd/iproute2", "etc/iproute2"),
    ("systemd/dhcpcd", "usr/share/flannel-rs/dhcpcd"),
    (
        "systemd/docker.service.d",
        "usr/share/flannel-rs/docker.service.d",
    ),
    ("docs", "usr/share/doc/flannel-rs"),
];

/// Where the binary writes its manual: a page for each subcommand that there is.
const MANUAL: &str = "usr/share/man/man1";

const COMPLETIONS: &[&str] = &[
    "usr/share/bash-completion/completions/flannel-rs",
    "usr/share/fish/vendor_completions.d/flannel-rs.fish",
];
pub(crate) const ZSH_COMPLETIONS: &str = "usr/share/zsh/site-functions/_flannel-rs";
pub(crate) const ZSH_COMPLETIONS_OF_DEBIAN: &str = "usr/share/zsh/vendor-completions/_flannel-rs";

/// Every file of a folder of the project, by its path in it.
fn sources(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(PROJECT).join(folder);
    let listed = Command::new("find")
        .args([folder.as_os_str(), "-type".as_ref(), "f".as_ref()])
        .output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let inside = |path: &str| Path::new(path).strip_prefix(&folder).unwrap().to_owned();
    listed.lines().map(inside).collect()
}

/// What an installation without drop-ins has to hold.
pub(crate) fn expected() -> BTreeMap<PathBuf, Option<u32>> {
    let mut expected = BTreeMap::new();
    for (source, target) in FOLDERS {
        let places = sources(source)
            .into_iter()
            .map(|file| Path::new(target).join(file));
        expected.extend(places.map(|place| (place, Some(0o644))));
    }
    for example in sources("examples") {
        if example.components().count() == 1 {
            let place = Path::new("usr/share/doc/flannel-rs/examples").join(example);
            expected.insert(place, Some(0o644));
        }
    }
    for file in ["README.md", "CHANGELOG.md"] {
        expected.insert(
            Path::new("usr/share/doc/flannel-rs").join(file),
            Some(0o644),
        );
    }
    for file in COMPLETIONS {
        expected.insert(file.into(), Some(0o644));
    }
    expected.insert("etc/flannel-rs/config.toml".into(), Some(0o644));
    expected.insert("usr/bin/flannel-rs".into(), Some(0o755));
    expected
}

/// The manual pages with this ending, taken out of what was found.
pub(crate) fn take_manual(found: &mut BTreeMap<PathBuf, Option<u32>>, ending: &str) -> Vec<String> {
    let mut pages = Vec::new();
    found.retain(|path, mode| {
        let page = path
            .strip_prefix(MANUAL)
            .ok()
            .filter(|_| *mode == Some(0o644));
        let page = page.and_then(|page| page.to_str()?.strip_suffix(ending));
        pages.extend(page.map(str::to_owned));
        page.is_none()
    });
    pages
}

/// The pages that have to be there, of all.
pub(crate) fn has_a_manual(pages: &[String]) -> bool {
    let wanted = ["flannel-rs", "flannel-rs-status", "flannel-rs-daemon"];
    wanted
        .iter()
        .all(|page| pages.iter().any(|found| found == page))
}
