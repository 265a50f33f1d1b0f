//! The shape of the file: tables, keys and TOML types, with the position of every value.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use toml::Spanned;

pub(super) type Text = Option<Spanned<String>>;
pub(super) type Number = Option<Spanned<i64>>;
pub(super) type Switch = Option<Spanned<bool>>;
pub(super) type Nodes = BTreeMap<Spanned<String>, Table<Member>>;

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Config {
    pub(super) node: Table<Node>,
    pub(super) datastore: Table<Datastore>,
    pub(super) network: Option<Spanned<Table<Network>>>,
    pub(super) docker: Table<Docker>,
    pub(super) firewall: Table<Firewall>,
    pub(super) host: Table<Host>,
    pub(super) udp: Table<Udp>,
    pub(super) lease: Table<Lease>,
    pub(super) paths: Table<Paths>,
    pub(super) log: Table<Log>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Node {
    pub(super) name: Text,
    pub(super) interface: Text,
    pub(super) interface_regex: Text,
    pub(super) can_reach: Text,
    pub(super) public_ip: Text,
    pub(super) subnet: Text,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Datastore {
    #[serde(rename = "type")]
    pub(super) kind: Text,
    pub(super) endpoints: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) prefix: Text,
    pub(super) path: Text,
    pub(super) ca_file: Text,
    pub(super) cert_file: Text,
    pub(super) key_file: Text,
    pub(super) username: Text,
    pub(super) password_file: Text,
    pub(super) nodes: Option<Nodes>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Member {
    pub(super) public_ip: Text,
    pub(super) subnet: Text,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Network {
    pub(super) network: Text,
    pub(super) subnet_len: Number,
    pub(super) subnet_min: Text,
    pub(super) subnet_max: Text,
    pub(super) backend: Option<Spanned<Table<Backend>>>,
}

/// The options of all backends at once: a tagged enum would lose the positions.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Backend {
    #[serde(rename = "type")]
    pub(super) kind: Text,
    pub(super) vni: Number,
    pub(super) port: Number,
    pub(super) mtu: Number,
    pub(super) gbp: Switch,
    pub(super) learning: Switch,
    pub(super) direct_routing: Switch,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Docker {
    pub(super) manage_bridge: Switch,
    pub(super) bridge: Text,
    pub(super) daemon_json: Text,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Firewall {
    pub(super) masquerade: Switch,
    pub(super) forward: Switch,
    pub(super) protect_tunnel_port: Switch,
    pub(super) verify_source: Switch,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Host {
    pub(super) repair: Switch,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Udp {
    pub(super) offload: Switch,
    pub(super) port_per_flow: Switch,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Lease {
    pub(super) ttl: Text,
    pub(super) renew_margin: Text,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Paths {
    pub(super) state: Text,
    pub(super) subnet_env: Text,
    pub(super) docker_env: Text,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Log {
    pub(super) level: Text,
}

/// A struct that is written as a table and nothing else: serde's own would take an array too,
/// value by value in the order of the fields.
#[derive(Default)]
pub(super) struct Table<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Keys<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Table<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }
        deserializer.deserialize_map(Keys(PhantomData))
    }
}
