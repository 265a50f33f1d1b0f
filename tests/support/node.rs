//! A node of the lab and its service.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lab::ETCD;
use super::process::{PATIENCE, end, inside, must, pid, shown, until};

const BINARY: &str = env!("CARGO_BIN_EXE_flannel-rs");

/// A node of a [`Lab`](super::lab::Lab) with its service, once started.
pub struct Node {
    /// 1, 2 or 3.
    pub number: u32,
    namespace: String,
    folder: PathBuf,
    notices: Notices,
    service: Option<Child>,
    bus: Option<Child>,
}

impl Node {
    /// A node that keeps everything in `folder`.
    pub fn new(number: u32, namespace: String, folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let notices = Notices::listen(&folder.join("notify"));
        Self {
            number,
            namespace,
            folder,
            notices,
            service: None,
            bus: None,
        }
    }

    /// Its network namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Where it keeps everything.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its config file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// Its `subnet.env`, empty while there is none.
    pub fn subnet_env(&self) -> String {
        self.file("subnet.env")
    }

    /// A file in its folder, empty while there is none.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    /// The key of its lease, such as `100.96.1.0-24`, by its `subnet.env`.
    pub fn subnet_key(&self) -> String {
        let text = self.subnet_env();
        let gateway = text
            .lines()
            .find_map(|line| line.strip_prefix("FLANNEL_SUBNET="));
        let (address, length) = gateway.unwrap().split_once('/').unwrap();
        let (base, _) = address.rsplit_once('.').unwrap();
        format!("{base}.0-{length}")
    }

    /// Writes the config: the given tables, and the lab's etcd and paths.
    pub fn write_config(&self, tables: &str) {
        let datastore = format!("[datastore]\nendpoints = [\"{ETCD}\"]\n");
        self.write_config_with_store(tables, &datastore);
    }

    /// As [`Node::write_config`] with another `[datastore]`.
    pub fn write_config_with_store(&self, tables: &str, datastore: &str) {
        let at = self.folder.display();
        let paths = format!(
            "[paths]\nstate = \"{at}/state\"\nsubnet-env = \"{at}/subnet.env\"\n\
             docker-env = \"{at}/docker.env\"\n"
        );
        let text = format!("{tables}{datastore}{paths}");
        fs::write(self.config(), text).unwrap();
    }

    /// The service's command line, for tests that start it in their own way.
    pub fn command(&self) -> Command {
        self.command_after(":")
    }

    /// The service's command line after a shell script. Mounts of the script are the service's
    /// alone: each process of a namespace gets its own.
    fn command_after(&self, script: &str) -> Command {
        let mut command = inside(&self.namespace, "sh");
        command.args(["-ec", &format!("{script}\nexec \"$@\""), "sh", BINARY]);
        command.arg("daemon").arg("--config").arg(self.config());
        command.env("NOTIFY_SOCKET", self.folder.join("notify"));
        // no bus, unless a test starts one there
        command.env("DBUS_SYSTEM_BUS_ADDRESS", self.bus_address());
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        command
    }

    /// Starts the service.
    pub fn start(&mut self) {
        self.start_after(":");
    }

    /// Starts the service after a shell script, whose mounts only the service sees.
    pub fn start_after(&mut self, script: &str) {
        assert!(self.service.is_none(), "node{} runs already", self.number);
        // what the one before said last must not pass for this one's words
        self.notices = Notices::listen(&self.folder.join("notify"));
        self.service = Some(self.command_after(script).spawn().unwrap());
    }

