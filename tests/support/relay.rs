//! A TCP relay that loses, delays or refuses answers.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// Relays connections to one server. Dropping it ends them all.
pub(crate) struct Relay {
    address: SocketAddr,
    orders: Arc<Orders>,
    alive: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What to do to connections.
#[derive(Default)]
struct Orders {
    /// What a request must contain for all further answers on its connection to be lost.
    trigger: Mutex<Option<Vec<u8>>>,
    /// How long answers take.
    delay: Mutex<Duration>,
    /// Whether new connections end at once.
    refusing: AtomicBool,
}

impl Relay {
    /// Listens on a free port of loopback.
    pub(crate) fn start(server: &str) -> Self {
        Self::run(None, (Ipv4Addr::LOCALHOST, 0).into(), server)
    }

    /// Listens at `address` in a network namespace made with `ip netns add`.
    pub(crate) fn inside(namespace: &str, address: &str, server: &str) -> Self {
        Self::run(Some(namespace.to_owned()), address.parse().unwrap(), server)
    }

    fn run(namespace: Option<String>, address: SocketAddr, server: &str) -> Self {
        let (tell, told) = mpsc::channel();
        let (alive, over) = oneshot::channel::<()>();
        let (orders, server) = (Arc::<Orders>::default(), server.to_owned());
        let given = Arc::clone(&orders);
        let thread = thread::spawn(move || {
            if let Some(namespace) = namespace {
                let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            }
            let listener = TcpListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, &server, &given) => {}
                    _ = over => {}
                }
            });
        });
        Self {
            address: told.recv().unwrap(),
            orders,
            alive: Some(alive),
            thread: Some(thread),
        }
    }

    /// The URL to use in place of the server's.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From the next request on that contains `text`, its connection brings no answers.
    pub(crate) fn swallow_answers_after(&self, text: &str) {
        *self.orders.trigger.lock().unwrap() = Some(text.into());
    }

    /// From now on answers take so long.
    pub(crate) fn delay_answers(&self, delay: Duration) {
        *self.orders.delay.lock().unwrap() = delay;
    }

    /// Whether new connections end at once.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.orders.refusing.store(refusing, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.alive.take());
        // afterwards the address is free
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, server: &str, orders: &Arc<Orders>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        if orders.refusing.load(Ordering::Relaxed) {
            continue;
        }
        let Ok(server) = TcpStream::connect(server).await else {
            continue;
        };
        let deaf = Arc::new(AtomicBool::new(false));
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        let (heard, given) = (Arc::clone(&deaf), Arc::clone(orders));
        let requests = move |bytes: &[u8]| {
            let wanted = given.trigger.lock().unwrap();
            let found = wanted
                .as_deref()
                .is_some_and(|w| bytes.windows(w.len()).any(|part| part == w));
            heard.fetch_or(found, Ordering::Relaxed);
            Some(Duration::ZERO)
        };
        let given = Arc::clone(orders);
        let answers = move |_: &[u8]| {
            let heard = !deaf.load(Ordering::Relaxed);
            heard.then(|| *given.delay.lock().unwrap())
        };
        for (from, to, fate) in [
            (client_read, server_write, Box::new(requests) as Fate),
            (server_read, client_write, Box::new(answers)),
        ] {
            let (sender, receiver) = unbounded_channel();
            tokio::spawn(read(from, sender, fate));
            tokio::spawn(write(to, receiver));
        }
    }
}

/// How long some bytes take; `None` if they are lost.
type Fate = Box<dyn Fn(&[u8]) -> Option<Duration> + Send>;

async fn read(mut from: OwnedReadHalf, to: UnboundedSender<(Instant, Vec<u8>)>, fate: Fate) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..length];
        let Some(delay) = fate(bytes) else {
            continue;
        };
        if to.send((Instant::now() + delay, bytes.to_vec())).is_err() {
            return;
        }
    }
}

async fn write(mut to: OwnedWriteHalf, mut from: UnboundedReceiver<(Instant, Vec<u8>)>) {
    while let Some((due, bytes)) = from.recv().await {
        sleep_until(due).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
