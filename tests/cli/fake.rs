//! A service that answers what a test tells it to, and what a client meets beside it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flannel_rs::service::dbus::{NAME, ROOT};
use flannel_rs::service::status::Status;
use futures_util::StreamExt;
use serde::Serialize;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use zbus::message::{Flags, Type};
use zbus::zvariant::DynamicType;
use zbus::{Connection, Message, MessageStream};

use crate::Answer;
use crate::support::bus::PrivateBus;
use crate::support::served::{MANAGER, connect};

/// What a call is answered.
pub(crate) enum Reply {
    Text(String),
    Changes(Vec<(String, String)>),
    Nothing,
    Error(String, String),
    /// The service goes over the question.
    Crash,
}

/// The service, until it is dropped.
pub(crate) struct Fake {
    pub(crate) connection: Connection,
    /// Every call: its name, its argument, and `!` if a password may be asked for.
    pub(crate) calls: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Fake {
    /// On a bus and with its name.
    pub(crate) async fn start(
        bus: &PrivateBus,
        reply: impl Fn(&str) -> Reply + Send + 'static,
    ) -> Self {
        let connection = connect(bus).await;
        let mut messages = MessageStream::from(&connection);
        connection.request_name(NAME).await.unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (line, heard) = (connection.clone(), Arc::clone(&calls));
        let serving = tokio::spawn(async move {
            while let Some(Ok(call)) = messages.next().await {
                if call.message_type() == Type::MethodCall {
                    let member = note(&call, &heard);
                    answer(&line, &call, reply(&member)).await;
                }
            }
        });
        Self {
            connection,
            calls,
            serving,
        }
    }

    /// One that shows this status and does everything it is asked to.
    pub(crate) async fn obliging(bus: &PrivateBus, status: &Status) -> Self {
        let json = serde_json::to_string(status).unwrap();
        Self::start(bus, move |member| match member {
            "Describe" => Reply::Text(json.clone()),
            "ReleaseLease" => Reply::Text("100.96.1.0/24".to_owned()),
            "Renumber" => Reply::Text("100.96.9.0/24".to_owned()),
            "Plan" | "Reconcile" | "Cleanup" | "TakeBridge" => Reply::Changes(vec![
                ("delete".to_owned(), "link flannel.1".to_owned()),
                ("write".to_owned(), "file /x\u{1b}[31m".to_owned()),
            ]),
            "Reload" | "SetLogLevel" => Reply::Nothing,
            other => panic!("{other} was called"),
        })
        .await
    }

    pub(crate) async fn emit<B: Serialize + DynamicType>(&self, member: &str, body: &B) {
        let nobody_in_particular = None::<&str>;
        self.connection
            .emit_signal(nobody_in_particular, ROOT, MANAGER, member, body)
            .await
            .unwrap();
    }

    /// Leaves the bus as a process that ends does.
    pub(crate) async fn stop(self) {
        self.serving.abort();
        self.connection.clone().close().await.unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn note(call: &Message, calls: &Mutex<Vec<String>>) -> String {
    let header = call.header();
    let flags = header.primary().flags();
    let member = header.member().unwrap().to_string();
    assert_eq!(header.interface().unwrap(), MANAGER);
    // or reading would start a service that somebody has stopped
    assert!(flags.contains(Flags::NO_AUTO_START), "{member}: {flags:?}");
    let argument: String = call.body().deserialize().unwrap_or_default();
    let mut text = format!("{member} {argument}").trim().to_owned();
    if flags.contains(Flags::ALLOW_INTERACTIVE_AUTH) {
        text.push('!');
    }
    calls.lock().unwrap().push(text);
    member
}

async fn answer(connection: &Connection, call: &Message, reply: Reply) {
    let header = call.header();
    let sent = match reply {
        Reply::Text(text) => connection.reply(&header, &text).await,
        Reply::Changes(changes) => connection.reply(&header, &changes).await,
        Reply::Nothing => connection.reply(&header, &()).await,
        Reply::Error(name, text) => connection.reply_error(&header, name, &text).await,
        Reply::Crash => connection.clone().close().await,
    };
    sent.unwrap();
}

/// Runs the program against a bus.
pub(crate) async fn run(bus: &PrivateBus, arguments: &[&str]) -> Answer {
    finish(command(bus, arguments)).await
}

/// The program with these arguments and this bus.
pub(crate) fn command(bus: &PrivateBus, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flannel-rs"));
    command.args(arguments);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
    command
}

/// Waits for a command that is to end by itself.
pub(crate) async fn finish(mut command: Command) -> Answer {
    command.stdin(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output());
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    let output = ended.expect("it ends").unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A folder that all may write to, with the program: the build's may be closed to others.
pub(crate) fn open_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let program = folder.path().join("flannel-rs");
    fs::copy(env!("CARGO_BIN_EXE_flannel-rs"), program).unwrap();
    folder
}
