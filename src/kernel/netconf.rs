//! What the kernel says of the settings of its links under `net.ipv4.conf`, which
//! `netlink-packet-route` does not read (`linux/netconf.h`, `net/ipv4/devinet.c`).

use super::message::Message;

/// `RTM_NEWNETCONF`, `RTM_DELNETCONF`, `RTM_GETNETCONF`.
pub(super) const NEW_NETCONF: u16 = 80;
pub(super) const DEL_NETCONF: u16 = 81;
const GET_NETCONF: u16 = 82;

/// `NETCONFA_IFINDEX_ALL`: what `net.ipv4.conf.all` says.
pub(super) const ALL: i32 = -1;

/// `struct netconfmsg`, one byte of the family, and what aligns it.
const HEADER: usize = 4;
const AF_INET: u8 = 2;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
const NETCONFA_RP_FILTER: u16 = 3;

/// The settings of a link, as far as a message tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NetconfRow {
    /// The link's index, or [`ALL`], or -2 for what new links begin with.
    pub(super) index: i32,
    pub(super) forwarding: Option<bool>,
    /// 0 off, 1 strict, 2 loose.
    pub(super) rp_filter: Option<i32>,
}

/// Asks for the settings of all links.
pub(super) fn list() -> Message {
    let body = vec![AF_INET, 0, 0, 0];
    let kind = GET_NETCONF;
    Message { kind, body }
}

/// The settings in the body of a message.
pub(super) fn row(body: &[u8]) -> Option<NetconfRow> {
    if *body.first()? != AF_INET {
        return None;
    }
    let (mut index, mut forwarding, mut rp_filter) = (None, None, None);
    let mut rest = body.get(HEADER..)?;
    while let [a, b, c, d, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..length)?;
        let number = || <[u8; 4]>::try_from(value).ok().map(i32::from_ne_bytes);
        match u16::from_ne_bytes([c, d]) {
            NETCONFA_IFINDEX => index = number(),
            NETCONFA_FORWARDING => forwarding = number().map(|number| number != 0),
            NETCONFA_RP_FILTER => rp_filter = number(),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(NetconfRow {
        index: index?,
        forwarding,
        rp_filter,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel sends it: the index, forwarding, the filter, and one of another kind.
    fn body() -> Vec<u8> {
        let mut body = vec![AF_INET, 0, 0, 0];
        for (kind, value) in [(1_u16, 7_i32), (2, 1), (3, 2), (6, 1)] {
            body.extend(8_u16.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value.to_ne_bytes());
        }
        body
    }

    #[test]
    fn reads_what_the_kernel_says() {
        let expected = NetconfRow {
            index: 7,
            forwarding: Some(true),
            rp_filter: Some(2),
        };
        assert_eq!(row(&body()), Some(expected));
    }

    #[test]
    fn makes_nothing_of_what_makes_no_sense() {
        let good = body();
        assert_eq!(row(&[]), None);
        assert_eq!(row(&good[..4]), None, "no index");
        for end in 5..good.len() {
            // a prefix may tell less, but nothing else
            if let Some(row) = row(&good[..end]) {
                assert_eq!(row.index, 7, "{end}");
            }
        }
        let mut of_ipv6 = good.clone();
        of_ipv6[0] = 10;
        assert_eq!(row(&of_ipv6), None);
        let mut endless = good;
        endless[4] = 0;
        endless[5] = 0;
        assert_eq!(row(&endless), None);
    }
}
