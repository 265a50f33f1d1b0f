//! Processes in network namespaces, which end with the test.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far beyond what anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds, and answers how long that took; fails the test after
/// [`PATIENCE`].
pub fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// A command in a network namespace, which dies with the test's thread, however that ends.
pub fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "ip",
        "netns",
        "exec",
        namespace,
        program,
    ]);
    command.process_group(0);
    command
}

/// What a command prints in a network namespace, also if it fails: a device that is not there
/// shows nothing.
pub fn shown(namespace: &str, command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = inside(namespace, words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs shell commands in a network namespace, which must succeed; answers what they print.
pub fn must(namespace: &str, script: &str) -> String {
    let output = inside(namespace, "sh")
        .args(["-ec", script])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// `setpriv` and `ip netns exec` become the program itself, so the child's pid is the program's.
pub fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Ends a process with SIGKILL.
pub fn end(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = kill(pid(&child), Signal::SIGKILL);
        let _ = child.wait();
    }
}

/// Running pings, a hundred or more in a second.
pub struct Pings {
    ping: Child,
    output: PathBuf,
}

/// What became of [`Pings`].
#[derive(Debug)]
pub struct Tally {
    /// How many were sent.
    pub sent: u32,
    /// Those without an answer, by their number from 1. The last two may have been under way.
    pub lost: Vec<u32>,
}

impl Pings {
    /// Starts them; `output` is a file of their own.
    pub fn start(namespace: &str, address: &str, output: PathBuf) -> Self {
        let mut ping = inside(namespace, "ping");
        // its timer is coarse: asked for 10 ms it waits for up to 20
        ping.args(["-n", "-i", "0.005", address]);
        ping.stdout(File::create(&output).unwrap())
            .stderr(Stdio::inherit());
        let ping = ping.spawn().unwrap();
        Self { ping, output }
    }

    /// Ends them, once some have been sent after all that was to be seen.
    pub fn finish(mut self) -> Tally {
        thread::sleep(Duration::from_millis(300));
        kill(pid(&self.ping), Signal::SIGINT).unwrap();
        self.ping.wait().unwrap();
        let text = fs::read_to_string(&self.output).unwrap();
        let summary = text
            .lines()
            .find_map(|line| line.split_once(" packets transmitted"));
        let sent: u32 = summary.expect("a summary from ping").0.parse().unwrap();
        let numbers = text.lines().filter(|line| line.contains(" bytes from "));
        let numbers = numbers.filter_map(|line| line.split_once("icmp_seq=")?.1.split(' ').next());
        let answered: Vec<u32> = numbers.map(|number| number.parse().unwrap()).collect();
        // ping counts to 65535 and starts again
        assert!(sent < 60_000, "too many pings to tell one from another");
        let lost = (1..=sent.saturating_sub(2)).filter(|number| !answered.contains(number));
        Tally {
            sent,
            lost: lost.collect(),
        }
    }
}
