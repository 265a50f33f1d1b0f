//! The bytes that are sent, which tell by their place whether they are the right ones.

use std::ops::Range;
use std::sync::LazyLock;

/// Prime, so that what is shifted by a packet or a buffer does not look right.
const PERIOD: usize = 65_521;
/// The longest piece that can be asked for.
pub(crate) const LONGEST: usize = 256 << 10;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64, by George Marsaglia
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let period: Vec<u8> = (0..PERIOD).map(|_| next()).collect();
    period
        .iter()
        .cycle()
        .take(PERIOD + LONGEST)
        .copied()
        .collect()
});

/// The bytes at `offset` of an endless stream, [`LONGEST`] at most.
pub(crate) fn piece(offset: u64, length: usize) -> &'static [u8] {
    let start = usize::try_from(offset % PERIOD as u64).unwrap();
    &BYTES[start..][..length]
}

/// How much of what has arrived is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// The first and the last bytes of each piece, which costs next to nothing: what is shifted
    /// or missing shows.
    Ends,
    /// Every byte.
    Whole,
}

impl Check {
    /// # Panics
    /// If the bytes are not those at `offset` of the stream.
    pub(crate) fn compare(self, offset: u64, bytes: &[u8]) {
        let wanted = piece(offset, bytes.len());
        let compare = |range: Range<usize>| {
            let at = offset + range.start as u64;
            assert!(
                bytes[range.clone()] == wanted[range],
                "wrong data after byte {at} of a stream"
            );
        };
        match self {
            Self::Whole => compare(0..bytes.len()),
            Self::Ends => {
                compare(0..bytes.len().min(END));
                compare(bytes.len().saturating_sub(END)..bytes.len());
            }
        }
    }
}

const END: usize = 64;
