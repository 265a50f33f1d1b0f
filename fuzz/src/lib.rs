//! What must hold whatever bytes come in: one function for each kind of input from outside.
//!
//! The fuzzers call them with what libFuzzer thinks up; `tests/corpus.rs` compiles the same files
//! and calls them with the corpus and a bounded number of its mutations. A property that does not
//! hold is a panic.

mod coalesce;
mod config;
mod frames;
mod lease;
mod netlink;
mod network;
mod split;
mod store;
mod subnet_env;

pub use coalesce::coalesce;
pub use config::config;
pub use frames::frames;
pub use lease::lease;
pub use netlink::netlink;
pub use network::network;
pub use split::split;
pub use store::store;
pub use subnet_env::subnet_env;

/// What a log line or a terminal may be given: one line, not long, nothing that talks to the
/// terminal.
fn assert_presentable(text: &str) {
    assert!(!text.is_empty(), "an error without a word");
    assert!(text.len() <= LONGEST, "{} bytes: {text}", text.len());
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// In bytes: a few shortened values with the words around them.
const LONGEST: usize = 2048;

/// `object` with a field more at its front, which no version of flannel knows.
fn with_unknown_field(object: &str) -> Option<String> {
    let rest = object.trim_start().strip_prefix('{')?;
    let comma = if rest.trim_start().starts_with('}') {
        ""
    } else {
        ","
    };
    Some(format!("{{\"Unknown\":[{{\"Network\":null}}]{comma}{rest}"))
}

/// The length of an IPv4 header, in bytes, as the packet states it.
fn header(packet: &[u8]) -> usize {
    usize::from(packet[0] & 0x0f) * 4
}

/// A 16-bit number in network byte order.
fn number(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// The ones' complement sum of RFC 1071, by another way than the data plane's: 0xffff where
/// the checksum in `bytes` is right.
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    match words.sum::<u64>() {
        0 => 0,
        total => (total - 1) % 0xffff + 1,
    }
}
