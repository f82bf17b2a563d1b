//! IPv6 multicast groups joined by MLD, so that switches which snoop forward them here.
//!
//! Nothing is ever received by these sockets; they exist for their memberships alone. The kernel
//! bounds the memory of one socket's options, so another is opened when one is full.

use std::{collections::HashMap, io, net::Ipv6Addr};

use socket2::{Domain, Socket, Type};

/// The groups this process is a member of, per interface.
#[derive(Debug, Default)]
pub struct Groups {
    sockets: Vec<Socket>,
    /// Which socket holds a membership.
    joined: HashMap<(u32, Ipv6Addr), usize>,
}

impl Groups {
    /// Joins `group` on the interface with this index; joining twice is joining once.
    pub fn join(&mut self, link: u32, group: Ipv6Addr) -> io::Result<()> {
        if self.joined.contains_key(&(link, group)) {
            return Ok(());
        }
        let newest = self.sockets.len().checked_sub(1);
        if let Some((at, socket)) = newest.and_then(|at| Some((at, self.sockets.get(at)?))) {
            match socket.join_multicast_v6(&group, link) {
                Ok(()) => {
                    self.joined.insert((link, group), at);
                    return Ok(());
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => {}
                Err(error) => return Err(error),
            }
        }
        let socket = Socket::new(Domain::IPV6, Type::DGRAM.cloexec(), None)?;
        socket.join_multicast_v6(&group, link)?;
        self.joined.insert((link, group), self.sockets.len());
        self.sockets.push(socket);
        Ok(())
    }

    /// Leaves `group`; without a membership nothing happens.
    pub fn leave(&mut self, link: u32, group: Ipv6Addr) {
        let socket = self
            .joined
            .remove(&(link, group))
            .and_then(|at| self.sockets.get(at));
        if let Some(socket) = socket {
            // An interface that is gone has taken its memberships with it.
            let _ = socket.leave_multicast_v6(&group, link);
        }
        if self.joined.is_empty() {
            self.sockets.clear();
        }
    }
}
