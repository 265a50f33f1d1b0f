//! systemd, asked with the rights of whoever has called the command.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;
use zbus::OwnedObjectPath;
use zbus::proxy::CacheProperties;

use super::agent::Agent;
use super::bus::{self, PERSON};
use super::error::Error;
use super::output::{self, Form};

/// org.freedesktop.systemd1(5).
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Systemd {
    #[zbus(allow_interactive_auth)]
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn subscribe(&self) -> zbus::Result<()>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

/// Has systemd restart Docker and waits until that is over. With text for people it says so.
pub(super) fn restart_docker(form: Form) -> Result<(), Error> {
    bus::block_on(restart())??;
    if form == Form::Text {
        output::print(&format!("restart {DOCKER}\n"))?;
    }
    Ok(())
}

async fn restart() -> Result<(), Error> {
    let bus = bus::connect().await?;
    let _agent = Agent::start();
    let systemd = SystemdProxy::builder(&bus)
        .cache_properties(CacheProperties::No)
        .build();
    let systemd = systemd.await.map_err(|error| refused(&error))?;
    // before the job, which may be over before the answer
    let mut removed = (systemd.receive_job_removed().await).map_err(|error| refused(&error))?;
    // without this systemd says nothing to those who are not root
    systemd.subscribe().await.map_err(|error| refused(&error))?;
    let job = timeout(PERSON, systemd.restart_unit(DOCKER, "replace")).await;
    let job = job.map_err(|_| failed(format!("systemd did not answer within {PERSON:?}")))?;
    let job = job.map_err(|error| refused(&error))?;
    let over = async {
        while let Some(signal) = removed.next().await {
            if let Ok(told) = signal.args()
                && told.job == job
            {
                return Some(told.result);
            }
        }
        None
    };
    match timeout(START, over).await {
        Ok(Some(result)) if result == "done" => Ok(()),
        Ok(Some(result)) => Err(failed(format!(
            "its job ended as \"{result}\"; try `systemctl status {DOCKER}`"
        ))),
        Ok(None) => Err(failed("the bus has gone".to_owned())),
        Err(_) => Err(failed(format!(
            "it has not started within {START:?}; try `systemctl status {DOCKER}`"
        ))),
    }
}

/// What it means that systemd did not take the order.
fn refused(error: &zbus::Error) -> Error {
    let reply = bus::reply(error);
    let (name, text) = reply.unwrap_or_else(|| (String::new(), error.to_string()));
    let cause = match name.rsplit('.').next().unwrap_or_default() {
        // where it does not run its name is one to be started, by a program that fails
        _ if name.starts_with("org.freedesktop.DBus.Error.Spawn.") => no_systemd(),
        "ServiceUnknown" | "NameHasNoOwner" => no_systemd(),
        "NoSuchUnit" => "this host has no such unit; restart Docker by hand".to_owned(),
        "AccessDenied" | "InteractiveAuthorizationRequired" => {
            return Error::NotPermitted(format!(
                "to restart {DOCKER}: {text}; run as root: systemctl restart {DOCKER}"
            ));
        }
        _ => text,
    };
    failed(cause)
}

fn no_systemd() -> String {
    "there is no systemd on this bus; restart Docker by hand".to_owned()
}

const fn failed(cause: String) -> Error {
    let unit = DOCKER;
    Error::Unit { unit, cause }
}

const DOCKER: &str = "docker.service";

/// dockerd has no limit of its own: it waits for its containers, and starts those of a policy.
const START: Duration = Duration::from_secs(600);
