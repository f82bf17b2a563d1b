//! The task that accepts connections and hands them to the peers' tasks.
//!
//! It owns the listening sockets and the MD5 keys on them. A connection from
//! an address that no peer has is closed at once; one that a busy peer does
//! not take is closed too, so nothing queues.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use openelb_net::tcp::{self, Listener};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use crate::config::{Password, PeerAddress, PeerName};
use crate::snapshot::Snapshot;

/// How often an address that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What is to be listened for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub addresses: Vec<SocketAddr>,
    pub doors: BTreeMap<PeerName, Door>,
}

/// Where connections of a peer go.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub address: PeerAddress,
    pub key: Option<Password>,
    pub accepted: mpsc::Sender<TcpStream>,
}

struct Open {
    listener: Listener,
    keys: BTreeMap<IpAddr, Password>,
}

/// Runs until the speaker drops its end of `wish`.
pub(crate) async fn run(mut wish: watch::Receiver<Arc<Wish>>, snapshot: watch::Sender<Snapshot>) {
    let mut open: BTreeMap<SocketAddr, Open> = BTreeMap::new();
    loop {
        let wanted = Arc::clone(&wish.borrow_and_update());
        let complete = follow(&wanted, &mut open, &snapshot);
        loop {
            tokio::select! {
                changed = wish.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
                (at, stream, remote) = accept(&open) => {
                    let keys = open.get(&at).map(|socket| &socket.keys);
                    hand_over(&wanted, keys, stream, remote);
                }
                () = tokio::time::sleep(RETRY), if !complete => break,
            }
        }
    }
}

/// Brings sockets and keys in line with the wish; `false` if an address could
/// not be bound.
fn follow(
    wanted: &Wish,
    open: &mut BTreeMap<SocketAddr, Open>,
    snapshot: &watch::Sender<Snapshot>,
) -> bool {
    open.retain(|address, _| wanted.addresses.contains(address));
    let mut results: BTreeMap<SocketAddr, Result<(), Arc<str>>> = BTreeMap::new();
    for address in &wanted.addresses {
        if !open.contains_key(address) {
            match Listener::bind(*address) {
                Ok(listener) => {
                    let keys = BTreeMap::new();
                    open.insert(*address, Open { listener, keys });
                }
                Err(error) => {
                    results.insert(*address, Err(explain(*address, &error).into()));
                    continue;
                }
            }
        }
        results.insert(*address, Ok(()));
    }
    for (address, socket) in open.iter_mut() {
        set_keys(*address, socket, wanted);
    }
    let complete = results.values().all(Result::is_ok);
    snapshot.send_if_modified(|all| {
        let changed = all.listeners != results;
        all.listeners = results;
        changed
    });
    complete
}

fn explain(address: SocketAddr, error: &std::io::Error) -> String {
    let hint = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            ": another program listens there (a BGP daemon of the network plugin?); \
             outgoing sessions work, or set another port"
        }
        std::io::ErrorKind::PermissionDenied => {
            ": ports below 1024 need the capability NET_BIND_SERVICE"
        }
        _ => "",
    };
    format!("cannot listen on {address}: {error}{hint}")
}

fn set_keys(address: SocketAddr, socket: &mut Open, wanted: &Wish) {
    let keys: BTreeMap<IpAddr, Password> = wanted
        .doors
        .values()
        .filter_map(|door| match (&door.address, &door.key) {
            (PeerAddress::Ip(ip), Some(key)) => Some((*ip, key.clone())),
            (PeerAddress::LinkLocal(ip, _), Some(key)) => Some((IpAddr::V6(*ip), key.clone())),
            _ => None,
        })
        .filter(|(ip, _)| ip.is_ipv4() == address.is_ipv4())
        .collect();
    for ip in socket.keys.keys().filter(|ip| !keys.contains_key(ip)) {
        if let Err(error) = socket.listener.set_key(SocketAddr::new(*ip, 0), None) {
            tracing::warn!(%ip, %error, "cannot remove the MD5 key of a peer");
        }
    }
    socket.keys.retain(|ip, _| keys.contains_key(ip));
    for (ip, key) in keys {
        if socket.keys.get(&ip) == Some(&key) {
            continue;
        }
        match socket
            .listener
            .set_key(SocketAddr::new(ip, 0), Some(key.as_bytes()))
        {
            Ok(()) => {
                socket.keys.insert(ip, key);
            }
            Err(error) => tracing::warn!(%ip, %error, "cannot set the MD5 key of a peer"),
        }
    }
}

