//! Ethernet addresses, as they stand in leases and in the kernel's tables.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

/// The text is not a 48-bit Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an Ethernet address such as 02:1a:5f:00:10:2b")]
pub struct MacError(String);

impl Mac {
    /// The address made of these bytes, first byte first on the wire.
    #[must_use]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// A unicast, locally administered address made from six arbitrary bytes
    /// (IEEE 802: bit 0 of the first byte clear, bit 1 set).
    #[must_use]
    pub const fn local(mut bytes: [u8; 6]) -> Self {
        bytes[0] = (bytes[0] & 0xfe) | 0x02;
        Self(bytes)
    }

    /// The local address that a name and a number stand for: the same on every machine and in every
    /// version, so neither `realm`, which keeps apart names of different kinds, nor this may change.
    #[must_use]
    pub fn derived(realm: &str, name: &str, number: u32) -> Self {
        let digest = Sha256::new()
            .chain_update(realm)
            .chain_update(name)
            .chain_update(number.to_be_bytes())
            .finalize();
        let mut bytes = [0; 6];
        for (byte, hashed) in bytes.iter_mut().zip(digest) {
            *byte = hashed;
        }
        Self::local(bytes)
    }

    /// Whether one device can have it: no group address, and not all zeroes.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// The bytes, first byte first on the wire.
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads the colon, hyphen and dotted forms, as flanneld does.
impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let bad = || MacError(text.chars().take(64).collect());
        let (separator, width) = match text.as_bytes().get(2) {
            Some(b':') => (':', 2),
            Some(b'-') => ('-', 2),
            _ => ('.', 4),
        };
        let mut bytes = [0; 6];
        let mut filled = 0;
        for group in text.split(separator) {
            if group.len() != width || !group.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            for at in (0..width).step_by(2) {
                let byte = u8::from_str_radix(&group[at..at + 2], 16).map_err(|_| bad())?;
                *bytes.get_mut(filled).ok_or_else(bad)? = byte;
                filled += 1;
            }
        }
        if filled == 6 {
            Ok(Self(bytes))
        } else {
            Err(bad())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_three_forms_and_writes_one() {
        for text in ["ea:1b:0c:00:ff:10", "EA-1B-0C-00-FF-10", "ea1b.0c00.ff10"] {
            assert_eq!(
                text.parse::<Mac>().unwrap().to_string(),
                "ea:1b:0c:00:ff:10"
            );
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "ea",
            "ea:1b:0c:00:ff",
            "ea:1b:0c:00:ff:10:11",
            "ea:1b:0c:00:ff:1g",
            "ea:1b-0c:00:ff:10",
            "é:1b:0c",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn local_addresses_are_unicast_and_locally_administered() {
        assert_eq!(Mac::local([0xff; 6]).bytes()[0], 0xfe);
        assert_eq!(Mac::local([0; 6]).bytes()[0], 0x02);
    }
}
