//! The packet filter, over nf_tables' own netlink messages. All of it needs CAP_NET_ADMIN, reading
//! too (`nfnetlink_rcv`).

use std::collections::{BTreeMap, BTreeSet};

use super::socket::Refusal;
use crate::kernel::firewall::{self, BaseChain, Firewall, Set, Step, Table};
use crate::kernel::{KernelError, Scope};
use bytes::Writer;
use message::{Answer, INET, IP, Kind, Request, TABLE, chain, element, rule as row};
use rule::Row;
use socket::{Socket, Trouble};

mod bytes;
mod leftovers;
pub(super) mod message;
pub(super) mod notice;
mod numbers;
mod passes;
mod reading;
mod rule;
mod socket;
mod table;
mod writing;

/// The packet filter of the network namespace that this process lives in.
#[derive(Debug, Default)]
pub(super) struct Nftables {
    /// Away while it is in use, so that a request whose answers nobody waits for is never followed
    /// by another on the same socket.
    socket: Option<Socket>,
}

/// How often a step is made that something has come in between of.
const TRIES: usize = 3;

impl Nftables {
    /// The number by which the kernel notes our changes; 0 where there is no such socket.
    pub(super) fn port(&mut self) -> u32 {
        if self.socket.is_none() {
            self.socket = Socket::open().ok();
        }
        self.socket.as_ref().map_or(0, Socket::port)
    }

    /// What is our business; where it cannot be read, why.
    pub(super) async fn observe(&mut self, scope: &Scope) -> Firewall {
        let seen = self.with(async |socket| {
            Ok(Firewall {
                table: read_table(socket).await?,
                passes: passes::read(socket, scope.own).await?,
                leftovers: leftovers::read(socket).await?,
                refusal: None,
            })
        });
        seen.await.unwrap_or_else(|trouble| Firewall {
            refusal: Some(unreadable(&trouble)),
            ..Firewall::default()
        })
    }

    /// Makes a step as a whole, or not at all.
    pub(super) async fn apply(&mut self, step: &Step) -> Result<(), Trouble> {
        self.with(async |socket| {
            let mut tries = 0;
            loop {
                tries += 1;
                let requests = match step {
                    Step::PutTable(table) => table::replace(table),
                    Step::PutMembers(name, members) => put_members(socket, name, members).await?,
                    Step::PutPasses(chain, rules) => passes::put(socket, *chain, rules).await?,
                    Step::DelLeftover(leftover) => leftovers::del(socket, *leftover).await?,
                    Step::DelTable => vec![table::del()],
                };
                match socket.transaction(&requests).await {
                    Err(trouble) if trouble.is_missing() => match step {
                        Step::DelTable => return Ok(()),
                        Step::PutTable(_) => return Err(trouble),
                        _ if tries == TRIES => return Err(trouble),
                        // what was read is not there any more
                        _ => {}
                    },
                    done => return done,
                }
            }
        })
        .await
    }

    /// All base chains that IPv4 packets come through.
    pub(super) async fn base_chains(&mut self) -> Result<Vec<BaseChain>, KernelError> {
        let request = Request::new(Kind::GetChain, Writer::default()).family(message::ANY);
        let chains = self.with(async |socket| socket.list(&request).await);
        let chains = chains
            .await
            .map_err(|trouble| refused("listing base chains", &trouble))?;
        let base = |answer: &Answer| {
            let family = match answer.family {
                IP => "ip",
                INET => "inet",
                _ => return None,
            };
            let base = table::base(answer)?;
            let hooks = [
                "prerouting",
                "input",
                "forward",
                "output",
                "postrouting",
                "ingress",
            ];
            Some(BaseChain {
                family,
                table: answer.attributes().text(TABLE)?.to_owned(),
                name: answer.attributes().text(chain::NAME)?.to_owned(),
                hook: hooks.get(usize::try_from(base.hook).ok()?)?,
                priority: base.priority,
                drops: !base.accepts,
            })
        };
        Ok(chains.iter().filter_map(base).collect())
    }

    async fn with<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Socket) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::open().map_err(Trouble::Socket)?,
        };
        let done = work(&mut socket).await;
        if matches!(done, Ok(_) | Err(Trouble::Refused { .. })) {
            self.socket = Some(socket);
        }
        done
    }
}

