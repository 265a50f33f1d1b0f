//! Datagrams on their way to peers.

use std::iter;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Socket;
use call::Call;

mod call;

/// Datagrams for one system call on each sending socket, most of them in messages that the kernel
/// cuts. Memory is taken once.
///
/// Datagrams of one flow to one peer leave in the order in which they came. Equal neighbours to one
/// peer share a message, whatever their flows, and the last of it may be shorter than the others.
pub(in crate::proxy) struct Batch<'a> {
    socket: &'a Socket,
    lanes: Vec<Lane>,
    links: Vec<Link>,
    call: Call,
}

/// Where a datagram's parts lie, one of which may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Datagram {
    /// In [`Bytes::heads`].
    pub(in crate::proxy) head: Range<usize>,
    /// In [`Bytes::arena`].
    pub(in crate::proxy) body: Range<usize>,
}

/// What the parts of datagrams lie in.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Bytes<'a> {
    pub(in crate::proxy) arena: &'a [u8],
    pub(in crate::proxy) heads: &'a [u8],
}

/// A batch has to be sent before it takes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) struct Full;

/// The send buffer of a socket has no room. [`Batch::send`] goes on where it stopped.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Blocked<'a>(BorrowedFd<'a>);

/// What becomes of a message that the kernel has refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Remedy {
    /// Nothing.
    Drop,
    /// Each datagram is sent in a message of its own, if there are several.
    Divide,
}

/// Datagrams for one peer.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Message {
    peer: Ipv4Addr,
    /// The length of each datagram but the last.
    size: usize,
    bytes: usize,
    datagrams: usize,
    open: bool,
    first: usize,
    last: usize,
}

impl Message {
    pub(in crate::proxy) const fn peer(&self) -> Ipv4Addr {
        self.peer
    }

    /// The length of each datagram but the last, which may be shorter.
    pub(in crate::proxy) const fn size(&self) -> usize {
        self.size
    }

    /// How many datagrams there are, at least one.
    pub(in crate::proxy) const fn datagrams(&self) -> usize {
        self.datagrams
    }

    /// The length of all datagrams together.
    pub(in crate::proxy) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// A message that more datagrams may join if `open`.
    const fn of(peer: Ipv4Addr, length: usize, open: bool, link: usize) -> Self {
        Self {
            peer,
            size: length,
            bytes: length,
            datagrams: 1,
            open,
            first: link,
            last: link,
        }
    }

    const fn takes(&self, length: usize) -> bool {
        // The kernel makes nothing of an empty last datagram.
        self.open
            && 0 < length
            && length <= self.size
            && self.datagrams < SEGMENTS
            && self.bytes + length <= LONGEST
    }
}

impl AsFd for Blocked<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

/// The messages for one sending socket.
#[derive(Debug)]
struct Lane {
    messages: Vec<Message>,
    /// How many have been dealt with.
    done: usize,
    /// Whether it was waited for in vain until there was room, and there has been little since.
    choked: bool,
    /// The latest message for a peer, under a part of its address. If another's stands there its
    /// next datagram begins a new message.
    latest: [usize; LATEST],
}

/// A datagram and the next of its message.
#[derive(Debug)]
struct Link {
    datagram: Datagram,
    next: usize,
}

impl<'a> Batch<'a> {
    /// An empty batch for the sending sockets of one queue.
    pub(in crate::proxy) fn new(socket: &'a Socket) -> Self {
        Self {
            socket,
            lanes: (0..socket.senders()).map(|_| Lane::new()).collect(),
            links: Vec::with_capacity(CAPACITY),
            call: Call::new(socket.port),
        }
    }

    /// Whether there is nothing to send.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Adds a datagram. Those of one flow, which may be any number, leave from one port.
    ///
    /// # Errors
    /// The batch is full: the datagram is not in it.
    pub(in crate::proxy) fn append(
        &mut self,
        peer: Ipv4Addr,
        flow: usize,
        datagram: Datagram,
    ) -> Result<(), Full> {
        let open = self.socket.segments();
        self.add(peer, flow, datagram, open)
    }

    /// Adds a datagram that shares its message with no other: one too long for its path, which the
    /// kernel will cut into fragments.
    ///
    /// # Errors
    /// As [`Batch::append`].
    pub(in crate::proxy) fn append_alone(
        &mut self,
        peer: Ipv4Addr,
        flow: usize,
        datagram: Datagram,
    ) -> Result<(), Full> {
        self.add(peer, flow, datagram, false)
    }

    fn add(
        &mut self,
        peer: Ipv4Addr,
        flow: usize,
        datagram: Datagram,
        open: bool,
    ) -> Result<(), Full> {
        let link = self.links.len();
        if link == CAPACITY {
            return Err(Full);
        }
        let length = datagram.length();
        self.links.push(Link {
            datagram,
            next: END,
        });
        let count = self.lanes.len();
        let lane = &mut self.lanes[flow % count];
        if let Some(message) = lane
            .open(peer)
            .filter(|message| open && message.takes(length))
        {
            self.links[message.last].next = link;
            message.last = link;
            message.bytes += length;
            message.datagrams += 1;
            message.open = length == message.size;
        } else {
            lane.begin(Message::of(peer, length, open && length > 0, link));
        }
        Ok(())
    }

