//! Opening a connection to a peer: where to, with which socket options, and
//! what a failure means.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use openelb_net::{neighbours, tcp};
use tokio::net::TcpStream;

use crate::config::{Hops, PeerAddress, PeerConfig};
use crate::export::LocalAddresses;
use crate::peer::{Ends, Setup};
use crate::ttl;

/// Longest wait for a TCP connection to open.
const CONNECT: Duration = Duration::from_secs(10);

/// An attempt under way.
pub(crate) type Dial = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

pub(crate) fn dial(setup: Setup) -> Dial {
    Box::pin(async move {
        let peer = &setup.peer;
        let (ip, scope) = match &peer.address {
            PeerAddress::Ip(ip) => (*ip, 0),
            PeerAddress::LinkLocal(ip, interface) => {
                (IpAddr::V6(*ip), tcp::interface_index(interface)?)
            }
            PeerAddress::Interface(interface) => {
                let router = neighbours::router_on(interface).await?;
                (IpAddr::V6(router), tcp::interface_index(interface)?)
            }
        };
        let remote = match ip {
            IpAddr::V4(_) => SocketAddr::new(ip, peer.remote_port),
            IpAddr::V6(ip) => {
                SocketAddr::V6(std::net::SocketAddrV6::new(ip, peer.remote_port, 0, scope))
            }
        };
        let (ttl, min_ttl) = ttl::limits(&setup);
        let options = tcp::Options {
            source: peer.source.map(|ip| SocketAddr::new(ip, 0)),
            interface: peer.interface.as_deref(),
            key: peer.password.as_ref().map(crate::Password::as_bytes),
            ttl,
            min_ttl,
        };
        tokio::time::timeout(CONNECT, tcp::connect(remote, &options))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    })
}

/// Waits for the attempt under way, for ever if there is none.
pub(crate) async fn finished(dial: &mut Option<Dial>) -> io::Result<TcpStream> {
    let result = match dial {
        Some(attempt) => attempt.await,
        None => std::future::pending().await,
    };
    *dial = None;
    result
}

/// Says what the error means and what can be done.
pub(crate) fn explain(peer: &PeerConfig, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            ": does BGP run there, and does it know us as a neighbour?"
        }
        io::ErrorKind::TimedOut if matches!(peer.hops, Hops::Security(_)) => {
            ": is it reachable in so few hops, and does BGP run there? With TTL security even a \
             refusal is dropped"
        }
        io::ErrorKind::HostUnreachable if peer.hops == Hops::Direct => {
            ": is it on the same link? If it is not, say over how many hops"
        }
        io::ErrorKind::TimedOut if peer.password.is_some() => {
            ": is it reachable, and is the password the same on both sides?"
        }
        io::ErrorKind::TimedOut => {
            ": is it reachable, and does it ask for a password or TTL security?"
        }
        _ => "",
    };
    format!(
        "cannot connect to {} port {}: {error}{hint}",
        describe_address(&peer.address),
        peer.remote_port
    )
}

fn describe_address(address: &PeerAddress) -> String {
    match address {
        PeerAddress::Ip(ip) => ip.to_string(),
        PeerAddress::LinkLocal(ip, interface) => format!("{ip}%{interface}"),
        PeerAddress::Interface(interface) => format!("the router on {interface}"),
    }
}

/// Where a connection is, and what its interface offers as next hops.
pub(crate) fn ends_of(stream: &TcpStream) -> io::Result<Ends> {
    let local = stream.local_addr()?;
    let beside = tcp::addresses_beside(local.ip())?;
    Ok(Ends {
        local,
        remote: stream.peer_addr()?,
        addresses: LocalAddresses::choose(local.ip(), &beside),
    })
}
