//! The etcd leases that entries hang on.

use std::time::Duration;

use etcd_client::{Error, GetOptions, KeyValue, LeaseTimeToLiveOptions};
use tokio::time::timeout;

use super::Etcd;
use super::call::Answer;
use super::failure::Failure;
use crate::cluster::datastore::Revision;

/// The limit for giving back a lease, which nobody needs to wait for.
const REVOKE_LIMIT: Duration = Duration::from_secs(1);

impl Etcd {
    /// A fresh etcd lease: its id and how long it lives.
    pub(super) async fn grant(&self, ttl: Duration) -> Result<(i64, Duration), Failure> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX);
        let answer = self
            .members
            .call(|mut client| async move { client.lease_grant(seconds, None).await });
        let lease = answer.await?.value;
        let granted = u64::try_from(lease.ttl()).unwrap_or(0);
        Ok((lease.id(), Duration::from_secs(granted)))
    }

    /// Gives back a lease that was granted for nothing.
    pub(super) async fn revoke(&self, id: i64) {
        let revoked = self
            .members
            .call(|mut client| async move { client.lease_revoke(id).await });
        if let Err(failure) = revoked.await {
            let reason = failure.reason;
            tracing::debug!(lease = id, reason, "etcd lease not revoked");
        }
    }

    /// Lets the entry at `path` live on with its value if it was last written at `revision`. An
    /// etcd that is out of space still takes this, and so the wait for space costs no lease.
    pub(super) async fn keep_alive(&self, path: &str, revision: Revision) {
        let kept = self.members.call(|mut client| async move {
            let options = GetOptions::new().with_keys_only();
            let found = client.get(path, Some(options)).await?;
            let unchanged = found
                .kvs()
                .iter()
                .find(|kv| kv.mod_revision() == revision.0);
            if let Some(lease) = unchanged.map(KeyValue::lease).filter(|lease| *lease != 0) {
                let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
                keeper.keep_alive().await?;
                answers.message().await?;
            }
            Ok(())
        });
        if let Err(failure) = kept.await {
            tracing::debug!(path, reason = failure.reason, "etcd lease not kept alive");
        }
    }
}

/// Gives back a lease that nothing hangs on any more. Somebody may have put several entries on
/// one lease, and revoking it would delete them all.
pub(super) async fn revoke_unused<T>(answer: &Answer<T>, lease: i64) {
    let mut client = answer.client.lease_client();
    let revoke = async {
        let options = LeaseTimeToLiveOptions::new().with_keys();
        let left = client.time_to_live(lease, Some(options)).await?;
        if left.keys().is_empty() {
            client.revoke(lease).await?;
        }
        Ok::<_, Error>(())
    };
    match timeout(REVOKE_LIMIT, revoke).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(lease, %error, "former etcd lease not revoked"),
        Err(_) => tracing::debug!(lease, "former etcd lease not revoked in time"),
    }
}
