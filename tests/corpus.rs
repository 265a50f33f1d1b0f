//! The fuzz targets without a fuzzer: each with every file of its corpus, and with a few thousand
//! mutations of them, always the same ones.
//!
//! `CORPUS_SEED=7 CORPUS_ROUNDS=100000 cargo test --test corpus` tries others.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "clippy takes only functions marked #[test] for tests"
)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
pub mod targets;

type Target = fn(&[u8]);

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");
/// Longer inputs, in bytes, are cut: nothing here depends on size alone.
const LONGEST: usize = 4096;
/// What numbers, lengths, texts and tables tend to be wrong by.
const TOKENS: &[&[u8]] = &[
    b"\0",
    b"\x01",
    b"\x04",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"0",
    b"-1",
    b"32",
    b"4294967296",
    b"9223372036854775807",
    b"1e9",
    b"+1",
    b"null",
    b"true",
    b"\"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"'",
    b"\\",
    b",",
    b":",
    b"=",
    b"#",
    b"&",
    b"/",
    b"-",
    b".",
    b"@",
    b"\n",
    b"\r",
    b"\t",
    b" ",
    b"\x1b[2J",
    "\u{9b}".as_bytes(),
    "\u{2028}".as_bytes(),
    "é".as_bytes(),
];

#[test]
fn coalesce() {
    attack("coalesce", targets::coalesce, 10_000);
}

#[test]
fn config() {
    attack("config", targets::config, 4000);
}

#[test]
fn frames() {
    attack("frames", targets::frames, 20_000);
}

#[test]
fn lease() {
    attack("lease", targets::lease, 10_000);
}

#[test]
fn netlink() {
    attack("netlink", targets::netlink, 10_000);
}

#[test]
fn network() {
    attack("network", targets::network, 10_000);
}

#[test]
fn split() {
    attack("split", targets::split, 20_000);
}

#[test]
fn store() {
    attack("store", targets::store, 3000);
}

#[test]
fn subnet_env() {
    attack("subnet_env", targets::subnet_env, 10_000);
}

fn attack(name: &str, target: Target, rounds: u64) {
    let corpus = corpus(name);
    for (file, bytes) in &corpus {
        attempt(target, bytes, &format!("fuzz/corpus/{name}/{file}"));
    }
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let seed = number("CORPUS_SEED").unwrap_or(1);
    let rounds = number("CORPUS_ROUNDS").unwrap_or(rounds);
    let mut dice = Dice(seed);
    for round in 0..rounds {
        let mut bytes = dice.one_of(&corpus).1.clone();
        for _ in 0..=dice.below(4) {
            mutate(&mut bytes, &corpus, &mut dice);
        }
        bytes.truncate(LONGEST);
        attempt(
            target,
            &bytes,
            &format!("{name}, round {round} of seed {seed}"),
        );
    }
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(CORPUS).join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// Runs the target and says what it was given if it fails, in the form that `printf '%b'` takes.
fn attempt(target: Target, bytes: &[u8], what: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(bytes))) {
        let shown: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        eprintln!("{what} fails; as text: {}", bytes.escape_ascii());
        eprintln!("printf '%b' '{shown}' > input");
        resume_unwind(panic);
    }
}

fn mutate(bytes: &mut Vec<u8>, corpus: &[(String, Vec<u8>)], dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    let end = at + dice.below(16.min(bytes.len() - at) + 1);
    match dice.below(7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
        1 if at < bytes.len() => bytes[at] = dice.byte(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => {
            let again = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, again));
        }
        5 => {
            let (_, other) = dice.one_of(corpus);
            let from = dice.below(other.len() + 1);
            let to = from + dice.below(other.len() - from + 1);
            drop(bytes.splice(at..end, other[from..to].iter().copied()));
        }
        _ => {
            let token = dice.one_of(TOKENS);
            let end = if dice.below(2) == 0 { at } else { end };
            drop(bytes.splice(at..end, token.iter().copied()));
        }
    }
}

/// SplitMix64: the same on every machine, for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `end`, which is above 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_be_bytes()[0]
    }

    fn one_of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}
