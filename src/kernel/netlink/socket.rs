//! A netlink socket for requests.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::proto::{self, ConnectionHandle};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::kernel::KernelError;
use crate::kernel::message::Message;

type Framed = NetlinkMessage<Message>;

/// A socket and the task that reads it, which ends with it.
#[derive(Debug)]
pub(super) struct Socket {
    handle: ConnectionHandle<Message>,
    task: JoinHandle<()>,
    port: u32,
}

/// The kernel's no to one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The number of the error, positive.
    pub(super) errno: i32,
    /// The kernel's own words if it has any, else the system's.
    pub(super) text: String,
}

/// An acknowledgement can get lost; nothing else would end the wait for it then.
const LIMIT: Duration = Duration::from_secs(5);

/// Acknowledgements of more messages in one datagram may overflow the receive buffer.
const BATCH: usize = 64;

const RECEIVE_BUFFER: u32 = 4 << 20;

impl Socket {
    pub(super) fn open() -> Result<Self, KernelError> {
        Self::with_buffer(RECEIVE_BUFFER)
    }

    fn with_buffer(bytes: u32) -> Result<Self, KernelError> {
        let error = |source| KernelError::Socket {
            doing: "opening it",
            source,
        };
        let (mut connection, handle, _) =
            proto::new_connection::<Message>(NETLINK_ROUTE).map_err(error)?;
        connection.set_forward_ack(true);
        // The end of a list says whether the list changed meanwhile, or why it ended.
        connection.set_forward_done(true);
        let socket = connection.socket_mut().socket_mut();
        socket.set_netlink_get_strict_chk(true).map_err(error)?;
        socket.set_ext_ack(true).map_err(error)?;
        socket.set_cap_ack(true).map_err(error)?;
        socket.set_rx_buf_sz(bytes).map_err(error)?;
        let port = socket.bind_auto().map_err(error)?.port_number();
        Ok(Self {
            handle,
            port,
            task: tokio::spawn(connection),
        })
    }

    /// The number that the kernel knows the socket by.
    pub(super) const fn port(&self) -> u32 {
        self.port
    }

    /// What `keep` makes of each object in the kernel's list.
    pub(super) async fn dump<T>(
        &mut self,
        doing: &'static str,
        request: impl Into<Message>,
        keep: impl FnMut(Message) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        let listed = self.list(doing, request.into(), keep).await?;
        listed.map_err(|refusal| KernelError::Refused {
            doing,
            reason: refusal.text,
        })
    }

