//! A real etcd of one member or three, on loopback or in a network namespace.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::certificates::Certificates;

/// How etcd listens. The default is plain text on loopback, without logins.
#[derive(Debug, Clone, Default)]
pub(crate) struct EtcdSetup {
    /// Speak TLS to clients, and whether they need a certificate.
    pub(crate) tls: Option<ClientCertificate>,
    /// Name and password of the one user, who may do everything.
    pub(crate) login: Option<(String, String)>,
    /// A network namespace made with `ip netns add`, and the address to listen on inside.
    pub(crate) inside: Option<(String, Ipv4Addr)>,
    /// Further arguments of etcd, such as `--auth-token-ttl=2`.
    pub(crate) arguments: &'static [&'static str],
}

/// What a TLS server asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientCertificate {
    /// Nothing.
    Unasked,
    /// A certificate of the same CA.
    Required,
}

/// A running etcd. Dropping it kills it and deletes its data.
pub(crate) struct EtcdServer {
    setup: EtcdSetup,
    ip: IpAddr,
    /// For clients and for peers.
    ports: (u16, u16),
    name: String,
    /// What etcd calls its initial cluster, once it is known.
    peers: String,
    /// How often it lost its data; makes it another cluster each time.
    losses: u32,
    folder: tempfile::TempDir,
    certificates: Option<Certificates>,
    child: Option<Child>,
    frozen: bool,
}

/// Whether etcd is installed; says so if not.
pub(crate) fn installed() -> bool {
    let found = ["etcd", "etcdctl"].iter().all(|program| {
        let ran = Command::new(program).arg(version(program)).output();
        ran.is_ok_and(|output| output.status.success())
    });
    if !found {
        println!("skipped: etcd and etcdctl are not installed");
    }
    found
}

fn version(program: &str) -> &'static str {
    if program == "etcd" {
        "--version"
    } else {
        "version"
    }
}

