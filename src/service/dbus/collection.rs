//! Objects that come, change and go with the rows of a list in the status.

use std::collections::BTreeMap;
use std::sync::Arc;

use zbus::Connection;
use zbus::object_server::Interface;

use super::properties::{announce, properties};

/// An object that shows one row.
pub(super) trait Shown: Interface + Sized {
    type Row: Clone + PartialEq + Send + Sync;
    /// What an object reads at the time of a call, beside its row.
    type Source: Clone + Send + Sync;

    fn new(row: Self::Row, source: Self::Source) -> Self;

    /// Where the object of a row lies.
    fn path(row: &Self::Row) -> String;
}

/// One object for each row, by path. Of rows that share a path the last is shown.
pub(super) struct Collection<S: Shown> {
    rows: Arc<Vec<S::Row>>,
    by_path: BTreeMap<String, S::Row>,
    source: S::Source,
}

impl<S: Shown> Collection<S> {
    pub(super) fn empty(source: S::Source) -> Self {
        Self {
            rows: Arc::default(),
            by_path: BTreeMap::new(),
            source,
        }
    }

    /// Shows these rows from now on. A signal is sent for what differs and for nothing else.
    ///
    /// # Errors
    /// When the bus does not take it.
    pub(super) async fn show(
        &mut self,
        rows: &Arc<Vec<S::Row>>,
        connection: &Connection,
    ) -> zbus::Result<()> {
        if Arc::ptr_eq(&self.rows, rows) {
            return Ok(());
        }
        self.rows = rows.clone();
        let entry = |row: &S::Row| (S::path(row), row.clone());
        let after = rows.iter().map(entry).collect();
        let before = std::mem::replace(&mut self.by_path, after);
        let server = connection.object_server();
        for path in before
            .keys()
            .filter(|path| !self.by_path.contains_key(*path))
        {
            server.remove::<S, _>(path.as_str()).await?;
        }
        for (path, row) in &self.by_path {
            match before.get(path) {
                None => {
                    let object = S::new(row.clone(), self.source.clone());
                    server.at(path.as_str(), object).await?;
                }
                Some(known) if known == row => {}
                Some(_) => {
                    let object = S::new(row.clone(), self.source.clone());
                    change(path, object, connection).await?;
                }
            }
        }
        Ok(())
    }
}

async fn change<S: Shown>(path: &str, next: S, connection: &Connection) -> zbus::Result<()> {
    let server = connection.object_server();
    let object = server.interface::<_, S>(path).await?;
    let emitter = object.signal_emitter();
    let (before, after) = {
        let mut shown = object.get_mut().await;
        let before = properties(&*shown, emitter).await?;
        *shown = next;
        (before, properties(&*shown, emitter).await?)
    };
    announce::<S>(emitter, &before, &after).await
}
