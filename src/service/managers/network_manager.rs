//! NetworkManager makes connections of its own for links that it manages, and takes addresses and
//! routes away with them.

use std::path::Path;

use zbus::{OwnedObjectPath, OwnedVariant};

use super::call::{Manager, Silence};
use crate::plan::Footprint;

pub(super) const NAME: &str = "org.freedesktop.NetworkManager";

const ROOT: (&str, &str) = ("/org/freedesktop/NetworkManager", NAME);
const DEVICE: &str = "org.freedesktop.NetworkManager.Device";
const UNKNOWN: &str = "org.freedesktop.NetworkManager.UnknownDevice";

/// What keeps it away, as the package installs it.
const FILE: &str = "NetworkManager/conf.d/flannel-rs.conf";

/// What is wrong, each with what to do about it.
pub(super) async fn look(manager: &Manager<'_>, footprint: &Footprint) -> Vec<String> {
    let mut managed = Vec::new();
    for link in &footprint.links {
        match is_managed(manager, link).await {
            Ok(true) => managed.push(link.as_str()),
            Ok(false) => {}
            Err(Silence::Gone) => return Vec::new(),
            Err(silence) => {
                return vec![format!(
                    "cannot tell whether NetworkManager leaves {link} alone: {silence}; see \
                     `nmcli device`"
                )];
            }
        }
    }
    if managed.is_empty() {
        return Vec::new();
    }
    let commands = managed.iter();
    let commands = commands.map(|link| format!("nmcli device set {link} managed no"));
    let commands = commands.collect::<Vec<_>>().join("; ");
    let folders = ["/etc", "/run", "/usr/lib"];
    let is_there = |folder| Path::new(folder).join(FILE).exists();
    let file = match folders.into_iter().any(is_there) {
        true => format!("name them in /etc/{FILE}, a copy of the one in /usr/lib"),
        false => format!("install /usr/lib/{FILE}, which is missing"),
    };
    vec![format!(
        "NetworkManager manages {}, which this service sets up; run: {commands}; and for good, \
         {file}, then run: nmcli general reload",
        managed.join(", ")
    )]
}

async fn is_managed(manager: &Manager<'_>, link: &str) -> Result<bool, Silence> {
    let device = manager.call(ROOT, "GetDeviceByIpIface", &link).await;
    let device: OwnedObjectPath = match device {
        // it has not seen it yet, or has no interest in it
        Err(Silence::Error { name, .. }) if name == UNKNOWN => return Ok(false),
        device => device?,
    };
    let place = (device.as_str(), "org.freedesktop.DBus.Properties");
    let managed = manager.call(place, "Get", &(DEVICE, "Managed")).await;
    let managed: OwnedVariant = match managed {
        // the device has gone since
        Err(Silence::Error { name, .. }) if is_no_object(&name) => return Ok(false),
        managed => managed?,
    };
    let nonsense = |_| Silence::Nonsense("Managed is no boolean".to_owned());
    bool::try_from(managed).map_err(nonsense)
}

/// Whether an error says that the object, or what was to be found there, is not there any more.
pub(super) fn is_no_object(name: &str) -> bool {
    let of = name.strip_prefix("org.freedesktop.DBus.Error.");
    matches!(
        of,
        Some("UnknownObject" | "UnknownMethod" | "UnknownInterface")
    )
}
