//! Addresses that are set aside: a speaker found, before their first use, that a foreign host on the
//! segment has them, and the Eip says `probe: Avoid`.
//!
//! A Service that did not ask for such an address by name is given another, where there is one; until
//! then it keeps it, because the host may go. Afterwards the address is given to nobody for a while.

use std::net::IpAddr;

use super::{Index, Millis, Slot};

/// How long an address that nobody holds stays set aside.
const ASIDE: Millis = 600_000;

impl Index {
    /// Takes in whether the address is set aside.
    pub fn set_aside(&mut self, address: IpAddr, aside: bool, now: Millis) {
        let news = if aside {
            self.aside
                .insert(address, now.saturating_add(ASIDE))
                .is_none()
        } else {
            self.aside.remove(&address).is_some()
        };
        if news {
            self.refresh_taken(address);
            let record = self.slots.get(&address).and_then(Slot::record).cloned();
            self.wake_holders(record.as_ref());
            if !aside {
                self.wake_for(address);
            }
        }
    }

    /// Whether the address is set aside.
    pub(super) fn is_aside(&self, address: IpAddr) -> bool {
        self.aside.contains_key(&address)
    }

    /// Nobody holds the address any more: from now on it stays set aside for its time.
    pub(super) fn leave_aside(&mut self, address: IpAddr, now: Millis) {
        if let Some(until) = self.aside.get_mut(&address) {
            *until = now.saturating_add(ASIDE);
        }
    }

    /// Gives addresses another chance that were set aside long ago and are held by nobody.
    pub(super) fn end_aside(&mut self, now: Millis) {
        let over: Vec<_> = self
            .aside
            .iter()
            .filter(|(address, until)| **until <= now && !self.slots.contains_key(address))
            .map(|(address, _)| *address)
            .collect();
        for address in over {
            self.aside.remove(&address);
            self.refresh_taken(address);
            self.wake_for(address);
        }
    }

    /// When [`tick`](Self::tick) gives the next address another chance, which may help somebody who waits.
    #[must_use]
    pub fn next_tick(&self) -> Option<Millis> {
        let unheld = self
            .aside
            .iter()
            .filter(|(address, _)| !self.slots.contains_key(address));
        unheld.map(|(_, until)| *until).min()
    }

    fn wake_for(&mut self, address: IpAddr) {
        self.waiting.wake_address(address, &mut self.woken);
        for eip in self.pools.giving(address) {
            self.waiting.wake_oldest(&eip, &mut self.woken);
        }
    }
}
