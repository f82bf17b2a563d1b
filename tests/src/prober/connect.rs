//! TCP connections of a prober, and who was to blame when one is not made.
//!
//! A refused connection and a rejected one are the same error number to most programs. The kernel keeps the ICMP message
//! behind an error with the socket, for who asks for it before the connection is made; without one it was a RST.

use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Outcome, Refusal};

/// Why a probe has no answer.
pub(super) struct Bad(pub(super) Outcome);

impl From<std::io::Error> for Bad {
    fn from(error: std::io::Error) -> Self {
        Self(Outcome::of(&error, Refusal::Untold))
    }
}

/// Connects, or says who would not have it.
pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, Bad> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    keep_messages(&socket, address, true)?;
    // Connecting consumes the socket, with what the kernel keeps.
    let behind = socket.as_fd().try_clone_to_owned()?;
    match socket.connect(address).await {
        Ok(stream) => {
            // Once connected, a message is a hint that TCP outlives, and must stay one.
            keep_messages(&stream, address, false)?;
            Ok(stream)
        }
        Err(error) => Err(Bad(Outcome::of(
            &error,
            message(&behind).unwrap_or(Refusal::Reset),
        ))),
    }
}

fn keep_messages(socket: &impl AsFd, address: SocketAddr, keep: bool) -> std::io::Result<()> {
    if address.is_ipv4() {
        setsockopt(socket, Ipv4RecvErr, &keep)?;
    } else {
        setsockopt(socket, Ipv6RecvErr, &keep)?;
    }
    Ok(())
}

/// The ICMP message that the kernel keeps for a socket.
fn message(socket: &OwnedFd) -> Option<Refusal> {
    let mut data = [0; 256];
    let mut control = nix::cmsg_space!([u8; 256]);
    let mut buffers = [IoSliceMut::new(&mut data)];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let received =
        recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut control), flags).ok()?;
    received.cmsgs().ok()?.find_map(|part| match part {
        ControlMessageOwned::Ipv4RecvErr(error, from) => Some(Refusal::Icmp {
            from: from.map(|from| IpAddr::V4(Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)))),
            kind: error.ee_type,
            code: error.ee_code,
        }),
        ControlMessageOwned::Ipv6RecvErr(error, from) => Some(Refusal::Icmp {
            from: from.map(|from| IpAddr::V6(Ipv6Addr::from(from.sin6_addr.s6_addr))),
            kind: error.ee_type,
            code: error.ee_code,
        }),
        _ => None,
    })
}
