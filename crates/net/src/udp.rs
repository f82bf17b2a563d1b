//! UDP sockets that see the TTL of what arrives, as BFD needs them (RFC 5881
//! §5), and the priority of the thread that serves them.

use std::io::{self, IoSliceMut};
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use libc::{c_int, c_void};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Octets received, at most the size of the buffer.
    pub len: usize,
    /// The sender.
    pub from: SocketAddr,
    /// The TTL or hop limit it arrived with, if the kernel said so.
    pub ttl: Option<u8>,
    /// Index of the interface it arrived on, if the kernel said so.
    pub interface: Option<u32>,
}

/// A socket that receives on one port of all local addresses of a family.
#[derive(Debug)]
pub struct Receiver {
    inner: UdpSocket,
}

impl Receiver {
    /// Binds to a port; IPv6 sockets take IPv6 alone.
    ///
    /// # Errors
    ///
    /// What the kernel says; `AddrInUse` when another program listens there.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let ipv4 = address.is_ipv4();
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking().cloexec(),
            Some(Protocol::UDP),
        )?;
        let on: c_int = 1;
        let options = if ipv4 {
            [
                (libc::IPPROTO_IP, libc::IP_RECVTTL),
                (libc::IPPROTO_IP, libc::IP_PKTINFO),
            ]
        } else {
            socket.set_only_v6(true)?;
            [
                (libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT),
                (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
            ]
        };
        for (level, option) in options {
            crate::tcp::set_option(&socket, level, option, &on)?;
        }
        socket.bind(&address.into())?;
        Ok(Self {
            inner: UdpSocket::from_std(socket.into())?,
        })
    }

    /// Waits for a datagram. May be dropped at any time without loss.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        self.inner
            .async_io(Interest::READABLE, || receive(&self.inner, buffer))
            .await
    }

    /// Polls for something to receive.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_recv_ready(context)
    }

    /// Takes a datagram that is already there.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none, else what the kernel says.
    pub fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Datagram> {
        self.inner
            .try_io(Interest::READABLE, || receive(&self.inner, buffer))
    }

    /// The address bound to.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// Opens a socket to send from, with TTL 255 and network control priority.
///
/// # Errors
///
/// What the kernel says; `AddrInUse` when the port of `source` is taken.
pub fn sender(source: SocketAddr, interface: Option<&str>) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(source),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    // Internetwork control (RFC 4594), the class of routing protocols.
    if source.is_ipv4() {
        socket.set_ttl_v4(u32::from(u8::MAX))?;
        socket.set_tos_v4(0xc0)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_unicast_hops_v6(u32::from(u8::MAX))?;
        socket.set_tclass_v6(0xc0)?;
    }
    socket.set_priority(6)?;
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.bind(&source.into())?;
    Ok(socket.into())
}

#[allow(unsafe_code)]
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    // Aligned as control messages are, and large enough for both of them.
    let mut control = [0_u64; 16];
    let mut parts = [IoSliceMut::new(buffer)];
    let socket = SockRef::from(socket);
    // SAFETY: the closure gives the storage and its length to `recvmsg`, which
    // writes an address and its length there.
    let ((len, ttl, interface), from) = unsafe {
        SockAddr::try_init(|storage, length| {
            let mut message: libc::msghdr = mem::zeroed();
            message.msg_name = storage.cast();
            message.msg_namelen = *length;
            message.msg_iov = (&raw mut parts).cast();
            message.msg_iovlen = 1;
            message.msg_control = (&raw mut control).cast();
            // 16 times 8 bytes; a literal, because the field's type differs between C libraries.
            message.msg_controllen = 128;
            let len = libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0);
            let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
            *length = message.msg_namelen;
            let (ttl, interface) = read_control(&message);
            Ok((len, ttl, interface))
        })?
    };
    let from = from
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Datagram {
        len,
        from,
        ttl,
        interface,
    })
}

/// # Safety
///
/// `message` was filled by `recvmsg` and its control buffer is still there.
#[allow(unsafe_code)]
unsafe fn read_control(message: &libc::msghdr) -> (Option<u8>, Option<u32>) {
    let (mut ttl, mut interface) = (None, None);
    // SAFETY: the macros walk within the length that `recvmsg` set; each kind
    // of message carries the type read from it, read without alignment.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(&raw const *message);
        while let Some(header) = next.as_ref() {
            let data = libc::CMSG_DATA(next).cast::<c_void>();
            match (header.cmsg_level, header.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    ttl = u8::try_from(data.cast::<c_int>().read_unaligned()).ok();
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    interface = u32::try_from(info.ipi_ifindex).ok();
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    interface = Some(info.ipi6_ifindex);
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(&raw const *message, next);
        }
    }
    (ttl, interface)
}

/// What [`raise_priority`] achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Before every normal thread (needs `CAP_SYS_NICE` or `RLIMIT_RTPRIO`).
    RealTime,
    /// A larger share than others (needs `CAP_SYS_NICE` or `RLIMIT_NICE`).
    Nice,
    /// As before.
    Normal,
}

/// Raises the priority of the calling thread as far as permitted.
#[allow(unsafe_code)]
#[must_use]
pub fn raise_priority() -> Priority {
    // SAFETY: plain data, for which all zeroes are valid.
    let mut parameters: libc::sched_param = unsafe { mem::zeroed() };
    parameters.sched_priority = 10;
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: 0 is the calling thread, and `parameters` is readable.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } == 0 {
        return Priority::RealTime;
    }
    // SAFETY: no pointers; 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -15) } == 0 {
        return Priority::Nice;
    }
    Priority::Normal
}

/// The address to bind a sender to that talks to `remote`, with a port.
#[must_use]
pub fn any_address(remote: IpAddr, port: u16) -> SocketAddr {
    match remote {
        IpAddr::V4(_) => (std::net::Ipv4Addr::UNSPECIFIED, port).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    #[test]
    fn datagrams_come_with_ttl_and_interface() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            runtime().block_on(async {
                let receiver = Receiver::bind(address).unwrap();
                let sender = sender(address, None).unwrap();
                let to = receiver.local_addr().unwrap();
                sender.send_to(b"hello", to).unwrap();
                let mut buffer = [0; 64];
                let datagram = receiver.receive(&mut buffer).await.unwrap();
                assert_eq!(&buffer[..datagram.len], b"hello");
                assert_eq!(datagram.ttl, Some(255));
                assert_eq!(datagram.interface, Some(1));
                assert_eq!(datagram.from, sender.local_addr().unwrap());
                let empty = receiver.try_receive(&mut buffer).unwrap_err();
                assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
            });
        }
    }

    #[test]
    fn a_datagram_longer_than_the_buffer_is_cut() {
        runtime().block_on(async {
            let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
            let receiver = Receiver::bind(address).unwrap();
            let to = receiver.local_addr().unwrap();
            sender(address, None)
                .unwrap()
                .send_to(&[7; 100], to)
                .unwrap();
            let mut buffer = [0; 24];
            assert_eq!(receiver.receive(&mut buffer).await.unwrap().len, 24);
        });
    }
}
