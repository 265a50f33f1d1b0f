//! systemd-networkd runs DHCP on links that a file of its own matches, and flushes addresses and
//! routes there that are not in it.

use zbus::{OwnedObjectPath, OwnedVariant};

use super::call::{Manager, Silence, brief};
use super::network_manager::is_no_object;
use crate::plan::Footprint;

pub(super) const NAME: &str = "org.freedesktop.network1";

const ROOT: (&str, &str) = (
    "/org/freedesktop/network1",
    "org.freedesktop.network1.Manager",
);
const LINK: &str = "org.freedesktop.network1.Link";
const UNKNOWN: &str = "org.freedesktop.network1.NoSuchLink";

/// What is wrong, each with what to do about it.
pub(super) async fn look(manager: &Manager<'_>, footprint: &Footprint) -> Vec<String> {
    let mut taken = Vec::new();
    for link in &footprint.links {
        match state(manager, link).await {
            // it has not decided yet, or the link has gone
            Ok(state) if ["unmanaged", "pending", "initialized", "linger"].contains(&&*state) => {}
            Ok(state) => taken.push((link.as_str(), brief(&state))),
            Err(Silence::Gone) => return Vec::new(),
            Err(silence) => {
                return vec![format!(
                    "cannot tell whether systemd-networkd leaves {link} alone: {silence}; see \
                     `networkctl`"
                )];
            }
        }
    }
    if taken.is_empty() {
        return Vec::new();
    }
    let states = taken.iter();
    let states = states.map(|(link, state)| format!("{link} ({state})"));
    let names: Vec<_> = taken.iter().map(|(link, _)| *link).collect();
    vec![format!(
        "systemd-networkd manages {}, which this service sets up; install \
         /usr/lib/systemd/network/00-flannel-rs.network, or write a file in /etc/systemd/network \
         that comes before all others and has [Match] Name={} and [Link] Unmanaged=yes; then run: \
         networkctl reload",
        states.collect::<Vec<_>>().join(", "),
        names.join(" ")
    )]
}

/// Its word for what it does with the link.
async fn state(manager: &Manager<'_>, link: &str) -> Result<String, Silence> {
    let gone = || Ok("linger".to_owned());
    let found = manager.call(ROOT, "GetLinkByName", &link).await;
    let (_, path): (i32, OwnedObjectPath) = match found {
        Err(Silence::Error { name, .. }) if name == UNKNOWN => return gone(),
        found => found?,
    };
    let place = (path.as_str(), "org.freedesktop.DBus.Properties");
    let state = manager.call(place, "Get", &(LINK, "AdministrativeState"));
    let state: OwnedVariant = match state.await {
        Err(Silence::Error { name, .. }) if is_no_object(&name) => return gone(),
        state => state?,
    };
    let nonsense = |_| Silence::Nonsense("AdministrativeState is no text".to_owned());
    String::try_from(state).map_err(nonsense)
}
