//! The `Interface` interface: one link of this host.

use std::collections::BTreeMap;
use std::fmt::Write;

use zbus::{Variant, interface};

use super::collection::Shown;
use super::{ROOT, text};
use crate::service::status::{InterfaceStatus, LinkStatus};

/// One link of this host on the bus.
pub(super) struct Link(InterfaceStatus);

/// A network interface of this host that belongs to the overlay or to the containers: as the
/// service wants it, and as it found it.
#[interface(name = "org.flannelrs.Flannel1.Interface")]
impl Link {
    /// The interface's name, such as "flannel.1".
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> String {
        text(&self.0.name)
    }

    /// What it should be: Kind (s, in the words of ip(8): "vxlan", "bridge", "tun"), MAC (s,
    /// empty where it has none or any will do), MTU (u, in bytes), Up (b, whether it is
    /// administratively up) and Addresses (as, IPv4 with the length of the prefix, such as
    /// "100.96.1.0/32"). More keys may come. Empty for an interface that is to go.
    #[zbus(property)]
    fn desired(&self) -> BTreeMap<&str, Variant<'static>> {
        dictionary(self.0.desired.as_ref())
    }

    /// What it was when the service last read it from the kernel, in the same form. Empty if it
    /// was not there.
    #[zbus(property)]
    fn observed(&self) -> BTreeMap<&str, Variant<'static>> {
        dictionary(self.0.observed.as_ref())
    }
}

fn dictionary(link: Option<&LinkStatus>) -> BTreeMap<&'static str, Variant<'static>> {
    let Some(link) = link else {
        return BTreeMap::new();
    };
    let mac = link.mac.as_deref().map(text).unwrap_or_default();
    let addresses: Vec<_> = link.addresses.iter().map(|one| text(one)).collect();
    BTreeMap::from([
        ("Kind", Variant::from(text(&link.kind))),
        ("MAC", Variant::from(mac)),
        ("MTU", Variant::from(link.mtu)),
        ("Up", Variant::from(link.up)),
        ("Addresses", Variant::from(addresses)),
    ])
}

impl Shown for Link {
    type Row = InterfaceStatus;
    type Source = ();

    fn new(row: InterfaceStatus, (): ()) -> Self {
        Self(row)
    }

    /// `…/interface/_flannel_2e1`, as systemd escapes names.
    fn path(row: &InterfaceStatus) -> String {
        let mut path = format!("{ROOT}/interface/_");
        for byte in row.name.bytes() {
            if byte.is_ascii_alphanumeric() {
                path.push(char::from(byte));
            } else {
                // writing to a String cannot fail
                let _ = write!(path, "_{byte:02x}");
            }
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_names_have_different_valid_paths() {
        let path = |name: &str| {
            Link::path(&InterfaceStatus {
                name: name.to_owned(),
                desired: None,
                observed: None,
            })
        };
        let start = "/org/flannelrs/Flannel1/interface/";
        assert_eq!(path("flannel.1"), format!("{start}_flannel_2e1"));
        assert_eq!(path("docker0"), format!("{start}_docker0"));
        assert_eq!(path("a_b"), format!("{start}_a_5fb"));
        for name in ["", "é", "a\0b", "a/b"] {
            let path = path(name);
            assert!(
                zbus::OwnedObjectPath::try_from(path.as_str()).is_ok(),
                "{path}"
            );
        }
    }
}
