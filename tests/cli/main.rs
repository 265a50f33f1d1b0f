//! The command line as a person meets it: what it prints, and what it exits with.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "clippy takes only functions marked #[test] for tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use support::lab::{Lab, Shape};

mod asking;
mod fake;
mod manual;
#[path = "../support/mod.rs"]
mod support;
mod terminal;
mod units;
mod watching;

/// Exit code, stdout, stderr.
type Answer = (i32, String, String);

#[test]
fn every_example_is_right_and_check_is_silent() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let configs: Vec<PathBuf> = files
        .filter(|file| {
            file.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    assert!(configs.len() >= 4, "{configs:?}");
    for config in configs {
        let answer = run(&["check", config.to_str().unwrap()]);
        assert_eq!(
            answer,
            (0, String::new(), String::new()),
            "{}",
            config.display()
        );
    }
}

/// The config of a host has to have the host; a file may be for others.
#[test]
fn the_hosts_own_config_is_checked_as_the_service_reads_it() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root has a /etc of its own");
        return;
    }
    let project = env!("CARGO_MANIFEST_DIR");
    let check = |host: &str, arguments: &str| {
        let script = format!(
            "hostname {host}
             mount -t tmpfs none /etc
             mkdir /etc/flannel-rs
             cp {project}/examples/static.toml /etc/flannel-rs/config.toml
             exec timeout 30 {} check {arguments}",
            env!("CARGO_BIN_EXE_flannel-rs")
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--uts", "sh", "-ec", &script]);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let right = (Some(0), String::new());
    assert_eq!(check("node1", ""), right);
    assert_eq!(check("stranger", "/etc/flannel-rs/config.toml"), right);
    let (code, said) = check("stranger", "");
    assert_eq!(code, Some(78));
    assert!(said.contains("this host is called \"stranger\""), "{said}");
}

#[test]
fn a_typo_is_shown_in_its_place_by_all_that_read_the_config() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, "[node]\nname = \"node1\"\n\tinterfaec\t= \"eth0\"\n").unwrap();
    let file = file.to_str().unwrap();
    let expected = format!(
        "{file}:3:2: unknown key `interfaec` (did you mean `interface`?), expected one of `name`, \
         `interface`, `interface-regex`, `can-reach`, `public-ip`, `subnet`\n  \
         |\n\
         3 | \tinterfaec\t= \"eth0\"\n  \
         | \t^^^^^^^^^\n"
    );
    for arguments in [
        ["check", file].as_slice(),
        &["daemon", "--config", file],
        &["plan", "--config", file],
    ] {
        let answer = run(arguments);
        assert_eq!(
            answer,
            (78, String::new(), expected.clone()),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_config_cannot_talk_to_the_terminal() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, "\"\\u001b[31mred\\n\" = 1\n").unwrap();
    let (code, _, stderr) = run(&["check", file.to_str().unwrap()]);
    assert_eq!(code, 78);
    assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
}

#[test]
fn a_missing_config_is_named() {
    for arguments in [
        ["check", "/nowhere/config.toml"].as_slice(),
        &["daemon", "--config", "/nowhere/config.toml"],
    ] {
        let expected = "/nowhere/config.toml: the config cannot be read: No such file or \
                        directory (os error 2)\n";
        assert_eq!(run(arguments), (78, String::new(), expected.to_owned()));
    }
}

