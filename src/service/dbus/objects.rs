//! The tree of objects on one connection to the bus, kept equal to the status.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::timeout;
use zbus::fdo::RequestNameFlags;
use zbus::object_server::{Interface, SignalEmitter};
use zbus::{Connection, OwnedVariant, Variant, fdo};

use super::manager::Manager;
use super::peer::{self, Peer};
use super::{Bus, NAME, ROOT};
use crate::service::status::{Command, PeerStatus, Status};

/// The objects and the connection that they are served on.
pub(super) struct Objects {
    connection: Connection,
    published: watch::Sender<Arc<Status>>,
    /// By object path.
    peers: BTreeMap<String, PeerStatus>,
}

impl Objects {
    /// Connects, puts up all objects for the status of this moment, then takes the name: whoever
    /// sees the name sees everything.
    pub(super) async fn serve(
        bus: &Bus,
        status: &mut watch::Receiver<Status>,
        commands: &mpsc::Sender<Command>,
    ) -> zbus::Result<Self> {
        let current = status.borrow_and_update().clone();
        let peers = by_path(&current.peers);
        let (published, shown) = watch::channel(Arc::new(current));
        let manager = Manager {
            published: shown,
            current: status.clone(),
            commands: commands.clone(),
            plan_turn: Mutex::default(),
        };
        // first of all: thousands of objects are not to be made for a bus that is not there
        let connection = bus.builder().build().await?;
        let server = connection.object_server();
        for (path, peer) in &peers {
            server.at(path.as_str(), Peer(peer.clone())).await?;
        }
        server.at(ROOT, manager).await?;
        // last of all: it would announce each object that comes after it
        server.at(ROOT, fdo::ObjectManager).await?;
        // nobody is to wait for the name, nor to lose it
        let only_if_free = RequestNameFlags::DO_NOT_QUEUE;
        connection
            .request_name_with_flags(NAME, only_if_free)
            .await?;
        Ok(Self {
            connection,
            published,
            peers,
        })
    }

    /// Until the bus has gone.
    pub(super) async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Lets the connection go and passes the cause on. Calls that are still being answered hold
    /// the connection too, and with it the name.
    pub(super) async fn close(self, cause: &str) -> String {
        let closing = timeout(Duration::from_secs(1), self.connection.close());
        if let Ok(Err(error)) = closing.await {
            tracing::debug!("closing the lost connection to the bus: {error}");
        }
        cause.to_owned()
    }

    /// Shows `status`: peers come, go and change, then the node's own properties. A signal is
    /// sent for what differs and for nothing else.
    ///
    /// # Errors
    /// When the bus does not take it. The objects are then of no more use.
    pub(super) async fn update(&mut self, status: Status) -> zbus::Result<()> {
        if Arc::ptr_eq(&self.published.borrow().peers, &status.peers) {
            return self.change_manager(status).await;
        }
        let server = self.connection.object_server();
        let before = std::mem::replace(&mut self.peers, by_path(&status.peers));
        for path in before.keys().filter(|path| !self.peers.contains_key(*path)) {
            server.remove::<Peer, _>(path.as_str()).await?;
        }
        for (path, peer) in &self.peers {
            match before.get(path) {
                None => {
                    server.at(path.as_str(), Peer(peer.clone())).await?;
                }
                Some(known) if known == peer => {}
                Some(_) => self.change_peer(path, peer).await?,
            }
        }
        self.change_manager(status).await
    }

    async fn change_peer(&self, path: &str, peer: &PeerStatus) -> zbus::Result<()> {
        let server = self.connection.object_server();
        let object = server.interface::<_, Peer>(path).await?;
        let emitter = object.signal_emitter();
        let (before, after) = {
            let mut shown = object.get_mut().await;
            let before = properties(&*shown, emitter).await?;
            *shown = Peer(peer.clone());
            (before, properties(&*shown, emitter).await?)
        };
        announce::<Peer>(emitter, &before, &after).await
    }

    async fn change_manager(&self, status: Status) -> zbus::Result<()> {
        let server = self.connection.object_server();
        let object = server.interface::<_, Manager>(ROOT).await?;
        let emitter = object.signal_emitter();
        let shown = object.get().await;
        let before = properties(&*shown, emitter).await?;
        self.published.send_replace(Arc::new(status));
        let after = properties(&*shown, emitter).await?;
        announce::<Manager>(emitter, &before, &after).await
    }
}

type Properties = HashMap<String, OwnedVariant>;

/// All properties of an object, as `GetAll` would answer.
async fn properties<I: Interface>(
    object: &I,
    emitter: &SignalEmitter<'_>,
) -> zbus::Result<Properties> {
    let connection = emitter.connection();
    let server = connection.object_server();
    let all = object.get_all(server, connection, None, emitter).await?;
    Ok(all)
}

/// Sends what differs as one `PropertiesChanged`, or nothing.
async fn announce<I: Interface>(
    emitter: &SignalEmitter<'_>,
    before: &Properties,
    after: &Properties,
) -> zbus::Result<()> {
    let mut changed = HashMap::new();
    for (name, value) in after {
        if before.get(name) != Some(value) {
            changed.insert(name.as_str(), Variant::try_from(value)?);
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    let gone = Cow::Borrowed([].as_slice());
    fdo::Properties::properties_changed(emitter, I::name(), changed, gone).await
}

/// Two subnets that differ only in punctuation share a path, and the later one is shown;
/// canonical subnets do not.
fn by_path(peers: &[PeerStatus]) -> BTreeMap<String, PeerStatus> {
    let entry = |peer: &PeerStatus| (peer::path(&peer.subnet), peer.clone());
    peers.iter().map(entry).collect()
}
