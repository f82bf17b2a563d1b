//! TCP connections as BGP needs them: MD5 signatures (RFC 2385), the TTL of
//! what leaves and the smallest TTL of what may arrive (RFC 5082), a local
//! address and an interface to bind to.
//!
//! Keys and limits are set before the first packet leaves or is accepted, so
//! there is no moment in which an unsigned segment would do.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, c_void, sockaddr_in, sockaddr_in6, socklen_t};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// What is special about a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Local address; the kernel chooses where `None`.
    pub source: Option<SocketAddr>,
    /// Interface or VRF device to bind to.
    pub interface: Option<&'a str>,
    /// MD5 key, 1 to 80 bytes.
    pub key: Option<&'a [u8]>,
    /// TTL (hop limit) of packets that leave; the system's default where
    /// `None`.
    pub ttl: Option<u8>,
    /// Smallest TTL (hop limit) with which packets may arrive; the kernel
    /// drops others.
    pub min_ttl: Option<u8>,
}

/// Opens a connection. The future may be dropped at any time.
///
/// # Errors
///
/// What the kernel says, with the step that failed.
pub async fn connect(remote: SocketAddr, options: &Options<'_>) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(remote),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if let Some(interface) = options.interface {
        socket
            .bind_device(Some(interface.as_bytes()))
            .map_err(|error| explain(&error, &format!("cannot bind to interface {interface}")))?;
    }
    if let Some(source) = options.source {
        socket.set_reuse_address(true)?;
        socket
            .bind(&source.into())
            .map_err(|error| explain(&error, &format!("cannot use source address {source}")))?;
    }
    restrict(&socket, remote.is_ipv4(), options.ttl, options.min_ttl)?;
    if let Some(key) = options.key {
        set_key(&socket, remote, Some(key))?;
    }
    socket.set_tcp_nodelay(true)?;
    TcpSocket::from_std_stream(socket.into())
        .connect(remote)
        .await
}

/// Applies TTL limits to a connection that was accepted.
///
/// # Errors
///
/// What the kernel says.
pub fn restrict_accepted(
    stream: &TcpStream,
    ttl: Option<u8>,
    min_ttl: Option<u8>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let ipv4 = stream.peer_addr()?.is_ipv4();
    restrict(&SockRef::from(stream), ipv4, ttl, min_ttl)
}

/// The TTL (hop limit) with which the first packet of a connection arrived that
/// a [`Listener`] accepted: no option of the socket says it, and limits set
/// after the kernel made the connection bind only what arrives later. `None`
/// where the kernel did not keep that packet (it answered with a SYN cookie), or
/// was asked before.
///
/// # Errors
///
/// What the kernel says.
pub fn first_ttl(stream: &TcpStream) -> io::Result<Option<u8>> {
    // The headers of IP and TCP; with more extension headers than this a
    // packet is an error.
    let mut headers = [0; 512];
    let length = option_bytes(stream, libc::IPPROTO_TCP, libc::TCP_SAVED_SYN, &mut headers)?;
    let ttl = match headers.first().map(|octet| octet >> 4) {
        // RFC 791 §3.1 and RFC 8200 §3.
        Some(4) => 8,
        Some(6) => 7,
        _ => return Ok(None),
    };
    Ok(headers
        .get(..length)
        .and_then(|kept| kept.get(ttl))
        .copied())
}

/// A listening socket that knows MD5 keys.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
}

impl Listener {
    /// Binds and listens. IPv6 sockets take IPv6 alone. Packets leave with TTL
    /// 255, so that a peer with TTL security sees our SYN-ACK. The first packet
    /// of each connection is kept for [`first_ttl`].
    ///
    /// # Errors
    ///
    /// What the kernel says; `AddrInUse` when another program listens there.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        restrict(&socket, address.is_ipv4(), Some(u8::MAX), None)?;
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, &1)?;
        socket.bind(&address.into())?;
        socket.listen(128)?;
        Ok(Self {
            inner: TcpListener::from_std(socket.into())?,
        })
    }

    /// Sets or removes the key that connections from a peer must be signed
    /// with. Only the address of `peer` counts.
    ///
    /// # Errors
    ///
    /// What the kernel says; removing a key that is not there is no error.
    pub fn set_key(&self, peer: SocketAddr, key: Option<&[u8]>) -> io::Result<()> {
        set_key(&SockRef::from(&self.inner), peer, key)
    }

    /// Waits for a connection.
    ///
    /// # Errors
    ///
    /// What the kernel says; most errors pass (such as too many open files).
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.inner.accept().await
    }

    /// The address listened on, with the port the kernel chose for port 0.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

