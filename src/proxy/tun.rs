//! The TUN device: files from which each read takes one packet, and to which each write gives one.
//!
//! Devices come in two kinds, and the kernel never changes one into the other. Through one of the
//! kind with offloads a packet may be many (a super-packet), a [`Header`] tells what is left to be
//! done on it, and several queues share the work. One without moves packets as they are.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::uio::{readv, writev};
use nix::unistd;

use super::ProxyError;
use super::coalesce::Joins;
use super::virtio::{self, Header};
use shape::Shape;

mod control;
mod shape;

/// An open device.
#[derive(Debug)]
pub(super) struct Device {
    /// At least one. The kernel spreads flows over them.
    pub(super) queues: Vec<Queue>,
    pub(super) joins: Joins,
}

impl Device {
    /// Opens the device of that name, or makes it, and has it outlive us. With `offload` it has as
    /// many queues as asked for, else one.
    ///
    /// One of the other kind that nobody holds is remade: its addresses and routes are gone then.
    pub(super) fn open(name: &str, offload: bool, queues: usize) -> Result<Self, ProxyError> {
        check(name)?;
        available(Path::new(NODE))?;
        if let Some(shape) = look(name)? {
            fit(name, shape, offload)?;
        }
        if !offload {
            let descriptor = control::open_plain(name).map_err(|source| refusal(name, source))?;
            return Ok(Self {
                queues: vec![Queue::new(descriptor, Framing::Bare)],
                joins: Joins::default(),
            });
        }
        let open = || control::open_queue(name).map_err(|source| refusal(name, source));
        let first = open()?;
        // Who attaches second at the same moment sees two, and neither takes the other's packets.
        if look(name)?.is_some_and(|shape| shape.holders > 1) {
            let device = name.to_owned();
            return Err(ProxyError::DeviceBusy { device });
        }
        let joins = control::settle(&first).map_err(|source| refusal(name, source.into()))?;
        let mut files = vec![first];
        for _ in 1..queues {
            files.push(open()?);
        }
        let framed = |descriptor| Queue::new(descriptor, Framing::Virtio);
        Ok(Self {
            queues: files.into_iter().map(framed).collect(),
            joins,
        })
    }
}

/// One of a device's queues, non-blocking.
#[derive(Debug)]
pub(super) struct Queue {
    descriptor: OwnedFd,
    framing: Framing,
}

/// What goes before each packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Bare,
    Virtio,
}

impl Queue {
    const fn new(descriptor: OwnedFd, framing: Framing) -> Self {
        Self {
            descriptor,
            framing,
        }
    }

    /// Takes one packet, and what is left to be done on it; the length is that of `buffer` if the
    /// packet was longer. None is longer than 65,535 bytes.
    ///
    /// # Errors
    /// `EAGAIN` if there is none; `EBADMSG` for one whose header makes no sense, which is lost.
    pub(super) fn take(&self, buffer: &mut [u8]) -> Result<(Header, usize), Errno> {
        if self.framing == Framing::Bare {
            let length = unistd::read(&self.descriptor, buffer)?;
            return Ok((Header::default(), length));
        }
        let mut header = [0; virtio::LENGTH];
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)];
        let length = readv(&self.descriptor, &mut parts)?;
        let length = length.checked_sub(header.len()).ok_or(Errno::EBADMSG)?;
        let header = Header::parse(&header).map_err(|_| Errno::EBADMSG)?;
        Ok((header, length))
    }

    /// Gives one packet, the parts of which are put together, to the kernel as if it had arrived
    /// on the device. A queue without offloads takes default headers only.
    ///
    /// # Errors
    /// `EIO` while the device is down; `EINVAL` for a header that the kernel refuses, or for more
    /// than 1,023 parts; see also [`is_gone`].
    pub(super) fn give(&self, header: Header, parts: &[IoSlice<'_>]) -> Result<(), Errno> {
        let header = header.bytes();
        match (self.framing, parts) {
            (Framing::Bare, [whole]) => unistd::write(&self.descriptor, whole).map(|_| ()),
            (Framing::Bare, parts) => writev(&self.descriptor, parts).map(|_| ()),
            (Framing::Virtio, parts) if parts.len() < 8 => self.write::<8>(&header, parts),
            (Framing::Virtio, parts) if parts.len() < 72 => self.write::<72>(&header, parts),
            (Framing::Virtio, parts) => self.write::<MOST_PARTS>(&header, parts),
        }
    }

    /// Writes header and parts, fewer than `N` parts: a vector on the stack costs as much as it has
    /// room for.
    fn write<const N: usize>(&self, header: &[u8], parts: &[IoSlice<'_>]) -> Result<(), Errno> {
        let mut vector = [IoSlice::new(header); N];
        let used = vector.get_mut(1..=parts.len()).ok_or(Errno::EINVAL)?;
        used.copy_from_slice(parts);
        writev(&self.descriptor, &vector[..=parts.len()]).map(|_| ())
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether an error means that the device was deleted (`EBADFD`, drivers/net/tun.c).
pub(super) fn is_gone(errno: Errno) -> bool {
    [Errno::EBADFD, Errno::ENODEV, Errno::EBADF].contains(&errno)
}

/// The kernel would take an empty name, or one with a '%', for a pattern.
fn check(name: &str) -> Result<(), ProxyError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=15).contains(&name.len()) && name.bytes().all(plain) && name != "." && name != ".." {
        Ok(())
    } else {
        Err(ProxyError::DeviceName {
            device: name.chars().take(64).collect(),
        })
    }
}

/// Whether the kernel lets us have TUN devices at all. Tried apart from attaching, because both
/// fail with `EPERM` and `ENOENT` for reasons that ask for different action.
fn available(node: &Path) -> Result<(), ProxyError> {
    let Err(source) = File::options().read(true).write(true).open(node) else {
        return Ok(());
    };
    let node = node.to_owned();
    Err(match source.kind() == io::ErrorKind::PermissionDenied {
        true => ProxyError::TunForbidden { node, source },
        false => ProxyError::TunMissing { node, source },
    })
}

fn look(name: &str) -> Result<Option<Shape>, ProxyError> {
    let device = || name.to_owned();
    shape::of(name).map_err(|source| ProxyError::Device {
        device: device(),
        source,
    })
}

/// Makes way for a device of the wanted kind, if one of the other kind bears its name.
fn fit(name: &str, shape: Shape, offload: bool) -> Result<(), ProxyError> {
    let device = name.to_owned();
    if !shape.is_tun {
        return Err(ProxyError::NotATun { device });
    }
    // The kernel lets anybody attach to a device with several queues and gives each a share.
    if shape.holders > 0 {
        return Err(ProxyError::DeviceBusy { device });
    }
    if shape.has_queues == offload {
        return Ok(());
    }
    tracing::info!("remaking the TUN device {name}, which has the wrong kind of queues");
    control::discard(name, shape.has_queues).map_err(|source| refusal(name, source.into()))
}

/// What `TUNSETIFF` means by its errors (drivers/net/tun.c, `tun_set_iff`).
fn refusal(name: &str, source: io::Error) -> ProxyError {
    let device = name.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM) => ProxyError::NotPermitted { device },
        Some(libc::EBUSY) => ProxyError::DeviceBusy { device },
        Some(libc::EINVAL) => ProxyError::NotATun { device },
        _ => ProxyError::Device { device, source },
    }
}

const NODE: &str = "/dev/net/tun";
/// The most that a write takes (`UIO_MAXIOV`, linux/uio.h), the header included.
const MOST_PARTS: usize = 1024;

#[cfg(test)]
mod tests;
