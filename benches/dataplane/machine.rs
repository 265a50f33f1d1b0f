//! The machine as a whole.

use std::fs;
use std::thread;

/// Ticks in a second in /proc/stat, whatever the kernel's own clock is (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Seconds of processor time used by everybody since boot, with interrupts: the kernel's tunnels
/// work in those, on nobody's account. What the hypervisor gave to others is not in it.
pub(crate) fn busy() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let line = text.lines().next().unwrap();
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .map(|word| word.parse().unwrap())
        .collect();
    // proc(5): user, nice, system, idle, iowait, irq, softirq
    (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / TICKS
}

pub(crate) fn processors() -> usize {
    thread::available_parallelism().unwrap().get()
}

/// The kernel's version.
pub(crate) fn kernel() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    text.trim().to_owned()
}