fn explain(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn restrict(socket: &Socket, ipv4: bool, ttl: Option<u8>, min_ttl: Option<u8>) -> io::Result<()> {
    if let Some(ttl) = ttl {
        if ipv4 {
            socket.set_ttl_v4(u32::from(ttl))?;
        } else {
            socket.set_unicast_hops_v6(u32::from(ttl))?;
        }
    }
    if let Some(min_ttl) = min_ttl {
        let (level, option) = if ipv4 {
            (libc::IPPROTO_IP, libc::IP_MINTTL)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT)
        };
        set_option(socket, level, option, &c_int::from(min_ttl))?;
    }
    Ok(())
}

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C)]
struct Md5Signature {
    address: SockAddrStorage,
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: c_int,
    key: [u8; 80],
}

const _: () = assert!(mem::size_of::<Md5Signature>() == 216);

fn set_key(socket: &Socket, peer: SocketAddr, key: Option<&[u8]>) -> io::Result<()> {
    let bytes = key.unwrap_or_default();
    let mut signature = Md5Signature {
        // Keys are per address: the kernel looks at no port.
        address: SockAddr::from(peer).as_storage(),
        flags: 0,
        prefix_len: 0,
        key_len: 0,
        interface: 0,
        key: [0; 80],
    };
    let room = signature
        .key
        .get_mut(..bytes.len())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "MD5 key over 80 bytes"))?;
    room.copy_from_slice(bytes);
    signature.key_len = u16::try_from(bytes.len()).unwrap_or_default();
    match set_option(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &signature) {
        Err(error) if key.is_none() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map_err(|error| explain(&error, "cannot set the TCP MD5 key")),
    }
}

