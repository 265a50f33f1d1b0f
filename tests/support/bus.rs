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
        bus.configure(&format!("<include>{POLICY}</include>"));
        Some(bus)
    }

    /// The place for a daemon that knows nothing of the service's policy.
    pub(crate) fn without_policy() -> Option<Self> {
        let bus = Self::stopped()?;
        bus.configure("");
        Some(bus)
    }

    /// A running bus on which a name is to be started by a program that fails, as that of systemd
    /// is where systemd does not run.
    pub(crate) fn with_dead(name: &str) -> Option<Self> {
        let mut bus = Self::stopped()?;
        let services = bus.folder.path().join("services");
        fs::create_dir(&services).unwrap();
        let text = format!("[D-BUS Service]\nName={name}\nExec=/bin/false\nUser=root\n");
        fs::write(services.join(format!("{name}.service")), text).unwrap();
        let services = format!("<servicedir>{}</servicedir>", services.display());
        bus.configure(&format!("<include>{POLICY}</include>{services}"));
        bus.run();
        Some(bus)
    }

    /// Rules for the daemon, for when it reads them next, besides those that every system has.
    /// What owns the names of the tests' other actors is the user who runs the tests.
    fn configure(&self, rules: &str) {
        let user = nix::unistd::geteuid();
        let names = match user.is_root() {
            true => ACTORS,
            false => &["*"],
        };
        let names = names.iter().map(|name| format!("<allow own=\"{name}\"/>"));
        let callable = ACTORS.iter();
        let callable = callable.map(|name| format!("<allow send_destination=\"{name}\"/>"));
        let config = CONFIG
            .replace("SOCKET", self.socket().to_str().unwrap())
            .replace("USER", &user.to_string())
            .replace("NAMES", &names.collect::<String>())
            .replace("CALLABLE", &callable.collect::<String>())
            .replace("RULES", rules);
        fs::write(self.config(), config).unwrap();
    }

    /// Has the running daemon learn the policy.
    pub(crate) fn install_policy(&self) {
        self.configure(&format!("<include>{POLICY}</include>"));
        let daemon = self.daemon.as_ref().unwrap().id();
        let daemon = nix::unistd::Pid::from_raw(daemon.try_into().unwrap());
        nix::sys::signal::kill(daemon, nix::sys::signal::SIGHUP).unwrap();
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
        self.client("busctl", words)
    }

    /// The same as the user nobody; `None` also where nobody can become somebody else.
    pub(crate) fn busctl_as_nobody(&self, words: &str) -> Option<Output> {
        let mut command = self.nobody("busctl")?;
        command.arg(format!("--address={}", self.address()));
        Some(command.args(words.split(' ')).output().unwrap())
    }

    /// A program that is to be run as the user nobody, on this bus.
    pub(crate) fn nobody(&self, program: &str) -> Option<Command> {
        if !installed(program) || !installed("setpriv") {
            return None;
        }
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root can become somebody else");
            return None;
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", self.address());
        Some(command)
    }

    fn client(&self, program: &str, words: &str) -> Option<Output> {
        if !installed(program) {
            return None;
        }
        let output = Command::new(program)
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
        // gdbus(1) has no such option
        found => found.is_ok(),
    }
}

/// Whom the service calls on a bus.
const ACTORS: &[&str] = &[
    "org.freedesktop.PolicyKit1",
    "org.fedoraproject.FirewallD1",
    "org.freedesktop.NetworkManager",
    "org.freedesktop.network1",
    "org.freedesktop.systemd1",
];

/// What the service's package installs.
const POLICY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/systemd/dbus-1/system.d/org.flannelrs.Flannel1.conf"
);

/// As every system has it: nobody owns a name and nobody is called unless a rule says so.
const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=SOCKET</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
    CALLABLE
  </policy>
  <policy user="USER">
    NAMES
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus.Monitoring"/>
  </policy>
  RULES
</busconfig>
"#;
