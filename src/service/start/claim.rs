//! One service for each network namespace.

use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
};
use nix::sys::time::TimeVal;
use nix::unistd::{User, geteuid};

use super::StartError;

/// An abstract socket belongs to the network namespace and goes with the process, however that
/// ends: just what a lock on the namespace needs. Whose it is the kernel tells, so nobody who looks
/// has to wait for its owner. `taken` is the answer if another service has it.
pub(super) fn claim_namespace(taken: StartError) -> Result<Option<UnixDatagram>, StartError> {
    let address = SocketAddr::from_abstract_name(LOCK).map_err(anyhow::Error::from)?;
    for _ in 0..TRIES {
        match UnixDatagram::bind_addr(&address) {
            Ok(claim) => return Ok(Some(claim)),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                return Err(StartError::Other(error.into()));
            }
            Err(_) => {}
        }
        match holder().map_err(unknown)? {
            Some(user) if is_one_of_us(user) => return Err(taken),
            Some(_) => break,
            // it has gone in between
            None => {}
        }
    }
    // anybody may take such a name, which must not keep the service from starting
    tracing::warn!("some other program holds the abstract socket @{LOCK}");
    Ok(None)
}

fn unknown(error: io::Error) -> StartError {
    let what = format!(
        "somebody holds the abstract socket @{LOCK}, and the kernel does not say who (it needs \
         CONFIG_UNIX_DIAG)"
    );
    StartError::Other(anyhow::Error::from(error).context(what))
}

/// Whether a service can be this user's: the unit's has a user of its own.
fn is_one_of_us(user: u32) -> bool {
    let of_unit = || User::from_name(UNIT_USER).ok().flatten();
    user == 0
        || user == geteuid().as_raw()
        || of_unit().is_some_and(|of_unit| user == of_unit.uid.as_raw())
}

/// The user who made the socket with the lock's name, by sock_diag(7). The socket itself would
/// have to be connected to for an answer, which its owner can delay.
fn holder() -> io::Result<Option<u32>> {
    let diagnosis = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    setsockopt(&diagnosis, ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
    send(diagnosis.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut answer = vec![0; 1 << 16];
    loop {
        let length = recv(diagnosis.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        match find(answer.get(..length).unwrap_or_default())? {
            Part::Holder(user) => return Ok(Some(user)),
            Part::Others => {}
            Part::End => return Ok(None),
        }
    }
}

/// All Unix sockets of the namespace with name and user: `struct unix_diag_req` of
/// linux/unix_diag.h in a netlink message.
fn request() -> Vec<u8> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_AND_DUMP: u16 = 0x301;
    const SHOW_NAME_AND_UID: u32 = 0x41;
    const LENGTH: u32 = 40;
    let mut request = Vec::new();
    request.extend(LENGTH.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST_AND_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    // the family and three bytes of padding
    request.extend([AF_UNIX, 0, 0, 0]);
    let (all_states, any_inode, no_cookie) = (u32::MAX, 0, [u32::MAX; 2]);
    for word in [all_states, any_inode, SHOW_NAME_AND_UID] {
        request.extend(word.to_ne_bytes());
    }
    for word in no_cookie {
        request.extend(word.to_ne_bytes());
    }
    request
}

/// What a part of the answer holds.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Holder(u32),
    Others,
    End,
}

fn find(mut part: &[u8]) -> io::Result<Part> {
    const HEADER: usize = 16;
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    while let (Some(length), Some(kind)) = (u32_at(part, 0), u16_at(part, 4)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let message = part.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
        match kind {
            DONE => return Ok(Part::End),
            ERROR => {
                let code = u32_at(message, 0).unwrap_or_default().cast_signed();
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            _ => {
                if let Some(user) = user_of_lock(message) {
                    return Ok(Part::Holder(user));
                }
            }
        }
        part = part.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Part::Others)
}

/// The user of a socket, if it is a datagram socket with the lock's name: `struct unix_diag_msg`
/// and attributes. Stream sockets have names of their own.
fn user_of_lock(socket: &[u8]) -> Option<u32> {
    const FIXED: usize = 16;
    const NAME: u16 = 0;
    const UID: u16 = 7;
    let [AF_UNIX, DATAGRAM, ..] = socket else {
        return None;
    };
    let (mut is_lock, mut user) = (false, None);
    let mut attributes = socket.get(FIXED..)?;
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = usize::from(length);
        let value = attributes.get(4..length)?;
        match kind {
            // an abstract name begins with a zero
            NAME => is_lock = value.strip_prefix(&[0]) == Some(LOCK.as_bytes()),
            UID => user = u32_at(value, 0),
            _ => {}
        }
        let next = length.next_multiple_of(4);
        attributes = attributes.get(next..).unwrap_or_default();
    }
    user.filter(|_| is_lock)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

const LOCK: &str = "flannel-rs";
const UNIT_USER: &str = "flannel-rs";
/// A holder may go while it is looked for, and another come.
const TRIES: usize = 3;
/// Seconds that the kernel may take; it answers at once.
const PATIENCE: i64 = 10;
/// linux/socket.h
const AF_UNIX: u8 = 1;
const DATAGRAM: u8 = 2;

#[cfg(test)]
mod tests;
