//! The TUN device: a file from which each read takes one packet, and to which each write gives one.
#![expect(
    unsafe_code,
    reason = "the tun crate hands its file descriptor over as a bare number"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd;

use super::ProxyError;

/// An open TUN device, non-blocking, without the packet information header.
#[derive(Debug)]
pub(super) struct Tun {
    descriptor: OwnedFd,
}

impl Tun {
    /// Opens the device of that name, or makes it, and has it outlive us.
    ///
    /// Through the `tun` crate: it opens and persists without touching addresses, MTU or state.
    /// It makes single-queue devices only, and the kernel never adds queues to one of those.
    pub(super) fn attach(name: &str) -> Result<Self, ProxyError> {
        check(name)?;
        available(Path::new(NODE))?;
        let mut configuration = tun::Configuration::default();
        configuration.tun_name(name).platform_config(|platform| {
            // Despite its name this only makes `create` leave addresses, MTU and state alone.
            platform.ensure_root_privileges(false);
        });
        let attach = || -> Result<OwnedFd, tun::Error> {
            let mut device = tun::create(&configuration)?;
            device.persist()?;
            device.set_nonblock()?;
            // SAFETY: `into_raw_fd` gives up the descriptor, which is open: nobody else closes it.
            Ok(unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) })
        };
        match attach() {
            Ok(descriptor) => Ok(Self { descriptor }),
            Err(error) => Err(refusal(name, error.into())),
        }
    }

    /// Takes one packet; the length is that of `buffer` if the packet was longer.
    ///
    /// # Errors
    /// `EAGAIN` if there is none.
    pub(super) fn take(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        unistd::read(&self.descriptor, buffer)
    }

    /// Gives one packet to the kernel, as if it had arrived on the device.
    ///
    /// # Errors
    /// `EIO` while the device is down; see also [`is_gone`].
    pub(super) fn give(&self, packet: &[u8]) -> Result<(), Errno> {
        unistd::write(&self.descriptor, packet).map(|_| ())
    }
}

impl AsFd for Tun {
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

#[cfg(test)]
mod tests;
