//! Nodes on one datastore.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::machine::{KernelTrouble, MadeUp};
use super::store::{Book, Line, Trouble};
use crate::cluster::datastore::{CONFIG, Datastore, Fence, Put};
use crate::cluster::memory::{Backup, Memory};
use crate::cluster::network::Network;
use crate::cluster::subnet::Subnet;
use crate::cluster::view::View;
use crate::config::Config;
use crate::kernel::Scope;
use crate::kernel::diff::diff;
use crate::plan;
use crate::service::daemon::{self, Ends, Parts};
use crate::service::duty::Pulse;
use crate::service::managers::Desk;
use crate::service::status::{Command, News, State, Status};

/// Nodes on one datastore.
pub(super) struct Cluster {
    pub(super) memory: Memory,
    pub(super) book: Book,
    pub(super) nodes: Vec<Node>,
    backup: Option<(Backup, BTreeMap<String, u32>)>,
}

/// A service has forgotten who asked it.
#[derive(Debug)]
pub(super) struct Silence;

/// A machine and the service on it, once started.
pub(super) struct Node {
    pub(super) number: u32,
    config: String,
    pub(super) machine: MadeUp,
    pub(super) line: Line,
    service: Option<JoinHandle<()>>,
    ends: Arc<Mutex<Option<Ends>>>,
}

impl Cluster {
    /// So many nodes with this host config, of which none is started.
    pub(super) fn new(count: u32, config: &str, dice: &mut StdRng) -> Self {
        let (memory, book) = (Memory::new(), Book::default());
        let node = |number| Node {
            number,
            config: config.to_owned(),
            machine: MadeUp::new(number, StdRng::from_rng(dice)),
            line: Line::new(number, memory.clone(), book.clone()),
            service: None,
            ends: Arc::default(),
        };
        let nodes = (1..=count).map(node).collect();
        Self {
            memory,
            book,
            nodes,
            backup: None,
        }
    }

    /// Writes an entry as an administrator does, asking nobody. Says whether it could.
    pub(super) async fn write(&self, key: &str, value: &str, ttl: Option<Duration>) -> bool {
        let list = self.memory.list().await;
        let Ok(list) = list else {
            return false;
        };
        let fence = list.entries.iter().find(|entry| entry.key == key);
        let fence = fence.map_or(Fence::Absent, |entry| Fence::Unchanged(entry.revision));
        let put = Put {
            key,
            value,
            fence,
            ttl,
        };
        // the answer may be lost, which is nobody's concern here
        let _ = self.memory.put(put).await;
        true
    }

    pub(super) async fn delete(&self, key: &str) {
        let Ok(list) = self.memory.list().await else {
            return;
        };
        if let Some(entry) = list.entries.iter().find(|entry| entry.key == key) {
            let _ = self.memory.delete(key, entry.revision).await;
        }
    }

    pub(super) async fn configure(&self, json: &str) {
        self.write(CONFIG, json, None).await;
    }

    /// The keys of the leases.
    pub(super) async fn leases(&self) -> Vec<String> {
        let list = self.memory.list().await;
        let keys = list.map(|list| list.entries).unwrap_or_default();
        let keys = keys.into_iter().map(|entry| entry.key);
        keys.filter(|key| key != CONFIG).collect()
    }

    pub(super) fn back_up(&mut self) {
        self.backup = Some((self.memory.back_up(), self.book.copy()));
    }

    /// Restores the backup; without one, everything is lost.
    pub(super) fn restore(&mut self) {
        let (backup, book) = self.backup.clone().unwrap_or_default();
        self.memory.restore(backup);
        self.book.restore(book);
    }

    /// Ends all trouble with lines and kernels, and starts every node.
    pub(super) fn repair(&mut self) {
        self.memory.heal();
        for node in &mut self.nodes {
            node.line.set(Trouble::None);
            node.machine
                .fumble(|state| state.trouble = KernelTrouble::None);
            node.start();
        }
    }

    /// All that is not right, one line each.
    pub(super) async fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut view = View::default();
        view.replace(self.memory.list().await.unwrap());
        let mut owners = BTreeMap::new();
        for node in &self.nodes {
            let mut complain =
                |text: String| complaints.push(format!("node{}: {text}", node.number));
            let Some(status) = node.status() else {
                complain("it does not run".to_owned());
                continue;
            };
            if status.state != State::Running {
                complain(format!("it is {}: {:?}", status.state, status.faults));
            }
            if node.machine.state().fed.elapsed() > Duration::from_secs(5) {
                complain("its watchdog is not fed".to_owned());
            }
            if !node.machine.has_foreign() {
                complain("something foreign is gone".to_owned());
            }
            if let Some(subnet) = &status.subnet
                && let Some(other) = owners.insert(subnet.clone(), node.number)
            {
                complain(format!("it has {subnet}, as has node{other}"));
            }
            if let Err(text) = node.compare(&view, &status) {
                complain(text);
            }
        }
        complaints
    }
}