#[allow(unsafe_code)]
pub(crate) fn set_option<T>(
    socket: &impl AsFd,
    level: c_int,
    option: c_int,
    value: &T,
) -> io::Result<()> {
    let length = socklen_t::try_from(mem::size_of::<T>())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the descriptor is open for the call, and `value` is readable for
    // the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const *value).cast::<c_void>(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads a socket option into `value` and says how much of it was filled.
#[allow(unsafe_code)]
fn option_bytes(
    socket: &impl AsFd,
    level: c_int,
    option: c_int,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut length = socklen_t::try_from(value.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the descriptor is open for the call, and `value` is writable for
    // the length given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            value.as_mut_ptr().cast::<c_void>(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(usize::try_from(length).unwrap_or_default())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Addresses of the interface that holds `local` (itself left out), most
/// useful first: global ones, then link-local.
///
/// # Errors
///
/// What the kernel says.
#[allow(unsafe_code)]
pub fn addresses_beside(local: IpAddr) -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` is a place for the head of the list.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found: Vec<(String, IpAddr)> = Vec::new();
    let mut next = list;
    // SAFETY: every node is valid until the list is freed below, names are C
    // strings, and an address is of the type that its family says.
    unsafe {
        while let Some(node) = next.as_ref() {
            next = node.ifa_next;
            let name = std::ffi::CStr::from_ptr(node.ifa_name);
            if let Some(ip) = ip_of(node.ifa_addr) {
                found.push((name.to_string_lossy().into_owned(), ip));
            }
        }
        libc::freeifaddrs(list);
    }
    let interface = found
        .iter()
        .find(|(_, ip)| *ip == local)
        .map(|(name, _)| name.clone());
    let mut beside: Vec<IpAddr> = found
        .into_iter()
        .filter(|(name, ip)| Some(name) == interface.as_ref() && *ip != local)
        .map(|(_, ip)| ip)
        .collect();
    beside.sort_by_key(|ip| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
    Ok(beside)
}

/// Index of a network interface.
///
/// # Errors
///
/// `NotFound`, with the name, when there is none.
#[allow(unsafe_code)]
pub fn interface_index(name: &str) -> io::Result<u32> {
    let missing =
        |_: io::Error| io::Error::new(io::ErrorKind::NotFound, format!("no interface {name}"));
    let text = std::ffi::CString::new(name).map_err(|error| missing(error.into()))?;
    // SAFETY: `text` is a C string for the time of the call.
    match unsafe { libc::if_nametoindex(text.as_ptr()) } {
        0 => Err(missing(io::Error::last_os_error())),
        index => Ok(index),
    }
}

/// # Safety
///
/// `address` is null or points to a socket address of the type its family says.
#[allow(unsafe_code)]
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: the caller's promise.
    unsafe {
        match c_int::from(address.as_ref()?.sa_family) {
            libc::AF_INET => {
                let raw = address.cast::<sockaddr_in>().read_unaligned();
                Some(IpAddr::from(raw.sin_addr.s_addr.to_ne_bytes()))
            }
            libc::AF_INET6 => {
                let raw = address.cast::<sockaddr_in6>().read_unaligned();
                Some(IpAddr::from(raw.sin6_addr.s6_addr))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    async fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
        client.write_all(b"hello").await.unwrap();
        let mut text = [0; 5];
        server.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
    }

    #[test]
    fn the_same_key_on_both_sides_connects() {
        runtime().block_on(async {
            let listener = Listener::bind(loopback()).unwrap();
            listener.set_key(loopback(), Some(b"secret")).unwrap();
            let options = Options {
                key: Some(b"secret"),
                ..Options::default()
            };
            let remote = listener.local_addr().unwrap();
            let (client, server) = tokio::join!(connect(remote, &options), listener.accept());
            exchange(&mut client.unwrap(), &mut server.unwrap().0).await;
        });
    }

    #[test]
    fn a_wrong_key_and_none_are_both_dropped_by_the_kernel() {
        runtime().block_on(async {
            let listener = Listener::bind(loopback()).unwrap();
            listener.set_key(loopback(), Some(b"secret")).unwrap();
            let remote = listener.local_addr().unwrap();
            for key in [Some(&b"other"[..]), None] {
                let options = Options {
                    key,
                    ..Options::default()
                };
                // The kernel drops the SYN without a word; a connection would
                // come up within a fraction of this on loopback.
                let attempt = connect(remote, &options);
                let result = tokio::time::timeout(Duration::from_millis(300), attempt).await;
                assert!(!matches!(result, Ok(Ok(_))), "connected with {key:?}");
            }
        });
    }

    #[test]
    fn a_removed_key_is_no_longer_asked_for() {
        runtime().block_on(async {
            let listener = Listener::bind(loopback()).unwrap();
            listener.set_key(loopback(), Some(b"secret")).unwrap();
            listener.set_key(loopback(), None).unwrap();
            listener.set_key(loopback(), None).unwrap();
            let remote = listener.local_addr().unwrap();
            let options = Options::default();
            let (client, server) = tokio::join!(connect(remote, &options), listener.accept());
            exchange(&mut client.unwrap(), &mut server.unwrap().0).await;
        });
    }

    #[test]
    fn packets_with_too_small_a_ttl_do_not_arrive() {
        runtime().block_on(async {
            let listener = Listener::bind(loopback()).unwrap();
            let remote = listener.local_addr().unwrap();
            let options = Options {
                ttl: Some(64),
                ..Options::default()
            };
            let (client, server) = tokio::join!(connect(remote, &options), listener.accept());
            let (mut client, mut server) = (client.unwrap(), server.unwrap().0);
            restrict_accepted(&server, Some(255), Some(255)).unwrap();
            client.write_all(b"hello").await.unwrap();
            let mut text = [0; 5];
            let read = server.read_exact(&mut text);
            assert!(
                tokio::time::timeout(Duration::from_millis(300), read)
                    .await
                    .is_err(),
                "a packet with TTL 64 passed the limit of 255"
            );
        });
    }

    #[test]
    fn the_ttl_of_the_first_packet_is_known_of_what_was_accepted() {
        runtime().block_on(async {
            for address in ["127.0.0.1:0", "[::1]:0"] {
                let listener = Listener::bind(address.parse().unwrap()).unwrap();
                let remote = listener.local_addr().unwrap();
                for ttl in [1, 64, 255] {
                    let options = Options {
                        ttl: Some(ttl),
                        ..Options::default()
                    };
                    let (_client, server) =
                        tokio::join!(connect(remote, &options), listener.accept());
                    let server = server.unwrap().0;
                    assert_eq!(first_ttl(&server).unwrap(), Some(ttl), "{address}");
                    assert_eq!(first_ttl(&server).unwrap(), None, "it is told once");
                }
            }
        });
    }

    #[test]
    fn a_source_that_is_not_ours_is_named_in_the_error() {
        runtime().block_on(async {
            let options = Options {
                source: Some("192.0.2.1:0".parse().unwrap()),
                ..Options::default()
            };
            let error = connect("127.0.0.1:9".parse().unwrap(), &options)
                .await
                .unwrap_err();
            assert!(error.to_string().contains("192.0.2.1"), "{error}");
        });
    }

    #[test]
    fn an_address_without_interface_has_no_neighbours() {
        let beside = addresses_beside("192.0.2.1".parse().unwrap()).unwrap();
        assert!(beside.is_empty());
    }
}