/// Gives a connection to its peer's task. The kernel asks for a signature only where it was given the key: a peer
/// whose key it does not have (it is too long, say, or its address was not known before) is not let in at all.
fn hand_over(
    wanted: &Wish,
    keys: Option<&BTreeMap<IpAddr, Password>>,
    stream: TcpStream,
    remote: SocketAddr,
) {
    let ip = remote.ip().to_canonical();
    let scope = match remote {
        SocketAddr::V6(remote) => remote.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let on = |interface: &str| tcp::interface_index(interface).is_ok_and(|index| index == scope);
    let door = wanted.doors.values().find(|door| match &door.address {
        PeerAddress::Ip(known) => *known == ip,
        PeerAddress::LinkLocal(known, interface) => IpAddr::V6(*known) == ip && on(interface),
        PeerAddress::Interface(interface) => {
            matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) && on(interface)
        }
    });
    let Some(door) = door else {
        tracing::debug!(%ip, "an inbound connection from an address that is no peer");
        return;
    };
    if door.key.is_some() && keys.and_then(|keys| keys.get(&ip)) != door.key.as_ref() {
        tracing::warn!(%ip, "an inbound connection that the kernel could not ask for the password of");
        return;
    }
    if door.accepted.try_send(stream).is_err() {
        tracing::debug!(%ip, "an inbound connection came while another one waits");
    }
}

/// Waits for a connection on any socket, for ever if there is none. Says where it came in and from where.
async fn accept(open: &BTreeMap<SocketAddr, Open>) -> (SocketAddr, TcpStream, SocketAddr) {
    loop {
        let mut waits: Vec<_> = open
            .iter()
            .map(|(address, socket)| (*address, Box::pin(socket.listener.accept())))
            .collect();
        let next = poll_fn(|context| {
            for (address, wait) in &mut waits {
                if let Poll::Ready(result) = wait.as_mut().poll(context) {
                    return Poll::Ready(result.map(|(stream, from)| (*address, stream, from)));
                }
            }
            Poll::Pending
        });
        match pin!(next).await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Too many open files and the like: they pass, but not at once.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// A listener on a free port, and what it hands over of connections from here to a peer with this key.
    async fn listening(
        key: Option<&str>,
    ) -> (
        SocketAddr,
        mpsc::Receiver<TcpStream>,
        watch::Sender<Arc<Wish>>,
    ) {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let (accepted, taken) = mpsc::channel(1);
        let door = Door {
            address: PeerAddress::Ip(address.ip()),
            key: key.map(Password::new),
            accepted,
        };
        let wish = Wish {
            addresses: vec![address],
            doors: [("peer".into(), door)].into(),
        };
        let (wish, wished) = watch::channel(Arc::new(wish));
        let (snapshot, mut bound) = watch::channel(Snapshot::default());
        tokio::spawn(run(wished, snapshot));
        let is_bound = |all: &Snapshot| all.listeners.get(&address) == Some(&Ok(()));
        bound.wait_for(is_bound).await.unwrap();
        (address, taken, wish)
    }

    #[tokio::test]
    async fn a_connection_goes_to_the_peer_it_comes_from() {
        let (address, mut taken, _wish) = listening(None).await;
        let ours = TcpStream::connect(address).await.unwrap();
        let theirs = taken.recv().await.unwrap();
        assert_eq!(
            theirs.peer_addr().unwrap(),
            ours.local_addr().unwrap(),
            "the connection itself"
        );
    }

    #[tokio::test]
    async fn without_its_key_in_the_kernel_a_peer_is_not_let_in() {
        // Longer than the kernel takes: it asks for no signature.
        let key = "k".repeat(Password::MAX_LEN + 1);
        let (address, mut taken, _wish) = listening(Some(&key)).await;
        let mut unsigned = TcpStream::connect(address).await.unwrap();
        let closed = unsigned.read(&mut [0]).await;
        assert!(
            matches!(closed, Ok(0) | Err(_)),
            "it is closed, not listened to"
        );
        assert!(taken.try_recv().is_err());
    }
}
