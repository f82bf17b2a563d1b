//! Who is on a link, from the kernel's neighbour table.

use std::io;
use std::net::Ipv6Addr;

use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

/// The link-local address of the router on an interface: of the neighbour that
/// says by router advertisements (RFC 4861) that it is one, else of the only
/// neighbour there is.
///
/// # Errors
/// There is no such interface, no such neighbour, or more than one; or the
/// kernel does not answer. The text says which.
pub async fn router_on(interface: &str) -> io::Result<Ipv6Addr> {
    let index = crate::tcp::interface_index(interface)?;
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let request = handle
        .neighbours()
        .get()
        .set_address_family(AddressFamily::Inet6);
    let table: Result<Vec<NeighbourMessage>, _> = request.execute().try_collect().await;
    connection.abort();
    let table = table.map_err(io::Error::other)?;
    let here: Vec<Neighbour> = table
        .iter()
        .filter(|entry| entry.header.ifindex == index)
        .filter_map(Neighbour::read)
        .collect();
    choose(&here).map_err(|problem| {
        let text = format!("{interface}: {problem}");
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbour {
    address: Ipv6Addr,
    router: bool,
}

impl Neighbour {
    /// Of an entry with a link-local address that was reached or may be.
    fn read(entry: &NeighbourMessage) -> Option<Self> {
        if matches!(
            entry.header.state,
            NeighbourState::Failed | NeighbourState::Incomplete
        ) {
            return None;
        }
        let address = entry
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(*ip),
                _ => None,
            })?;
        address.is_unicast_link_local().then(|| Self {
            address,
            router: entry.header.flags.contains(NeighbourFlags::Router),
        })
    }
}

fn choose(here: &[Neighbour]) -> Result<Ipv6Addr, &'static str> {
    let routers: Vec<Ipv6Addr> = here
        .iter()
        .filter(|neighbour| neighbour.router)
        .map(|neighbour| neighbour.address)
        .collect();
    match (&routers[..], here) {
        ([one], _) => Ok(*one),
        ([], [one]) => Ok(one.address),
        ([], []) => Err(
            "no neighbour is known there by its IPv6 link-local address: does the router send router advertisements?",
        ),
        ([], _) => Err(
            "it has several neighbours and none says that it is a router: set neighborAddress to the one that is meant",
        ),
        _ => Err("it has several routers: set neighborAddress to the one that is meant"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbour(last: u16, router: bool) -> Neighbour {
        Neighbour {
            address: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last),
            router,
        }
    }

    #[test]
    fn the_router_is_meant_else_the_only_neighbour() {
        let (host, other, router) = (neighbour(1, false), neighbour(2, false), neighbour(3, true));
        assert_eq!(choose(&[host, router, other]), Ok(router.address));
        assert_eq!(choose(&[host]), Ok(host.address));
        assert!(choose(&[]).unwrap_err().contains("router advertisements"));
        assert!(
            choose(&[host, other])
                .unwrap_err()
                .contains("several neighbours")
        );
        let second = neighbour(4, true);
        assert!(
            choose(&[router, second])
                .unwrap_err()
                .contains("several routers")
        );
    }
}