    /// Runs shell commands that see the network and the mounts of the service; they must succeed.
    pub fn beside(&self, script: &str) {
        let service = self.service.as_ref().expect("a running service");
        let mut command = Command::new("nsenter");
        command.args(["--target", &service.id().to_string(), "--mount", "--net"]);
        let output = command.args(["sh", "-ec", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
    }

    /// Another command of the program on this node: its exit code, stdout and stderr.
    pub fn program(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = inside(&self.namespace, "timeout");
        command.args(["30", BINARY]);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", self.bus_address());
        let output = command.args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }

    /// Starts a D-Bus of the node's own, or says that there is none here.
    pub fn start_bus(&mut self) -> bool {
        let config = self.folder.join("bus.conf");
        let text = format!(
            "<busconfig><type>system</type><listen>{}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>\
             <allow send_destination=\"*\"/><allow receive_sender=\"*\"/></policy></busconfig>",
            self.bus_address()
        );
        fs::write(&config, text).unwrap();
        let mut command = inside(&self.namespace, "dbus-daemon");
        let log = File::create(self.folder.join("bus.log")).unwrap();
        command.arg("--nofork").arg("--config-file").arg(&config);
        self.bus = Some(command.stderr(log).spawn().unwrap());
        let socket = self.folder.join("bus");
        until("the bus listens", || {
            let running = self
                .bus
                .as_mut()
                .is_some_and(|bus| bus.try_wait().unwrap().is_none());
            socket.exists() || !running
        });
        if !socket.exists() {
            eprintln!("skipped: no dbus-daemon: {}", self.file("bus.log"));
        }
        socket.exists()
    }

    fn bus_address(&self) -> String {
        format!("unix:path={}/bus", self.folder.display())
    }

    /// What the service says of itself; it needs [`Node::start_bus`].
    pub fn status(&self) -> serde_json::Value {
        let mut answer = (None, String::new(), String::new());
        until("the service answers on the bus", || {
            answer = self.program(&["status", "--json"]);
            answer.0 != Some(69)
        });
        serde_json::from_str(&answer.1).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }

    /// Ends the service with SIGKILL.
    pub fn kill(&mut self) {
        end(self.service.take());
    }

    /// Ends the service with SIGTERM and answers its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        let mut service = self.service.take().unwrap();
        let mut code = None;
        until("the service ends", || {
            code = service.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|status| status.code())
    }

    /// Sends a signal to the service.
    pub fn signal(&self, signal: Signal) {
        let service = self.service.as_ref().expect("a running service");
        kill(pid(service), signal).unwrap();
    }

    /// The process of the running service.
    pub fn process(&self) -> Pid {
        pid(self.service.as_ref().expect("a running service"))
    }

    /// Whether the service runs.
    pub fn is_running(&mut self) -> bool {
        self.service
            .as_mut()
            .is_some_and(|service| service.try_wait().unwrap().is_none())
    }

    /// Whether `READY=1` has come since the start.
    pub fn is_ready(&self) -> bool {
        self.notices.heard().iter().any(|line| line == "READY=1")
    }

    /// Waits for `READY=1`.
    pub fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            let (number, line) = (self.number, self.status_line());
            assert!(self.is_running(), "the service of node{number} has ended");
            assert!(
                Instant::now() < deadline,
                "node{number} is not ready: {line:?}"
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// How often the service has told its manager this line since the start.
    pub fn told(&self, line: &str) -> usize {
        let heard = self.notices.heard();
        heard.iter().filter(|heard| heard.starts_with(line)).count()
    }

    /// The last `STATUS=`.
    pub fn status_line(&self) -> String {
        let heard = self.notices.heard();
        let last = heard
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix("STATUS="));
        last.unwrap_or_default().to_owned()
    }

    /// Waits for a `STATUS=` with this in it, and answers it.
    pub fn wait_for_status(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.status_line();
            if line.contains(part) {
                return line;
            }
            assert!(
                Instant::now() < deadline,
                "node{}: no {part:?} in {line:?}",
                self.number
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the service logged.
    pub fn log(&self) -> String {
        self.file("log")
    }

    /// What a command prints in the node's namespace.
    pub fn shown(&self, command: &str) -> String {
        shown(&self.namespace, command)
    }

    /// Runs shell commands in the node's namespace, which must succeed.
    pub fn must(&self, script: &str) -> String {
        must(&self.namespace, script)
    }

    /// Waits until what a command prints in the node's namespace has this in it.
    pub fn wait_for(&self, command: &str, part: &str) -> Duration {
        let what = format!("{command} on node{} shows {part:?}", self.number);
        until(&what, || self.shown(command).contains(part))
    }

    /// Waits until what a command prints in the node's namespace lacks this.
    pub fn wait_for_end(&self, command: &str, part: &str) -> Duration {
        let what = format!("{command} on node{} shows {part:?} no more", self.number);
        until(&what, || !self.shown(command).contains(part))
    }

    /// All that the service has set up in the kernel, without what differs from one making to
    /// the next: the indices of links, whether a bridge has a port that is up, and whether a TUN
    /// device was ever detached. Without the default route, and what tests put on links whose
    /// names begin with "foreign", too.
    pub fn rows(&self) -> String {
        let commands = [
            "ip -4 route show",
            "ip neighbour show nud permanent",
            "bridge fdb show dev flannel.1",
            "ip -4 -br address show dev flannel.1",
            "ip -4 -br address show dev flannel0",
            "ip -4 -br address show dev docker0",
            "ip -d -o link show dev flannel.1",
            "ip -d -o link show dev flannel0",
            "ip -o link show dev docker0",
        ];
        let mut rows = String::new();
        for command in commands {
            let output = self.shown(command).replace(" UNKNOWN ", " UP ");
            let mut lines: Vec<String> = (output.lines())
                .filter(|line| !line.contains("dev foreign") && !line.starts_with("default "))
                .map(|line| line.trim_end().trim_end_matches(" linkdown"))
                .map(|line| {
                    let (first, rest) = line.split_once(": ").unwrap_or(("", line));
                    let indexed = first.bytes().all(|byte| byte.is_ascii_digit());
                    let words: Vec<&str> = if indexed { rest } else { line }
                        .split_whitespace()
                        .collect();
                    format!("{}\n", words.join(" "))
                })
                .collect();
            lines.sort_unstable();
            rows += &format!("$ {command}\n{}", lines.concat());
        }
        rows
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "--- node{}, status {:?}, log:",
                self.number,
                self.status_line()
            );
            eprintln!("{}--- its rows:\n{}", self.log(), self.rows());
        }
        self.kill();
        end(self.bus.take());
    }
}

/// What a service tells its manager. Read all the time: a full socket would hold the service up.
struct Notices {
    heard: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

impl Notices {
    fn listen(path: &Path) -> Self {
        let _ = fs::remove_file(path);
        let socket = UnixDatagram::bind(path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let notices = Self {
            heard: Arc::default(),
            over: Arc::default(),
        };
        let (heard, over) = (notices.heard.clone(), notices.over.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !over.load(Ordering::Relaxed) {
                let Ok(length) = socket.recv(&mut buffer) else {
                    continue;
                };
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                heard
                    .lock()
                    .unwrap()
                    .extend(text.lines().map(str::to_owned));
            }
        });
        notices
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