    /// The same where the kernel may say no.
    pub(super) async fn list<T>(
        &mut self,
        doing: &'static str,
        request: Message,
        mut keep: impl FnMut(Message) -> Option<T>,
    ) -> Result<Result<Vec<T>, Refusal>, KernelError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut message = NetlinkMessage::from(request.clone());
            message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
            let (kept, interrupted) = match self.list_once(doing, message, &mut keep).await? {
                Ok(listed) => listed,
                Err(refusal) => return Ok(Err(refusal)),
            };
            // A list that changed under the dump may lack rows or have some twice. One that
            // never stands still has to do; the next pass sees what came of it.
            if !interrupted || tries == 3 {
                return Ok(Ok(kept));
            }
        }
    }

    /// With whether the list changed meanwhile.
    async fn list_once<T>(
        &mut self,
        doing: &'static str,
        message: Framed,
        keep: &mut impl FnMut(Message) -> Option<T>,
    ) -> Result<Result<(Vec<T>, bool), Refusal>, KernelError> {
        let mut kept = Vec::new();
        let mut interrupted = false;
        let mut refused = None;
        let mut answers = self.send(doing, vec![message])?;
        while let Some(answer) = self.wait(doing, answers.next()).await? {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => kept.extend(keep(inner)),
                NetlinkPayload::Error(error) => refused = no(error.raw_code(), &error),
                NetlinkPayload::Done(done) => refused = no(done.code, &ErrorMessage::default()),
                _ => interrupted = true,
            }
        }
        Ok(refused.map_or(Ok((kept, interrupted)), Err))
    }

    /// The one object that the kernel answers with, or its refusal.
    pub(super) async fn ask(
        &mut self,
        doing: &'static str,
        request: impl Into<Message>,
    ) -> Result<Result<Option<Message>, Refusal>, KernelError> {
        let mut message = NetlinkMessage::from(request.into());
        message.header.flags = NLM_F_REQUEST;
        let mut answers = self.send(doing, vec![message])?;
        let mut found = None;
        while let Some(answer) = self.wait(doing, answers.next()).await? {
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => found = Some(inner),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Ok(Err(refusal(&error)));
                }
                _ => {}
            }
        }
        Ok(Ok(found))
    }

    /// Sends messages that ask for an acknowledgement; the answers come in the same order.
    pub(super) async fn batch(
        &mut self,
        doing: &'static str,
        messages: Vec<Framed>,
    ) -> Result<Vec<Result<(), Refusal>>, KernelError> {
        let mut results = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter();
        loop {
            let chunk: Vec<_> = messages.by_ref().take(BATCH).collect();
            if chunk.is_empty() {
                return Ok(results);
            }
            let due = results.len() + chunk.len();
            let mut answers = self.send(doing, chunk)?;
            while let Some(answer) = self.wait(doing, answers.next()).await? {
                match answer.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        results.push(Err(refusal(&error)));
                    }
                    NetlinkPayload::Error(_) => results.push(Ok(())),
                    _ => {}
                }
            }
            if results.len() != due {
                return Err(self.replace(doing, io::ErrorKind::ConnectionReset.into()));
            }
        }
    }

    fn send(
        &mut self,
        doing: &'static str,
        messages: Vec<Framed>,
    ) -> Result<impl futures_util::Stream<Item = Framed> + Unpin + use<>, KernelError> {
        let kernel = SocketAddr::new(0, 0);
        match self.handle.request_batch(messages, kernel) {
            Ok(answers) => Ok(answers),
            Err(_) => Err(self.replace(doing, io::ErrorKind::BrokenPipe.into())),
        }
    }

    async fn wait<T>(
        &mut self,
        doing: &'static str,
        answer: impl Future<Output = T>,
    ) -> Result<T, KernelError> {
        match timeout(LIMIT, answer).await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                // Late answers must not meet later requests.
                self.replace(doing, io::ErrorKind::TimedOut.into());
                let limit = LIMIT;
                Err(KernelError::Timeout { doing, limit })
            }
        }
    }

    /// Starts over with a new socket; if there is none, with the old one, which will say so.
    fn replace(&mut self, doing: &'static str, source: io::Error) -> KernelError {
        match Self::open() {
            Ok(fresh) => *self = fresh,
            Err(error) => return error,
        }
        KernelError::Socket { doing, source }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A link that goes while its rows are listed has none: the next pass sees that it went.
fn no(code: i32, error: &ErrorMessage) -> Option<Refusal> {
    if code == 0 || code == -libc::ENODEV {
        return None;
    }
    let errno = code.saturating_abs();
    let system = || io::Error::from_raw_os_error(errno).to_string();
    let text = extended(&error.header).unwrap_or_else(system);
    Some(Refusal { errno, text })
}

fn refusal(error: &ErrorMessage) -> Refusal {
    let text = extended(&error.header);
    Refusal {
        errno: error.raw_code().saturating_abs(),
        text: text.unwrap_or_else(|| error.to_io().to_string()),
    }
}

/// The text in an extended acknowledgement (`NLMSGERR_ATTR_MSG`). With `NETLINK_CAP_ACK` the
/// attributes follow the header of the refused request; without, the whole request.
pub(super) fn extended(payload: &[u8]) -> Option<String> {
    const HEADER: usize = 16;
    const MSG: u16 = 1;
    let mut rest = payload.get(HEADER..)?;
    while let [a, b, c, d, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let kind = u16::from_ne_bytes([c, d]) & 0x3fff;
        let value = rest.get(4..length)?;
        if kind == MSG {
            let text = String::from_utf8_lossy(value);
            return Some(text.trim_end_matches('\0').to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Socket {
        /// One that loses all acknowledgements but a few.
        pub(in crate::kernel::netlink) fn forgetful() -> Self {
            Self::with_buffer(0).unwrap()
        }
    }

    #[test]
    fn finds_the_text_of_an_extended_acknowledgement() {
        let mut payload = vec![0; 16];
        payload.extend(8u16.to_ne_bytes());
        payload.extend(2u16.to_ne_bytes());
        payload.extend([0; 4]);
        payload.extend(7u16.to_ne_bytes());
        payload.extend(1u16.to_ne_bytes());
        payload.extend(b"no\0\0");
        assert_eq!(extended(&payload).as_deref(), Some("no"));
        for end in 0..payload.len() - 4 {
            assert_eq!(extended(&payload[..end]), None, "{end}");
        }
        payload[16] = 0;
        assert_eq!(extended(&payload), None);
    }
}
