//! A node on a bus of its own, and a client that watches it.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use flannel_rs::proxy::counters::Meter;
use flannel_rs::service::daemon::Ends;
use flannel_rs::service::dbus::{Bus, NAME, ROOT, serve_on};
use flannel_rs::service::duty::Pulse;
use flannel_rs::service::status::{
    Command, DatastoreStatus, InterfaceStatus, LinkStatus, News, PeerPath, PeerStatus, State,
    Status,
};
use futures_util::StreamExt;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use zbus::proxy::CacheProperties;
use zbus::{Connection, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, Proxy};

use super::bus::PrivateBus;

pub(crate) const MANAGER: &str = "org.flannelrs.Flannel1.Manager";
pub(crate) const PEER: &str = "org.flannelrs.Flannel1.Peer";
pub(crate) const LINK: &str = "org.flannelrs.Flannel1.Interface";

/// A service that does nothing but be on the bus.
pub(crate) struct Node {
    pub(crate) status: watch::Sender<Status>,
    pub(crate) commands: Option<mpsc::Receiver<Command>>,
    pub(crate) news: broadcast::Sender<News>,
    pub(crate) meter: watch::Sender<Option<Meter>>,
    pub(crate) serving: JoinHandle<()>,
    client: Option<Connection>,
    pub(crate) bus: PrivateBus,
}

impl Node {
    /// On a bus of its own and ready; `None` where there can be no bus.
    pub(crate) async fn start(status: Status) -> Option<Self> {
        let mut node = Self::on(PrivateBus::start()?, status);
        node.reconnect().await;
        Some(node)
    }

    pub(crate) fn on(bus: PrivateBus, status: Status) -> Self {
        let (mut ends, status, commands) = ends(status);
        let news = ends.news.clone();
        let (meter, shown) = watch::channel(None);
        ends.meter = shown;
        let serving = serve_on(Bus::At(bus.address()), ends, Pulse::default());
        let serving = tokio::spawn(serving);
        Self {
            status,
            commands: Some(commands),
            news,
            meter,
            serving,
            client: None,
            bus,
        }
    }

    /// Connects the client and waits until the name is there.
    pub(crate) async fn reconnect(&mut self) {
        let client = connect(&self.bus).await;
        let start = Instant::now();
        let names = zbus::fdo::DBusProxy::new(&client).await.unwrap();
        while !names
            .name_has_owner(NAME.try_into().unwrap())
            .await
            .unwrap()
        {
            assert!(start.elapsed() < Duration::from_secs(30), "no {NAME}");
            sleep(Duration::from_millis(20)).await;
        }
        self.client = Some(client);
    }

    pub(crate) fn client(&self) -> &Connection {
        self.client.as_ref().unwrap()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    pub(crate) async fn proxy(&self, path: &str, interface: &str) -> Proxy<'static> {
        zbus::proxy::Builder::new(self.client())
            .destination(NAME)
            .path(path.to_owned())
            .interface(interface.to_owned())
            .cache_properties(CacheProperties::No)
            .build()
            .await
            .unwrap()
    }