    /// Sends what there is; the batch is empty then. `told` hears of each message, in the order of
    /// each socket, and says what is to become of one that was refused. A refusal holds up no other
    /// message.
    ///
    /// # Errors
    /// A socket has no room; the batch still has what was not sent.
    pub(in crate::proxy) fn send(
        &mut self,
        bytes: Bytes<'_>,
        mut told: impl FnMut(&Message, Result<(), Errno>) -> Remedy,
    ) -> Result<(), Blocked<'a>> {
        let Self {
            socket,
            lanes,
            links,
            call,
        } = self;
        for (number, lane) in lanes.iter_mut().enumerate() {
            let sender = socket.sender(number);
            while lane.done < lane.messages.len() {
                let messages = &lane.messages[lane.done..];
                match call.send(sender.as_fd(), messages, links, bytes) {
                    Ok(sent) => {
                        lane.choked = lane.choked && !is_writable(sender.as_fd());
                        let next = lane.messages.len().min(lane.done + sent);
                        for message in &lane.messages[lane.done..next] {
                            told(message, Ok(()));
                        }
                        lane.done = next;
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) if lane.choked => lane.drop(|message| {
                        told(message, Err(Errno::EAGAIN));
                    }),
                    Err(Errno::EAGAIN) => return Err(Blocked(sender.as_fd())),
                    Err(errno) => {
                        let message = lane.messages[lane.done];
                        match told(&message, Err(errno)) {
                            Remedy::Divide if message.datagrams > 1 => lane.divide(links),
                            Remedy::Divide | Remedy::Drop => lane.done += 1,
                        }
                    }
                }
            }
        }
        self.clear();
        Ok(())
    }

    /// Forgets what the socket without room was to send. `told` hears of each message.
    ///
    /// Until half of that socket's buffer is free again nobody is asked to wait for it: [`Batch::send`]
    /// drops what finds no room, and `told` hears `EAGAIN`.
    pub(in crate::proxy) fn skip(&mut self, told: impl FnMut(&Message)) {
        let pending = |lane: &&mut Lane| lane.done < lane.messages.len();
        if let Some(lane) = self.lanes.iter_mut().find(pending) {
            lane.choked = true;
            lane.drop(told);
        }
    }

    /// Forgets what has not been sent.
    pub(in crate::proxy) fn clear(&mut self) {
        self.links.clear();
        for lane in self
            .lanes
            .iter_mut()
            .filter(|lane| !lane.messages.is_empty())
        {
            lane.messages.clear();
            lane.done = 0;
            lane.latest = [END; LATEST];
        }
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            messages: Vec::with_capacity(CAPACITY),
            done: 0,
            choked: false,
            latest: [END; LATEST],
        }
    }

    fn drop(&mut self, told: impl FnMut(&Message)) {
        self.messages[self.done..].iter().for_each(told);
        self.done = self.messages.len();
    }

    /// The latest message for a peer, if it is known and not dealt with yet.
    fn open(&mut self, peer: Ipv4Addr) -> Option<&mut Message> {
        let index = self.latest[slot(peer)];
        let message = self.messages.get_mut(index)?;
        (message.peer == peer && index >= self.done).then_some(message)
    }

    fn begin(&mut self, message: Message) {
        self.latest[slot(message.peer)] = self.messages.len();
        self.messages.push(message);
    }

    /// Puts a message for each of its datagrams in the place of the next one.
    fn divide(&mut self, links: &[Link]) {
        let message = self.messages[self.done];
        let single =
            |link: usize| Message::of(message.peer, links[link].datagram.length(), false, link);
        let singles = chain(&message, links).map(single);
        self.messages.splice(self.done..=self.done, singles);
        // What is known of the latest has moved.
        self.latest = [END; LATEST];
    }
}

/// Whether half of a socket's send buffer is free (`sock_writeable`).
fn is_writable(socket: BorrowedFd<'_>) -> bool {
    let mut room = [PollFd::new(socket, PollFlags::POLLOUT)];
    poll(&mut room, PollTimeout::ZERO) == Ok(1)
}

/// Numbers of peers differ in the low bits of their last bytes.
fn slot(peer: Ipv4Addr) -> usize {
    let [_, _, third, fourth] = peer.octets();
    usize::from(third ^ fourth) % LATEST
}

/// The datagrams of a message.
fn chain<'a>(message: &Message, links: &'a [Link]) -> impl Iterator<Item = usize> + use<'a> {
    let next = |link: &usize| Some(links[*link].next).filter(|next| *next != END);
    iter::successors(Some(message.first), next).take(message.datagrams)
}

impl Datagram {
    const fn length(&self) -> usize {
        let Self { head, body } = self;
        head.end - head.start + body.end - body.start
    }
}

/// A system call takes so many messages at most.
const MESSAGES: usize = 64;
/// A message has so many datagrams at most (`UDP_MAX_SEGMENTS`, linux/udp.h, before Linux 6.9).
const SEGMENTS: usize = 64;
/// The most that a message carries: what fits a single datagram (`ip_append_data`), in bytes.
const LONGEST: usize = 65_507;
/// A batch has so many datagrams at most.
const CAPACITY: usize = 1024;
/// So many peers' latest messages a lane knows.
const LATEST: usize = 32;
/// No index.
const END: usize = usize::MAX;
