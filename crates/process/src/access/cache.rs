//! What the API server said of tokens, for a short time. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Verdict;

/// How long who may is let in without asking again: so long may a right that was taken away go on to work.
const ALLOWED: Duration = Duration::from_mins(1);
/// The same for who may not: a right that was just given is met soon.
const REFUSED: Duration = Duration::from_secs(10);
/// How long who was let in goes on to be let in while the API server cannot be asked.
const LAST_RESORT: Duration = Duration::from_mins(10);
/// Answers kept. A cluster has a few scrapers; the rest is somebody's guesses.
const MOST: usize = 256;

/// The answers, by the digest of the token.
#[derive(Debug, Default)]
pub(super) struct Cache(HashMap<Vec<u8>, Entry>);

#[derive(Debug)]
struct Entry {
    verdict: Verdict,
    at: Instant,
}

impl Entry {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    fn allowed(&self) -> bool {
        self.verdict == Verdict::Allowed
    }
}

impl Cache {
    /// What was said so shortly ago that nobody need be asked.
    pub(super) fn fresh(&self, token: &[u8], now: Instant) -> Option<Verdict> {
        let entry = self.0.get(token)?;
        let good = if entry.allowed() { ALLOWED } else { REFUSED };
        (entry.age(now) < good).then(|| entry.verdict.clone())
    }

    /// What counts where nobody can be asked: only that somebody was let in.
    pub(super) fn last_resort(&self, token: &[u8], now: Instant) -> Option<Verdict> {
        let entry = self.0.get(token)?;
        (entry.allowed() && entry.age(now) < LAST_RESORT).then(|| entry.verdict.clone())
    }

    /// Keeps an answer. Where there is no room, one that is of no use any more goes, else the oldest of those
    /// who may not, else the oldest: guesses cannot drive out who may.
    pub(super) fn put(&mut self, token: &[u8], verdict: Verdict, now: Instant) {
        if !self.0.contains_key(token) && self.0.len() >= MOST {
            self.0.retain(|_, entry| {
                let of_use = if entry.allowed() {
                    LAST_RESORT
                } else {
                    REFUSED
                };
                entry.age(now) < of_use
            });
        }
        if !self.0.contains_key(token) && self.0.len() >= MOST {
            let least = self
                .0
                .iter()
                .min_by_key(|(_, entry)| (entry.allowed(), entry.at))
                .map(|(token, _)| token.clone());
            if let Some(least) = least {
                self.0.remove(&least);
            }
        }
        let entry = Entry { verdict, at: now };
        self.0.insert(token.to_owned(), entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn answers_grow_old_refusals_sooner() {
        let now = Instant::now();
        let mut cache = Cache::default();
        cache.put(b"good", Verdict::Allowed, now);
        cache.put(b"bad", Verdict::Unknown, now);
        for (after, good, bad) in [(9, true, true), (11, true, false), (61, false, false)] {
            let then = now + after * SECOND;
            assert_eq!(cache.fresh(b"good", then).is_some(), good, "{after} s");
            assert_eq!(cache.fresh(b"bad", then).is_some(), bad, "{after} s");
        }
    }

    #[test]
    fn the_last_resort_ends_and_is_for_who_may() {
        let now = Instant::now();
        let mut cache = Cache::default();
        cache.put(b"good", Verdict::Allowed, now);
        let user = "eve".to_owned();
        cache.put(b"bad", Verdict::Forbidden { user }, now);
        let minutes = |count: u32| now + count * 60 * SECOND;
        assert_eq!(
            cache.last_resort(b"good", minutes(9)),
            Some(Verdict::Allowed)
        );
        assert_eq!(cache.last_resort(b"good", minutes(10)), None);
        assert_eq!(cache.last_resort(b"bad", now), None);
    }

    #[test]
    fn guesses_neither_grow_it_nor_drive_out_who_may() {
        let now = Instant::now();
        let mut cache = Cache::default();
        cache.put(b"good", Verdict::Allowed, now);
        for guess in 0..10 * MOST {
            let at = now + SECOND;
            cache.put(&guess.to_be_bytes(), Verdict::Unknown, at);
        }
        assert_eq!(cache.0.len(), MOST);
        assert_eq!(cache.fresh(b"good", now + SECOND), Some(Verdict::Allowed));
        for scraper in 0..10 * MOST {
            cache.put(&scraper.to_be_bytes(), Verdict::Allowed, now + SECOND);
        }
        assert_eq!(cache.0.len(), MOST);
    }
}
