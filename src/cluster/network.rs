//! The network config that the whole cluster shares, `<prefix>/config`.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;

pub use super::json::FieldError;
use super::json::{Fields, line};
use super::subnet::Subnet;

/// The network config, valid by construction (flannel facts §1.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// All subnets lie in here.
    pub net: Ipv4Net,
    /// The prefix length of each node's subnet, `net`'s length + 2 to 30.
    pub subnet_len: u8,
    /// The first subnet that may be leased.
    pub first: Ipv4Addr,
    /// The last subnet that may be leased, inclusive.
    pub last: Ipv4Addr,
    /// How packets travel between the nodes.
    pub backend: Backend,
}

/// How packets travel between the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// A route to each peer's address; needs a shared link.
    HostGw,
    /// The kernel's vxlan device.
    Vxlan(Vxlan),
    /// One IP packet in each UDP datagram, through this process.
    Udp {
        /// The UDP port of every node.
        port: u16,
    },
}

/// Options of the vxlan backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// The VXLAN network identifier, below 2²⁴.
    pub vni: u32,
    /// The UDP port of every node.
    pub port: u16,
    /// The MTU to encapsulate within, in bytes; `None` is the uplink's.
    pub mtu: Option<u32>,
    /// Group Based Policy; must be the same on all nodes.
    pub gbp: bool,
    /// Whether the device learns addresses from traffic.
    pub learning: bool,
    /// Whether peers on a shared link get a plain route instead of the tunnel.
    pub direct_routing: bool,
}

impl Vxlan {
    /// flannel's UDP port, which is also the kernel's default; not IANA's 4789.
    pub const PORT: u16 = 8472;
}

impl Default for Vxlan {
    fn default() -> Self {
        Self {
            vni: 1,
            port: Self::PORT,
            mtu: None,
            gbp: false,
            learning: false,
            direct_routing: false,
        }
    }
}

impl Backend {
    /// The name in configs and leases.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::HostGw => "host-gw",
            Self::Vxlan(_) => "vxlan",
            Self::Udp { .. } => "udp",
        }
    }

    /// flannel's UDP port of the udp backend.
    pub const UDP_PORT: u16 = 8285;
}

/// The network config cannot be used; the text says which key and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not a JSON object at all.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// One field is wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A mandatory field is missing.
    #[error("{0} is missing: {1}")]
    Missing(&'static str, &'static str),
    /// Valid for flannel, but not something this service does.
    #[error("{0} is not supported by flannel-rs: {1}")]
    Unsupported(String, &'static str),
}

const CIDR: &str = "expected an IPv4 network such as \"100.96.0.0/16\"";
const ADDRESS: &str = "expected an IPv4 address such as \"100.96.1.0\"";
const BOOLEAN: &str = "expected true or false";

/// What a [`Network`] is made of, before defaults and checks; absent is `None`.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The overlay network.
    pub net: Ipv4Net,
    /// The prefix length of a node's subnet.
    pub subnet_len: Option<u8>,
    /// The first subnet to lease.
    pub first: Option<Ipv4Addr>,
    /// The last subnet to lease.
    pub last: Option<Ipv4Addr>,
    /// The backend.
    pub backend: Backend,
}

impl Draft {
    /// Fills in what is absent and checks the whole.
    ///
    /// # Errors
    /// A [`FieldError`] with the JSON name of the offending field.
    pub fn finish(self) -> Result<Network, FieldError> {
        let net = self.net.trunc();
        let prefix = net.prefix_len();
        let subnet_len = match self.subnet_len.filter(|len| *len != 0) {
            Some(len) if len > 30 || len < prefix + 2 => {
                let reason = format!("expected {} to 30 for the network {net}", prefix + 2);
                return Err(field("SubnetLen", &len, reason));
            }
            Some(len) => len,
            None if prefix > 28 => {
                return Err(field(
                    "Network",
                    &net,
                    "too small: expected /28 or wider".into(),
                ));
            }
            None if prefix <= 22 => 24,
            None => prefix + 2,
        };
        let size = 1u32 << (32 - subnet_len);
        let base = u32::from(net.addr());
        let given = |address: Option<Ipv4Addr>| address.filter(|a| !a.is_unspecified());
        let first = given(self.first).unwrap_or_else(|| Ipv4Addr::from(base + size));
        let top = u32::from(net.broadcast()) - (size - 1);
        let last = given(self.last).unwrap_or_else(|| Ipv4Addr::from(top));
        for (name, address) in [("SubnetMin", first), ("SubnetMax", last)] {
            if !net.contains(&address) {
                return Err(field(
                    name,
                    &address,
                    format!("outside of the network {net}"),
                ));
            }
            if u32::from(address) & (size - 1) != 0 {
                let reason = format!("not the start of a /{subnet_len} subnet");
                return Err(field(name, &address, reason));
            }
        }
        if first > last {
            return Err(field(
                "SubnetMin",
                &first,
                format!("above SubnetMax {last}"),
            ));
        }
        Ok(Network {
            net,
            subnet_len,
            first,
            last,
            backend: self.backend,
        })
    }
}

fn field(field: &'static str, found: &impl ToString, reason: String) -> FieldError {
    FieldError {
        field,
        found: found.to_string(),
        reason,
    }
}

