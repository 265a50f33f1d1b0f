//! What tshark, which shares no line with us, makes of the datagrams between nodes.

use std::path::Path;
use std::process::Command;

use crate::capture::packets;

/// The programs that this and a capture need.
pub(crate) const PROGRAMS: [&str; 3] = ["tcpdump", "tshark", "ethtool"];

/// In this order they are the values of [`Columns`].
const FIELDS: [&str; 19] = [
    "_ws.malformed",
    "ip.src",
    "ip.dst",
    "ip.len",
    "ip.checksum.status",
    "ip.flags.mf",
    "ip.frag_offset",
    "ip.dsfield.ecn",
    "ip.proto",
    "udp.srcport",
    "udp.dstport",
    "udp.length",
    "udp.checksum.status",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.checksum.status",
    "tcp.checksum.ffff",
    "tcp.options.timestamp.tsval",
    "icmp.checksum.status",
];

/// A datagram between two nodes.
#[derive(Debug)]
pub(crate) struct Frame {
    /// The datagram.
    pub(crate) bytes: Vec<u8>,
    /// All that is wrong with it.
    pub(crate) complaints: Vec<String>,
    /// From which port of which node.
    pub(crate) source: (String, u16),
    /// Addresses, protocol and ports of the packet inside; a fragment has no ports.
    pub(crate) flow: String,
    /// What the packet inside is or has.
    pub(crate) traits: Vec<&'static str>,
}

/// Decodes a capture of datagrams between nodes.
pub(crate) fn decode(file: &Path) -> Vec<Frame> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(file).arg("-n");
    // noise is not to be taken for the protocol of some port, or for one that it looks like
    tshark.args([
        "-d",
        "tcp.port==1024-65535,data",
        "-d",
        "udp.port==8286-65535,data",
    ]);
    tshark.args(["-d", "udp.port==8285,ip"]);
    for protocol in ["ip", "tcp", "udp"] {
        tshark.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    tshark.args(["-T", "fields", "-E", "separator=|", "-E", "aggregator=,"]);
    tshark.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    let output = tshark.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let frames = text.lines().zip(packets(file));
    frames.map(|(line, bytes)| Frame::of(line, bytes)).collect()
}

impl Frame {
    fn of(line: &str, bytes: Vec<u8>) -> Self {
        let columns = Columns::of(line);
        let source = u16::try_from(columns.number("udp.srcport", 0)).unwrap();
        Self {
            bytes,
            complaints: columns.complaints(),
            source: (columns.text("ip.src", 0).to_owned(), source),
            flow: columns.flow(),
            traits: columns.traits(),
        }
    }

    /// Whether this is among what is wrong with it.
    pub(crate) fn complains_of(&self, what: &str) -> bool {
        self.complaints
            .iter()
            .any(|complaint| complaint.starts_with(what))
    }
}

/// What tshark prints of a frame: of each field a value for every header that has it.
struct Columns<'a> {
    line: &'a str,
    values: Vec<Vec<&'a str>>,
}

impl<'a> Columns<'a> {
    fn of(line: &'a str) -> Self {
        let values = |column: &'a str| column.split(',').filter(|value| !value.is_empty());
        let columns = line.split('|').map(|column| values(column).collect());
        let columns = Self {
            line,
            values: columns.collect(),
        };
        assert_eq!(columns.values.len(), FIELDS.len(), "{line}");
        columns
    }

    fn all(&self, field: &str) -> &[&'a str] {
        let index = FIELDS.iter().position(|name| *name == field).unwrap();
        &self.values[index]
    }

    fn text(&self, field: &str, index: usize) -> &'a str {
        self.all(field).get(index).unwrap_or(&"-")
    }

    fn number(&self, field: &str, index: usize) -> u32 {
        self.text(field, index).parse().unwrap_or(0)
    }

    fn is_fragment(&self, index: usize) -> bool {
        // tshark writes flags as 0, False or nothing at all, by its version
        ["ip.flags.mf", "ip.frag_offset"]
            .iter()
            .any(|field| !["0", "False", "-"].contains(&self.text(field, index)))
    }

    /// An ICMP error quotes a third packet, which is cut off.
    fn is_error(&self) -> bool {
        self.all("ip.len").len() > 2
    }

    fn complaints(&self) -> Vec<String> {
        let inner = self.number("ip.len", 1);
        let is_good = |field, index| self.text(field, index) == "1";
        let sound = |field, first| {
            let sums = self.all(field).iter().skip(first);
            sums.into_iter()
                .all(|sum| *sum == "1" || self.is_error() && *sum == "2")
        };
        // right in ones' complement, and what the kernel writes, too (`skb_checksum_help` of
        // net/core/dev.c, CSUM_MANGLED_0); tshark calls it bad
        let other_zero = !self.all("tcp.checksum.ffff").is_empty();
        let expected = [
            ("malformed", self.all("_ws.malformed").is_empty()),
            (
                "not to the port of all nodes",
                self.text("udp.dstport", 0) == "8285",
            ),
            ("a fragment outside", !self.is_fragment(0)),
            ("no packet inside", self.all("ip.len").len() >= 2),
            (
                "not one packet inside",
                self.number("udp.length", 0) == inner + 8,
            ),
            (
                "more than a datagram",
                self.number("ip.len", 0) == inner + 28,
            ),
            (
                "the outer header's checksum",
                is_good("ip.checksum.status", 0),
            ),
            (
                "the inner header's checksum",
                is_good("ip.checksum.status", 1),
            ),
            ("the datagram's checksum", is_good("udp.checksum.status", 0)),
            ("udp's checksum", sound("udp.checksum.status", 1)),
            (
                "tcp's checksum",
                other_zero || sound("tcp.checksum.status", 0),
            ),
            ("icmp's checksum", sound("icmp.checksum.status", 0)),
        ];
        let broken = expected.iter().filter(|(_, right)| !right);
        broken
            .map(|(what, _)| format!("{what}: {}", self.line))
            .collect()
    }

    fn traits(&self) -> Vec<&'static str> {
        let has = |field| !self.all(field).is_empty();
        let traits = [
            ("fragment", self.is_fragment(1)),
            ("tcp", has("tcp.checksum.status") && !self.is_error()),
            (
                "udp",
                self.all("udp.checksum.status").len() > 1 && !self.is_error(),
            ),
            ("icmp", has("icmp.checksum.status")),
            ("error", self.is_error()),
            ("ecn", self.number("ip.dsfield.ecn", 1) > 0),
            ("timestamps", has("tcp.options.timestamp.tsval")),
        ];
        let shown = traits.into_iter().filter(|(_, shown)| *shown);
        shown.map(|(name, _)| name).collect()
    }

    fn flow(&self) -> String {
        let [from, to] = ["ip.src", "ip.dst"].map(|field| self.text(field, 1));
        let protocol = self.text("ip.proto", 1);
        let (ports, index) = match protocol {
            "6" => (["tcp.srcport", "tcp.dstport"], 0),
            _ => (["udp.srcport", "udp.dstport"], 1),
        };
        let ports = ports.map(|field| self.text(field, index)).join(" ");
        if self.is_fragment(1) || self.is_error() {
            return format!("{from} {to} {protocol} - -");
        }
        format!("{from} {to} {protocol} {ports}")
    }
}
