//! Whose turn it is: Services to plan for, each once, in order of rank and age.

use std::collections::{BTreeMap, HashMap};

use openelb_ipam::ServiceKey;

/// Which of two Services goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// It waited, and what it waits for may be there: before any newcomer takes it.
    Waiting,
    /// Somebody just did something.
    User,
    /// It was found so.
    Repair,
}

/// Services whose turn comes, each once, in order of rank and age in the queue.
#[derive(Default)]
pub(crate) struct Queue {
    order: BTreeMap<(Rank, i64, u64), ServiceKey>,
    places: HashMap<ServiceKey, (Rank, i64, u64)>,
    next: u64,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn push(&mut self, key: ServiceKey, rank: Rank, created: i64) {
        if let Some(place) = self.places.get(&key).copied() {
            if place.0 <= rank {
                return;
            }
            self.order.remove(&place);
        }
        // Those that wait, and those found so, go by age of the Service: the oldest is served first.
        let age = if rank == Rank::User { 0 } else { created };
        let place = (rank, age, self.next);
        self.next = self.next.wrapping_add(1);
        self.order.insert(place, key.clone());
        self.places.insert(key, place);
    }

    pub(crate) fn pop(&mut self) -> Option<(ServiceKey, Rank)> {
        let ((rank, ..), key) = self.order.pop_first()?;
        self.places.remove(&key);
        Some((key, rank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ServiceKey {
        ServiceKey::new("default", name)
    }

    fn order(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop())
            .map(|(key, _)| key.name.to_string())
            .collect()
    }

    #[test]
    fn what_waits_goes_before_a_newcomer_and_a_newcomer_before_repair() {
        let mut queue = Queue::default();
        queue.push(key("repair"), Rank::Repair, 1);
        queue.push(key("new"), Rank::User, 9);
        queue.push(key("newer"), Rank::User, 8);
        queue.push(key("younger"), Rank::Waiting, 7);
        queue.push(key("older"), Rank::Waiting, 6);
        assert_eq!(
            order(&mut queue),
            ["older", "younger", "new", "newer", "repair"]
        );
    }

    #[test]
    fn a_service_stands_in_the_queue_once_at_its_best_place() {
        let mut queue = Queue::default();
        queue.push(key("a"), Rank::Repair, 2);
        queue.push(key("b"), Rank::Repair, 1);
        queue.push(key("a"), Rank::User, 2);
        queue.push(key("a"), Rank::Repair, 2);
        assert_eq!(order(&mut queue), ["a", "b"]);
    }
}
