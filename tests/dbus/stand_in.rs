//! Stand-ins for the managers of a host's network, as the real ones answer: firewalld 1.3 to 2.5,
//! NetworkManager 1.42, systemd-networkd 252.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::StreamExt;
use tokio::task::JoinHandle;
use zbus::message::{Message, Type};
use zbus::{Connection, MessageStream, OwnedObjectPath, OwnedVariant};

use crate::support::bus::PrivateBus;
use crate::support::served::connect;

pub(crate) const FIREWALLD: &str = "org.fedoraproject.FirewallD1";
pub(crate) const NETWORK_MANAGER: &str = "org.freedesktop.NetworkManager";
pub(crate) const NETWORKD: &str = "org.freedesktop.network1";

/// What a stand-in answers.
pub(crate) enum Reply {
    Text(String),
    Truth(bool),
    Path(&'static str),
    Link(i32, &'static str),
    Value(OwnedVariant),
    Error(&'static str, String),
    /// Nothing, ever.
    None,
}

/// Somebody on the bus with a name.
pub(crate) struct StandIn {
    connection: Connection,
    name: &'static str,
    serving: JoinHandle<()>,
}

impl StandIn {
    pub(crate) async fn start(
        bus: &PrivateBus,
        name: &'static str,
        answer: impl Fn(&Message) -> Reply + Send + 'static,
    ) -> Self {
        let connection = connect(bus).await;
        let mut calls = MessageStream::from(&connection);
        let client = connection.clone();
        let serving = tokio::spawn(async move {
            while let Some(Ok(call)) = calls.next().await {
                if call.message_type() == Type::MethodCall {
                    send(&client, &call, answer(&call)).await;
                }
            }
        });
        let stand_in = Self {
            connection,
            name,
            serving,
        };
        stand_in.come().await;
        stand_in
    }

    /// Takes the name.
    pub(crate) async fn come(&self) {
        self.connection.request_name(self.name).await.unwrap();
    }

    /// Leaves the name to others.
    pub(crate) async fn go(&self) {
        assert!(self.connection.release_name(self.name).await.unwrap());
    }

    pub(crate) async fn emit(&self, path: &str, interface: &str, signal: &str) {
        let to = None::<&str>;
        let sent = self
            .connection
            .emit_signal(to, path, interface, signal, &());
        sent.await.unwrap();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn send(connection: &Connection, call: &Message, reply: Reply) {
    let header = call.header();
    // a caller may have gone
    let _ = match reply {
        Reply::Text(text) => connection.reply(&header, &text).await,
        Reply::Truth(truth) => connection.reply(&header, &truth).await,
        Reply::Path(path) => connection.reply(&header, &object(path)).await,
        Reply::Link(index, path) => connection.reply(&header, &(index, object(path))).await,
        Reply::Value(value) => connection.reply(&header, &value).await,
        Reply::Error(name, text) => connection.reply_error(&header, name, &text).await,
        Reply::None => Ok(()),
    };
}

fn object(path: &str) -> OwnedObjectPath {
    path.try_into().unwrap()
}

/// Interface and method without the first two words, such as "FirewallD1.zone addSource".
pub(crate) fn method(call: &Message) -> String {
    let header = call.header();
    let interface = header.interface().unwrap().to_string();
    let interface = interface.splitn(3, '.').last().unwrap();
    format!("{interface} {}", header.member().unwrap())
}

/// How firewalld is minded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Obedient,
    /// polkit does not grant changes.
    Refusing,
    /// There is no polkit, and the caller is not root: not even a question is answered.
    Closed,
    /// All answers are of another type.
    Garbage,
    Mute,
}

/// What firewalld has at run time, and in its files.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) mood: Mood,
    /// Sources with their zones.
    pub(crate) sources: BTreeMap<String, String>,
    /// Zones with UDP ports.
    pub(crate) ports: BTreeSet<(String, String)>,
    /// Ports in its files.
    pub(crate) permanent: BTreeSet<(String, String)>,
    /// Interfaces with their zones.
    pub(crate) interfaces: BTreeMap<String, String>,
    /// How often something was changed.
    pub(crate) changes: usize,
}

/// A stand-in for firewalld.
pub(crate) struct Firewalld {
    pub(crate) on_bus: StandIn,
    rules: Arc<Mutex<Rules>>,
}

impl Firewalld {
    pub(crate) async fn start(bus: &PrivateBus, rules: Rules) -> Self {
        let rules = Arc::new(Mutex::new(rules));
        let shared = rules.clone();
        let answer = move |call: &Message| answer(&mut shared.lock().unwrap(), call);
        let on_bus = StandIn::start(bus, FIREWALLD, answer).await;
        Self { on_bus, rules }
    }

    pub(crate) fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap()
    }

    /// What is not in the files goes, and everybody is told.
    pub(crate) async fn reload(&self) {
        {
            let mut rules = self.rules();
            rules.sources.clear();
            rules.ports = rules.permanent.clone();
        }
        let path = "/org/fedoraproject/FirewallD1";
        self.on_bus.emit(path, FIREWALLD, "Reloaded").await;
    }
}

fn answer(rules: &mut Rules, call: &Message) -> Reply {
    let method = method(call);
    let changes = ["add", "remove"].iter().any(|verb| method.contains(verb));
    let refusal = |kind: &str| {
        let name = "org.fedoraproject.FirewallD1.NotAuthorizedException";
        let text = format!("Not Authorized({kind}): org.fedoraproject.FirewallD1.config");
        Reply::Error(name, text)
    };
    match rules.mood {
        Mood::Refusing if changes => return refusal("polkit"),
        Mood::Closed => return refusal("uid"),
        Mood::Garbage if method.starts_with("FirewallD1.zone getZoneOf") => {
            return Reply::Truth(true);
        }
        Mood::Garbage => return Reply::Text("yes; reboot".to_owned()),
        Mood::Mute => return Reply::None,
        Mood::Obedient | Mood::Refusing => {}
    }
    rules.changes += usize::from(changes);
    match method.strip_prefix("FirewallD1.zone ") {
        Some(method) if method.ends_with("Port") => of_a_port(rules, method, call),
        Some(method) => of_a_zone(rules, method, call),
        None => of_the_files(rules, &method, call),
    }
}

fn error(text: &str) -> Reply {
    Reply::Error("org.fedoraproject.FirewallD1.Exception", text.to_owned())
}

fn of_a_zone(rules: &mut Rules, method: &str, call: &Message) -> Reply {
    let body = call.body();
    let one = || -> String { body.deserialize().unwrap() };
    let two = || -> (String, String) { body.deserialize().unwrap() };
    let zone = |zone: Option<&String>| Reply::Text(zone.cloned().unwrap_or_default());
    match method {
        "getZoneOfInterface" => zone(rules.interfaces.get(&one())),
        "getZoneOfSource" => zone(rules.sources.get(&one())),
        "querySource" => {
            let (zone, source) = two();
            Reply::Truth(rules.sources.get(&source) == Some(&zone))
        }
        "addSource" => {
            let (zone, source) = two();
            if rules.sources.contains_key(&source) {
                return error("ZONE_CONFLICT: it is already bound to a zone");
            }
            rules.sources.insert(source, zone.clone());
            Reply::Text(zone)
        }
        "removeSource" => match rules.sources.remove(&two().1) {
            Some(zone) => Reply::Text(zone),
            None => error("UNKNOWN_SOURCE: it is not in any zone"),
        },
        other => panic!("{other}"),
    }
}

fn of_a_port(rules: &mut Rules, method: &str, call: &Message) -> Reply {
    let body = call.body();
    let (zone, port, protocol) = match method {
        "addPort" => {
            let body = body.deserialize();
            let (zone, port, protocol, timeout): (String, String, String, i32) = body.unwrap();
            assert_eq!(timeout, 0);
            (zone, port, protocol)
        }
        _ => body.deserialize().unwrap(),
    };
    assert_eq!(protocol, "udp");
    let place = (zone.clone(), port);
    match method {
        "queryPort" => Reply::Truth(rules.ports.contains(&place)),
        "addPort" if rules.ports.insert(place.clone()) => Reply::Text(zone),
        "addPort" => error("ALREADY_ENABLED: it is in the zone"),
        "removePort" if rules.ports.remove(&place) => Reply::Text(zone),
        "removePort" => error("NOT_ENABLED: it is not in the zone"),
        other => panic!("{other}"),
    }
}

/// What is in its files, and what is of no zone.
fn of_the_files(rules: &Rules, method: &str, call: &Message) -> Reply {
    let body = call.body();
    match method {
        "FirewallD1 getDefaultZone" => Reply::Text("public".to_owned()),
        // the paths of zones are numbers of no meaning
        "FirewallD1.config getZoneByName" => match body.deserialize::<String>().unwrap().as_str() {
            "public" => Reply::Path("/org/fedoraproject/FirewallD1/config/zone/6"),
            _ => Reply::Path("/org/fedoraproject/FirewallD1/config/zone/8"),
        },
        "FirewallD1.config.zone querySource" => Reply::Truth(false),
        "FirewallD1.config.zone queryPort" => {
            let (port, _): (String, String) = body.deserialize().unwrap();
            Reply::Truth(rules.permanent.contains(&("public".to_owned(), port)))
        }
        other => panic!("{other}"),
    }
}
