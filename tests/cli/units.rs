//! What systemd is asked for, and what it may answer.

use std::sync::{Arc, Mutex};

use zbus::OwnedObjectPath;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, fdo, interface};

use crate::fake::{Fake, run};
use crate::support::bus::PrivateBus;
use crate::support::served::{connect, status};

const DONE: &str = "delete link flannel.1\nwrite file /x\u{fffd}[31m\n";

/// A service manager whose jobs end like this at once, or that refuses them.
struct Systemd {
    outcome: Result<&'static str, &'static str>,
    calls: Arc<Mutex<Vec<String>>>,
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Systemd {
    fn subscribe(&self) {
        self.calls.lock().unwrap().push("subscribe".to_owned());
    }

    async fn restart_unit(
        &self,
        name: &str,
        mode: &str,
        #[zbus(header)] call: Header<'_>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> fdo::Result<OwnedObjectPath> {
        let may_ask = call.primary().flags();
        let may_ask = may_ask.contains(zbus::message::Flags::ALLOW_INTERACTIVE_AUTH);
        let text = format!("restart {name} {mode} {may_ask}");
        self.calls.lock().unwrap().push(text);
        let job = |id: u32| {
            format!("/org/freedesktop/systemd1/job/{id}")
                .try_into()
                .unwrap()
        };
        let result = self.outcome.map_err(|reason| match reason {
            "denied" => fdo::Error::AccessDenied("no\nway".to_owned()),
            text => fdo::Error::Failed(text.to_owned()),
        })?;
        // somebody else's job ends too, and ours before the answer
        Self::job_removed(&emitter, 6, job(6), "x.service", "failed").await?;
        Self::job_removed(&emitter, 7, job(7), name, result).await?;
        Ok(job(7))
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

async fn systemd(
    bus: &PrivateBus,
    outcome: Result<&'static str, &'static str>,
) -> (Connection, Arc<Mutex<Vec<String>>>) {
    let calls = Arc::default();
    let connection = connect(bus).await;
    let object = Systemd {
        outcome,
        calls: Arc::clone(&calls),
    };
    let path = "/org/freedesktop/systemd1";
    connection.object_server().at(path, object).await.unwrap();
    let name = "org.freedesktop.systemd1";
    connection.request_name(name).await.unwrap();
    (connection, calls)
}

const TAKE: [&str; 3] = ["take-bridge", "--restart-docker", "--yes"];

#[tokio::test(flavor = "multi_thread")]
async fn docker_is_restarted_once_the_bridge_is_ours() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let fake = Fake::obliging(&bus, &status()).await;
    let (_systemd, calls) = systemd(&bus, Ok("done")).await;
    let (code, stdout, stderr) = run(&bus, &TAKE).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, format!("{DONE}restart docker.service\n"));
    assert_eq!(fake.calls.lock().unwrap().as_slice(), ["TakeBridge!"]);
    let expected = ["subscribe", "restart docker.service replace true"];
    assert_eq!(*calls.lock().unwrap(), expected);

    let (code, stdout, _) = run(&bus, &["take-bridge", "--json", "--restart-docker"]).await;
    let shown: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, shown.as_array().unwrap().len()), (0, 2));
    assert_eq!(calls.lock().unwrap().len(), 4);

    assert_eq!(run(&bus, &["take-bridge"]).await.0, 0);
    assert_eq!(calls.lock().unwrap().len(), 4, "nobody asked for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_fails_is_told_in_one_line() {
    let Some(bus) = PrivateBus::start() else {
        return;
    };
    let _fake = Fake::obliging(&bus, &status()).await;
    for (outcome, code, expected) in [
        (
            Ok("failed"),
            1,
            "docker.service was not restarted: its job ended as \"failed\"; try \
             `systemctl status docker.service`\n",
        ),
        (
            Err("denied"),
            77,
            "not permitted: to restart docker.service: no\u{fffd}way; run as root: systemctl restart \
             docker.service\n",
        ),
        (
            Err("it is masked"),
            1,
            "docker.service was not restarted: it is masked\n",
        ),
    ] {
        let (systemd, _) = systemd(&bus, outcome).await;
        let (given, stdout, stderr) = run(&bus, &TAKE).await;
        assert_eq!((given, stderr.as_str()), (code, expected));
        assert_eq!(stdout, DONE, "the bridge was taken before");
        systemd.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_systemd_runs_docker_is_left_to_its_user() {
    let dead = PrivateBus::with_dead("org.freedesktop.systemd1");
    for bus in [PrivateBus::start(), dead] {
        let Some(bus) = bus else { return };
        let _fake = Fake::obliging(&bus, &status()).await;
        let (given, stdout, stderr) = run(&bus, &TAKE).await;
        let expected = "docker.service was not restarted: there is no systemd on this bus; \
                        restart Docker by hand\n";
        assert_eq!(
            (given, stdout.as_str(), stderr.as_str()),
            (1, DONE, expected)
        );
    }
}