impl Node {
    pub(super) fn start(&mut self) {
        if self.is_running() {
            return;
        }
        self.kill();
        let machine = self.machine.clone();
        {
            let mut state = machine.state();
            (state.ready, state.fed) = (false, Instant::now());
        }
        let config = || Config::parse(&self.config, Path::new("config.toml")).unwrap();
        let (text, shown) = (self.config.clone(), self.ends.clone());
        let facade = move |ends: Ends, pulse: Pulse| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            *shown.lock().unwrap() = Some(ends);
            Box::pin(async move {
                loop {
                    pulse.beat();
                    sleep(Duration::from_secs(10)).await;
                }
            })
        };
        let attendant = |desk: Desk, pulse: Pulse| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(desk.alone(pulse))
        };
        let parts = Parts {
            config: config(),
            identity: machine.identity(),
            reload: Box::new(move || {
                Config::parse(&text, Path::new("config.toml")).map_err(|error| error.to_string())
            }),
            machine,
            store: self.line.clone(),
            facade: Box::new(facade),
            attendant: Box::new(attendant),
        };
        self.service = Some(tokio::spawn(daemon::run(parts)));
    }

    /// Ends the service as SIGKILL does.
    pub(super) fn kill(&mut self) {
        if let Some(service) = self.service.take() {
            service.abort();
        }
        *self.ends.lock().unwrap() = None;
    }

    pub(super) fn is_running(&self) -> bool {
        let service = self.service.as_ref();
        service.is_some_and(|service| !service.is_finished())
    }

    pub(super) fn status(&self) -> Option<Status> {
        let ends = self.ends.lock().unwrap();
        Some(ends.as_ref()?.status.borrow().clone())
    }

    /// To hear what happens from now on.
    pub(super) fn news(&self) -> broadcast::Receiver<News> {
        let ends = self.ends.lock().unwrap();
        ends.as_ref().unwrap().news.subscribe()
    }

    /// Whether the service says that this is wrong.
    pub(super) fn has_fault(&self, code: &str) -> bool {
        let faults = self.status().map(|status| status.faults);
        faults.is_some_and(|faults| faults.iter().any(|fault| fault.code == code))
    }

    /// Asks the service to move to another subnet.
    pub(super) async fn renumber(&self) {
        let answer = self.ask(|answer| Command::Renumber(None, answer)).await;
        answer.unwrap().unwrap().unwrap();
    }

    /// Asks the service something; `None` if it does not run.
    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Option<Result<T, Silence>> {
        let commands = {
            let ends = self.ends.lock().unwrap();
            ends.as_ref()?.commands.clone()
        };
        let (answer, answered) = oneshot::channel();
        commands.send(command(answer)).await.ok()?;
        Some(answered.await.map_err(|_| Silence))
    }

    /// The subnet that its containers have.
    pub(super) fn subnet(&self) -> Option<Subnet> {
        plan::previous_subnet(&self.machine.subnet_env()?)
    }

    /// Compares the kernel with what the datastore says that it should be.
    fn compare(&self, view: &View, status: &Status) -> Result<(), String> {
        let network = view
            .config()
            .and_then(|json| std::str::from_utf8(json).ok());
        let network = network.and_then(|json| Network::from_json(json).ok());
        let network = network.ok_or("there is no network config")?;
        let subnet = self.subnet().ok_or("it has no subnet")?;
        let record = view
            .record(subnet)
            .ok_or(format!("it has no lease of {subnet}"))?;
        let state = self.machine.state();
        let address = state.interfaces.interfaces[0].addresses[0].address.addr();
        if record.lease.attrs.public_ip != address {
            return Err(format!(
                "its lease is that of {}",
                record.lease.attrs.public_ip
            ));
        }
        let node = plan::Node {
            network,
            lease: record.lease.clone(),
            uplink: crate::kernel::uplink::choose(&Default::default(), &state.interfaces)
                .map_err(|error| error.to_string())?,
            bridge: Some("docker0".to_owned()),
            subnet_env: "/run/flannel/subnet.env".into(),
            docker_env: "/run/flannel/docker.env".into(),
            daemon_json: None,
            firewall: Default::default(),
            repair: false,
            tuning: Default::default(),
        };
        let plan = plan::plan(&node, view.peers(subnet));
        let scope = Scope::new(&plan.kernel, node.network.net, subnet.v4());
        let found = diff(&state.kernel.shown(&scope), &plan.kernel, &scope);
        if !found.changes.is_empty() || !found.obstacles.is_empty() {
            return Err(format!("its kernel is not as planned: {found:?}"));
        }
        if status.peers.len() != view.peers(subnet).count() {
            return Err(format!("it knows {} peers", status.peers.len()));
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
