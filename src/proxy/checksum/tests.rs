use proptest::prelude::*;

use super::*;

/// A byte at a time, as RFC 1071 §1 puts it.
pub(in crate::proxy) fn plain_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for (index, &byte) in bytes.iter().enumerate() {
        sum += if index % 2 == 0 { 256 } else { 1 } * u64::from(byte);
    }
    while sum > 0xffff {
        sum = sum % 0x10000 + sum / 0x10000;
    }
    u16::try_from(sum).unwrap()
}

/// No two neighbours alike, and no period that blocks or words could share.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn the_example_of_the_rfc_comes_out() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    let mut sum = Sum::default();
    sum.add(&bytes);
    assert_eq!(sum.folded(), 0xddf2);
    assert_eq!(checksum(&bytes), !0xddf2);
}

#[test]
fn every_length_and_alignment_is_summed_right() {
    let bytes = noise(700);
    for start in 0..70 {
        for end in start..bytes.len() {
            let part = &bytes[start..end];
            assert_eq!(checksum(part), !plain_sum(part), "{start}..{end}");
        }
    }
}

#[test]
fn nothing_overflows() {
    let longest = vec![0xff; 1 << 20];
    assert_eq!(checksum(&longest), 0);
    assert_eq!(checksum(&longest[1..]), !plain_sum(&longest[1..]));
    assert_eq!(checksum(&[]), 0xffff);
    assert_eq!(checksum(&[0; 100]), 0xffff);
}

#[test]
fn a_pseudo_header_is_summed_as_it_would_lie_in_memory() {
    let addresses = [100, 96, 1, 7, 100, 96, 2, 9];
    let laid_out = [&addresses[..], &[0, 17, 0xab, 0xcd]].concat();
    let sum = Sum::pseudo_header(addresses, 17, 0xabcd);
    assert_eq!(sum.folded(), plain_sum(&laid_out));
}

proptest! {
    #[test]
    fn pieces_add_up(
        bytes in proptest::collection::vec(any::<u8>(), 0..3000),
        cut in any::<prop::sample::Index>(),
        word: u16,
    ) {
        let cut = cut.index(bytes.len() + 1) / 2 * 2;
        let mut sum = Sum::default();
        sum.add(&bytes[..cut]);
        sum.add_word(word);
        sum.add(&bytes[cut..]);
        let whole = [&bytes[..cut], &word.to_be_bytes(), &bytes[cut..]].concat();
        prop_assert_eq!(sum.folded(), plain_sum(&whole));
        prop_assert_eq!(sum.finish(), !plain_sum(&whole));
    }
}
