//! Keeps a [`Links`] true by rtnetlink.
//!
//! Whatever the kernel reports (and an overrun of the socket too) leads to a fresh, complete dump:
//! no event can be missed for good and none can be misapplied. The first event is acted on at
//! once; a storm of them costs at most one dump per [`PAUSE`].

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, channel::mpsc::UnboundedReceiver};
use ipnet::IpNet;
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection,
    packet_core::NetlinkMessage,
    packet_route::{
        RouteNetlinkMessage,
        address::AddressAttribute,
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
    },
    sys::SocketAddr,
};
use tokio::{sync::watch, task::JoinHandle, time};

use crate::{Link, Links, MacAddr, Route};

/// Least time between two dumps.
const PAUSE: Duration = Duration::from_millis(20);

/// A dump is made this often even when the kernel reports nothing.
const RESYNC: Duration = Duration::from_secs(30);

/// Why the interfaces of this host cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// The netlink socket could not be opened.
    #[error("cannot open a netlink socket to watch the interfaces: {0}")]
    Open(#[source] io::Error),
    /// The kernel refused a dump.
    #[error("cannot read the interfaces by netlink: {0}")]
    Dump(#[source] rtnetlink::Error),
}

/// A running watch; dropping it ends the task.
#[derive(Debug)]
pub struct LinksWatch {
    links: watch::Receiver<Arc<Links>>,
    tasks: [JoinHandle<()>; 2],
}

impl LinksWatch {
    /// Reads the interfaces once, then keeps watching on the current Tokio runtime.
    pub async fn spawn() -> Result<Self, LinksError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, handle, messages) =
            new_multicast_connection(&groups).map_err(LinksError::Open)?;
        let connection = tokio::spawn(connection);
        let first = dump(&handle).await.inspect_err(|_| connection.abort())?;
        let (sender, links) = watch::channel(Arc::new(first));
        let follow = tokio::spawn(follow(handle, messages, sender));
        Ok(Self {
            links,
            tasks: [connection, follow],
        })
    }

    /// The interfaces as they are now, and every change of them.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Links>> {
        self.links.clone()
    }
}

impl Drop for LinksWatch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

async fn follow(handle: Handle, mut messages: Messages, sender: watch::Sender<Arc<Links>>) {
    loop {
        // A closed stream never yields again; the periodic dump goes on without it.
        let event = time::timeout(RESYNC, messages.next()).await;
        if matches!(event, Ok(None)) {
            time::sleep(RESYNC).await;
        }
        while messages.try_recv().is_ok() {}
        match dump(&handle).await {
            Ok(links) => {
                sender.send_if_modified(|old| {
                    let changed = **old != links;
                    if changed {
                        *old = Arc::new(links);
                    }
                    changed
                });
            }
            Err(error) => tracing::warn!(%error, "keeping the last known interfaces"),
        }
        if sender.is_closed() {
            return;
        }
        time::sleep(PAUSE).await;
    }
}

async fn dump(handle: &Handle) -> Result<Links, LinksError> {
    let mut messages = Vec::new();
    let mut stream = handle.link().get().execute();
    while let Some(message) = stream.try_next().await.map_err(LinksError::Dump)? {
        messages.push(message);
    }
    let mut links = links(messages);

    let mut stream = handle.address().get().execute();
    while let Some(message) = stream.try_next().await.map_err(LinksError::Dump)? {
        // `Local` differs from `Address` on point-to-point links, where the latter is the peer.
        let mut address = None;
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(local) => address = Some(local),
                AddressAttribute::Address(other) => address = address.or(Some(other)),
                _ => {}
            }
        }
        let net = address.and_then(|ip| IpNet::new(ip, message.header.prefix_len).ok());
        if let (Some(link), Some(net)) = (links.get_mut(&message.header.index), net) {
            link.addresses.push(net);
        }
    }
    for link in links.values_mut() {
        link.addresses.sort_unstable();
    }

    let mut routes = Vec::new();
    for message in [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ] {
        let v6 = message.header.address_family == rtnetlink::packet_route::AddressFamily::Inet6;
        let mut stream = handle.route().get(message).execute();
        while let Some(message) = stream.try_next().await.map_err(LinksError::Dump)? {
            if let Some(route) = route(&message, v6) {
                insert_route(&mut routes, route);
            }
        }
    }
    Ok(Links { links, routes })
}

