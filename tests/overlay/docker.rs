//! A real dockerd on a node: there before the service, told of the overlay later.

use std::fs::{self, File};
use std::process::{Child, Command, Output};

use nix::sys::signal::{Signal, kill};

use crate::bridge::{addresses, wait_for_fault, wait_until_cleared};
use crate::support::lab::{Lab, Shape};
use crate::support::node::Node;
use crate::support::process::{end, inside, pid, until};

/// Mounts of its own hide the host's containerd and all that Docker keeps outside its folders. What
/// is left of the containers goes with the namespace of processes.
const DOCKERD: &str = "
    mount -t tmpfs none /run
    trap 'kill -TERM $dockerd; wait $dockerd; exit 0' TERM
    dockerd --host unix://$AT/socket --data-root $AT/data --exec-root /run/docker \
        --pidfile /run/docker.pid --shutdown-timeout 1 --storage-driver vfs $OPTIONS &
    dockerd=$!
    wait $dockerd";

/// An image out of the host's own programs: there is no registry here.
const IMAGE: &str = r"
    mkdir -p image/bin
    for program in sh sleep ip ping; do
        file=$(command -v $program)
        cp -L $file image/bin/
        for library in $(ldd $file | grep -o '/[^ )]*'); do
            mkdir -p image${library%/*}
            cp -Lu $library image$library
        done
    done
    tar -C image -cf image.tar .";

/// dockerd in the network namespace of a node; ends when dropped.
struct Docker {
    node: String,
    folder: std::path::PathBuf,
    process: Option<Child>,
}

impl Docker {
    fn new(lab: &Lab, node: &Node) -> Option<Self> {
        for program in ["dockerd", "docker", "containerd", "runc"] {
            let mut found = Command::new("sh");
            found.args(["-c", &format!("command -v {program}")]);
            if !found.output().is_ok_and(|output| output.status.success()) {
                eprintln!("skipped: this needs the program {program} (Debian: docker.io)");
                return None;
            }
        }
        let folder = lab.folder().join("docker");
        fs::create_dir_all(&folder).unwrap();
        let node = lab.namespace(&format!("node{}", node.number));
        let process = None;
        Some(Self {
            node,
            folder,
            process,
        })
    }

    fn start(&mut self, options: &str) {
        let path = self.folder.join("log");
        let log = File::options().create(true).append(true).open(path);
        let log = log.unwrap();
        // `ip netns exec` mounts a /sys without the control groups, which containers need
        let mut command = Command::new("setpriv");
        let namespace = format!("--net=/run/netns/{}", self.node);
        command.args(["--pdeathsig", "KILL", "nsenter", &namespace, "unshare"]);
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-ec", DOCKERD]);
        command.env("AT", &self.folder).env("OPTIONS", options);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.process = Some(command.spawn().unwrap());
        until("dockerd answers", || {
            self.try_run(&["version"]).status.success()
        });
    }

    /// As systemd does; the containers end with it.
    fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", process.id());
        let children = fs::read_to_string(children).unwrap();
        let shell = children.trim().parse().unwrap();
        kill(nix::unistd::Pid::from_raw(shell), Signal::SIGTERM).unwrap();
        until("dockerd ends", || process.try_wait().unwrap().is_some());
    }

    fn try_run(&self, arguments: &[&str]) -> Output {
        let mut command = inside(&self.node, "docker");
        let host = format!("unix://{}/socket", self.folder.display());
        command.env("DOCKER_CONFIG", &self.folder);
        command.args(["--host", &host]).args(arguments);
        command.output().unwrap()
    }

    fn run(&self, arguments: &str) -> String {
        let words: Vec<&str> = arguments.split(' ').collect();
        let output = self.try_run(&words);
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn import(&self) {
        let mut shell = Command::new("sh");
        let made = shell.args(["-ec", IMAGE]).current_dir(&self.folder);
        let made = made.output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let file = self.folder.join("image.tar");
        self.run(&format!("import {} small", file.display()));
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("--- dockerd, last line first:\n{}", lines.join("\n"));
        }
        if let Some(process) = &self.process {
            // with it its namespace of processes
            let _ = kill(pid(process), Signal::SIGKILL);
        }
        end(self.process.take());
    }
}

/// What the drop-in has dockerd started with.
fn options(node: &Node) -> String {
    let text = node.file("docker.env");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("DOCKER_OPTS="));
    line.unwrap().trim_matches(['"', ' ']).to_owned()
}

#[test]
fn docker_that_was_there_first_comes_to_the_overlay() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let (mut node, mut other) = (lab.node(1), lab.node(2));
    let Some(mut docker) = Docker::new(&lab, &node) else {
        return;
    };
    if !node.start_bus() {
        return;
    }
    docker.start("");
    docker.import();
    docker.run("run --detach --stop-timeout 1 --name c1 small sleep 1000");
    for started in [&mut node, &mut other] {
        started.start();
    }
    for started in [&mut node, &mut other] {
        started.wait_until_ready();
    }
    lab.container(&other);
    let found = addresses(&node);
    assert!(found.starts_with("172."), "Docker's own: {found}");
    wait_for_fault(&node, "foreign-link", &["systemctl restart docker"]);
    wait_for_fault(&node, "docker", &["1 of 1 interfaces", "up to 1500"]);

    docker.stop();
    docker.start(&options(&node));
    wait_until_cleared(&node, "foreign-link");
    assert_eq!(addresses(&node), "100.96.1.1/24");
    docker.run("start c1");
    let shown = docker.run("exec c1 ip address show eth0");
    assert!(shown.contains("inet 100.96.1."), "{shown}");
    assert!(shown.contains("mtu 1450"), "{shown}");
    wait_until_cleared(&node, "docker");
    docker.run("exec c1 ping -c 1 -W 5 100.96.2.2");

    // a restart without the options: the address stays, as Docker remembers it, the MTU does not
    docker.stop();
    docker.start("");
    docker.run("start c1");
    wait_for_fault(&node, "docker", &["1 of 1 interfaces", "up to 1500"]);
    assert_eq!(addresses(&node), "100.96.1.1/24");

    // an address that is not ours is put on it while containers run, and taken on request
    docker.stop();
    docker.start("--bip 172.31.0.1/16 --mtu 1450");
    docker.run("start c1");
    wait_for_fault(&node, "foreign-link", &["it has 172.31.0.1/16"]);
    let (code, taken, said) = node.program(&["take-bridge"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(
        taken.contains("delete address 172.31.0.1/16 dev docker0"),
        "{taken}"
    );
    assert_eq!(addresses(&node), "100.96.1.1/24");
    docker.stop();
    docker.start(&options(&node));
    docker.run("start c1");
    docker.run("exec c1 ping -c 1 -W 5 100.96.2.2");
    wait_until_cleared(&node, "foreign-link");
    wait_until_cleared(&node, "docker");
}