#[test]
fn wrong_arguments_are_told_in_one_line() {
    for (arguments, part) in [
        (
            ["frobnicate"].as_slice(),
            "unrecognized subcommand 'frobnicate'",
        ),
        (&["status", "--jsno"], "unexpected argument '--jsno'"),
        (&["statsu"], "a similar subcommand exists: 'status'"),
        (&["a\u{1b}[31m\nb"], "unrecognized subcommand 'a"),
    ] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(
            stderr.contains(part) && stderr.ends_with("try '--help'\n"),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
    }
    let (code, stdout, stderr) = run(&[]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("Usage: flannel-rs <COMMAND>\n"), "{stderr}");
    let (code, stdout, _) = run(&["--version"]);
    let version = concat!("flannel-rs ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((code, stdout.as_str()), (0, version));
    let (code, stdout, _) = run(&["--help"]);
    assert_eq!(code, 0);
    assert!(
        stdout.contains("  69  the service or the bus is not there"),
        "{stdout}"
    );
}

#[test]
fn status_tells_a_node_that_waits_from_one_that_runs() {
    let Some(mut lab) = Lab::new(Shape::Flat) else {
        return;
    };
    let mut node = lab.node(1);
    if !node.start_bus() {
        return;
    }
    node.start();
    node.wait_for_status("waiting; datastore: ");
    assert_eq!(node.status()["state"], "waiting");
    let (code, stdout, stderr) = node.program(&["status"]);
    assert_eq!((code, stderr.as_str()), (Some(4), ""));
    assert!(
        stdout.contains("! datastore: listing the leases: etcd at"),
        "{stdout}"
    );
    let (code, stdout, stderr) = node.program(&["plan"]);
    let start = "the service says: there is no plan yet: listing the leases: etcd at";
    assert!(
        stderr.starts_with(start) && stderr.lines().count() == 1,
        "{stderr}"
    );
    assert_eq!((code, stdout.as_str()), (Some(1), ""));

    lab.start_etcd();
    lab.set_backend(r#"{"Type":"vxlan"}"#);
    node.wait_until_ready();
    node.wait_for_status("datastore ok");
    let (code, stdout, _) = node.program(&["status"]);
    assert_eq!(code, Some(0), "{stdout}");
    node.must("echo 0 > /proc/sys/net/ipv4/ip_forward");
    node.wait_for_status("forwarding: the kernel forwards no packets");
    let (code, stdout, _) = node.program(&["status"]);
    assert_eq!(code, Some(3), "{stdout}");
}

#[test]
fn a_plan_changes_nothing() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut node = lab.node(1);
    if !node.start_bus() {
        return;
    }
    lab.write_lease(
        "100.96.2.0-24",
        r#"{"PublicIP":"192.168.1.48","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}}"#,
        false,
    );
    let config = node.config();
    let fresh = ["plan", "--config", config.to_str().unwrap()];
    let state = || {
        // without what the traffic to etcd changes: learnt neighbours
        let kernel = [
            "ip -d link",
            "ip -4 address",
            "ip -4 -d route show table all",
            "ip neighbour show nud permanent",
        ]
        .map(|command| node.shown(command));
        let etcd = lab.etcdctl(&["get", "--prefix", "", "--write-out=simple"]);
        let files = fs::read_dir(node.folder()).unwrap();
        let mut files: Vec<_> = files.map(|entry| entry.unwrap().file_name()).collect();
        files.sort();
        (kernel, etcd, files)
    };
    let before = state();
    let (code, stdout, stderr) = node.program(&fresh);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for part in [
        "add link flannel.1 vxlan vni 1 ",
        "add address 100.96.1.0/32 dev flannel.1",
        "100.96.2.0/24 via 100.96.2.0 dev flannel.1",
        "write file ",
    ] {
        assert!(stdout.contains(part), "no {part:?} in {stdout}");
    }
    assert_eq!(state(), before);

    node.start();
    node.wait_until_ready();
    node.wait_for_status("datastore ok");
    assert_eq!(node.status()["state"], "running");
    for arguments in [["plan"].as_slice(), &fresh] {
        let nothing = (Some(0), String::new(), String::new());
        assert_eq!(node.program(arguments), nothing, "{arguments:?}");
    }
}

/// Rtnetlink makes no TUN device; a plan names it all the same.
#[test]
fn a_plan_shows_what_the_data_plane_makes() {
    let Some(lab) = Lab::with_backend(Shape::Flat, r#"{"Type":"vxlan"}"#) else {
        return;
    };
    let mut node = lab.node(1);
    node.start();
    node.wait_until_ready();
    node.stop();
    lab.set_backend(r#"{"Type":"udp"}"#);
    let (code, stdout, _) = node.program(&["plan", "--config", node.config().to_str().unwrap()]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = stdout.lines().collect();
    for line in [
        "delete link flannel.1",
        "add link flannel0 tun mtu 1472 up",
        "add address 100.96.1.0/32 dev flannel0",
        "replace route 100.96.0.0/16 dev flannel0 src 100.96.1.0",
    ] {
        assert!(lines.contains(&line), "no {line:?} in {stdout}");
    }
}

/// Runs the program where there is no bus.
fn run(arguments: &[&str]) -> Answer {
    let mut command = Command::new("timeout");
    command.arg("30").arg(env!("CARGO_BIN_EXE_flannel-rs"));
    command.env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus");
    let output = command.args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}
