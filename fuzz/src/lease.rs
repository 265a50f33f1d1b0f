//! The key and the value of a lease, as they come out of etcd: `key\nvalue`.

use flannel_rs::cluster::datastore::{Entry, Event, Revision, SUBNETS};
use flannel_rs::cluster::lease::Attrs;
use flannel_rs::cluster::subnet::Subnet;
use flannel_rs::cluster::view::View;

use super::{assert_presentable, with_unknown_field};

/// A value that a flanneld has written.
const GOOD: &[u8] = br#"{"PublicIP":"192.168.64.3","PublicIPv6":null}"#;

/// Reads a line as the last component of a key, and what follows as its value.
pub fn lease(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    let (name, value) = data.split_at(end.unwrap_or(data.len()));
    let value = value.get(1..).unwrap_or_default();
    let attrs = attrs(value);
    if let Ok(name) = std::str::from_utf8(name) {
        view(name, value, attrs.as_ref(), subnet(name));
    }
}

fn subnet(name: &str) -> Option<Subnet> {
    match Subnet::from_key(name) {
        Ok(subnet) => {
            assert_eq!(Subnet::from_key(&subnet.key()), Ok(subnet), "{name:?}");
            assert_eq!(subnet.v4(), subnet.v4().trunc(), "{name:?}");
            assert!(subnet.v4().contains(&subnet.gateway()), "{name:?}");
            assert!(subnet.overlaps(subnet), "{name:?}");
            Some(subnet)
        }
        Err(error) => {
            assert_presentable(&error.to_string());
            None
        }
    }
}

fn attrs(value: &[u8]) -> Option<Attrs> {
    let attrs = match Attrs::from_json(value) {
        Ok(attrs) => attrs,
        Err(error) => {
            assert_presentable(&error.to_string());
            return None;
        }
    };
    let written = attrs.to_json();
    assert_eq!(Attrs::from_json(written.as_bytes()).as_ref(), Ok(&attrs));
    // a value with as many fields as are allowed has no room for one more
    let unknown = std::str::from_utf8(value).ok().and_then(with_unknown_field);
    if let Some(Ok(same)) = unknown.map(|text| Attrs::from_json(text.as_bytes())) {
        assert_eq!(same, attrs);
    }
    Some(attrs)
}

/// An entry is a lease or garbage, never both; garbage in a good lease's place leaves the lease,
/// and one key does nothing to the lease of another.
fn view(name: &str, value: &[u8], attrs: Option<&Attrs>, subnet: Option<Subnet>) {
    let mut view = View::default();
    let key = format!("{SUBNETS}{name}");
    let regular = subnet.map_or(SUBNETS.to_owned() + "10.5.34.0-24", |subnet| {
        SUBNETS.to_owned() + &subnet.key()
    });
    view.apply(put(&regular, GOOD, 1));
    let before: Vec<_> = view.records().cloned().collect();
    assert_eq!(before.len(), 1);
    view.apply(put(&key, value, 2));
    let now: Vec<_> = view.records().cloned().collect();
    let replaced = now
        .iter()
        .find(|record| record.revision == Revision(2))
        .map(|record| &record.lease.attrs);
    let is_lease = key == regular && attrs.is_some();
    assert_eq!(replaced, attrs.filter(|_| is_lease), "{key:?}");
    assert_eq!(now.len(), 1, "{key:?}");
    assert_eq!(view.garbage().contains_key(&key), !is_lease, "{key:?}");
    for garbage in view.garbage().values() {
        assert_presentable(&garbage.reason);
    }
    if let Some(subnet) = subnet {
        assert!(view.taken().any(|taken| taken == subnet), "{key:?}");
    }
    view.apply(Event::Deleted {
        key: key.clone(),
        revision: Revision(3),
    });
    assert!(view.garbage().is_empty(), "{key:?}");
    let left: Vec<_> = view.records().cloned().collect();
    if key == regular {
        assert!(left.is_empty(), "{key:?}");
    } else {
        assert_eq!(left, before, "{key:?}");
    }
}

fn put(key: &str, value: &[u8], revision: i64) -> Event {
    Event::Put(Entry {
        key: key.to_owned(),
        value: value.to_vec(),
        revision: Revision(revision),
        expires: true,
    })
}
