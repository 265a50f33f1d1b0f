//! One request, tried at one endpoint after the other.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::failure::{Cause, Failure};
use super::options::{self, Credentials, EtcdOptions};
use crate::cluster::datastore::StoreError;

/// The limit of one try, connecting and logging in included.
const TRY: Duration = Duration::from_secs(3);
/// Between the two rounds over the endpoints: time to notice that a connection is gone.
const PAUSE: Duration = Duration::from_millis(50);

/// The endpoints of one etcd cluster.
pub(super) struct Members {
    members: Vec<Member>,
    /// The one that answered last.
    current: AtomicUsize,
    credentials: Option<Credentials>,
}

struct Member {
    endpoint: String,
    connect: ConnectOptions,
    connection: Mutex<Connection>,
}

#[derive(Default)]
struct Connection {
    client: Option<Client>,
    /// Grows with every new client, so that nobody drops another one than failed him.
    number: u64,
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
        let members = options::dial(&options)?
            .into_iter()
            .map(|(endpoint, connect)| Member {
                endpoint,
                connect,
                connection: Mutex::default(),
            })
            .collect();
        Ok(Self {
            members,
            current: AtomicUsize::new(0),
            credentials: options.credentials,
        })
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
                match member.ask(self.credentials.as_ref(), &ask).await {
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
    async fn ask<T, F, Fut>(
        &self,
        credentials: Option<&Credentials>,
        ask: F,
    ) -> Result<(T, Client), Failure>
    where
        F: Fn(Client) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        let mut number = None;
        let work = async {
            let (used, client) = self.client(credentials).await?;
            number = Some(used);
            let answer = ask(client.clone())
                .await
                .map_err(|error| Failure::from(&error));
            Ok((answer?, client))
        };
        let failure = match timeout(TRY, work).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::no_answer(TRY),
        };
        self.forget(number).await;
        Err(failure)
    }

    /// The client, made if there is none. Logging in needs the server, so it is part of a try.
    async fn client(&self, credentials: Option<&Credentials>) -> Result<(u64, Client), Failure> {
        let mut connection = self.connection.lock().await;
        if let Some(client) = &connection.client {
            return Ok((connection.number, client.clone()));
        }
        let mut options = self.connect.clone();
        if let Some(user) = credentials {
            options = options.with_user(&user.username, user.password.reveal());
        }
        let client = match Client::connect([&self.endpoint], Some(options)).await {
            // as etcd's own client does it
            Err(error) if Failure::from(&error).cause == Cause::NoLogin => {
                Client::connect([&self.endpoint], Some(self.connect.clone())).await
            }
            result => result,
        };
        let client = client.map_err(|error| Failure::from(&error))?;
        connection.number += 1;
        connection.client = Some(client.clone());
        Ok((connection.number, client))
    }

    async fn forget(&self, number: Option<u64>) {
        let mut connection = self.connection.lock().await;
        if number == Some(connection.number) {
            connection.client = None;
        }
    }
}
