//! Links of the service in the hands of others: stand-ins for NetworkManager and systemd-networkd.

use std::sync::{Arc, Mutex};

use zbus::OwnedVariant;
use zbus::message::Message;

use crate::managers::{Service, footprint};
use crate::stand_in::{NETWORK_MANAGER, NETWORKD, Reply, StandIn, method};
use crate::support::bus::PrivateBus;

/// NetworkManager, which knows `flannel.1` and may manage it.
pub(crate) async fn network_manager(bus: &PrivateBus, managed: Arc<Mutex<bool>>) -> StandIn {
    let answer = move |call: &Message| match method(call).as_str() {
        "NetworkManager GetDeviceByIpIface" => {
            let link: String = call.body().deserialize().unwrap();
            match link.as_str() {
                "flannel.1" => Reply::Path("/org/freedesktop/NetworkManager/Devices/7"),
                _ => Reply::Error(
                    "org.freedesktop.NetworkManager.UnknownDevice",
                    "No device found for the requested iface.".to_owned(),
                ),
            }
        }
        "DBus.Properties Get" => {
            let asked: (String, String) = call.body().deserialize().unwrap();
            assert_eq!(asked.0, "org.freedesktop.NetworkManager.Device");
            assert_eq!(asked.1, "Managed");
            Reply::Value(OwnedVariant::from(*managed.lock().unwrap()))
        }
        other => panic!("{other}"),
    };
    StandIn::start(bus, NETWORK_MANAGER, answer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_network_manager_manages_is_told() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let managed = Arc::new(Mutex::new(true));
    let other = network_manager(&bus, managed.clone()).await;
    let mut service = Service::start(&bus);
    let mut wanted = footprint();
    wanted.links.insert("docker0".to_owned());
    service.want(wanted.clone());
    let told = service.trouble("NetworkManager").await;
    let expected = "NetworkManager manages flannel.1, which this service sets up; run: nmcli \
                    device set flannel.1 managed no; and for good, ";
    assert!(told.starts_with(expected), "{told}");
    assert!(
        told.contains("/NetworkManager/conf.d/flannel-rs.conf"),
        "{told}"
    );
    *managed.lock().unwrap() = false;
    service.is_well(&wanted).await;

    *managed.lock().unwrap() = true;
    wanted.links.remove("docker0");
    service.want(wanted.clone());
    service.trouble("NetworkManager").await;
    other.go().await;
    service.is_well(&wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_networkd_manages_is_told() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let state = Arc::new(Mutex::new(OwnedVariant::from(zbus::Str::from("pending"))));
    let shared = state.clone();
    let answer = move |call: &Message| match method(call).as_str() {
        "network1.Manager GetLinkByName" => {
            let link: String = call.body().deserialize().unwrap();
            match link.as_str() {
                "flannel.1" => Reply::Link(9, "/org/freedesktop/network1/link/_39"),
                _ => Reply::Error(
                    "org.freedesktop.network1.NoSuchLink",
                    format!("Link {link} not known"),
                ),
            }
        }
        "DBus.Properties Get" => {
            let asked: (String, String) = call.body().deserialize().unwrap();
            assert_eq!(asked.0, "org.freedesktop.network1.Link");
            assert_eq!(asked.1, "AdministrativeState");
            Reply::Value(shared.lock().unwrap().clone())
        }
        other => panic!("{other}"),
    };
    let set = |new: &'static str| *state.lock().unwrap() = zbus::Str::from(new).into();
    let other = StandIn::start(&bus, NETWORKD, answer).await;
    let mut service = Service::start(&bus);
    let mut wanted = footprint();
    wanted.links.insert("docker0".to_owned());
    service.want(wanted.clone());
    service.is_well(&wanted).await;

    set("configured");
    other.go().await;
    other.come().await;
    let told = service.trouble("systemd-networkd").await;
    let expected = "systemd-networkd manages flannel.1 (configured), which this service sets up; \
                    install /usr/lib/systemd/network/00-flannel-rs.network, or";
    assert!(told.starts_with(expected), "{told}");
    assert!(
        told.contains("[Match] Name=flannel.1 and [Link] Unmanaged=yes"),
        "{told}"
    );
    assert!(told.ends_with("networkctl reload"), "{told}");
    set("unmanaged");
    service.is_well(&wanted).await;

    *state.lock().unwrap() = OwnedVariant::from(7_u32);
    other.go().await;
    other.come().await;
    service.trouble("AdministrativeState is no text").await;
}
