//! A model check: the real loop, watcher, errands and passes of several nodes, on made-up
//! machines and a datastore in memory, in virtual time. Everything that chance decides comes from
//! one seed, so a failure can be had again:
//!
//! ```text
//! FLANNEL_RS_SEED=4711 cargo test --lib simulation -- --nocapture
//! ```
//!
//! `FLANNEL_RS_SEEDS` says how many seeds are tried; `make model` tries many.
//!
//! A seed makes a schedule: nodes join, withdraw, crash and are cut off, leases expire and are
//! stolen, the datastore fails, forgets and is restored, the network config changes, and somebody
//! fumbles with every machine. At each step no node may overwrite another's lease. When all is
//! quiet again each node has the subnet that it had, its kernel is equal to the plan, nothing
//! foreign was touched, nothing is wrong and every duty is alive.

mod arrival;
mod chatter;
mod cluster;
mod departure;
mod machine;
mod outage;
mod schedule;
mod store;
mod withdrawal;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// Enough to meet each pair of events many times, and to be done within a minute.
const SEEDS: u64 = 2000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// Runs `work` in virtual time, on one thread.
fn in_virtual_time<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

fn run(seed: u64) {
    in_virtual_time(schedule::run(StdRng::seed_from_u64(seed)));
}

#[test]
fn whatever_happens_no_lease_is_stolen_and_all_is_right_in_the_end() {
    if let Some(seed) = number("FLANNEL_RS_SEED") {
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        return run(seed);
    }
    let seeds = number("FLANNEL_RS_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
                eprintln!("seed {seed} failed; FLANNEL_RS_SEED={seed} shows it again");
                resume_unwind(panic);
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let failed = threads.into_iter().filter_map(|thread| thread.join().err());
        if let Some(panic) = failed.last() {
            resume_unwind(panic);
        }
    });
    eprintln!("{seeds} seeds");
}

#[test]
fn a_seed_is_a_schedule() {
    let tale = |seed| in_virtual_time(schedule::tale(StdRng::seed_from_u64(seed)));
    assert_eq!(tale(1), tale(1));
    assert_ne!(tale(1), tale(2));
}
