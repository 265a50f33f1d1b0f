//! What must hold whatever bytes come in: one function for each kind of input from outside.
//!
//! The fuzzers call them with what libFuzzer thinks up; `tests/corpus.rs` compiles the same files
//! and calls them with the corpus and a bounded number of its mutations. A property that does not
//! hold is a panic.

mod config;
mod frames;
mod lease;
mod netlink;
mod network;
mod store;
mod subnet_env;

pub use config::config;
pub use frames::frames;
pub use lease::lease;
pub use netlink::netlink;
pub use network::network;
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
