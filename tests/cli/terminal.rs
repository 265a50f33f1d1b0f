//! What is different for somebody at a terminal.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::fake::{Fake, open_folder};
use crate::support::bus::PrivateBus;
use crate::support::served::status;

/// `script` has a terminal for the command, and types what it reads.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_sits_at_a_terminal_is_asked_once() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    if !is_installed("script") {
        return;
    }
    let fake = Fake::obliging(&bus, &status()).await;
    for (arguments, call) in [
        ("release", "ReleaseLease!"),
        ("cleanup", "Cleanup!"),
        ("take-bridge", "TakeBridge!"),
        ("renumber 100.96.9.0/24", "Renumber 100.96.9.0/24!"),
    ] {
        for (typed, code) in [("y\n", 0), ("n\n", 1), ("\n", 1)] {
            let (given, shown) = at_a_terminal(&bus, arguments, typed).await;
            let calls = std::mem::take(&mut *fake.calls.lock().unwrap());
            assert_eq!(given, code, "{shown}");
            assert!(shown.contains("node1 (100.96.1.0/24)"), "{shown}");
            assert_eq!(shown.matches("Go on? [y/N]").count(), 1, "{shown}");
            match code {
                0 => assert_eq!(calls, ["Describe", call]),
                _ => {
                    assert_eq!(calls, ["Describe"]);
                    assert!(shown.contains("nothing was changed"), "{shown}");
                }
            }
        }
        let (code, shown) = at_a_terminal(&bus, &format!("{arguments} --yes"), "").await;
        assert!(!shown.contains("Go on?"), "{shown}");
        assert_eq!(
            (code, fake.calls.lock().unwrap().as_slice()),
            (0, [call.to_owned()].as_slice())
        );
        fake.calls.lock().unwrap().clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn colour_is_for_terminals_and_can_be_declined() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    if !is_installed("script") {
        return;
    }
    let _fake = Fake::obliging(&bus, &status()).await;
    let coloured = "\u{1b}[32mrunning\u{1b}[0m";
    let (_, shown) = at_a_terminal(&bus, "status", "").await;
    assert!(shown.contains(coloured), "{shown:?}");
    let (_, shown) = at_a_terminal(&bus, "status; NO_COLOR=1 exec \"$0\" status", "").await;
    assert_eq!(shown.matches("is running").count(), 1, "{shown:?}");
    assert_eq!(shown.matches(coloured).count(), 1, "{shown:?}");
}

/// The stand-in for pkttyagent tells how it was called and that it was ended.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_root_gets_somebody_who_can_ask_for_a_password() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    if !is_installed("script") || !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let fake = Fake::obliging(&bus, &status()).await;
    let folder = open_folder();
    let path = folder.path().to_str().unwrap();
    let agent = folder.path().join("pkttyagent");
    fs::write(&agent, AGENT.replace("LOG", &format!("{path}/log"))).unwrap();
    fs::set_permissions(&agent, Permissions::from_mode(0o755)).unwrap();
    let become_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    for (arguments, log) in [
        ("reload", "--notify-fd=1 --fallback\nended\n"),
        ("plan", ""),
    ] {
        let line = format!("PATH={path}:$PATH {become_nobody} {path}/flannel-rs {arguments}");
        let (code, shown) = type_at_a_terminal(&bus, &line, "").await;
        assert_eq!(code, 0, "{shown}");
        let told = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        assert_eq!(told, log, "{arguments}");
        let _ = fs::remove_file(folder.path().join("log"));
    }
    assert_eq!(*fake.calls.lock().unwrap(), ["Reload!", "Describe", "Plan"]);
}

/// Whatever is silent, the command has an end, and the terminal its prompt.
#[tokio::test(flavor = "multi_thread")]
async fn neither_a_silent_agent_nor_a_silent_bus_is_waited_for_for_ever() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    if !is_installed("script") || !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let fake = Fake::obliging(&bus, &status()).await;
    let folder = open_folder();
    let path = folder.path().to_str().unwrap();
    let agent = folder.path().join("pkttyagent");
    let stubborn = format!("#!/bin/sh\ntrap '' TERM\necho $$ >{path}/agent\nexec sleep 100\n");
    fs::write(&agent, stubborn).unwrap();
    fs::set_permissions(&agent, Permissions::from_mode(0o755)).unwrap();
    // takes connections, and says nothing
    let silent = folder.path().join("bus");
    let _silent = UnixListener::bind(&silent).unwrap();
    fs::set_permissions(&silent, Permissions::from_mode(0o777)).unwrap();
    let become_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let limited = format!("timeout --foreground 60 {become_nobody} {path}/flannel-rs reload");

    let line = format!("PATH={path}:$PATH {limited}");
    let (code, shown) = type_at_a_terminal(&bus, &line, "").await;
    assert_eq!((code, shown.as_str()), (0, ""));
    assert_eq!(*fake.calls.lock().unwrap(), ["Reload!", "Describe"]);
    let id = fs::read_to_string(folder.path().join("agent")).unwrap();
    let process = format!("/proc/{}", id.trim());
    assert!(!Path::new(&process).exists(), "the agent is left behind");

    let line = format!("DBUS_SYSTEM_BUS_ADDRESS=unix:path={path}/bus {line}");
    let (code, shown) = type_at_a_terminal(&bus, &line, "").await;
    assert_eq!(code, 69, "{shown}");
    assert!(shown.contains("no answer within 30s"), "{shown}");
}

const AGENT: &str = "\
#!/bin/sh
echo \"$@\" >LOG
trap 'echo ended >>LOG; exit' TERM
exec >/dev/null
while :; do sleep 0.1; done
";

fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

async fn at_a_terminal(bus: &PrivateBus, arguments: &str, typed: &str) -> (i32, String) {
    let program = env!("CARGO_BIN_EXE_flannel-rs");
    let line = format!("exec sh -c '\"$0\" {arguments}' {program}");
    type_at_a_terminal(bus, &line, typed).await
}

/// The exit code of a shell's line, and all that the terminal shows.
async fn type_at_a_terminal(bus: &PrivateBus, line: &str, typed: &str) -> (i32, String) {
    let mut script = Command::new("script");
    script.args(["-qec", line, "/dev/null"]);
    script.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
    script.env_remove("NO_COLOR");
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().unwrap();
    let keyboard = child.stdin.as_mut().unwrap();
    keyboard.write_all(typed.as_bytes()).unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = ended.await.unwrap().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), shown)
}
