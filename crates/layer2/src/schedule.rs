//! When frames that nobody asked for are sent: ordered by urgency, paced all together.
//!
//! Pure: time is passed in. Each address has at most one entry.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

/// How urgent a frame is; the lower goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// Somebody is asking for the address right now.
    Asked,
    /// The first announcement after a take-over, or a probe.
    First,
    /// A repetition.
    Repeat,
    /// The endless refresh.
    Refresh,
}

/// Gaps between the announcements after a take-over; the endless refresh follows.
///
/// The first two of IPv4 are the request and the reply form; each later announcement has both.
const GAPS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// The gap after announcement number `step` (from 0), or `None` when only the refresh is left.
pub(crate) fn gap(step: usize) -> Option<Duration> {
    GAPS.get(step).copied()
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Schedule {
    entries: HashMap<IpAddr, (Urgency, Instant)>,
    waiting: BTreeSet<(Instant, Urgency, IpAddr)>,
    ready: BTreeSet<(Urgency, Instant, IpAddr)>,
    bucket: Bucket,
}

impl Schedule {
    /// A queue that lets `pace` frames per second through.
    pub(crate) fn new(pace: u32, now: Instant) -> Self {
        Self {
            entries: HashMap::new(),
            waiting: BTreeSet::new(),
            ready: BTreeSet::new(),
            bucket: Bucket::new(pace, now),
        }
    }

    /// Plans the next frame for an address, in place of what was planned for it.
    pub(crate) fn plan(&mut self, ip: IpAddr, urgency: Urgency, due: Instant) {
        self.cancel(ip);
        self.entries.insert(ip, (urgency, due));
        self.waiting.insert((due, urgency, ip));
    }

    /// Plans nothing for an address any more.
    pub(crate) fn cancel(&mut self, ip: IpAddr) {
        if let Some((urgency, due)) = self.entries.remove(&ip) {
            self.waiting.remove(&(due, urgency, ip));
            self.ready.remove(&(urgency, due, ip));
        }
    }

    /// Puts the address ahead of all others, if a first announcement of it is waiting for its turn.
    pub(crate) fn hasten(&mut self, ip: IpAddr, now: Instant) {
        if let Some((Urgency::First, due)) = self.entries.get(&ip).copied()
            && due <= now
        {
            self.plan(ip, Urgency::Asked, due);
        }
    }

    /// The address whose frames are to be sent now; its entry is gone, one frame is paid for.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(IpAddr, Urgency)> {
        while let Some((due, urgency, ip)) = self.waiting.first().copied() {
            if due > now {
                break;
            }
            self.waiting.pop_first();
            self.ready.insert((urgency, due, ip));
        }
        let (urgency, due, ip) = self.ready.first().copied()?;
        if !self.bucket.take(now) {
            return None;
        }
        self.ready.remove(&(urgency, due, ip));
        self.entries.remove(&ip);
        Some((ip, urgency))
    }

    /// Pays for frames that are sent besides: what comes next waits for as much longer.
    pub(crate) fn pay(&mut self, frames: usize, now: Instant) {
        self.bucket.pay(frames, now);
    }

    /// When [`Self::next`] will have something.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let waiting = self.waiting.first().map(|(due, ..)| *due);
        if self.ready.is_empty() && waiting.is_none_or(|due| due > now) {
            return waiting;
        }
        Some(self.bucket.full_at(now))
    }
}

/// A token bucket: a frame costs a token, tokens come at a steady rate.
#[derive(Debug)]
struct Bucket {
    interval: Duration,
    burst: u32,
    /// When the bucket would be empty if it were never refilled beyond now: the "theoretical
    /// arrival time" of the generic cell rate algorithm.
    next: Instant,
}

impl Bucket {
    fn new(pace: u32, now: Instant) -> Self {
        let pace = pace.max(1);
        Self {
            interval: Duration::from_secs(1) / pace,
            burst: (pace / 10).max(1),
            next: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let next = self.next.max(now);
        if next.duration_since(now) > self.interval * (self.burst - 1) {
            return false;
        }
        self.next = next + self.interval;
        true
    }

    /// Takes tokens that may not be there yet.
    fn pay(&mut self, frames: usize, now: Instant) {
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        self.next = self.next.max(now) + self.interval.saturating_mul(frames);
    }

    fn full_at(&self, now: Instant) -> Instant {
        let slack = self.interval * (self.burst - 1);
        self.next.checked_sub(slack).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    #[test]
    fn gaps_grow_for_some_seconds_and_end() {
        let gaps: Vec<Duration> = (0..).map_while(gap).collect();
        assert!(gaps.is_sorted());
        let total: Duration = gaps.iter().sum();
        assert!(
            total > Duration::from_secs(5) && total < Duration::from_secs(15),
            "{total:?}"
        );
    }

    #[test]
    fn frames_are_paced_and_lose_nothing() {
        let start = Instant::now();
        let mut schedule = Schedule::new(1_000, start);
        for n in 0..1_000 {
            schedule.plan(ip(n), Urgency::First, start);
        }
        let mut sent = Vec::new();
        let mut now = start;
        while sent.len() < 1_000 {
            while let Some((ip, _)) = schedule.next(now) {
                sent.push((now, ip));
            }
            let Some(deadline) = schedule.deadline(now) else {
                break;
            };
            assert!(deadline >= now);
            now = deadline.max(now + Duration::from_micros(10));
        }
        assert_eq!(
            sent.iter()
                .map(|(_, ip)| *ip)
                .collect::<BTreeSet<_>>()
                .len(),
            1_000
        );
        assert_eq!(
            sent.iter().filter(|(at, _)| *at == start).count(),
            100,
            "the burst"
        );
        let took = now - start;
        assert!(
            took >= Duration::from_millis(890) && took < Duration::from_millis(950),
            "{took:?}"
        );
        assert_eq!(schedule.deadline(now), None);
    }

    #[test]
    fn what_is_asked_for_goes_first_and_a_refresh_last() {
        let start = Instant::now();
        let mut schedule = Schedule::new(1, start);
        assert!(schedule.next(start).is_none());
        schedule.plan(ip(0), Urgency::Refresh, start);
        for n in 1..10 {
            schedule.plan(ip(n), Urgency::First, start);
        }
        schedule.hasten(ip(7), start);
        schedule.hasten(ip(0), start);
        let mut order = Vec::new();
        let mut now = start;
        while order.len() < 10 {
            order.extend(schedule.next(now));
            now += Duration::from_secs(1);
        }
        assert_eq!(order.first(), Some(&(ip(7), Urgency::Asked)));
        assert_eq!(order.last(), Some(&(ip(0), Urgency::Refresh)));
    }

    #[test]
    fn an_address_has_one_entry_and_can_be_cancelled() {
        let start = Instant::now();
        let mut schedule = Schedule::new(100, start);
        schedule.plan(ip(1), Urgency::First, start);
        schedule.plan(ip(1), Urgency::Repeat, start + Duration::from_secs(1));
        assert_eq!(schedule.next(start), None);
        assert_eq!(
            schedule.deadline(start),
            Some(start + Duration::from_secs(1))
        );
        schedule.cancel(ip(1));
        assert_eq!(schedule.deadline(start), None);
    }
}
