//! The tree of objects on one connection to the bus, kept equal to the status.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use zbus::fdo::RequestNameFlags;
use zbus::object_server::Interface;
use zbus::{Connection, fdo};

use super::collection::Collection;
use super::link::Link;
use super::log_control::{LogControl, Settings};
use super::manager::Manager;
use super::orders::{Onlookers, Orders};
use super::peer::Peer;
use super::properties::{announce, properties};
use super::{Bus, LOG_CONTROL, NAME, ROOT, pairs};
use crate::service::daemon::Ends;
use crate::service::status::{News, Status};

/// The objects and the connection that they are served on.
pub(super) struct Objects {
    connection: Connection,
    published: watch::Sender<Arc<Status>>,
    peers: Collection<Peer>,
    links: Collection<Link>,
}

impl Objects {
    /// Connects, puts up all objects for the status of this moment, then takes the name: whoever
    /// sees the name sees everything. The onlookers are those of the orders that come in.
    pub(super) async fn serve(bus: &Bus, ends: &mut Ends) -> zbus::Result<(Self, Onlookers)> {
        // first of all: thousands of objects are not to be made for a bus that is not there
        let connection = bus.builder().build().await?;
        let current = ends.status.borrow_and_update().clone();
        let mut peers = Collection::empty(ends.meter.clone());
        peers.show(&current.peers, &connection).await?;
        let mut links = Collection::empty(());
        links.show(&current.interfaces, &connection).await?;

        let (published, shown) = watch::channel(Arc::new(current));
        let (orders, onlookers) = Orders::new(ends.commands.clone());
        let orders = Arc::new(orders);
        let server = connection.object_server();
        let log_control = LogControl {
            current: ends.status.clone(),
            orders: orders.clone(),
        };
        server.at(LOG_CONTROL, log_control).await?;
        let as_it_comes = fdo::Properties::name();
        server.remove_named(LOG_CONTROL, as_it_comes).await?;
        server.at(LOG_CONTROL, Settings).await?;
        let manager = Manager {
            published: shown,
            current: ends.status.clone(),
            meter: ends.meter.clone(),
            orders,
        };
        server.at(ROOT, manager).await?;
        // last of all: it would announce each object that comes after it
        server.at(ROOT, fdo::ObjectManager).await?;
        // nobody is to wait for the name, nor to lose it
        let only_if_free = RequestNameFlags::DO_NOT_QUEUE;
        connection
            .request_name_with_flags(NAME, only_if_free)
            .await?;
        let objects = Self {
            connection,
            published,
            peers,
            links,
        };
        Ok((objects, onlookers))
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

    /// Shows `status`: peers and links come, go and change, then the node's own properties. A
    /// signal is sent for what differs and for nothing else.
    ///
    /// # Errors
    /// When the bus does not take it. The objects are then of no more use.
    pub(super) async fn update(&mut self, status: Status) -> zbus::Result<()> {
        self.peers.show(&status.peers, &self.connection).await?;
        self.links
            .show(&status.interfaces, &self.connection)
            .await?;
        let server = self.connection.object_server();
        let object = server.interface::<_, Manager>(ROOT).await?;
        let emitter = object.signal_emitter();
        let shown = object.get().await;
        let before = properties(&*shown, emitter).await?;
        self.published.send_replace(Arc::new(status));
        let after = properties(&*shown, emitter).await?;
        announce::<Manager>(emitter, &before, &after).await
    }

    /// Tells everybody who listens.
    ///
    /// # Errors
    /// When the bus does not take it. The objects are then of no more use.
    pub(super) async fn tell(&self, news: News) -> zbus::Result<()> {
        let server = self.connection.object_server();
        let object = server.interface::<_, Manager>(ROOT).await?;
        let emitter = object.signal_emitter();
        match news {
            News::DriftRepaired(mut changes) => {
                changes.truncate(News::MOST_CHANGES);
                Manager::drift_repaired(emitter, pairs(changes)).await
            }
            News::SubnetConflict { subnet, holder } => {
                let holder = holder.map(|holder| holder.to_string());
                let holder = holder.unwrap_or_default();
                Manager::subnet_conflict(emitter, &subnet.to_string(), &holder).await
            }
        }
    }
}
