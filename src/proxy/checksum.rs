//! The Internet checksum (RFC 1071).

/// A ones' complement sum under way. It holds up to 2^32 words without overflow: far more than
/// a packet has.
///
/// The words are summed in the machine's byte order and four bytes at a time, which changes
/// nothing but the order of the bytes in the result (RFC 1071 §2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum(u64);

impl Sum {
    /// The sum of the pseudo header that TCP and UDP checksums begin with (RFC 9293 §3.1).
    /// `addresses` are those of the IPv4 header, source first; `length` is that of the transport
    /// header and its payload.
    pub(super) fn pseudo_header(addresses: [u8; 8], protocol: u8, length: u16) -> Self {
        let mut sum = Self::default();
        sum.add(&addresses);
        sum.add_word(u16::from(protocol));
        sum.add_word(length);
        sum
    }

    /// Adds bytes that begin at an even offset of what is summed up. If their number is odd, they
    /// have to be the last.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        // A plain loop over pairs of words. With several sums side by side it would be as fast at
        // best, and four times slower where the compiler keeps them in scalar registers.
        let (pairs, rest) = bytes.as_chunks::<8>();
        let (words, rest) = rest.as_chunks::<4>();
        let pairs = pairs.iter().map(|&pair| {
            let pair = u64::from_ne_bytes(pair);
            (pair >> 32) + (pair & u64::from(u32::MAX))
        });
        let words = words
            .iter()
            .map(|&word| u64::from(u32::from_ne_bytes(word)));
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        self.0 += pairs.sum::<u64>() + words.sum::<u64>();
        self.0 += u64::from(u32::from_ne_bytes(last));
    }

    /// Adds a 16-bit number.
    pub(super) fn add_word(&mut self, word: u16) {
        self.0 += u64::from(word.to_be());
    }

    /// The sum itself: what the field of a checksum holds that somebody else is to finish.
    pub(super) fn folded(self) -> u16 {
        let mut sum = self.0;
        while let high @ 1.. = sum >> 16 {
            sum = (sum & 0xffff) + high;
        }
        u16::from_be(u16::try_from(sum).unwrap_or(u16::MAX))
    }

    /// The checksum: the complement of the sum.
    pub(super) fn finish(self) -> u16 {
        !self.folded()
    }
}

/// The checksum of `bytes`; 0 if they contain their own right checksum.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.finish()
}

#[cfg(test)]
pub(super) mod tests;
