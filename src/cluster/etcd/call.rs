//! One request, tried at one endpoint after the other.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, Error};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::access::{Access, CONNECT, Files};
use super::failure::{Cause, Failure};
use super::options::{self, EtcdOptions};
use crate::cluster::datastore::StoreError;

/// The limit of one answer; a login is one of its own.
const TRY: Duration = Duration::from_secs(3);
/// Between the two rounds over the endpoints: time to notice that a connection is gone.
const PAUSE: Duration = Duration::from_millis(50);

/// The endpoints of one etcd cluster.
pub(super) struct Members {
    members: Vec<Member>,
    /// The one that answered last.
    current: AtomicUsize,
    files: Files,
}

struct Member {
    endpoint: String,
    connection: Mutex<Connection>,
    /// Whether the connection is of no use any more.
    outdated: AtomicBool,
}

#[derive(Default)]
struct Connection {
    /// The client, and what it was made with: it connects again by itself, always with that.
    client: Option<(Client, Access)>,
    /// Grows with every new client, so that nobody drops another one than failed him.
    number: u64,
}

/// A client to make one try with.
struct Loan {
    client: Client,
    number: u64,
    /// Whether nobody has used it before, so that it may have yet to connect.
    fresh: bool,
}

/// What a member answered.
pub(super) struct Answer<T> {
    pub(super) value: T,
    /// An earlier try failed in a way that leaves open whether it was carried out.
    pub(super) unsure: bool,
    /// The client that got the answer.
    pub(super) client: Client,
    /// Where from.
    pub(super) endpoint: String,
}

impl<T> Answer<T> {
    /// The failure to say what became of an earlier try.
    pub(super) fn doubt(&self) -> Failure {
        let reason = "a try went unanswered and may or may not have been carried out";
        Failure::new(Cause::Unreachable, reason.to_owned()).at(&self.endpoint)
    }
}

impl Members {
    pub(super) fn new(options: EtcdOptions) -> Result<Self, StoreError> {
        let members = options::urls(&options)?
            .into_iter()
            .map(|endpoint| Member {
                endpoint,
                connection: Mutex::default(),
                outdated: AtomicBool::default(),
            })
            .collect();
        let files = Files {
            tls: options.tls,
            credentials: options.credentials,
        };
        // what is wrong from the start is for whoever starts us
        files.read()?;
        Ok(Self {
            members,
            current: AtomicUsize::new(0),
            files,
        })
    }

    /// Lets every request from now on make a connection of its own.
    pub(super) fn reconnect(&self) {
        for member in &self.members {
            member.outdated.store(true, Ordering::Relaxed);
        }
    }

    /// Asks the endpoint that answered last, then the others; those that failed at once get a
    /// second chance.
    pub(super) async fn call<T, F, Fut>(&self, ask: F) -> Result<Answer<T>, Failure>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let first = self.current.load(Ordering::Relaxed);
        let count = self.members.len();
        let mut failures: BTreeMap<usize, Failure> = BTreeMap::new();
        let mut unsure = false;
        for round in 0..2 {
            if round > 0 {
                sleep(PAUSE).await;
            }
            for index in (0..count).map(|step| (first + step) % count) {
                if failures
                    .get(&index)
                    .is_some_and(|failure| !failure.is_quick())
                {
                    continue;
                }
                let member = &self.members[index];
                match member.ask(&self.files, &ask).await {
                    Ok((value, client)) => {
                        self.current.store(index, Ordering::Relaxed);
                        let endpoint = member.endpoint.clone();
                        return Ok(Answer {
                            value,
                            unsure,
                            client,
                            endpoint,
                        });
                    }
                    Err(failure) if failure.concerns_all() => {
                        return Err(failure.at(&member.endpoint));
                    }
                    Err(mut failure) => {
                        unsure |= failure.is_unsure();
                        if round > 0 {
                            failure = failure.examined(&member.endpoint).await;
                        }
                        failures.insert(index, failure.at(&member.endpoint));
                    }
                }
            }
        }
        Err(Failure::of_all(failures.into_values()))
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<&str> = self.members.iter().map(|m| m.endpoint.as_str()).collect();
        f.write_str(&endpoints.join(", "))
    }
}

impl Member {
    async fn ask<T, F, Fut>(&self, files: &Files, ask: F) -> Result<(T, Client), Failure>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let limit = self.limit(true);
        let loan = timeout(limit, self.client(files));
        let loan = loan.await.map_err(|_| Failure::no_answer(limit))??;
        let limit = self.limit(loan.fresh);
        let failure = match timeout(limit, ask(loan.client.clone())).await {
            Ok(Ok(answer)) => return Ok((answer, loan.client)),
            Ok(Err(error)) => Failure::from(&error),
            Err(_) => Failure::no_answer(limit),
        };
        if failure.blames_connection() {
            self.forget(loan.number).await;
        }
        Err(failure)
    }

    /// The limit of one try. A plain connection takes no answers to make.
    fn limit(&self, fresh: bool) -> Duration {
        if fresh && self.endpoint.starts_with("https://") {
            CONNECT + TRY
        } else {
            TRY
        }
    }

    /// The client, made if there is none that goes with what the files say now.
    async fn client(&self, files: &Files) -> Result<Loan, Failure> {
        let mut connection = self.connection.lock().await;
        if self.outdated.swap(false, Ordering::Relaxed) {
            connection.client = None;
        }
        let access = files.read_again().await;
        let former = connection.client.as_ref();
        if let Some((client, _)) =
            former.filter(|(_, with)| access.as_ref().is_ok_and(|a| a == with))
        {
            return Ok(connection.lend(client.clone(), false));
        }
        let made = match access {
            Ok(access) => self.connect(&access).await.map(|client| (client, access)),
            Err(failure) => Err(failure),
        };
        match (made, former) {
            (Ok((client, access)), _) => {
                connection.number += 1;
                connection.client = Some((client.clone(), access));
                Ok(connection.lend(client, true))
            }
            // files that are being replaced one by one do not go together for a moment
            (Err(failure), Some((client, _))) => {
                tracing::debug!(reason = failure.reason, "staying with the former files");
                Ok(connection.lend(client.clone(), false))
            }
            (Err(failure), None) => Err(failure),
        }
    }

    /// Makes a client. Logging in needs the server, so it is part of a try.
    async fn connect(&self, access: &Access) -> Result<Client, Failure> {
        let url = &self.endpoint;
        let client = match Client::connect([url], Some(access.logged_in(url))).await {
            // as etcd's own client does it
            Err(error) if Failure::from(&error).cause == Cause::NoLogin => {
                Client::connect([url], Some(access.anonymous(url))).await
            }
            result => result,
        };
        client.map_err(|error| Failure::from(&error))
    }

    async fn forget(&self, number: u64) {
        let mut connection = self.connection.lock().await;
        if number == connection.number {
            connection.client = None;
        }
    }
}

impl Connection {
    const fn lend(&self, client: Client, fresh: bool) -> Loan {
        Loan {
            client,
            number: self.number,
            fresh,
        }
    }
}
