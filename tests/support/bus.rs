//! A message bus of a test's own.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A place for a dbus-daemon, and the daemon while it runs. Stopped and removed on drop.
pub(crate) struct PrivateBus {
    folder: TempDir,
    daemon: Option<Child>,
}

impl PrivateBus {
    /// The place, without a daemon; `None`, with a message, where dbus-daemon is not installed.
    pub(crate) fn stopped() -> Option<Self> {
        if !installed("dbus-daemon") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        // other users must reach the socket
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let bus = Self {
            folder,
            daemon: None,
        };
        let socket = bus.socket();
        let config = CONFIG.replace("SOCKET", socket.to_str().unwrap());
        fs::write(bus.config(), config).unwrap();
        Some(bus)
    }

    /// A running bus, if there can be one.
    pub(crate) fn start() -> Option<Self> {
        let mut bus = Self::stopped()?;
        bus.run();
        Some(bus)
    }

    /// Starts the daemon and waits until it listens.
    pub(crate) fn run(&mut self) {
        assert!(self.daemon.is_none(), "it runs");
        let config = format!("--config-file={}", self.config().display());
        let daemon = Command::new("dbus-daemon")
            .args([&config, "--nofork", "--nopidfile", "--nosyslog"])
            .stdout(Stdio::null())
            .stderr(File::create(self.log()).unwrap())
            .spawn();
        self.daemon = Some(daemon.unwrap());
        let start = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            let log = || fs::read_to_string(self.log());
            let late = start.elapsed() > Duration::from_secs(20);
            assert!(!late, "no dbus-daemon: {:?}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the daemon as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// Where to connect to.
    pub(crate) fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// Runs busctl with these words; `None`, with a message, where it is not installed.
    pub(crate) fn busctl(&self, words: &str) -> Option<Output> {
        self.client("busctl", &[], words)
    }

    /// The same as the user nobody.
    pub(crate) fn busctl_as_nobody(&self, words: &str) -> Option<Output> {
        let user = "--reuid=65534 --regid=65534 --clear-groups busctl";
        let user: Vec<_> = user.split(' ').collect();
        installed("busctl").then(|| self.client("setpriv", &user, words))?
    }

    fn client(&self, program: &str, before: &[&str], words: &str) -> Option<Output> {
        if !installed(program) {
            return None;
        }
        let output = Command::new(program)
            .args(before)
            .arg(format!("--address={}", self.address()))
            .args(words.split(' '))
            .output();
        Some(output.unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("bus.conf")
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        self.kill();
    }
}

fn installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    match found {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("skipped: {program} is not installed");
            false
        }
        found => found.unwrap().status.success(),
    }
}

/// Everybody may connect, own any name and send everything.
const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;