    pub(crate) async fn manager(&self) -> Proxy<'static> {
        self.proxy(ROOT, MANAGER).await
    }

    pub(crate) async fn properties(
        &self,
        path: &str,
        interface: &str,
    ) -> HashMap<String, OwnedVariant> {
        let object = self.proxy(path, "org.freedesktop.DBus.Properties").await;
        object.call("GetAll", &interface).await.unwrap()
    }

    /// The paths of all peers.
    pub(crate) async fn managed(&self) -> Vec<String> {
        self.managed_with(PEER).await
    }

    /// The paths of all objects with an interface.
    pub(crate) async fn managed_with(&self, interface: &str) -> Vec<String> {
        type Objects = HashMap<OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>>;
        let root = self.proxy(ROOT, "org.freedesktop.DBus.ObjectManager").await;
        let objects: Objects = root.call("GetManagedObjects", &()).await.unwrap();
        let objects = objects.into_iter();
        let with = objects.filter(|(_, has)| has.contains_key(interface));
        let mut paths: Vec<_> = with.map(|(path, _)| path.to_string()).collect();
        paths.sort();
        paths
    }

    pub(crate) async fn signals(&self) -> Signals {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .sender(NAME)
            .build()
            .unwrap();
        let stream = MessageStream::for_match_rule(rule, self.client(), NonZero::new(10_000)).await;
        Signals(stream.unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// All signals of the service.
pub(crate) struct Signals(MessageStream);

impl Signals {
    /// The next one as text: path, member and what it is about.
    pub(crate) async fn next(&mut self) -> String {
        let next = timeout(Duration::from_secs(20), self.0.next()).await;
        let message = next.expect("a signal").unwrap().unwrap();
        let header = message.header();
        let (path, member) = (header.path().unwrap(), header.member().unwrap());
        let body = message.body();
        let about = match member.as_str() {
            "PropertiesChanged" => {
                type Body = (String, HashMap<String, OwnedVariant>, Vec<String>);
                let (interface, changed, gone): Body = body.deserialize().unwrap();
                assert!(gone.is_empty());
                format!("{interface}\n{}", shown(&changed))
            }
            "InterfacesAdded" => {
                type Body = (
                    OwnedObjectPath,
                    HashMap<String, HashMap<String, OwnedVariant>>,
                );
                let (path, interfaces): Body = body.deserialize().unwrap();
                let names: Vec<_> = interfaces.into_keys().collect();
                format!("{path} {}", names.join(" "))
            }
            "InterfacesRemoved" => {
                let (path, names): (OwnedObjectPath, Vec<String>) = body.deserialize().unwrap();
                format!("{path} {}", names.join(" "))
            }
            "DriftRepaired" => {
                let changes: Vec<(String, String)> = body.deserialize().unwrap();
                let lines = changes
                    .iter()
                    .map(|(verb, object)| format!("{verb} {object}"));
                lines.collect::<Vec<_>>().join("\n")
            }
            "SubnetConflict" => {
                let (subnet, holder): (String, String) = body.deserialize().unwrap();
                format!("{subnet} {holder:?}")
            }
            other => panic!("{other}"),
        };
        format!("{path} {member} {about}")
    }

    /// What still comes, if anything does soon.
    pub(crate) async fn quiet(&mut self) -> Option<String> {
        timeout(Duration::from_millis(500), self.next()).await.ok()
    }
}

/// Properties by name, one a line.
pub(crate) fn shown(properties: &HashMap<String, OwnedVariant>) -> String {
    let sorted: BTreeMap<_, _> = properties.iter().collect();
    let line = |(name, value): (&String, &OwnedVariant)| {
        let value: &zbus::Variant<'_> = value;
        format!("{name} {value}\n")
    };
    sorted.into_iter().map(line).collect()
}

/// The ends of a service that does nothing, and the ends that it would hold itself.
pub(crate) fn ends(status: Status) -> (Ends, watch::Sender<Status>, mpsc::Receiver<Command>) {
    let (status, seen) = watch::channel(status);
    let (sender, commands) = mpsc::channel(4);
    let ends = Ends {
        status: seen,
        commands: sender,
        news: broadcast::channel(16).0,
        meter: watch::channel(None).1,
    };
    (ends, status, commands)
}

/// A client's connection.
pub(crate) async fn connect(bus: &PrivateBus) -> Connection {
    let address = bus.address();
    let client = zbus::connection::Builder::address(address.as_str()).build();
    client.await.unwrap()
}

/// A healthy node with two peers.
pub(crate) fn status() -> Status {
    Status {
        version: "0.1.0".to_owned(),
        state: State::Running,
        faults: Vec::new(),
        node_name: "node1".to_owned(),
        node_id: "0123456789abcdef0123456789abcdef".to_owned(),
        backend: Some("vxlan".to_owned()),
        network: Some("100.96.0.0/16".to_owned()),
        subnet: Some("100.96.1.0/24".to_owned()),
        interface: Some("eth0".to_owned()),
        public_ip: Some(Ipv4Addr::new(192, 168, 1, 47)),
        mtu: 1450,
        lease_expires_usec: Some(1_800_086_399_000_000),
        datastore: DatastoreStatus {
            name: "etcd at http://192.168.1.47:2379".to_owned(),
            connected: true,
            revision: 42,
        },
        peers: Arc::new(vec![peer(2), peer(3)]),
        garbage: Vec::new(),
        log_level: "info".to_owned(),
        interfaces: Arc::new(vec![tunnel()]),
        last_reconcile_usec: Some(1_800_000_000_000_000),
        repairs: 7,
        provision: None,
        traffic: None,
    }
}

/// The peer with the subnet 100.96.`third`.0/24.
pub(crate) fn peer(third: u8) -> PeerStatus {
    PeerStatus {
        subnet: format!("100.96.{third}.0/24"),
        public_ip: Ipv4Addr::new(192, 168, 1, 46 + third),
        backend: "vxlan".to_owned(),
        mac: Some(format!("02:00:00:00:00:{third:02x}")),
        path: PeerPath::Tunnel,
        obstacle: None,
        traffic: None,
    }
}

/// The tunnel device as it should be, and is.
pub(crate) fn tunnel() -> InterfaceStatus {
    let link = LinkStatus {
        kind: "vxlan".to_owned(),
        mac: Some("02:00:00:00:00:01".to_owned()),
        mtu: 1450,
        up: true,
        addresses: vec!["100.96.1.0/32".to_owned()],
    };
    InterfaceStatus {
        name: "flannel.1".to_owned(),
        desired: Some(link.clone()),
        observed: Some(link),
    }
}
