//! A simulated cluster: leases in a real etcd, as flanneld's peers write and change them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use etcd_client::{Client, DeleteOptions, GetOptions, PutOptions, Txn, TxnOp};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::support::lab::{ETCD, Lab};

const SUBNETS: &str = "/coreos.com/network/subnets/";
/// etcd takes no more operations in one transaction (`--max-txn-ops`).
const OPERATIONS: usize = 128;
/// What flanneld asks for, in seconds.
const TTL: i64 = 86_400;

/// What a peer says of itself in its lease. Peers count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    number: u32,
    /// How often its host was replaced, which gives the tunnel another MAC.
    replaced: u8,
    /// Whether its public IP is the second of its two.
    moved: bool,
}

impl Peer {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            number: u32::try_from(number).unwrap(),
            replaced: 0,
            moved: false,
        }
    }

    pub(crate) fn moved(self) -> Self {
        Self {
            moved: !self.moved,
            ..self
        }
    }

    fn replaced(self) -> Self {
        Self {
            replaced: self.replaced.wrapping_add(1),
            ..self
        }
    }

    /// The first address of its subnet, a /24 far from those that members take for themselves.
    pub(crate) fn base(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 65, 0, 0)) + (self.number << 8))
    }

    pub(crate) fn public_ip(self) -> Ipv4Addr {
        let second = u32::from(self.moved) << 16;
        Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 20, 0, 0)) + second + self.number)
    }

    pub(crate) fn mac_bytes(self) -> [u8; 6] {
        let [_, high, middle, low] = self.number.to_be_bytes();
        [0x02, 0, self.replaced, high, middle, low]
    }

    pub(crate) fn mac(self) -> String {
        let bytes = self.mac_bytes().map(|byte| format!("{byte:02x}"));
        bytes.join(":")
    }

    fn key(self) -> String {
        format!("{SUBNETS}{}-24", self.base())
    }

    fn value(self) -> String {
        let (public_ip, mac) = (self.public_ip(), self.mac());
        format!(
            r#"{{"PublicIP":"{public_ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}}}}"#
        )
    }
}

/// etcd, for what the other members of the cluster do there.
pub(crate) struct Others {
    client: Client,
}

impl Others {
    async fn connect() -> Self {
        let client = Client::connect([ETCD], None).await.expect("etcd is there");
        Self { client }
    }

    /// Writes the leases of peers 1 to `count`, each on an etcd lease of its own.
    async fn join_all(&mut self, count: usize) {
        let peers: Vec<Peer> = (1..=count).map(Peer::new).collect();
        let grants = stream::iter(peers.clone()).map(|peer| {
            let mut client = self.client.clone();
            async move {
                let granted = client.lease_grant(TTL, None).await?;
                Ok::<_, etcd_client::Error>((peer, granted.id()))
            }
        });
        let granted: Vec<(Peer, i64)> = grants.buffer_unordered(64).try_collect().await.unwrap();
        for some in granted.chunks(OPERATIONS) {
            let put = |(peer, lease): &(Peer, i64)| {
                let options = PutOptions::new().with_lease(*lease);
                TxnOp::put(peer.key(), peer.value(), Some(options))
            };
            let puts: Vec<TxnOp> = some.iter().map(put).collect();
            self.client.txn(Txn::new().and_then(puts)).await.unwrap();
        }
    }

    /// A peer joins, says something new, or renews its lease by saying the same again; flanneld
    /// does all three in this way, each time with a new etcd lease.
    pub(crate) async fn put(&mut self, peer: Peer) {
        let lease = self.client.lease_grant(TTL, None).await.unwrap();
        let options = PutOptions::new().with_lease(lease.id());
        let put = self.client.put(peer.key(), peer.value(), Some(options));
        put.await.unwrap();
    }

    /// A peer's lease ends.
    pub(crate) async fn delete(&mut self, peer: Peer) {
        self.client.delete(peer.key(), None).await.unwrap();
    }

