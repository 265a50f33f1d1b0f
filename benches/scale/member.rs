//! A member of the cluster that is measured: this service, or flanneld.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::{Others, inside, requests};
use crate::kernel::{Probe, wait};
use crate::support::lab::{ETCD, Lab};
use crate::support::process;

/// Which program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    /// This service.
    Ours,
    /// The flanneld of this path.
    Flanneld(PathBuf),
}

/// A node of the lab on which one of the programs can run.
pub(crate) struct Member<'a> {
    pub(crate) lab: &'a Lab,
    /// Its namespace in the lab.
    pub(crate) name: &'static str,
    program: Program,
    public_ip: Ipv4Addr,
    child: Option<Child>,
}

/// How a start went, from the start of the process on.
pub(crate) struct Started {
    pub(crate) ready: Duration,
    /// When the last route was there, if it had not been there before.
    pub(crate) programmed: Duration,
    /// How many requests it had sent to etcd until both.
    pub(crate) requests: u64,
}

impl<'a> Member<'a> {
    pub(crate) fn new(lab: &'a Lab, program: Program) -> Self {
        let (name, last) = match program {
            Program::Ours => ("node1", 47),
            Program::Flanneld(_) => ("node3", 49),
        };
        Self {
            lab,
            name,
            program,
            public_ip: Ipv4Addr::new(192, 168, 1, last),
            child: None,
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.program == Program::Ours
    }

    /// Runs `work` in the namespace of this node.
    pub(crate) fn inside<T: Send>(&self, work: impl AsyncFnOnce(Others) -> T + Send) -> T {
        inside(self.lab, self.name, work)
    }

    /// Takes away all that a former start has set up.
    pub(crate) fn clear(&self) {
        self.lab.shown(self.name, "ip link delete flannel.1");
        self.lab.shown(self.name, "ip link delete docker0");
    }

    /// Starts it and waits until it is ready and all peers have a route.
    pub(crate) fn start(&mut self) -> Started {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let peers = self.inside(async |mut others| self.others_of(&mut others).await);
        let ready = listen(&self.lab.folder().join(format!("notify-{}", self.name)));
        let mut command = self.command();
        let before = requests(self.lab);
        let begun = Instant::now();
        // here, as the child dies with the thread that has started it
        self.child = Some(command.spawn().expect("the program can be run"));
        let mut probe = Probe::new(&peers);
        let programmed = self.inside(async |_| {
            wait("all peers have a route", || probe.all_there());
            begun.elapsed()
        });
        wait("READY=1", || ready.get().is_some());
        let ready = ready.get().unwrap().duration_since(begun);
        Started {
            ready,
            programmed,
            requests: requests(self.lab) - before,
        }
    }

    /// The subnets of all leases but the own one.
    async fn others_of(&self, others: &mut Others) -> BTreeSet<Ipv4Addr> {
        let own = self.public_ip.to_string();
        let leases = others.leases().await.into_iter();
        let others = leases.filter(|(_, value)| value["PublicIP"] != own.as_str());
        others.map(|(base, _)| base).collect()
    }

    /// How many of its rows are missing in the kernel, and how many are there that should not be.
    pub(crate) fn difference(&self) -> (usize, usize) {
        let mut leases = self.inside(async |mut others| others.leases().await);
        let own = self.public_ip.to_string();
        leases.retain(|_, value| value["PublicIP"] != own.as_str());
        let wanted = crate::kernel::wanted(&leases);
        let found = crate::kernel::found(self.lab, self.name);
        let missing = wanted.difference(&found).count();
        (missing, found.difference(&wanted).count())
    }

    fn command(&self) -> Command {
        let folder = self.lab.folder().join(self.name);
        fs::create_dir_all(&folder).unwrap();
        let mut command = match &self.program {
            Program::Ours => {
                let node = self.lab.bare_node(1);
                // a subnet that no peer will ask for
                node.write_config("[node]\nname = \"node1\"\nsubnet = \"10.64.1.0/24\"\n");
                node.command()
            }
            Program::Flanneld(path) => {
                let mut command = process::inside(&self.lab.namespace(self.name), "sh");
                command.args(["-ec", "exec \"$@\"", "sh"]).arg(path);
                let subnet_file = folder.join("subnet.env");
                command.arg(format!("-subnet-file={}", subnet_file.display()));
                command.arg(format!("-etcd-endpoints={ETCD}"));
                // we set no firewall rules, so it is not to be charged for them
                command.args(["-iface=eth0", "-iptables-forward-rules=false", "-v=0"]);
                command
            }
        };
        let notify = self.lab.folder().join(format!("notify-{}", self.name));
        command.env("NOTIFY_SOCKET", notify);
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"));
        let log = log.unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// Ends it with SIGKILL. What it has set up stays.
    pub(crate) fn kill(&mut self) {
        process::end(self.child.take());
    }

    /// Processor time that it has used so far, in user mode and in the kernel on its behalf.
    pub(crate) fn cpu(&self) -> Duration {
        let clock = nix::time::clock_getcpuclockid(process::pid(self.child())).unwrap();
        clock.now().unwrap().into()
    }

    /// A line of /proc/PID/status in MiB, such as `VmHWM`.
    pub(crate) fn memory(&self, line: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child().id())).unwrap();
        let found = status
            .lines()
            .find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let kilobytes = found.unwrap().trim().strip_suffix(" kB").unwrap();
        kilobytes.parse::<f64>().unwrap() / 1024.0
    }

    fn child(&self) -> &Child {
        self.child.as_ref().expect("a running program")
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.lab.folder().join(self.name).join("log");
            let log = fs::read_to_string(log).unwrap_or_default();
            let from = log.len().saturating_sub(4000);
            eprintln!(
                "--- end of the log of {}:\n{}",
                self.name,
                log.get(from..).unwrap_or("")
            );
        }
        self.kill();
    }
}

/// When `READY=1` has come. Read to the end, as a full socket would hold the program up.
fn listen(path: &Path) -> Arc<OnceLock<Instant>> {
    let _ = fs::remove_file(path);
    let socket = UnixDatagram::bind(path).unwrap();
    let ready = Arc::new(OnceLock::new());
    let heard = Arc::downgrade(&ready);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            let now = Instant::now();
            let mut lines = buffer[..length].split(|byte| *byte == b'\n');
            if lines.any(|line| line == b"READY=1")
                && let Some(ready) = heard.upgrade()
            {
                let _ = ready.set(now);
            }
        }
    });
    ready
}