impl Network {
    /// Reads the JSON of `<prefix>/config`.
    ///
    /// # Errors
    /// [`NetworkError`], which names the key and the reason.
    pub fn from_json(text: &str) -> Result<Self, NetworkError> {
        let fields = Fields::parse(text).map_err(|e| NetworkError::Json(line(&e.to_string())))?;
        if fields.get("EnableIPv6", BOOLEAN)? == Some(true) {
            let reason = "it leases IPv4 subnets only";
            return Err(NetworkError::Unsupported(
                "EnableIPv6 = true".into(),
                reason,
            ));
        }
        if fields.get("EnableIPv4", BOOLEAN)? == Some(false) {
            let reason = "it leases IPv4 subnets";
            return Err(NetworkError::Unsupported(
                "EnableIPv4 = false".into(),
                reason,
            ));
        }
        let net: Option<Ipv4Net> = fields.get_not_null("Network", CIDR)?;
        let draft = Draft {
            net: net
                .filter(|net| net.prefix_len() > 0)
                .ok_or(NetworkError::Missing("Network", CIDR))?,
            subnet_len: fields.get("SubnetLen", "expected a prefix length, 0 to 30")?,
            first: fields.get_not_null("SubnetMin", ADDRESS)?,
            last: fields.get_not_null("SubnetMax", ADDRESS)?,
            backend: match fields.raw("Backend") {
                // flanneld's default is udp, whatever its documentation says
                None => Backend::Udp {
                    port: Backend::UDP_PORT,
                },
                Some(_) => backend(&fields)?,
            },
        };
        Ok(draft.finish()?)
    }

    /// The JSON that flanneld reads.
    #[must_use]
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Json {
            network: Ipv4Net,
            subnet_len: u8,
            subnet_min: Ipv4Addr,
            subnet_max: Ipv4Addr,
            backend: serde_json::Value,
        }
        let backend = match &self.backend {
            Backend::HostGw => serde_json::json!({ "Type": "host-gw" }),
            Backend::Udp { port } => serde_json::json!({ "Type": "udp", "Port": port }),
            Backend::Vxlan(vxlan) => vxlan_json(vxlan),
        };
        let json = Json {
            network: self.net,
            subnet_len: self.subnet_len,
            subnet_min: self.first,
            subnet_max: self.last,
            backend,
        };
        serde_json::to_string(&json).unwrap_or_default()
    }

    /// Whether `subnet` may be leased under this config.
    #[must_use]
    pub fn allows(&self, subnet: Subnet) -> bool {
        let base = subnet.base();
        subnet.v4().prefix_len() == self.subnet_len && self.first <= base && base <= self.last
    }

    /// The subnets that may be leased, in order.
    pub fn subnets(&self) -> impl Iterator<Item = Subnet> + use<> {
        let len = self.subnet_len;
        (u32::from(self.first)..=u32::from(self.last))
            .step_by(1 << (32 - len))
            .filter_map(move |base| Ipv4Net::new(base.into(), len).ok())
            .map(Subnet::new)
    }
}

/// Defaults are left out, so that the text stays what a person would have written.
fn vxlan_json(vxlan: &Vxlan) -> serde_json::Value {
    let mut json = serde_json::json!({ "Type": "vxlan", "VNI": vxlan.vni });
    if vxlan.port != Vxlan::PORT {
        json["Port"] = vxlan.port.into();
    }
    if let Some(mtu) = vxlan.mtu {
        json["MTU"] = mtu.into();
    }
    for (name, on) in [
        ("GBP", vxlan.gbp),
        ("Learning", vxlan.learning),
        ("DirectRouting", vxlan.direct_routing),
    ] {
        if on {
            json[name] = true.into();
        }
    }
    json
}

fn backend(fields: &Fields) -> Result<Backend, NetworkError> {
    let object: Fields = fields
        .get("Backend", "expected an object such as {\"Type\":\"vxlan\"}")?
        .unwrap_or_default();
    let kind: String = object.get("Type", "expected a string")?.unwrap_or_default();
    let port = |default| {
        let port = object.get("Port", "expected a UDP port, 0 to 65535")?;
        Ok::<_, FieldError>(port.filter(|port| *port != 0).unwrap_or(default))
    };
    match kind.to_ascii_lowercase().as_str() {
        "host-gw" => Ok(Backend::HostGw),
        "udp" => Ok(Backend::Udp {
            port: port(Backend::UDP_PORT)?,
        }),
        "vxlan" => Ok(Backend::Vxlan(Vxlan {
            vni: vni(&object)?,
            port: port(Vxlan::PORT)?,
            mtu: mtu(&object)?,
            gbp: object.get("GBP", BOOLEAN)?.unwrap_or(false),
            learning: object.get("Learning", BOOLEAN)?.unwrap_or(false),
            direct_routing: object.get("DirectRouting", BOOLEAN)?.unwrap_or(false),
        })),
        "" => Err(NetworkError::Missing(
            "Backend.Type",
            "expected host-gw, vxlan or udp",
        )),
        _ => Err(NetworkError::Unsupported(
            line(&format!("the backend {kind:?}")),
            "it does host-gw, vxlan and udp",
        )),
    }
}

fn vni(object: &Fields) -> Result<u32, FieldError> {
    const REASON: &str = "expected a VXLAN network identifier, 0 to 16777215";
    match object.get("VNI", REASON)? {
        Some(vni) if vni >= 1 << 24 => Err(object.error("VNI", REASON)),
        vni => Ok(vni.unwrap_or(1)),
    }
}

/// 0 means "not given"; the floor leaves the 68 bytes that IPv4 demands inside the tunnel.
fn mtu(object: &Fields) -> Result<Option<u32>, FieldError> {
    const REASON: &str = "expected the uplink's MTU in bytes, 118 to 65535";
    match object.get("MTU", REASON)? {
        None | Some(0) => Ok(None),
        Some(mtu @ 118..=65535) => Ok(Some(mtu)),
        Some(_) => Err(object.error("MTU", REASON)),
    }
}

#[cfg(test)]
mod tests;
