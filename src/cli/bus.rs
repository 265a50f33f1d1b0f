//! The running service, as the command line sees it.

use std::time::Duration;

use tokio::time::timeout;
use zbus::proxy::CacheProperties;
use zbus::{connection, fdo};

use super::Error;
use crate::service::dbus::{ERROR_PREFIX, NAME};
use crate::service::status::PlannedChange;

#[zbus::proxy(
    interface = "org.flannelrs.Flannel1.Manager",
    default_service = "org.flannelrs.Flannel1",
    default_path = "/org/flannelrs/Flannel1"
)]
trait Manager {
    fn describe(&self) -> zbus::Result<String>;
    fn plan(&self) -> zbus::Result<Vec<(String, String)>>;
    fn renumber(&self, subnet: &str) -> zbus::Result<String>;
}

/// The service's status, as JSON.
pub(super) fn describe() -> Result<String, Error> {
    ask(async |service| service.describe().await)
}

/// What the service would change.
pub(super) fn plan() -> Result<Vec<PlannedChange>, Error> {
    let changes = ask(async |service| service.plan().await)?;
    let change = |(verb, object)| PlannedChange { verb, object };
    Ok(changes.into_iter().map(change).collect())
}

/// Has the service take another subnet; empty is for any. Answers with the new one.
pub(super) fn renumber(subnet: &str) -> Result<String, Error> {
    ask(async |service| service.renumber(subnet).await)
}

fn ask<T>(
    question: impl AsyncFnOnce(ManagerProxy<'static>) -> zbus::Result<T>,
) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    let exchange = async {
        let bus = connection::Builder::system().build().await?;
        let service = ManagerProxy::builder(&bus)
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        question(service).await
    };
    let answer = runtime.block_on(async { timeout(PATIENCE, exchange).await });
    match answer {
        Ok(answer) => answer.map_err(|error| no_answer(&error)),
        Err(_) => Err(Error::Unreachable(format!("no answer within {PATIENCE:?}"))),
    }
}

/// What it means that a call failed: the service refused, or there is no service.
fn no_answer(error: &zbus::Error) -> Error {
    if let zbus::Error::MethodError(name, text, _) = error
        && let Some(kind) = name.strip_prefix(ERROR_PREFIX)
    {
        let text = text.clone().unwrap_or_default();
        return if kind == ".Unavailable" {
            Error::Unreachable(text)
        } else {
            Error::Refused(text)
        };
    }
    let nobody = matches!(error, zbus::Error::FDO(e)
        if matches!(**e, fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_)));
    Error::Unreachable(if nobody {
        format!("nobody on the bus is {NAME}")
    } else {
        error.to_string()
    })
}

/// Longer than the service takes for any answer, also to say that it is busy.
const PATIENCE: Duration = Duration::from_secs(30);
