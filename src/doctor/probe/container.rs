//! A throw-away container: a network namespace that lives as long as a thread, on a port of the
//! bridge. However this process ends, the kernel takes the namespace away, and the port with it.

use std::io;
use std::net::Ipv4Addr;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

use super::super::rtnetlink::{Rtnetlink, Veth};
use super::packet::Cookie;
use super::{packet, sockets};
use crate::mac::Mac;

type Job = Box<dyn FnOnce() + Send>;

/// A container without an address, until it is given one.
#[derive(Debug)]
pub(super) struct Container {
    jobs: Sender<Job>,
    port: Port,
}

/// The bridge that containers hang on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bridge {
    pub(super) index: u32,
    pub(super) mtu: u32,
    /// Of the containers.
    pub(super) inner_mtu: u32,
}

/// A container's end on the bridge.
#[derive(Debug, Clone)]
pub(super) struct Port {
    name: String,
    mac: Mac,
}

/// One of the two containers of an examination.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    First = 0xa,
    Second = 0xb,
}

impl Port {
    /// Its name is one that managers of networks are told to leave alone, as the tunnel's. Its
    /// address is as high as there are: a bridge without one of its own takes the lowest of its
    /// ports' (`br_stp_recalculate_bridge_id`), and containers would send to it when it has gone.
    pub(super) fn new(cookie: Cookie, which: Which) -> Self {
        let [a, b, ..] = cookie.0;
        let which = which as u8;
        Self {
            name: format!("flannel.d{a:02x}{b:02x}{which:x}"),
            mac: Mac::new([0xfe, 0xff, 0xff, a, b, which]),
        }
    }
}

impl Container {
    /// Makes one with this port.
    pub(super) fn new(bridge: Bridge, port: Port) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, outcome) = mpsc::channel();
        thread::Builder::new().spawn(move || {
            let entered = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid().as_raw());
            let _ = ready.send(entered);
            inbox.into_iter().for_each(|job| job());
        })?;
        let thread = outcome.recv().map_err(|_| gone())??;
        let container = Self { jobs, port };
        Rtnetlink::open()?.add_veth(Veth {
            name: &container.port.name,
            mac: container.port.mac,
            bridge: bridge.index,
            mtu: bridge.mtu,
            thread: thread.cast_unsigned(),
            inner_mtu: bridge.inner_mtu,
        })?;
        container.run(set_up)??;
        Ok(container)
    }

    /// Does the work inside.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, outcome) = mpsc::channel();
        let job = move || {
            let _ = done.send(work());
        };
        self.jobs.send(Box::new(job)).map_err(|_| gone())?;
        outcome.recv().map_err(|_| gone())
    }

    /// Those of the addresses that nobody on the bridge has.
    pub(super) fn unclaimed(&self, addresses: Vec<Ipv4Addr>) -> io::Result<Vec<Ipv4Addr>> {
        self.run(move || {
            let (socket, mac) = sockets::frames("eth0")?;
            for address in &addresses {
                sockets::send_frame(&socket, &packet::arp_probe(mac, *address))?;
            }
            let mut free = addresses;
            sockets::hear(&socket, ARP_PATIENCE, |frame| {
                if let Some(claimed) = packet::arp_claim(frame) {
                    free.retain(|address| *address != claimed);
                }
            });
            Ok(free)
        })?
    }

    /// Gives it an address, and a way out.
    pub(super) fn settle(&self, address: Ipv4Net, gateway: Ipv4Addr) -> io::Result<()> {
        self.run(move || {
            let mut kernel = Rtnetlink::open()?;
            let eth0 = nix::net::if_::if_nametoindex("eth0")?;
            kernel.add_address(eth0, address)?;
            kernel.add_default_route(gateway)
        })?
    }
}

impl Drop for Container {
    /// The namespace goes a while after its thread; the port goes now.
    fn drop(&mut self) {
        if let (Ok(mut kernel), Ok(index)) = (
            Rtnetlink::open(),
            nix::net::if_::if_nametoindex(self.port.name.as_str()),
        ) {
            let _ = kernel.delete_link(index);
        }
    }
}

fn set_up() -> io::Result<()> {
    // its address would be looked for on the bridge; there may be no IPv6 to switch off
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    let mut kernel = Rtnetlink::open()?;
    for name in ["lo", "eth0"] {
        kernel.set_up(nix::net::if_::if_nametoindex(name)?)?;
    }
    Ok(())
}

fn gone() -> io::Error {
    io::Error::other("the thread of the network namespace has ended")
}

/// Neighbours on a bridge answer within a millisecond, unless their machine is busy.
const ARP_PATIENCE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// In the network namespace of this thread.
    fn run(command: &str) -> String {
        let out = Command::new("sh").args(["-c", command]).output().unwrap();
        assert!(out.status.success(), "{command}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    fn on_a_bridge_without_an_address_of_its_own() {
        run("ip link add br7 type bridge && ip link set br7 up
             ip link add own7 type veth peer name peer7
             ip link set own7 address ee:00:00:00:00:01 master br7");
        let has = |address: &str| {
            let shown = run("ip link show br7");
            assert!(shown.contains(address), "{shown}");
        };
        let ports = || run("ip -o link show master br7").lines().count();
        has("ee:00:00:00:00:01");
        let bridge = Bridge {
            index: nix::net::if_::if_nametoindex("br7").unwrap(),
            mtu: 1500,
            inner_mtu: 1450,
        };
        let both = [Which::First, Which::Second].map(|which| {
            let port = Port::new(Cookie([0; 8]), which);
            Container::new(bridge, port).unwrap()
        });
        assert_eq!(ports(), 3);
        has("ee:00:00:00:00:01");
        drop(both);
        assert_eq!(ports(), 1);
    }

    #[test]
    fn a_bridge_keeps_the_address_that_containers_know() {
        let alone = thread::spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => on_a_bridge_without_an_address_of_its_own(),
            Err(error) => eprintln!("skipped: this needs a network namespace: {error}"),
        });
        alone.join().unwrap();
    }
}
