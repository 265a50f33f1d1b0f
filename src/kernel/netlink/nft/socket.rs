//! A socket for requests to nf_tables.
//!
//! The kernel works while it is being sent to, and takes a transaction only if it comes whole in
//! one datagram (`nfnetlink_rcv_batch`). Where the sender may not, or the kernel has no nf_tables,
//! the only answer is one to the frame of the transaction. So this is no job for `netlink-proto`,
//! which gives answers to requests, and sends these one by one.

use std::io;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use tokio::time::timeout;

use super::super::socket::{Refusal, extended};
use super::message::{Answer, Request, SUBSYSTEM};

pub(super) struct Socket {
    inner: TokioSocket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug)]
pub(in crate::kernel::netlink) enum Trouble {
    /// The kernel said no, and to what.
    Refused {
        refusal: Refusal,
        about: String,
    },
    Socket(io::Error),
    Timeout,
}

/// An answer can get lost; nothing else would end the wait for it then.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// A datagram of the kernel's is no longer (`netlink_dump`).
const BUFFER: usize = 64 << 10;

/// A transaction with a hundred thousand members of a set; room is taken when it is needed.
const SEND_BUFFER: usize = 16 << 20;

/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;

const HEADER: usize = 16;

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        let mut inner = TokioSocket::new(NETLINK_NETFILTER)?;
        let socket = inner.socket_mut();
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        // Beyond net.core.wmem_max only with CAP_NET_ADMIN, without which nothing is sent anyway.
        let _ = setsockopt(&*socket, sockopt::SndBufForce, &SEND_BUFFER);
        let port = socket.bind_auto()?.port_number();
        Ok(Self {
            inner,
            port,
            sequence: 0,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// The number that the kernel knows the socket by.
    pub(super) const fn port(&self) -> u32 {
        self.port
    }

    /// The one object that is asked for; `None` where it is not there.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<Option<Answer>, Trouble> {
        let mut found = None;
        let datagram = self.frame(request, libc::NLM_F_ACK);
        self.send(datagram).await?;
        let listed = self.answers(request, |answer| found = Some(answer)).await;
        match listed {
            Ok(_) => Ok(found),
            Err(trouble) if trouble.is_missing() => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// All objects that a request asks for; none where what they are part of is not there.
    pub(super) async fn list(&mut self, request: &Request) -> Result<Vec<Answer>, Trouble> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut found = Vec::new();
            let datagram = self.frame(request, libc::NLM_F_DUMP);
            self.send(datagram).await?;
            let whole = match self.answers(request, |answer| found.push(answer)).await {
                Ok(whole) => whole,
                Err(trouble) if trouble.is_missing() => return Ok(Vec::new()),
                Err(trouble) => return Err(trouble),
            };
            // A list that never stands still has to do; the next pass sees what came of it.
            if whole || tries == 3 {
                return Ok(found);
            }
        }
    }

    /// Does all that is asked for, or nothing.
    pub(super) async fn transaction(&mut self, requests: &[Request]) -> Result<(), Trouble> {
        let Some(last) = requests.len().checked_sub(1) else {
            return Ok(());
        };
        let mut datagram = Vec::new();
        let begin = self.next();
        frame(&mut datagram, (BEGIN, 0, begin), &[0, 0, 0, SUBSYSTEM]);
        let first = self.sequence.wrapping_add(1);
        for (at, request) in requests.iter().enumerate() {
            // Whatever is refused says so; the last one tells that there is no more to come.
            let ack = if at == last { libc::NLM_F_ACK } else { 0 };
            datagram.extend(self.frame(request, ack));
        }
        let end = self.next();
        frame(&mut datagram, (END, 0, end), &[0, 0, 0, SUBSYSTEM]);
        self.send(datagram).await?;
        let mut refused = None;
        loop {
            let about = |sequence: u32| {
                let at = usize::try_from(sequence.wrapping_sub(first)).ok();
                at.and_then(|at| requests.get(at)).map(|r| r.about.clone())
            };
            for message in self.receive().await? {
                let Some(code) = message.code() else { continue };
                let about = about(message.sequence);
                let is_last = message.sequence == end.wrapping_sub(1);
                let is_frame = message.sequence == begin || message.sequence == end;
                if !is_last && !is_frame && about.is_none() {
                    continue;
                }
                if code != 0 {
                    let refusal = message.refusal(code);
                    let about = about.unwrap_or_else(|| "the whole transaction".to_owned());
                    refused.get_or_insert(Trouble::Refused { refusal, about });
                }
                if is_last || (is_frame && code != 0) {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn frame(&mut self, request: &Request, flags: i32) -> Vec<u8> {
        let mut datagram = Vec::new();
        let flags = request.flags | u16::try_from(flags).unwrap_or_default();
        let head = (request.number(), flags, self.next());
        frame(&mut datagram, head, &request.body());
        datagram
    }

    async fn send(&self, datagram: Vec<u8>) -> Result<(), Trouble> {
        let kernel = SocketAddr::new(0, 0);
        let sent = timeout(LIMIT, self.inner.send_to(&datagram, &kernel)).await;
        sent.map_err(|_| Trouble::Timeout)?
            .map_err(Trouble::Socket)?;
        Ok(())
    }

    /// Hands on what comes until its end, and tells whether it is of one piece.
    async fn answers(
        &mut self,
        request: &Request,
        mut keep: impl FnMut(Answer),
    ) -> Result<bool, Trouble> {
        let mut whole = true;
        loop {
            let expected = self.sequence;
            for message in self.receive().await? {
                if message.sequence != expected {
                    continue;
                }
                whole &= i32::from(message.flags) & libc::NLM_F_DUMP_INTR == 0;
                match message.code() {
                    Some(0) => return Ok(whole),
                    Some(code) => {
                        return Err(Trouble::Refused {
                            refusal: message.refusal(code),
                            about: request.about.clone(),
                        });
                    }
                    None => {
                        if let Some(answer) = Answer::read(&message.body) {
                            keep(answer);
                        }
                    }
                }
            }
        }
    }

    async fn receive(&mut self) -> Result<Vec<Message>, Trouble> {
        self.buffer.clear();
        let received = timeout(LIMIT, self.inner.recv(&mut self.buffer)).await;
        received
            .map_err(|_| Trouble::Timeout)?
            .map_err(Trouble::Socket)?;
        Ok(messages(&self.buffer).collect())
    }
}

impl Trouble {
    /// What is not there needs not be removed, and has no parts.
    pub(super) const fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { refusal, .. } if refusal.errno == libc::ENOENT)
    }

    /// The number of the error, positive.
    pub(in crate::kernel::netlink) const fn errno(&self) -> i32 {
        match self {
            Self::Refused { refusal, .. } => refusal.errno,
            Self::Socket(_) | Self::Timeout => 0,
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { refusal, about } => write!(f, "{}, at {about}", refusal.text),
            Self::Socket(error) => write!(f, "netlink socket of netfilter: {error}"),
            Self::Timeout => write!(f, "no answer from the kernel within {LIMIT:?}"),
        }
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// One that came, with its netlink header taken apart.
struct Message {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: Vec<u8>,
}

impl Message {
    /// What an acknowledgement, a refusal or the end of a list says; 0 is well.
    fn code(&self) -> Option<i32> {
        let kind = i32::from(self.kind);
        (kind == libc::NLMSG_ERROR || kind == libc::NLMSG_DONE).then(|| {
            self.body
                .first_chunk()
                .map_or(0, |code| i32::from_ne_bytes(*code))
        })
    }

    fn refusal(&self, code: i32) -> Refusal {
        let errno = code.saturating_abs();
        let system = || io::Error::from_raw_os_error(errno).to_string();
        let text = self.body.get(4..).and_then(extended);
        let text = text.unwrap_or_else(system);
        Refusal { errno, text }
    }
}

fn messages(mut rest: &[u8]) -> impl Iterator<Item = Message> {
    std::iter::from_fn(move || {
        let head = rest.first_chunk::<HEADER>()?;
        let four = |at: usize| [head[at], head[at + 1], head[at + 2], head[at + 3]];
        let length = usize::try_from(u32::from_ne_bytes(four(0))).ok()?;
        let body = rest.get(HEADER..length)?.to_vec();
        let message = Message {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            sequence: u32::from_ne_bytes(four(8)),
            body,
        };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Type, flags, and number of the message.
type Head = (u16, u16, u32);

fn frame(datagram: &mut Vec<u8>, (kind, flags, sequence): Head, body: &[u8]) {
    let request = u16::try_from(libc::NLM_F_REQUEST).unwrap_or_default();
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    datagram.extend(length.to_ne_bytes());
    datagram.extend(kind.to_ne_bytes());
    datagram.extend((flags | request).to_ne_bytes());
    datagram.extend(sequence.to_ne_bytes());
    datagram.extend([0; 4]);
    datagram.extend(body);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_taken_apart_up_to_what_is_cut_off() {
        let mut datagram = Vec::new();
        frame(&mut datagram, (2, 0, 7), &(-1i32).to_ne_bytes());
        frame(&mut datagram, (0xa03, 0, 8), &[2, 0, 0]);
        let read = |bytes: &[u8]| -> Vec<(u32, Option<i32>)> {
            let each = messages(bytes).map(|m| (m.sequence, m.code()));
            each.collect()
        };
        assert_eq!(read(&datagram), [(7, Some(-1)), (8, None)]);
        assert_eq!(read(&datagram[..38]), [(7, Some(-1))]);
        assert_eq!(read(&datagram[..19]), []);
        datagram[..4].copy_from_slice(&0u32.to_ne_bytes());
        assert_eq!(read(&datagram), []);
        datagram[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(read(&datagram), []);
    }
}
