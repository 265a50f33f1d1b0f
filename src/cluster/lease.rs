//! A node's lease, in the words of flanneld (flannel facts §2.3 to §2.5).

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::json::{FieldError, Fields, line};
use super::subnet::Subnet;
use crate::mac::Mac;

/// A subnet and the node that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What is leased.
    pub subnet: Subnet,
    /// How to reach the holder.
    pub attrs: Attrs,
}

/// What a node says about itself in its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attrs {
    /// Where tunnel packets to the node go; `0.0.0.0` when it did not say.
    pub public_ip: Ipv4Addr,
    /// The same for a dual-stack flanneld peer.
    pub public_ipv6: Option<Ipv6Addr>,
    /// What its backend needs to be reached.
    pub backend: BackendAttrs,
}

/// The part of a lease that belongs to the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendAttrs {
    /// udp: nothing, not even a type.
    Udp,
    /// host-gw: nothing but the type.
    HostGw,
    /// vxlan: the far end of the tunnel.
    Vxlan(Vtep),
    /// A backend that this service does not do. Holds its subnet, gets no path.
    Other(String),
}

/// The tunnel end point of a vxlan node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vtep {
    /// Absent in leases of flannel before 0.14; nobody compares it.
    pub vni: Option<u32>,
    /// `None` while a Windows flanneld has not made its device yet.
    pub mac: Option<Mac>,
}

/// A value under a valid key that is not a lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Not UTF-8, or not a JSON object.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// One field is wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
}

impl BackendAttrs {
    /// The Ethernet address of the node's tunnel device, if it has one.
    #[must_use]
    pub const fn mac(&self) -> Option<Mac> {
        match self {
            Self::Vxlan(vtep) => vtep.mac,
            Self::Udp | Self::HostGw | Self::Other(_) => None,
        }
    }

    /// The name to show: flannel's backend type.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Udp => "udp",
            Self::HostGw => "host-gw",
            Self::Vxlan(_) => "vxlan",
            Self::Other(name) => name,
        }
    }
}

impl Attrs {
    /// Reads a lease's value.
    ///
    /// # Errors
    /// [`LeaseError`] where flanneld would not understand it either, or where the data of a
    /// backend that we know is not what that backend writes.
    pub fn from_json(value: &[u8]) -> Result<Self, LeaseError> {
        const IPV4: &str = "expected an IPv4 address";
        const IPV6: &str = "expected an IPv6 address or null";
        let text =
            std::str::from_utf8(value).map_err(|e| LeaseError::Json(line(&e.to_string())))?;
        let fields = Fields::parse(text).map_err(|e| LeaseError::Json(line(&e.to_string())))?;
        let public_ip = fields.get_not_null("PublicIP", IPV4)?;
        let kind: Option<String> = fields.get("BackendType", "expected a string")?;
        Ok(Self {
            public_ip: public_ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
            public_ipv6: fields.get("PublicIPv6", IPV6)?,
            backend: match kind.as_deref().unwrap_or_default() {
                "" => BackendAttrs::Udp,
                "host-gw" => BackendAttrs::HostGw,
                "vxlan" => BackendAttrs::Vxlan(vtep(&fields)?),
                other => BackendAttrs::Other(other.chars().take(64).collect()),
            },
        })
    }

    /// The value exactly as flanneld writes it.
    ///
    /// The data of a [`BackendAttrs::Other`] is not kept, so such a value is not written.
    #[must_use]
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Json<'a> {
            #[serde(rename = "PublicIP")]
            public_ip: Ipv4Addr,
            #[serde(rename = "PublicIPv6")]
            public_ipv6: Option<Ipv6Addr>,
            #[serde(rename = "BackendType", skip_serializing_if = "Option::is_none")]
            backend_type: Option<&'a str>,
            #[serde(rename = "BackendData", skip_serializing_if = "Option::is_none")]
            backend_data: Option<Box<RawValue>>,
        }
        #[derive(Serialize)]
        struct VtepJson {
            #[serde(rename = "VNI", skip_serializing_if = "Option::is_none")]
            vni: Option<u32>,
            #[serde(rename = "VtepMAC")]
            mac: String,
        }
        let data = match &self.backend {
            BackendAttrs::Vxlan(vtep) => {
                let mac = vtep.mac.map(|mac| mac.to_string()).unwrap_or_default();
                to_raw_value(&VtepJson { vni: vtep.vni, mac }).ok()
            }
            BackendAttrs::Udp | BackendAttrs::HostGw | BackendAttrs::Other(_) => None,
        };
        let kind = self.backend.name();
        let json = Json {
            public_ip: self.public_ip,
            public_ipv6: self.public_ipv6,
            backend_type: (self.backend != BackendAttrs::Udp).then_some(kind),
            backend_data: data,
        };
        serde_json::to_string(&json).unwrap_or_default()
    }
}

fn vtep(fields: &Fields) -> Result<Vtep, FieldError> {
    const DATA: &str = "expected an object such as {\"VNI\":1,\"VtepMAC\":\"02:..\"}";
    const MAC: &str = "expected an Ethernet address";
    let data: Fields = fields.get("BackendData", DATA)?.unwrap_or_default();
    let mac: String = data.get("VtepMAC", MAC)?.unwrap_or_default();
    Ok(Vtep {
        vni: data.get("VNI", "expected a VXLAN network identifier")?,
        mac: match mac.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| data.error("VtepMAC", MAC))?),
        },
    })
}

#[cfg(test)]
mod tests;
