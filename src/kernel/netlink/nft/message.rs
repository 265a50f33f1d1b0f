//! Messages of nf_tables (`linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink.h`).

use super::bytes::{Reader, Writer};

/// `enum nf_tables_msg_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    NewTable = 0,
    GetTable = 1,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    DelChain = 5,
    NewRule = 6,
    GetRule = 7,
    DelRule = 8,
    NewSet = 9,
    GetSet = 10,
    NewElements = 12,
    GetElements = 13,
    DelElements = 14,
}

/// `NFNL_SUBSYS_NFTABLES`, the upper half of a message's type.
pub(super) const SUBSYSTEM: u8 = 10;

/// `NFPROTO_…`.
pub(super) const ANY: u8 = 0;
pub(super) const INET: u8 = 1;
pub(super) const IP: u8 = 2;
pub(super) const IP6: u8 = 10;

/// `struct nfgenmsg`: family, version, and two bytes that only the frame of a batch needs.
pub(super) const HEADER: usize = 4;

/// Every kind of object names its table in this attribute (`NFTA_…_TABLE`, `NFTA_TABLE_NAME`).
pub(super) const TABLE: u16 = 1;

/// `NFTA_LIST_ELEM`.
pub(super) const ITEM: u16 = 1;

/// `NFTA_TABLE_…`.
pub(super) mod table {
    pub(in super::super) const FLAGS: u16 = 2;
    pub(in super::super) const USE: u16 = 3;
}

/// `NFTA_CHAIN_…`, `NFTA_HOOK_…`.
pub(super) mod chain {
    pub(in super::super) const NAME: u16 = 3;
    pub(in super::super) const HOOK: u16 = 4;
    pub(in super::super) const POLICY: u16 = 5;
    pub(in super::super) const TYPE: u16 = 7;
    pub(in super::super) const HOOK_NUMBER: u16 = 1;
    pub(in super::super) const HOOK_PRIORITY: u16 = 2;
}

/// `NFTA_RULE_…`.
pub(super) mod rule {
    pub(in super::super) const CHAIN: u16 = 2;
    pub(in super::super) const HANDLE: u16 = 3;
    pub(in super::super) const EXPRESSIONS: u16 = 4;
    pub(in super::super) const POSITION: u16 = 6;
    pub(in super::super) const USERDATA: u16 = 7;
}

/// `NFTA_SET_…`, `NFTA_SET_DESC_…`, `NFTA_SET_FIELD_…`.
pub(super) mod set {
    pub(in super::super) const NAME: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const KEY_TYPE: u16 = 4;
    pub(in super::super) const KEY_LENGTH: u16 = 5;
    pub(in super::super) const DATA_TYPE: u16 = 6;
    pub(in super::super) const DESCRIPTION: u16 = 9;
    pub(in super::super) const ID: u16 = 10;
    pub(in super::super) const FIELDS: u16 = 2;
    pub(in super::super) const FIELD_LENGTH: u16 = 1;
}

/// `NFTA_SET_ELEM_LIST_…`, `NFTA_SET_ELEM_…`.
pub(super) mod element {
    pub(in super::super) const SET: u16 = 2;
    pub(in super::super) const LIST: u16 = 3;
    pub(in super::super) const KEY: u16 = 1;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const KEY_END: u16 = 10;
}

/// `NFTA_DATA_…`.
pub(super) const DATA_VALUE: u16 = 1;

/// What the kernel is asked for, or to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) kind: Kind,
    /// Besides those that every request has.
    pub(super) flags: u16,
    pub(super) family: u8,
    pub(super) attributes: Writer,
    /// What it is about, for people.
    pub(super) about: String,
}

/// What the kernel says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) family: u8,
    attributes: Vec<u8>,
}

impl Request {
    /// One in the family `ip`.
    pub(super) fn new(kind: Kind, attributes: Writer) -> Self {
        Self {
            kind,
            flags: 0,
            family: IP,
            attributes,
            about: String::new(),
        }
    }

    /// One about a table's name, or all of a kind in it.
    pub(super) fn of_table(kind: Kind, table: &str) -> Self {
        Self::new(kind, Writer::default().text(TABLE, table)).about(format!("table {table}"))
    }

    pub(super) fn about(self, about: String) -> Self {
        Self { about, ..self }
    }

    pub(super) fn with(self, flags: i32) -> Self {
        let flags = u16::try_from(flags).unwrap_or_default();
        Self { flags, ..self }
    }

    pub(super) fn family(self, family: u8) -> Self {
        Self { family, ..self }
    }

    /// Its number on the wire.
    pub(super) fn number(&self) -> u16 {
        u16::from_be_bytes([SUBSYSTEM, self.kind as u8])
    }

    pub(super) fn body(&self) -> Vec<u8> {
        let mut body = vec![self.family, 0, 0, 0];
        body.extend(&self.attributes.0);
        body
    }
}

impl Answer {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        Some(Self {
            family: *body.first()?,
            attributes: body.get(HEADER..)?.to_vec(),
        })
    }

    pub(super) fn attributes(&self) -> Reader<'_> {
        Reader(&self.attributes)
    }
}
