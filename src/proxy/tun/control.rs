//! What is asked of the TUN driver (drivers/net/tun.c).
#![expect(
    unsafe_code,
    reason = "the driver is asked by ioctls, and the tun crate hands its descriptor over as a bare number"
)]

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;

use super::super::coalesce::Joins;
use super::NODE;
use crate::proxy::virtio;

/// Opens or makes a device without offloads, which is to persist.
///
/// Through the `tun` crate: it opens and persists without touching addresses, MTU or state.
pub(super) fn open_plain(name: &str) -> io::Result<OwnedFd> {
    let mut configuration = tun::Configuration::default();
    configuration.tun_name(name).platform_config(|platform| {
        // Despite its name this only makes `create` leave addresses, MTU and state alone.
        platform.ensure_root_privileges(false);
    });
    let mut device = tun::create(&configuration)?;
    device.persist()?;
    device.set_nonblock()?;
    // SAFETY: `into_raw_fd` gives up the descriptor, which is open: nobody else closes it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) };
    // An earlier owner's offloads outlive it, and without a header nobody could cut super-packets.
    offload(&descriptor, 0)?;
    Ok(descriptor)
}

/// Attaches a queue to a device with offloads, which is made if there is none. The `tun` crate
/// knows neither several queues nor offloads.
pub(super) fn open_queue(name: &str) -> io::Result<OwnedFd> {
    let descriptor = open_node()?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    attach(&descriptor, name, flags)?;
    Ok(descriptor)
}

/// Has the device of a queue persist and asks it for as many offloads as it has.
pub(super) fn settle(queue: &OwnedFd) -> Result<Joins, Errno> {
    let length = virtio::LENGTH.try_into().unwrap_or_default();
    // SAFETY: the descriptor is open, and the driver only reads the number.
    unsafe { set_header_length(queue.as_raw_fd(), &raw const length) }?;
    persist(queue, true)?;
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO_ECN;
    // The driver takes datagrams of both IP versions or of none, since Linux 6.2.
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    for (features, joins) in [
        (
            tcp | udp,
            Joins {
                tcp: true,
                udp: true,
            },
        ),
        (
            tcp,
            Joins {
                tcp: true,
                udp: false,
            },
        ),
    ] {
        match offload(queue, features) {
            Ok(()) => return Ok(joins),
            Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    offload(queue, 0)?;
    Ok(Joins::default())
}

/// Deletes a persistent device that nobody holds.
///
/// # Errors
/// `EBUSY` if somebody does.
pub(super) fn discard(name: &str, has_queues: bool) -> Result<(), Errno> {
    let descriptor = open_node()?;
    let queues = if has_queues { libc::IFF_MULTI_QUEUE } else { 0 };
    attach(&descriptor, name, libc::IFF_TUN | libc::IFF_NO_PI | queues)?;
    persist(&descriptor, false)
}

fn open_node() -> Result<OwnedFd, Errno> {
    let mut options = File::options();
    options.read(true).write(true);
    let file = options.custom_flags(libc::O_NONBLOCK).open(NODE);
    file.map(OwnedFd::from).map_err(|error| {
        let number = error.raw_os_error();
        number.map_or(Errno::UnknownErrno, Errno::from_raw)
    })
}

fn attach(descriptor: &OwnedFd, name: &str, flags: libc::c_int) -> Result<(), Errno> {
    // SAFETY: all of it are numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *place = byte.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags.try_into().map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is open, and the request is as long as the driver reads and writes.
    unsafe { set_interface(descriptor.as_raw_fd(), &raw const request) }.map(|_| ())
}

fn persist(descriptor: &OwnedFd, yes: bool) -> Result<(), Errno> {
    // SAFETY: the descriptor is open; a number is all that is passed.
    unsafe { set_persistent(descriptor.as_raw_fd(), libc::c_int::from(yes)) }.map(|_| ())
}

fn offload(descriptor: &OwnedFd, features: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: the descriptor is open; a number is all that is passed.
    unsafe { set_offload(descriptor.as_raw_fd(), features.cast_signed()) }.map(|_| ())
}

nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_ptr_bad!(set_header_length, libc::TUNSETVNETHDRSZ, libc::c_int);
nix::ioctl_write_int_bad!(set_persistent, libc::TUNSETPERSIST);
nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
