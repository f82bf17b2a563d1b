//! Addresses that were given back a moment ago.
//!
//! A speaker that cannot reach the API server may still announce them, so another Service gets them
//! only when nothing else is free.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use super::Millis;

/// How long an address rests.
pub(super) const REST: Millis = 30_000;

/// Resting addresses, in the order in which they were given back.
#[derive(Debug, Default)]
pub(super) struct Resting {
    until: HashMap<IpAddr, Millis>,
    order: VecDeque<(Millis, IpAddr)>,
}

impl Resting {
    /// Begins, or begins anew, an address's rest.
    pub(super) fn begin(&mut self, address: IpAddr, now: Millis) {
        let until = now.saturating_add(REST);
        if self.until.insert(address, until) != Some(until) {
            self.order.push_back((until, address));
        }
    }

    /// Ends an address's rest because it is given again.
    pub(super) fn end(&mut self, address: IpAddr) {
        self.until.remove(&address);
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.until.contains_key(&address)
    }

    /// Addresses whose rest is over; they rest no more.
    pub(super) fn expired(&mut self, now: Millis) -> Vec<IpAddr> {
        let mut over = Vec::new();
        while let Some((until, address)) = self
            .order
            .front()
            .copied()
            .filter(|(until, _)| *until <= now)
        {
            self.order.pop_front();
            if self.until.get(&address) == Some(&until) {
                self.until.remove(&address);
                over.push(address);
            }
        }
        over
    }

    /// The resting addresses, the longest resting first.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.order
            .iter()
            .filter(|(until, address)| self.until.get(address) == Some(until))
            .map(|(_, address)| *address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_begun_anew_lasts_its_full_time() {
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let mut resting = Resting::default();
        resting.begin(address, 0);
        resting.begin(address, 10);
        assert!(resting.expired(REST).is_empty());
        assert_eq!(resting.oldest_first().count(), 1);
        assert_eq!(resting.expired(REST + 10), [address]);
        assert!(!resting.contains(address));
    }
}