impl EtcdServer {
    /// Starts a plain etcd on loopback; `None`, with a message, where there is no etcd.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(EtcdSetup::default())
    }

    /// Starts etcd and waits until it answers.
    pub(crate) fn start_with(setup: EtcdSetup) -> Option<Self> {
        if !installed() {
            return None;
        }
        let mut server = Self::prepare(setup, "one");
        server.peers = server.peer();
        server.launch();
        server.enable_login();
        Some(server)
    }

    /// Starts a plain cluster on loopback and waits until every member answers.
    pub(crate) fn start_cluster<const N: usize>(names: [&str; N]) -> Option<[Self; N]> {
        Self::start_cluster_with(names.map(|name| (name, EtcdSetup::default())))
    }

    /// Starts a cluster of members with these names and waits until every one answers.
    pub(crate) fn start_cluster_with<const N: usize>(
        members: [(&str, EtcdSetup); N],
    ) -> Option<[Self; N]> {
        if !installed() {
            return None;
        }
        let mut servers = members.map(|(name, setup)| Self::prepare(setup, name));
        let peers: Vec<String> = servers.iter().map(Self::peer).collect();
        for server in &mut servers {
            server.peers = peers.join(",");
            server.spawn();
        }
        for server in &mut servers {
            server.wait();
        }
        Some(servers)
    }

    fn prepare(setup: EtcdSetup, name: &str) -> Self {
        let inside = setup.inside.as_ref();
        let ip = IpAddr::V4(inside.map_or(Ipv4Addr::LOCALHOST, |(_, ip)| *ip));
        let folder = tempfile::tempdir().unwrap();
        let tls = folder.path().join("tls");
        Self {
            ip,
            // a namespace of its own has every port free
            ports: inside.map_or_else(free_ports, |_| (2379, 2380)),
            name: name.to_owned(),
            peers: String::new(),
            losses: 0,
            certificates: setup.tls.map(|_| Certificates::make(&tls, ip)),
            folder,
            setup,
            child: None,
            frozen: false,
        }
    }

    fn enable_login(&self) {
        let Some((name, password)) = &self.setup.login else {
            return;
        };
        let user = format!("{name}:{password}");
        self.anonymous(&["user", "add", &user]);
        if name != "root" {
            // etcd wants a root before it switches logins on
            self.anonymous(&["user", "add", &format!("root:{password}")]);
        }
        self.anonymous(&["role", "add", "root"]);
        for user in [name.as_str(), "root"] {
            self.anonymous(&["user", "grant-role", user, "root"]);
        }
        self.anonymous(&["auth", "enable"]);
    }

    /// The client URL.
    pub(crate) fn endpoint(&self) -> String {
        let scheme = if self.setup.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}:{}", self.ip, self.ports.0)
    }

    /// The certificates of a TLS server.
    pub(crate) fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("set up with TLS")
    }

    /// Kills it as a power cut would. The data stay.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same data and ports, and waits until it answers; for a member of
    /// a cluster that takes a quorum.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Starts it again on the same ports with no data, as a new cluster.
    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.data()).unwrap();
        self.losses += 1;
        self.launch();
    }

    /// Starts it again without waiting for an answer, which may take a quorum.
    pub(crate) fn restart_unanswered(&mut self) {
        self.kill();
        self.spawn();
    }

    /// Saves what it holds.
    pub(crate) fn save(&self) -> PathBuf {
        let backup = self.folder.path().join("backup");
        self.etcdctl(&["snapshot", "save", backup.to_str().unwrap()]);
        backup
    }

    /// Starts it again on the same ports with what was saved, as the same cluster or another.
    pub(crate) fn restore(&mut self, backup: &Path, another: bool) {
        self.kill();
        std::fs::remove_dir_all(self.data()).unwrap();
        self.losses += u32::from(another);
        let mut command = self.program("etcdctl");
        command.env("ETCDCTL_API", "3");
        command.args(["snapshot", "restore"]).arg(backup);
        command.arg("--data-dir").arg(self.data());
        command.args(["--name", &self.name, "--initial-cluster", &self.peers]);
        let url = format!("http://{}:{}", self.ip, self.ports.1);
        command.args(["--initial-advertise-peer-urls", &url]);
        command.arg(format!("--initial-cluster-token={}", self.losses));
        run(&mut command);
        self.launch();
    }

    /// Gives everybody certificates of another CA, in the files of the former ones. Servers and
    /// clients with the former ones go on until they connect again.
    pub(crate) fn replace_certificates(&mut self) {
        let folder = self.folder.path().join("tls");
        self.certificates = Some(Certificates::make(&folder, self.ip));
    }

    /// Changes the password of its user.
    pub(crate) fn change_password(&mut self, password: &str) {
        let (name, _) = self.setup.login.clone().expect("set up with a login");
        let word = format!("printf '%s' '{password}' |");
        let shell = format!("{word} exec \"$@\" user passwd {name} --interactive=false");
        let former = self.control_with_login();
        let mut command = Command::new("sh");
        command.args(["-ec", &shell, "sh"]);
        command.arg(former.get_program()).args(former.get_args());
        run(command.env("ETCDCTL_API", "3"));
        self.setup.login = Some((name, password.to_owned()));
    }

    /// Waits until it answers a read, which takes a leader and a quorum.
    pub(crate) fn wait_until_it_answers(&mut self) {
        self.wait();
    }

    /// Whether it leads its cluster.
    pub(crate) fn leads(&self) -> bool {
        let status = &self.status()["Status"];
        status["leader"] == status["header"]["member_id"]
    }

    /// The current revision.
    pub(crate) fn revision(&self) -> i64 {
        let revision = &self.status()["Status"]["header"]["revision"];
        revision.as_i64().unwrap()
    }

    fn status(&self) -> serde_json::Value {
        let status = self.etcdctl(&["endpoint", "status", "--write-out=json"]);
        serde_json::from_str::<serde_json::Value>(&status).unwrap()[0].take()
    }

    /// Freezes it (SIGSTOP).
    pub(crate) fn stop(&mut self) {
        self.signal("STOP");
        self.frozen = true;
    }

    /// Ends [`EtcdServer::stop`].
    pub(crate) fn cont(&mut self) {
        self.signal("CONT");
        self.frozen = false;
    }

    /// Whether it can answer.
    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some() && !self.frozen
    }

    /// Drops all history before the current revision.
    pub(crate) fn compact(&self) {
        self.etcdctl(&["compact", &self.revision().to_string()]);
    }

    /// Writes until it takes no more; it must have a small `--quota-backend-bytes`.
    pub(crate) fn fill(&self) {
        let script = "value=$(head -c 100000 /dev/zero | tr '\\0' x)\n\
                      for i in $(seq 100); do \"$@\" put /filler \"$value\" || exit 0; done\n\
                      exit 1";
        let former = self.control_with_login();
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]);
        command.arg(former.get_program()).args(former.get_args());
        run(command.env("ETCDCTL_API", "3"));
    }

    /// Ends [`EtcdServer::fill`] as its error tells people to.
    pub(crate) fn make_room(&self) {
        self.compact();
        self.etcdctl(&["defrag"]);
        self.etcdctl(&["alarm", "disarm"]);
    }

    /// Runs `etcdctl` against it and returns its output.
    pub(crate) fn etcdctl(&self, arguments: &[&str]) -> String {
        run(self.control_with_login().args(arguments))
    }

    fn control_with_login(&self) -> Command {
        let mut command = self.control();
        if let Some((name, password)) = &self.setup.login {
            command.arg(format!("--user={name}:{password}"));
        }
        command
    }

    /// Carries out some writes in one transaction, in etcdctl's words for them.
    pub(crate) fn transact(&self, writes: &[String]) {
        let script = "printf '\\n%s\\n\\n\\n' \"$WRITES\" | \"$@\" txn";
        let former = self.control_with_login();
        let mut command = Command::new("sh");
        command.args(["-ec", script, "sh"]);
        command.arg(former.get_program()).args(former.get_args());
        command.env("ETCDCTL_API", "3");
        run(command.env("WRITES", writes.join("\n")));
    }

    /// How many requests of a kind it has served, such as `Range`.
    pub(crate) fn served(&self, method: &str) -> u64 {
        let request = format!(
            "exec 3<>/dev/tcp/{}/{}; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
            self.ip, self.ports.0
        );
        let text = run(self.program("bash").args(["-c", &request]));
        let method = format!("grpc_method=\"{method}\"");
        text.lines()
            .filter(|line| line.starts_with("grpc_server_started_total") && line.contains(&method))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The member as etcd's list of the initial cluster names it.
    fn peer(&self) -> String {
        format!("{}=http://{}:{}", self.name, self.ip, self.ports.1)
    }

    fn launch(&mut self) {
        self.spawn();
        self.wait();
    }

    fn spawn(&mut self) {
        let (client, peer) = (
            self.endpoint(),
            format!("http://{}:{}", self.ip, self.ports.1),
        );
        let mut command = self.program("etcd");
        command
            .args(["--name", &self.name, "--logger=zap", "--log-level=error"])
            .arg("--data-dir")
            .arg(self.data())
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args(["--initial-cluster", &self.peers])
            // faster elections and no waiting for the disk: these tests cut no power
            .args([
                "--heartbeat-interval=50",
                "--election-timeout=500",
                "--unsafe-no-fsync",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.folder.path().join("log")).unwrap());
        command.arg(format!("--initial-cluster-token={}", self.losses));
        if self.setup.login.is_some() {
            // a hash as dear as the default takes seconds on a busy machine
            command.arg("--bcrypt-cost=4");
        }
        command.args(self.setup.arguments);
        if let Some(tls) = &self.certificates {
            command.arg("--cert-file").arg(tls.file("server.pem"));
            command.arg("--key-file").arg(tls.file("server.key"));
            if self.setup.tls == Some(ClientCertificate::Required) {
                command.arg("--client-cert-auth");
                command.arg("--trusted-ca-file").arg(tls.file("ca.pem"));
            }
        }
        self.child = Some(command.spawn().unwrap());
        self.frozen = false;
    }

    fn wait(&mut self) {
        let start = Instant::now();
        loop {
            let answer = self.control().args(["get", "x"]).output().unwrap();
            let text = String::from_utf8_lossy(&answer.stderr);
            // who must log in is told so by a server that answers
            if answer.status.success() || text.contains("user name is empty") {
                return;
            }
            let child = self.child.as_mut().expect("launched");
            let ended = child.try_wait().unwrap();
            if ended.is_some() || start.elapsed() > Duration::from_secs(60) {
                let log = std::fs::read_to_string(self.folder.path().join("log"));
                panic!(
                    "etcd does not start ({ended:?}): {text}\n{}",
                    log.unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn anonymous(&self, arguments: &[&str]) -> String {
        run(self.control().args(arguments))
    }

    /// `etcdctl` with what it needs to reach the server.
    fn control(&self) -> Command {
        let mut command = self.program("etcdctl");
        command.env("ETCDCTL_API", "3");
        command.args(["--command-timeout=30s", "--dial-timeout=5s"]);
        command.arg(format!("--endpoints={}", self.endpoint()));
        if let Some(tls) = &self.certificates {
            command.arg("--cacert").arg(tls.file("ca.pem"));
            // the client's may be the ones that a test has spoiled
            command.arg("--cert").arg(tls.file("server.pem"));
            command.arg("--key").arg(tls.file("server.key"));
        }
        command
    }

    fn program(&self, name: &str) -> Command {
        match &self.setup.inside {
            // ip execs the program, so it keeps the pid
            Some((namespace, _)) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace, name]);
                command
            }
            None => Command::new(name),
        }
    }

    fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("running");
        run(Command::new("kill")
            .arg(format!("-{name}"))
            .arg(child.id().to_string()));
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SIGKILL also ends a frozen process
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Two ports that were free a moment ago.
fn free_ports() -> (u16, u16) {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (client, peer) = (bind(), bind());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    (port(&client), port(&peer))
}

/// An address on loopback where nobody listens.
pub(crate) fn dead_endpoint() -> String {
    format!("http://127.0.0.1:{}", free_ports().0)
}
