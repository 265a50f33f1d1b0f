use std::io;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;

use super::*;
use crate::service::status::{DatastoreStatus, State};

#[test]
fn no_bus_and_a_refused_name_are_different_news() {
    let taken = Loss::at_start(&zbus::Error::NameTaken);
    assert_eq!(taken.trouble, Trouble::NameRefused);
    let denied = fdo::Error::AccessDenied("no".to_owned());
    let denied = Loss::at_start(&zbus::Error::FDO(Box::new(denied)));
    assert_eq!(denied.trouble, Trouble::NameRefused);
    assert!(denied.to_string().contains("policy file"), "{denied}");
    let absent = Loss::at_start(&zbus::Error::Address("nowhere".to_owned()));
    assert_eq!(absent.trouble, Trouble::NoBus);
}

#[test]
fn a_text_from_outside_holds_no_nul() {
    assert_eq!(text("a\0b"), "a\u{fffd}b");
}

/// Virtual time: it runs on whenever everybody waits.
#[tokio::test(start_paused = true)]
async fn a_bus_that_stays_away_is_said_once() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.subscriber());
    let (_status, seen) = watch::channel(status());
    let (commands, _service) = mpsc::channel(1);
    let ends = Ends {
        status: seen,
        commands,
        news: broadcast::channel(1).0,
        meter: watch::channel(None).1,
    };
    let nowhere = Bus::At("unix:path=/nonexistent/bus".to_owned());
    let tried = timeout(
        Duration::from_secs(600),
        serve_on(nowhere, ends, Pulse::default()),
    )
    .await;
    assert!(tried.is_err(), "it ended");
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains("WARN") && text.contains("there is no bus"),
        "{text}"
    );
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn subscriber(&self) -> impl tracing::Subscriber + use<> {
        let log = self.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || log.clone())
            .finish()
    }
}

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn status() -> Status {
    Status {
        version: String::new(),
        state: State::Waiting,
        faults: Vec::new(),
        node_name: String::new(),
        node_id: String::new(),
        backend: None,
        network: None,
        subnet: None,
        interface: None,
        public_ip: None,
        mtu: 0,
        lease_expires_usec: None,
        datastore: DatastoreStatus {
            name: String::new(),
            connected: false,
            revision: 0,
        },
        peers: Arc::default(),
        garbage: Vec::new(),
        log_level: "info".to_owned(),
        interfaces: Arc::default(),
        last_reconcile_usec: None,
        repairs: 0,
        provision: None,
        traffic: None,
    }
}
