//! The way from a caller on the bus to the service, and back.

use ipnet::Ipv4Net;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::ANSWER_LIMIT;
use super::authority::{Authority, Request};
use super::refusal::Refusal;
use crate::cluster::subnet::Subnet;
use crate::service::status::{Command, PlannedChange};

/// Callers whose orders were followed, and who are answered once the objects show the status of
/// now. Dropping one lets it go.
pub(super) type Onlookers = mpsc::Receiver<oneshot::Sender<()>>;

/// What the service may be asked, and by whom. Shared by all objects that take orders.
pub(super) struct Orders {
    commands: mpsc::Sender<Command>,
    onlookers: mpsc::Sender<oneshot::Sender<()>>,
    authority: Authority,
    /// Everybody may ask for a plan, so at most one of those waits among the commands …
    plan: Semaphore,
    /// … and not too many for their turn.
    plans: Semaphore,
}

impl Orders {
    pub(super) fn new(commands: mpsc::Sender<Command>) -> (Self, Onlookers) {
        let (onlookers, waiting) = mpsc::channel(MOST_ONLOOKERS);
        let orders = Self {
            commands,
            onlookers,
            authority: Authority::default(),
            plan: Semaphore::new(1),
            plans: Semaphore::new(MOST_PLANS),
        };
        (orders, waiting)
    }

    /// [`Authority::allow`].
    pub(super) async fn allow(&self, request: Request<'_>) -> Result<(), Refusal> {
        self.authority.allow(request).await
    }

    /// The service's own answer, once the properties show what came of it.
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Refusal> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        let answer = self.answer(command, deadline).await?;
        // done is done, also where the bus is too slow to show it
        let _ = timeout_at(deadline, self.look()).await;
        Ok(answer)
    }

    /// Waits until the status of now is shown, or there is nobody left to show it.
    async fn look(&self) {
        let (looking, shown) = oneshot::channel();
        if self.onlookers.send(looking).await.is_ok() {
            let _ = shown.await;
        }
    }

    async fn answer<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
        deadline: Instant,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let exchange = async {
            let sent = self.commands.send(command(answer)).await;
            sent.map_err(|_| stopping())?;
            answered.await.map_err(|_| stopping())
        };
        let answer = timeout_at(deadline, exchange).await;
        answer.unwrap_or_else(|_| Err(late()))
    }

    /// [`Command::Plan`], in turn.
    pub(super) async fn plan(&self) -> Result<Vec<PlannedChange>, Refusal> {
        let _waiting = self.plans.try_acquire().map_err(|_| {
            Refusal::Failed(format!(
                "{MOST_PLANS} plans are being made; try again later"
            ))
        })?;
        let _turn = timeout(ANSWER_LIMIT, self.plan.acquire())
            .await
            .map_err(|_| late())?;
        // everybody may ask, and nothing changes: no reason to show anything before its time
        let deadline = Instant::now() + ANSWER_LIMIT;
        Ok(self.answer(Command::Plan, deadline).await??)
    }
}

/// The subnet that somebody names.
///
/// # Errors
/// [`Refusal::InvalidSubnet`].
pub(super) fn subnet(named: &str) -> Result<Subnet, Refusal> {
    let invalid = |_| {
        let shown: String = named.chars().take(100).collect();
        Refusal::InvalidSubnet(format!("{shown:?} is not a subnet such as 100.96.1.0/24"))
    };
    named.parse::<Ipv4Net>().map(Subnet::new).map_err(invalid)
}

fn stopping() -> Refusal {
    Refusal::Unavailable("the service is stopping".to_owned())
}

fn late() -> Refusal {
    Refusal::Failed(format!(
        "the service is busy and did not answer within {ANSWER_LIMIT:?}; what was asked may still be done"
    ))
}

const MOST_PLANS: usize = 64;
const MOST_ONLOOKERS: usize = 16;
