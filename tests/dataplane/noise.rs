//! Bytes that no compression and no guess gives back, the same for the same seed.

/// An endless row of bytes (xorshift64*; S. Vigna, "An experimental exploration of Marsaglia's
/// xorshift generators").
pub(crate) struct Noise(u64);

impl Noise {
    /// Different seeds give different bytes.
    pub(crate) fn new(seed: u64) -> Self {
        // zero is its own successor
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next bytes.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}
