//! A node's share of the overlay network, and its etcd key.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// The subnet of one node. Ordered by its IPv4 part.
///
/// The IPv6 part is carried for the leases of dual-stack flanneld peers; this service itself
/// leases IPv4 only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    v4: Ipv4Net,
    v6: Option<Ipv6Net>,
}

/// The text is not a lease key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a lease key such as 10.5.34.0-24")]
pub struct SubnetKeyError(String);

impl Subnet {
    /// The IPv4-only subnet that holds `net`; host bits are cleared.
    #[must_use]
    pub fn new(net: Ipv4Net) -> Self {
        Self {
            v4: net.trunc(),
            v6: None,
        }
    }

    /// The IPv4 part.
    #[must_use]
    pub const fn v4(self) -> Ipv4Net {
        self.v4
    }

    /// The first address, which the tunnel device of the node carries.
    #[must_use]
    pub const fn base(self) -> Ipv4Addr {
        self.v4.addr()
    }

    /// The bridge's address: the first after the base, with the prefix length of the subnet.
    /// A `/32` has none and answers its base.
    #[must_use]
    pub fn gateway(self) -> Ipv4Net {
        let address = self.v4.hosts().next().filter(|_| self.v4.prefix_len() < 31);
        let address = address.unwrap_or(self.base());
        Ipv4Net::new(address, self.v4.prefix_len()).unwrap_or(self.v4)
    }

    /// Whether the IPv4 parts share an address. `10.5.1.0-24` and `10.5.1.0-24&fd00::-64` are
    /// different keys for one IPv4 subnet, so equality is not enough (flannel trap T15).
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.v4.contains(&other.v4) || other.v4.contains(&self.v4)
    }

    /// The last component of the etcd key: `10.5.34.0-24`, or `10.5.34.0-24&fd00::-64`.
    #[must_use]
    pub fn key(self) -> String {
        let v4 = format!("{}-{}", self.v4.addr(), self.v4.prefix_len());
        match self.v6 {
            Some(v6) => format!("{v4}&{}-{}", v6.addr(), v6.prefix_len()),
            None => v4,
        }
    }

    /// Reads the last component of an etcd key.
    ///
    /// # Errors
    /// When the text is not in the form of [`Subnet::key`]. The IPv4 length is 0..=31 and the
    /// IPv6 length 0..=127, as in flanneld's grammar; hexadecimal is lower case.
    pub fn from_key(text: &str) -> Result<Self, SubnetKeyError> {
        let bad = || SubnetKeyError(text.chars().take(100).collect());
        let (v4, v6) = match text.split_once('&') {
            Some((v4, v6)) => (v4, Some(v6)),
            None => (text, None),
        };
        let (address, len) = parts::<Ipv4Addr>(v4, 31).ok_or_else(bad)?;
        let v4 = Ipv4Net::new(address, len).map_err(|_| bad())?.trunc();
        let v6 = match v6 {
            None => None,
            Some(v6) if v6.bytes().any(|b| b.is_ascii_uppercase()) => return Err(bad()),
            Some(v6) => {
                let (address, len) = parts::<Ipv6Addr>(v6, 127).ok_or_else(bad)?;
                Some(Ipv6Net::new(address, len).map_err(|_| bad())?)
            }
        };
        Ok(Self { v4, v6 })
    }
}

/// `address-len` with a length of at most `max`.
fn parts<A: std::str::FromStr>(text: &str, max: u8) -> Option<(A, u8)> {
    let (address, len) = text.split_once('-')?;
    if len.is_empty() || !len.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let len = len.parse().ok().filter(|len| *len <= max)?;
    Some((address.parse().ok()?, len))
}

/// CIDR form, as people write it.
impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.v6 {
            Some(v6) => write!(f, "{},{v6}", self.v4),
            None => write!(f, "{}", self.v4),
        }
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
