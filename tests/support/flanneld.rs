//! A flanneld on a node of the lab.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::Duration;

use super::lab::{ETCD, Lab};
use super::node::Node;
use super::process::{end, inside, until};

/// A flanneld that shares a node's folder: `subnet.env` is the same file for both programs.
pub struct Flanneld {
    program: OsString,
    namespace: String,
    folder: PathBuf,
    child: Option<Child>,
}

impl Flanneld {
    /// Not started yet. It will ask for 100.96.N.0/24, as it finds that in its `subnet.env`.
    pub fn new(program: OsString, lab: &Lab, node: &Node) -> Self {
        let number = node.number;
        let earlier = format!(
            "FLANNEL_NETWORK=100.96.0.0/16\nFLANNEL_SUBNET=100.96.{number}.1/24\n\
             FLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
        );
        fs::write(node.folder().join("subnet.env"), earlier).unwrap();
        Self {
            program,
            namespace: lab.namespace(&format!("node{number}")),
            folder: node.folder().to_owned(),
            child: None,
        }
    }

    /// Starts it and waits until it is ready.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "flanneld runs already");
        let notify = self.folder.join("notify-flanneld");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).unwrap();
        let pause = Duration::from_millis(50);
        socket.set_read_timeout(Some(pause)).unwrap();
        let mut command = inside(&self.namespace, "sh");
        command
            .args(["-ec", "exec \"$@\"", "sh"])
            .arg(&self.program);
        let subnet_file = self.folder.join("subnet.env");
        command.arg(format!("-subnet-file={}", subnet_file.display()));
        command.arg(format!("-etcd-endpoints={ETCD}"));
        // it needs no iptables then
        command.args(["-iface=eth0", "-iptables-forward-rules=false"]);
        command.env("NOTIFY_SOCKET", &notify);
        let log = self.folder.join("flanneld.log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        let mut buffer = [0; 4096];
        until("flanneld is ready", || {
            assert_eq!(self.ended(), None, "flanneld has ended");
            match socket.recv(&mut buffer) {
                Ok(length) => buffer[..length].starts_with(b"READY=1"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    false
                }
            }
        });
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        end(self.child.take());
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .and_then(|child| child.try_wait().unwrap())
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("flanneld.log")).unwrap_or_default()
    }
}

impl Drop for Flanneld {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- log of flanneld:\n{}", self.log());
        }
        self.kill();
    }
}
