//! Numbers of expressions (`linux/netfilter/nf_tables.h`), and of what IPv4 packets have where.

use crate::kernel::firewall::Is;

/// `enum nft_registers`. A packet's second word of a concatenation goes to the second 32 bits of
/// the first register.
pub(super) const VERDICT: u32 = 0;
pub(super) const FIRST: u32 = 1;
pub(super) const SECOND: u32 = 9;

/// `enum nft_payload_bases`.
pub(super) const NETWORK: u32 = 1;
pub(super) const TRANSPORT: u32 = 2;

/// Offsets in the headers of IPv4 and UDP.
pub(super) const SOURCE: u32 = 12;
pub(super) const DESTINATION: u32 = 16;
pub(super) const UDP_DESTINATION: u32 = 2;

/// `enum nft_meta_keys`.
pub(super) const MARK_KEY: u32 = 3;
pub(super) const PROTOCOL_KEY: u32 = 16;

pub(super) const UDP: u8 = 17;

/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
pub(super) const FULLY_RANDOM: u32 = 0x10;

/// `NFT_JUMP`, `NFT_GOTO`, `NFT_RETURN`, `NF_ACCEPT`, `NF_DROP`.
pub(super) const JUMP: i32 = -3;
pub(super) const GOTO: i32 = -4;
pub(super) const RETURN: i32 = -5;
pub(super) const ACCEPT: i32 = 1;
pub(super) const DROP: i32 = 0;

/// `NFTA_EXPR_…`, and the attributes of each kind of expression. Their numbers overlap.
pub(super) mod is {
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DATA: u16 = 2;
    pub(in super::super) const PAYLOAD_REGISTER: u16 = 1;
    pub(in super::super) const PAYLOAD_BASE: u16 = 2;
    pub(in super::super) const PAYLOAD_OFFSET: u16 = 3;
    pub(in super::super) const PAYLOAD_LENGTH: u16 = 4;
    pub(in super::super) const META_REGISTER: u16 = 1;
    pub(in super::super) const META_KEY: u16 = 2;
    pub(in super::super) const BITWISE_SOURCE: u16 = 1;
    pub(in super::super) const BITWISE_TARGET: u16 = 2;
    pub(in super::super) const BITWISE_LENGTH: u16 = 3;
    pub(in super::super) const BITWISE_MASK: u16 = 4;
    pub(in super::super) const BITWISE_XOR: u16 = 5;
    pub(in super::super) const BITWISE_OPERATION: u16 = 6;
    pub(in super::super) const COMPARE_REGISTER: u16 = 1;
    pub(in super::super) const COMPARE_OPERATION: u16 = 2;
    pub(in super::super) const COMPARE_DATA: u16 = 3;
    pub(in super::super) const LOOKUP_SET: u16 = 1;
    pub(in super::super) const LOOKUP_REGISTER: u16 = 2;
    pub(in super::super) const LOOKUP_FLAGS: u16 = 5;
    pub(in super::super) const IMMEDIATE_REGISTER: u16 = 1;
    pub(in super::super) const IMMEDIATE_DATA: u16 = 2;
    pub(in super::super) const DATA_VERDICT: u16 = 2;
    pub(in super::super) const VERDICT_CODE: u16 = 1;
    pub(in super::super) const VERDICT_CHAIN: u16 = 2;
    pub(in super::super) const MASQ_FLAGS: u16 = 1;
    pub(in super::super) const XT_NAME: u16 = 1;
    pub(in super::super) const XT_INFO: u16 = 3;
}

/// `NFT_CMP_EQ`, `NFT_CMP_NEQ`; `NFT_LOOKUP_F_INV`.
pub(super) const fn inverted(is: Is) -> u32 {
    match is {
        Is::In => 0,
        Is::NotIn => 1,
    }
}

pub(super) const fn is(inverted: u32) -> Option<Is> {
    match inverted {
        0 => Some(Is::In),
        1 => Some(Is::NotIn),
        _ => None,
    }
}
