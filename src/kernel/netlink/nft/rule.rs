//! Rules, there and back.

use ipnet::Ipv4Net;

use super::bytes::{Reader, Writer, text};
use super::message::{Answer, Kind, Request, TABLE, rule};
use super::reading::{Expression, read_match};
use super::writing::List;
use crate::kernel::firewall::{Is, MARK, Match, Rule, Verdict};

/// A rule as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) chain: String,
    pub(super) handle: u64,
    /// With all that is known of it; see [`Row::rule`].
    rule: Rule,
    /// Whether there is more to it than that.
    is_strange: bool,
    /// Where packets go on, in the same table.
    pub(super) jump: Option<String>,
}

/// `NFTNL_UDATA_RULE_COMMENT` of libnftnl, which `nft` and `iptables` read.
const COMMENT: u8 = 0;
const COMMENT_MAX: usize = 127;

/// Asks for a rule in a chain: the last one, but for other flags or attributes.
pub(super) fn new(table: &str, chain: &str, row: &Rule) -> Request {
    let mut list = List::default();
    for part in &row.matches {
        list.part(part);
    }
    if row.counted {
        list.add("counter", &Writer::default());
    }
    list.verdict(row.verdict);
    let mut attributes = Writer::default()
        .text(TABLE, table)
        .text(rule::CHAIN, chain)
        .nested(rule::EXPRESSIONS, &list.0);
    if !row.comment.is_empty() {
        attributes = attributes.value(rule::USERDATA, &userdata(&row.comment));
    }
    Request::new(Kind::NewRule, attributes)
        .with(libc::NLM_F_CREATE | libc::NLM_F_APPEND)
        .about(format!("rule {:?} of {table} {chain}", row.comment))
}

/// Asks for the removal of a rule.
pub(super) fn del(table: &str, row: &Row) -> Request {
    let attributes = Writer::default()
        .text(TABLE, table)
        .text(rule::CHAIN, &row.chain)
        .value(rule::HANDLE, &row.handle.to_be_bytes());
    let about = format!("rule {} of {table} {}", row.handle, row.chain);
    Request::new(Kind::DelRule, attributes).about(about)
}

fn userdata(comment: &str) -> Vec<u8> {
    let end = comment.floor_char_boundary(COMMENT_MAX);
    let comment = comment.get(..end).unwrap_or_default().as_bytes();
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[COMMENT, length], comment, &[0]].concat()
}

fn comment(mut userdata: &[u8]) -> Option<&str> {
    while let [kind, length, rest @ ..] = userdata {
        let value = rest.get(..usize::from(*length))?;
        if *kind == COMMENT {
            return text(value);
        }
        userdata = rest.get(value.len()..)?;
    }
    None
}

impl Row {
    pub(super) fn read(answer: &Answer) -> Option<Self> {
        let attributes = answer.attributes();
        let mut row = Self {
            chain: attributes.text(rule::CHAIN)?.to_owned(),
            handle: attributes.long(rule::HANDLE)?,
            rule: Rule::STRANGER,
            is_strange: false,
            jump: None,
        };
        let list = attributes.nested(rule::EXPRESSIONS);
        let expressions: Vec<Expression> = list.map_or_else(Vec::new, |list| {
            list.each()
                .map(|(_, item)| Expression::read(Reader(item)))
                .collect()
        });
        row.understand(&expressions);
        if let Some(comment) = attributes.value(rule::USERDATA).and_then(comment) {
            comment.clone_into(&mut row.rule.comment);
        }
        Some(row)
    }

    /// The rule, where it is one that we could have made.
    pub(super) fn rule(&self) -> Rule {
        let is_ours = !self.is_strange && self.rule.verdict != Verdict::Unknown;
        if is_ours {
            self.rule.clone()
        } else {
            Rule::STRANGER
        }
    }

    /// Whether it is marked as ours in a chain of somebody else.
    pub(super) fn is_marked(&self) -> bool {
        self.rule.comment == MARK
    }

    /// Whether it drops packets to addresses in the network, whatever else they must be.
    pub(super) fn drops_to(&self, net: Ipv4Net) -> bool {
        let meets = |part: &Match| match part {
            Match::Destination(Is::In, to) => to.contains(&net) || net.contains(to),
            _ => false,
        };
        self.rule.verdict == Verdict::Drop && self.rule.matches.iter().any(meets)
    }

    fn understand(&mut self, mut rest: &[Expression<'_>]) {
        while let Some((first, others)) = rest.split_first() {
            if let Some((part, used)) = read_match(rest) {
                self.is_strange |= self.rule.verdict != Verdict::Unknown || self.rule.counted;
                self.rule.matches.push(part);
                rest = rest.get(used..).unwrap_or_default();
                continue;
            }
            match first {
                Expression::Counter => {
                    self.is_strange |= self.rule.counted;
                    self.rule.counted = true;
                }
                Expression::Verdict(verdict) => self.rule.verdict = *verdict,
                Expression::Jump(chain) => self.jump = Some((*chain).to_owned()),
                Expression::Comment(comment) => (*comment).clone_into(&mut self.rule.comment),
                _ => self.is_strange = true,
            }
            rest = others;
        }
    }
}
