//! Datagrams that have arrived.
#![expect(
    unsafe_code,
    reason = "nix never gives the room for control messages back to a call after the first"
)]

use std::mem::{self, offset_of};
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::Socket;

/// What one system call takes from a socket. Memory is taken once.
pub(in crate::proxy) struct Incoming<'a> {
    socket: &'a Socket,
    /// Slots side by side. The kernel provides memory for what is touched only, so long slots for
    /// short datagrams cost little.
    slab: Vec<u8>,
    arrivals: Vec<Arrival>,
    places: Places,
}

/// Datagrams of one flow, each as long as the first but the last, which may be shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::proxy) struct Arrival {
    /// Where they lie side by side.
    pub(in crate::proxy) range: Range<usize>,
    /// The length of the first; 0 if there is one, of any length.
    pub(in crate::proxy) stride: usize,
    /// The address they came from.
    pub(in crate::proxy) source: Ipv4Addr,
    /// There was more than there is room for.
    pub(in crate::proxy) cut: bool,
}

impl Arrival {
    /// Where each datagram lies; there is at least one, which may be empty.
    pub(in crate::proxy) fn datagrams(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let Range { start, end } = self.range;
        let stride = match self.stride {
            0 => (end - start).max(1),
            stride => stride,
        };
        let count = (end - start).div_ceil(stride).max(1);
        (0..count).map(move |index| {
            let start = start + index * stride;
            start..end.min(start + stride)
        })
    }
}

impl<'a> Incoming<'a> {
    /// Room for datagrams of any length: a peer's MTU may be larger than ours.
    pub(in crate::proxy) fn new(socket: &'a Socket) -> Self {
        let slots = match socket.gathers() {
            true => JOINED,
            false => SINGLE,
        };
        Self {
            socket,
            slab: vec![0; slots * STRIDE],
            arrivals: Vec::with_capacity(slots),
            places: Places::new(slots),
        }
    }

    /// Takes what has arrived, in place of what it took before.
    ///
    /// # Errors
    /// `EAGAIN` if there is nothing; or an error that the network has reported to the socket.
    pub(in crate::proxy) fn receive(&mut self) -> Result<(), Errno> {
        self.arrivals.clear();
        let count = self.places.receive(self.socket, &mut self.slab)?;
        let arrivals = (0..count).map(|index| self.places.arrival(index));
        self.arrivals.extend(arrivals);
        Ok(())
    }

    /// What has arrived, and the bytes that it lies in.
    pub(in crate::proxy) fn open(&mut self) -> (&mut [u8], &[Arrival]) {
        (&mut self.slab, &self.arrivals)
    }
}

/// What `recvmmsg` reads and writes.
struct Places {
    headers: Vec<libc::mmsghdr>,
    names: Vec<libc::sockaddr_in>,
    sizes: Vec<JoinedSize>,
    parts: Vec<libc::iovec>,
    /// A `UDP_GRO` as the kernel writes it.
    form: libc::cmsghdr,
}

/// The control message `UDP_GRO`, linux/udp.h.
#[derive(Clone, Copy)]
#[repr(C)]
struct JoinedSize {
    header: libc::cmsghdr,
    size: libc::c_int,
}

// SAFETY: it computes with numbers only.
const _: () = assert!(size_of::<JoinedSize>() == unsafe { libc::CMSG_SPACE(4) } as usize);

impl Places {
    fn new(slots: usize) -> Self {
        // SAFETY: all of it are numbers, or pointers that may be null; zeros are valid for both.
        let (header, name, mut size, part) = unsafe {
            (
                mem::zeroed::<libc::mmsghdr>(),
                mem::zeroed::<libc::sockaddr_in>(),
                mem::zeroed::<JoinedSize>(),
                mem::zeroed::<libc::iovec>(),
            )
        };
        let empty = size;
        size.header.cmsg_len = (offset_of!(JoinedSize, size) + size_of::<libc::c_int>()) as _;
        Self {
            form: size.header,
            headers: vec![header; slots],
            names: vec![name; slots],
            sizes: vec![empty; slots],
            parts: vec![part; slots],
        }
    }

    /// Receives into the slots of `slab`; says how many were filled.
    fn receive(&mut self, socket: &Socket, slab: &mut [u8]) -> Result<usize, Errno> {
        self.connect(slab);
        let room = self.headers.len().min(slab.len() / STRIDE);
        let room = room.try_into().unwrap_or_default();
        // SAFETY: there are as many headers. What they point to lies in `self` and in `slab`, both
        // of which are borrowed until the call ends.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                room,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        Errno::result(received).map(|count| usize::try_from(count).unwrap_or(0))
    }

    /// Points each header to its places, and says anew how long they are: the kernel has put what
    /// it used of them there.
    fn connect(&mut self, slab: &mut [u8]) {
        for (slot, part) in slab.chunks_exact_mut(STRIDE).zip(&mut self.parts) {
            part.iov_base = slot.as_mut_ptr().cast();
            part.iov_len = SLOT;
        }
        for size in &mut self.sizes {
            size.header.cmsg_len = 0;
        }
        let name_length = size_of::<libc::sockaddr_in>()
            .try_into()
            .unwrap_or_default();
        let (names, sizes) = (self.names.as_mut_ptr(), self.sizes.as_mut_ptr());
        let parts = self.parts.as_mut_ptr();
        for (index, header) in self.headers.iter_mut().enumerate() {
            let header = &mut header.msg_hdr;
            header.msg_name = names.wrapping_add(index).cast();
            header.msg_namelen = name_length;
            header.msg_iov = parts.wrapping_add(index);
            header.msg_iovlen = 1;
            header.msg_control = sizes.wrapping_add(index).cast();
            header.msg_controllen = size_of::<JoinedSize>() as _;
        }
    }

    fn arrival(&self, index: usize) -> Arrival {
        let header = &self.headers[index];
        let length = SLOT.min(header.msg_len as usize);
        let start = index * STRIDE;
        Arrival {
            range: start..start + length,
            stride: self.stride(index),
            source: Ipv4Addr::from(u32::from_be(self.names[index].sin_addr.s_addr)),
            cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }

    fn stride(&self, index: usize) -> usize {
        let JoinedSize { header, size } = &self.sizes[index];
        let is_it = header.cmsg_len == self.form.cmsg_len
            && (header.cmsg_level, header.cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO);
        match is_it {
            true => usize::try_from(*size).unwrap_or(0),
            false => 0,
        }
    }
}

/// How many messages a call takes: joined ones are long, and so is the work that each makes.
const JOINED: usize = 16;
const SINGLE: usize = 64;
/// As long as a message can be, in bytes.
const SLOT: usize = 1 << 16;
/// An odd number of cache lines: the datagrams' headers spread over all sets of the cache instead
/// of contending for one.
const STRIDE: usize = SLOT + 64;
