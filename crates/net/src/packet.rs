//! A raw packet socket (AF_PACKET) for all interfaces of the host, with a classic BPF filter.
//!
//! Guarantees: nothing is received before a filter is in place; a frame arrives with the index of
//! the interface it came in by; sending never blocks. Frames are whole Ethernet frames; the kernel
//! strips a VLAN tag, and hands the frame over twice: with the index of the interface that carries the
//! VLAN (a filter sees the tag and may drop it), then with that of the VLAN's own interface.

#![expect(
    unsafe_code,
    reason = "neither the standard library nor socket2 knows sockaddr_ll"
)]

use std::{io, mem, os::fd::AsRawFd};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use crate::MacAddr;

/// One instruction of a classic BPF program (`struct sock_filter` in `linux/filter.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if a condition holds.
    pub jt: u8,
    /// Instructions to skip if not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// The kernel's bound on the length of a program (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// A received frame's length and origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes written to the buffer; a longer frame is cut.
    pub length: usize,
    /// Index of the interface it came in by.
    pub link: u32,
}

/// A non-blocking packet socket registered with the current Tokio runtime.
#[derive(Debug)]
pub struct PacketSocket(AsyncFd<Socket>);

impl PacketSocket {
    /// Opens a socket that receives from all interfaces what `filter` lets through.
    ///
    /// Needs the capability NET_RAW.
    pub fn open(filter: &[Instruction]) -> io::Result<Self> {
        // Protocol 0 queues nothing until `bind` names one, so no frame gets past the filter.
        let kind = Type::RAW.nonblocking().cloexec();
        let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(0)))?;
        socket.attach_filter(&program(filter))?;
        // Room for a burst of requests while another thread has the CPU.
        let _ = socket.set_recv_buffer_size(4 << 20);
        let address = link_address(0);
        // SAFETY: `address` is a valid `sockaddr_ll` of the given length for the whole call.
        let result = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                length_of::<libc::sockaddr_ll>(),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the `Socket` owns its descriptor and never replaces it while registered.
        unsafe { AsyncFd::register(socket) }
            .map(Self)
            .map_err(io::Error::from)
    }

    /// Replaces the filter; no frame passes in between.
    pub fn set_filter(&self, filter: &[Instruction]) -> io::Result<()> {
        self.0.get_ref().attach_filter(&program(filter))
    }

    /// Waits for the next frame.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.0
            .async_io(Interest::READABLE, |socket| receive(socket, buffer))
            .await
    }

    /// The next frame if one is queued, else an error of kind `WouldBlock`.
    pub fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.0
            .try_io(Interest::READABLE, |socket| receive(socket, buffer))
    }

    /// Sends a whole Ethernet frame by the interface with this index, or fails at once.
    pub fn send(&self, link: u32, frame: &[u8]) -> io::Result<()> {
        let address = link_address(link);
        // SAFETY: `frame` and `address` are valid for their lengths for the whole call.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                length_of::<libc::sockaddr_ll>(),
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Lets the interface receive frames for a multicast address.
    pub fn join(&self, link: u32, group: MacAddr) -> io::Result<()> {
        self.membership(
            libc::PACKET_ADD_MEMBERSHIP,
            libc::PACKET_MR_MULTICAST,
            link,
            group,
        )
    }

    /// Ends what [`Self::join`] began.
    pub fn leave(&self, link: u32, group: MacAddr) -> io::Result<()> {
        self.membership(
            libc::PACKET_DROP_MEMBERSHIP,
            libc::PACKET_MR_MULTICAST,
            link,
            group,
        )
    }

    /// Lets the interface receive every multicast frame, for when the groups are many.
    pub fn join_all(&self, link: u32) -> io::Result<()> {
        let none = MacAddr::default();
        self.membership(
            libc::PACKET_ADD_MEMBERSHIP,
            libc::PACKET_MR_ALLMULTI,
            link,
            none,
        )
    }

    /// Ends what [`Self::join_all`] began.
    pub fn leave_all(&self, link: u32) -> io::Result<()> {
        let none = MacAddr::default();
        self.membership(
            libc::PACKET_DROP_MEMBERSHIP,
            libc::PACKET_MR_ALLMULTI,
            link,
            none,
        )
    }

    fn membership(&self, option: i32, kind: i32, link: u32, group: MacAddr) -> io::Result<()> {
        let mut address = [0; 8];
        for (to, from) in address.iter_mut().zip(group.0) {
            *to = from;
        }
        let request = libc::packet_mreq {
            mr_ifindex: link.cast_signed(),
            mr_type: u16::try_from(kind).unwrap_or_default(),
            mr_alen: 6,
            mr_address: address,
        };
        // SAFETY: `request` is a valid `packet_mreq` of the given length for the whole call.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const request).cast(),
                length_of::<libc::packet_mreq>(),
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Received> {
    // SAFETY: every bit pattern is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    let mut length = length_of::<libc::sockaddr_ll>();
    // SAFETY: `buffer` and `address` are valid and writable for the lengths given.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut address).cast(),
            &raw mut length,
        )
    };
    let length = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    Ok(Received {
        length,
        link: address.sll_ifindex.cast_unsigned(),
    })
}

fn link_address(link: u32) -> libc::sockaddr_ll {
    // SAFETY: every bit pattern is a valid `sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
    address.sll_ifindex = link.cast_signed();
    address
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(mem::size_of::<T>()).unwrap_or_default()
}

fn program(filter: &[Instruction]) -> Vec<SockFilter> {
    filter
        .iter()
        .map(|i| SockFilter::new(i.code, i.jt, i.jf, i.k))
        .collect()
}
