//! Somebody who can be asked for a password where there is no desktop: polkit's own program for
//! terminals, for as long as a call takes, as systemctl has it.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// A running pkttyagent, if there is use for one. Ends when dropped.
pub(super) struct Agent(Option<Child>);

impl Agent {
    /// Starts one and waits until polkit knows of it, but not for long. Without one, polkit says
    /// what it says.
    pub(super) fn start() -> Self {
        let somebody_is_there = io::stdin().is_terminal() && io::stderr().is_terminal();
        if !somebody_is_there || geteuid().is_root() {
            return Self(None);
        }
        // it speaks to the terminal by itself, for its parent process
        let agent = Command::new("pkttyagent")
            .args(["--notify-fd=1", "--fallback"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let agent = agent.ok();
        if let Some(ready) = agent.as_ref().and_then(|agent| agent.stdout.as_ref()) {
            // closed once it is registered, or has ended
            let mut closed = [PollFd::new(ready.as_fd(), PollFlags::empty())];
            let _ = poll(&mut closed, PollTimeout::from(START));
        }
        Self(agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let Some(mut agent) = self.0.take() else {
            return;
        };
        if let Ok(pid) = i32::try_from(agent.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        for _ in 0..STEPS {
            if agent.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            sleep(STEP);
        }
        // only now, as it could leave the terminal without echo
        let _ = agent.kill();
        let _ = agent.wait();
    }
}

/// In milliseconds; an agent is ready in some tens of them.
const START: u16 = 10_000;

/// How long it may take to end: two seconds.
const STEPS: u32 = 100;
const STEP: Duration = Duration::from_millis(20);
