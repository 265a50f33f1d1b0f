//! Whether the kernel lets packets pass that come in by a link: what `net.ipv4.conf` says of it.
//!
//! Forwarding is decided by the link that a packet comes in by (`ip_route_input_slow`), and the
//! switch of each link counts alone: `net.ipv4.ip_forward` only turns all of them. The reverse
//! path filter is the stricter of what is said of the link and of all links, where loose counts
//! as more than strict (`IN_DEV_RPFILTER`, the larger of two numbers).

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

/// The name under which `net.ipv4.conf` speaks of all links. No link can have it
/// (`sysctl_dev_name_is_allowed`).
pub const ALL: &str = "all";

/// How packets fare that come in by a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passage {
    /// Whether they are forwarded.
    pub forwards: bool,
    /// Hosts that send by it. Desired, never observed.
    pub visitors: BTreeSet<Ipv4Addr>,
    /// Those of them whose packets a strict reverse path filter drops, because the way back leads
    /// out by another link. Observed, never desired.
    pub rejected: BTreeSet<Ipv4Addr>,
}

/// What keeps packets from passing, and is somebody else's to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blockage {
    /// The kernel forwards nothing, on the whole host.
    Everywhere,
    /// It forwards nothing that comes in by these links.
    Links(Vec<String>),
    /// The reverse path filter of a link drops the packets of a peer.
    Filter {
        /// The link.
        link: String,
        /// The public IP of one of the peers.
        visitor: Ipv4Addr,
    },
}

impl fmt::Display for Blockage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere => f.write_str(
                "the kernel forwards no packets, so containers reach no other node; \
                 run: sysctl -w net.ipv4.ip_forward=1",
            ),
            Self::Links(links) => {
                let switches = links.iter().map(|link| parameter(link, "forwarding"));
                let switches: Vec<String> = switches.map(|name| format!("{name}=1")).collect();
                write!(
                    f,
                    "the kernel forwards no packets that come in by {}, so containers and other \
                     nodes do not reach each other; run: sysctl -w {}",
                    links.join(", "),
                    switches.join(" ")
                )
            }
            Self::Filter { link, visitor } => write!(
                f,
                "the strict reverse path filter of {link} drops the packets of the peer {visitor}, \
                 to which the way leads out by another link; run: sysctl -w {}=2",
                parameter(link, "rp_filter")
            ),
        }
    }
}

/// The name of a parameter as sysctl(8) takes it: a dot in a link's name is a slash there.
fn parameter(link: &str, name: &str) -> String {
    format!("net.ipv4.conf.{}.{name}", link.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_name_links_as_sysctl_does() {
        let text = Blockage::Links(vec!["docker0".into(), "flannel.1".into()]).to_string();
        let command = "sysctl -w net.ipv4.conf.docker0.forwarding=1 \
                       net.ipv4.conf.flannel/1.forwarding=1";
        assert!(text.ends_with(command), "{text}");
        let link = "eth0.7".to_owned();
        let visitor = Ipv4Addr::new(192, 168, 1, 48);
        let text = Blockage::Filter { link, visitor }.to_string();
        assert!(text.ends_with("net.ipv4.conf.eth0/7.rp_filter=2"), "{text}");
        assert!(text.contains("192.168.1.48"), "{text}");
    }
}