/// The links that the kernel told of, without their addresses.
fn links(messages: impl IntoIterator<Item = LinkMessage>) -> BTreeMap<u32, Link> {
    let mut links = BTreeMap::new();
    let mut vrfs = BTreeSet::new();
    for message in messages {
        let flags = message.header.flags;
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            mac: None,
            running: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp),
            loopback: flags.contains(LinkFlags::Loopback),
            master: None,
            addresses: Vec::new(),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => {
                    link.mac = bytes
                        .try_into()
                        .ok()
                        .map(MacAddr)
                        .filter(|mac| !mac.is_zero());
                }
                LinkAttribute::Controller(master) => link.master = Some(master),
                LinkAttribute::LinkInfo(infos)
                    if infos.contains(&LinkInfo::Kind(InfoKind::Vrf)) =>
                {
                    vrfs.insert(link.index);
                }
                _ => {}
            }
        }
        links.insert(link.index, link);
    }
    for link in links.values_mut() {
        link.master = link.master.filter(|master| !vrfs.contains(master));
    }
    links
}

/// Appends, and past the bound drops the route with the longest prefix.
fn insert_route(routes: &mut Vec<Route>, route: Route) {
    routes.push(route);
    if routes.len() > Links::MAX_ROUTES {
        let longest = (0..routes.len())
            .max_by_key(|at| routes.get(*at).map(|route| route.destination.prefix_len()));
        if let Some(at) = longest {
            routes.remove(at);
        }
    }
}

fn route(message: &RouteMessage, v6: bool) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut table = u32::from(message.header.table);
    let (mut address, mut link, mut metric) = (None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(ip)) => address = Some(IpAddr::V4(*ip)),
            RouteAttribute::Destination(RouteAddress::Inet6(ip)) => address = Some(IpAddr::V6(*ip)),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::MultiPath(hops) => {
                link = link.or(hops.first().map(|hop| hop.interface_index));
            }
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Table(id) => table = *id,
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let unspecified = if v6 {
        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
    } else {
        IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
    };
    let destination = IpNet::new(
        address.unwrap_or(unspecified),
        message.header.destination_prefix_length,
    )
    .ok()?;
    Some(Route {
        destination,
        link: link?,
        metric,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(index: u32, name: &str, kind: Option<InfoKind>, master: Option<u32>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
        let kind = kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        message.attributes = [LinkAttribute::IfName(name.to_owned())]
            .into_iter()
            .chain(kind)
            .chain(master.map(LinkAttribute::Controller))
            .collect();
        message
    }

    #[test]
    fn ports_of_bonds_teams_and_bridges_have_a_master_and_members_of_a_vrf_have_none() {
        // Ports before and after what they belong to, as a dump may have them.
        let links = links([
            told(2, "eth0", None, Some(10)),
            told(3, "eth1", None, Some(10)),
            told(4, "eth2", None, Some(11)),
            told(5, "eth3", None, Some(12)),
            told(6, "eth4", None, Some(13)),
            told(10, "bond0", Some(InfoKind::Bond), Some(12)),
            told(11, "team0", Some(InfoKind::Other("team".to_owned())), None),
            told(12, "red", Some(InfoKind::Vrf), None),
            told(13, "br0", Some(InfoKind::Bridge), None),
            told(14, "eth5", None, Some(12)),
        ]);
        let master = |index| links.get(&index).map(|link: &Link| link.master);
        for (port, of) in [(2, 10), (3, 10), (4, 11), (6, 13)] {
            assert_eq!(master(port), Some(Some(of)), "port {port}");
        }
        // A bond may be a member of a VRF itself.
        for alone in [5, 10, 11, 12, 13, 14] {
            assert_eq!(master(alone), Some(None), "link {alone}");
        }
    }
}