    /// All leases: the first address of the subnet, and the value.
    pub(crate) async fn leases(&mut self) -> BTreeMap<Ipv4Addr, serde_json::Value> {
        let all = GetOptions::new().with_prefix();
        let found = self.client.get(SUBNETS, Some(all)).await.unwrap();
        let lease = |kv: &etcd_client::KeyValue| {
            let key = kv.key_str().unwrap().strip_prefix(SUBNETS).unwrap();
            let base = key.split_once('-').unwrap().0.parse().unwrap();
            (base, serde_json::from_slice(kv.value()).unwrap())
        };
        found.kvs().iter().map(lease).collect()
    }
}

/// Makes the leases in a lab's etcd those of peers 1 to `count` alone.
pub(crate) fn reset(lab: &Lab, count: usize) {
    inside(lab, "net", async |mut others| {
        let all = DeleteOptions::new().with_prefix();
        others.client.delete(SUBNETS, Some(all)).await.unwrap();
        others.join_all(count).await;
    });
}

/// How many requests etcd has had since its start, of all kinds and by everybody: each message on
/// a stream counts as one, as a stream can carry many.
pub(crate) fn requests(lab: &Lab) -> u64 {
    inside(lab, "net", async |_| {
        let address = ETCD.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let counters = text
            .lines()
            .filter(|line| line.starts_with("grpc_server_msg_received_total{"));
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a counter that Prometheus prints as a float"
        )]
        let sum = counters.filter_map(value).sum::<f64>() as u64;
        assert!(sum > 0, "etcd shows no counters");
        sum
    })
}

/// Runs `work` on a thread that lives in a namespace of the lab.
pub(crate) fn inside<T: Send>(
    lab: &Lab,
    name: &str,
    work: impl AsyncFnOnce(Others) -> T + Send,
) -> T {
    let namespace = File::open(format!("/run/netns/{}", lab.namespace(name))).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let all = async { work(Others::connect().await).await };
            runtime.unwrap().block_on(all)
        });
        thread.join().unwrap()
    })
}

/// The cluster while it changes: of ten changes four are renewals, which is what most changes
/// are among flanneld's peers, and two each are joins and leaves; one in ten replaces a host, and
/// one in ten moves it. Which peer it is goes round the cluster in wide steps.
pub(crate) struct Churn {
    peers: Vec<Peer>,
    next: usize,
    step: usize,
}

impl Churn {
    /// Peers 1 to `count` are there.
    pub(crate) fn of(count: usize) -> Self {
        Self {
            peers: (1..=count).map(Peer::new).collect(),
            next: count + 1,
            step: 0,
        }
    }

    /// Changes something at this pace for this long, and answers what became of it.
    pub(crate) async fn run(
        &mut self,
        others: &mut Others,
        pace: Duration,
        length: Duration,
    ) -> Churned {
        let begun = Instant::now();
        let mut due = begun;
        let mut changes = 0;
        while due.duration_since(begun) < length {
            tokio::time::sleep(due.saturating_duration_since(Instant::now())).await;
            self.change(others).await;
            changes += 1;
            due += pace;
        }
        let last = self.join(others).await;
        Churned {
            changes: changes + 1,
            took: begun.elapsed(),
            last,
        }
    }

    async fn change(&mut self, others: &mut Others) {
        let index = self.step * 7919 % self.peers.len();
        let peer = self.peers[index];
        match self.step % 10 {
            1 | 6 => drop(self.join(others).await),
            3 | 8 => {
                self.peers.swap_remove(index);
                others.delete(peer).await;
            }
            kind => {
                let changed = match kind {
                    4 => peer.replaced(),
                    9 => peer.moved(),
                    _ => peer,
                };
                self.peers[index] = changed;
                others.put(changed).await;
            }
        }
        self.step += 1;
    }

    async fn join(&mut self, others: &mut Others) -> Peer {
        let peer = Peer::new(self.next);
        self.next += 1;
        self.peers.push(peer);
        others.put(peer).await;
        peer
    }
}

/// What [`Churn::run`] has done.
pub(crate) struct Churned {
    pub(crate) changes: u32,
    pub(crate) took: Duration,
    /// The peer that joined with the last change.
    pub(crate) last: Peer,
}