async fn read_table(socket: &mut Socket) -> Result<Option<Table>, Trouble> {
    let request = Request::of_table(Kind::GetTable, firewall::TABLE);
    let Some(found) = socket.ask(&request).await? else {
        return Ok(None);
    };
    let Some(size) = table::size(&found) else {
        return Ok(Some(Table::default()));
    };
    let rules = rules(socket, firewall::TABLE, None).await?;
    let request = Request::of_table(Kind::GetSet, firewall::TABLE);
    let listed = socket.list(&request).await?;
    let listed: Vec<_> = listed.iter().filter_map(table::read_set).collect();
    let names: BTreeSet<&str> = rules.iter().map(|row| &*row.chain).collect();
    let mut found = Vec::new();
    for name in names {
        found.extend(ask_chain(socket, firewall::TABLE, name).await?);
    }
    // The kernel lists all chains of a family or none, and they can be thousands: only where there
    // are such that have no rules.
    if usize::try_from(size) != Ok(found.len() + listed.len()) {
        let all = Request::new(Kind::GetChain, Writer::default()).about("chains".to_owned());
        found = socket.list(&all).await?;
        found.retain(|answer| answer.attributes().text(TABLE) == Some(firewall::TABLE));
    }
    let found = found.iter().filter_map(table::read_chain).collect();
    let mut sets = BTreeMap::new();
    for (name, kind) in listed {
        if let Some(kind) = kind
            && let Some(members) = members(socket, &name, kind).await?
        {
            sets.insert(name, members);
        }
    }
    let chains = table::chains(found, &rules);
    Ok(Some(Table { sets, chains }))
}

/// What is in a set of our table; `None` where that is nothing that we put there.
async fn members(socket: &mut Socket, name: &str, mut set: Set) -> Result<Option<Set>, Trouble> {
    let attributes = Writer::default()
        .text(TABLE, firewall::TABLE)
        .text(element::SET, name);
    let request = Request::new(Kind::GetElements, attributes).about(format!("set {name}"));
    for answer in socket.list(&request).await? {
        if table::read_elements(&answer, &mut set).is_none() {
            return Ok(None);
        }
    }
    Ok(Some(set))
}

async fn put_members(
    socket: &mut Socket,
    name: &str,
    wanted: &Set,
) -> Result<Vec<Request>, Trouble> {
    let empty = match wanted {
        Set::Hosts(_) => Set::Hosts(BTreeSet::new()),
        Set::Origins(_) => Set::Origins(BTreeSet::new()),
    };
    let found = members(socket, name, empty).await?;
    let requests = found.and_then(|found| table::difference(name, &found, wanted));
    requests.ok_or_else(|| Trouble::Refused {
        refusal: Refusal {
            errno: libc::EINVAL,
            text: "its elements are none of ours".to_owned(),
        },
        about: format!("set {name}"),
    })
}

/// The rules of a table, or of one chain of it, in order.
async fn rules(socket: &mut Socket, table: &str, chain: Option<&str>) -> Result<Vec<Row>, Trouble> {
    let mut attributes = Writer::default().text(TABLE, table);
    if let Some(chain) = chain {
        attributes = attributes.text(row::CHAIN, chain);
    }
    let request = Request::new(Kind::GetRule, attributes).about(format!("rules of {table}"));
    let listed = socket.list(&request).await?;
    let of_table = |answer: &&Answer| answer.attributes().text(TABLE) == Some(table);
    let rows = listed.iter().filter(of_table).filter_map(Row::read);
    Ok(rows
        .filter(|row| chain.is_none_or(|chain| row.chain == chain))
        .collect())
}

async fn ask_chain(
    socket: &mut Socket,
    table: &str,
    name: &str,
) -> Result<Option<Answer>, Trouble> {
    let attributes = Writer::default().text(TABLE, table).text(chain::NAME, name);
    let request = Request::new(Kind::GetChain, attributes);
    socket
        .ask(&request.about(format!("chain {table} {name}")))
        .await
}

fn refused(doing: &'static str, trouble: &Trouble) -> KernelError {
    let reason = unreadable(trouble);
    KernelError::Refused { doing, reason }
}

/// Why nothing can be read, and what to do about it.
fn unreadable(trouble: &Trouble) -> String {
    let missing = "the kernel has no nf_tables: load the kernel module nf_tables";
    match trouble {
        Trouble::Refused { refusal, .. } => match refusal.errno {
            libc::EPERM => format!("{}: needs CAP_NET_ADMIN", refusal.text),
            // `nfnetlink_rcv_msg` where nobody has registered for the subsystem
            libc::EINVAL | libc::EOPNOTSUPP => format!("{}: {missing}", refusal.text),
            _ => trouble.to_string(),
        },
        Trouble::Socket(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
            format!("{error}: {missing}")
        }
        Trouble::Socket(_) | Trouble::Timeout => trouble.to_string(),
    }
}

#[cfg(test)]
mod tests;
