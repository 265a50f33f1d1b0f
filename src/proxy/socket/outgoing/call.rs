//! The system call that sends.
#![expect(
    unsafe_code,
    reason = "nix gives one control message to all messages of a call, and takes memory for each call"
)]

use std::mem::{self, offset_of};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::{Bytes, CAPACITY, Datagram, Link, MESSAGES, Message, chain};

/// What `sendmmsg` reads; places taken once.
pub(super) struct Call {
    headers: Vec<libc::mmsghdr>,
    names: Vec<libc::sockaddr_in>,
    sizes: Vec<SegmentSize>,
    parts: Vec<libc::iovec>,
}

/// The control message `UDP_SEGMENT`, linux/udp.h.
#[derive(Clone, Copy)]
#[repr(C)]
struct SegmentSize {
    header: libc::cmsghdr,
    size: u16,
}

// SAFETY: it computes with numbers only.
const _: () = assert!(size_of::<SegmentSize>() == unsafe { libc::CMSG_SPACE(2) } as usize);

impl Call {
    pub(super) fn new(port: u16) -> Self {
        // SAFETY: all of it are numbers, or pointers that may be null; zeros are valid for both.
        let (header, mut name, mut size) = unsafe {
            (
                mem::zeroed::<libc::mmsghdr>(),
                mem::zeroed::<libc::sockaddr_in>(),
                mem::zeroed::<SegmentSize>(),
            )
        };
        name.sin_family = libc::AF_INET.try_into().unwrap_or_default();
        name.sin_port = port.to_be();
        size.header.cmsg_len = (offset_of!(SegmentSize, size) + size_of::<u16>()) as _;
        size.header.cmsg_level = libc::SOL_UDP;
        size.header.cmsg_type = libc::UDP_SEGMENT;
        Self {
            headers: vec![header; MESSAGES],
            names: vec![name; MESSAGES],
            sizes: vec![size; MESSAGES],
            parts: Vec::with_capacity(2 * CAPACITY),
        }
    }

    /// Sends as many of the messages, of which there must be one, as a call takes. Says how many
    /// went, at least one; the error that stopped it, if any, comes with the next call.
    ///
    /// # Errors
    /// That of the first message; `EAGAIN` if the send buffer is full.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: &[Message],
        links: &[Link],
        bytes: Bytes<'_>,
    ) -> Result<usize, Errno> {
        let messages = &messages[..messages.len().min(MESSAGES)];
        self.parts.clear();
        let mut starts = [0; MESSAGES];
        for (index, message) in messages.iter().enumerate() {
            starts[index] = self.parts.len();
            self.describe(index, message);
            for link in chain(message, links) {
                self.lay(&links[link].datagram, bytes);
            }
            let parts = self.parts.len() - starts[index];
            self.headers[index].msg_hdr.msg_iovlen = parts as _;
        }
        self.connect(&starts[..messages.len()]);
        // SAFETY: there are as many headers. What they point to lies in `self` and in `bytes`, both
        // of which are borrowed until the call ends; the kernel writes to the headers alone.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                messages.len().try_into().unwrap_or_default(),
                libc::MSG_DONTWAIT as _,
            )
        };
        Errno::result(sent).map(|sent| usize::try_from(sent).unwrap_or(0))
    }

    fn describe(&mut self, index: usize, message: &Message) {
        self.names[index].sin_addr.s_addr = u32::from(message.peer()).to_be();
        // Datagrams that share a message are shorter than it.
        self.sizes[index].size = u16::try_from(message.size).unwrap_or(u16::MAX);
        self.headers[index].msg_hdr.msg_controllen = match message.datagrams() {
            1 => 0,
            _ => size_of::<SegmentSize>() as _,
        };
    }

    fn lay(&mut self, datagram: &Datagram, bytes: Bytes<'_>) {
        let head = &bytes.heads[datagram.head.clone()];
        let body = &bytes.arena[datagram.body.clone()];
        for part in [head, body].into_iter().filter(|part| !part.is_empty()) {
            self.parts.push(libc::iovec {
                iov_base: part.as_ptr().cast_mut().cast(),
                iov_len: part.len(),
            });
        }
    }

    /// Points each header to its name, its size and its parts, which no longer move.
    fn connect(&mut self, starts: &[usize]) {
        let name_length = size_of::<libc::sockaddr_in>()
            .try_into()
            .unwrap_or_default();
        let (names, sizes) = (self.names.as_mut_ptr(), self.sizes.as_mut_ptr());
        let parts = self.parts.as_mut_ptr();
        for (index, start) in starts.iter().enumerate() {
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = names.wrapping_add(index).cast();
            header.msg_namelen = name_length;
            header.msg_iov = parts.wrapping_add(*start);
            header.msg_control = sizes.wrapping_add(index).cast();
        }
    }
}
