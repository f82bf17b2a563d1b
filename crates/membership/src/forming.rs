//! From when on steadiness decides who is elected. Pure.
//!
//! Nodes that start together become steady one after the other, milliseconds apart and as news travel. If the first went
//! before the others from that moment on, it would take every address only to give most of them back. So a company *forms*:
//! whoever settles while nobody is steady is one of its *founders*, and all founders are steady with the first of them. A
//! little later, when that is known everywhere, the company has formed; who comes from then on is a newcomer and waits
//! until it is steady itself.

use std::time::{Duration, Instant};

/// Where the company stands, as this node sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Forming {
    /// The own view is not complete.
    #[default]
    Unsettled,
    /// Nobody is steady; this node is a founder.
    Founding,
    /// Somebody is since then, and with it this node.
    Steadying(Instant),
    /// Newcomers are told apart.
    Formed {
        /// This node is none of them.
        founder: bool,
    },
}

impl Forming {
    /// Takes what is known now: whether the own view is settled, and whether any member is steady, this node included.
    /// News need less than `together` to be everywhere.
    pub(crate) fn observe(
        &mut self,
        settled: bool,
        any_steady: bool,
        together: Duration,
        now: Instant,
    ) {
        *self = match *self {
            _ if !settled => Self::Unsettled,
            _ if !any_steady => Self::Founding,
            Self::Unsettled => Self::Formed { founder: false },
            Self::Founding => Self::Steadying(now),
            Self::Steadying(since) if now.saturating_duration_since(since) >= together => {
                Self::Formed { founder: true }
            }
            formed => formed,
        };
    }

    /// This node was away, and is a newcomer where others are steady.
    pub(crate) const fn was_away(&mut self) {
        if let Self::Steadying(_) | Self::Formed { .. } = self {
            *self = Self::Formed { founder: false };
        }
    }

    /// Whether this node is steady because the first founder is.
    pub(crate) const fn founder_is_steady(self) -> bool {
        matches!(self, Self::Steadying(_) | Self::Formed { founder: true })
    }

    /// Since when the company is about to have formed.
    pub(crate) const fn since(self) -> Option<Instant> {
        match self {
            Self::Steadying(since) => Some(since),
            _ => None,
        }
    }

    /// Whether steady members go before others. Also while the own view is not complete: whoever is known to be steady
    /// was there before.
    pub(crate) const fn formed(self) -> bool {
        matches!(self, Self::Unsettled | Self::Formed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOGETHER: Duration = Duration::from_secs(1);

    #[test]
    fn founders_are_steady_with_the_first_and_go_before_nobody_until_all_know_it() {
        let now = Instant::now();
        let mut forming = Forming::default();
        forming.observe(true, false, TOGETHER, now);
        assert!(!forming.formed() && !forming.founder_is_steady());
        forming.observe(true, true, TOGETHER, now);
        assert!(!forming.formed() && forming.founder_is_steady());
        forming.observe(true, true, TOGETHER, now + TOGETHER);
        assert!(forming.formed() && forming.founder_is_steady());
    }

    #[test]
    fn who_settles_where_somebody_is_steady_is_a_newcomer() {
        let now = Instant::now();
        let mut forming = Forming::default();
        forming.observe(false, true, TOGETHER, now);
        assert!(forming.formed() && !forming.founder_is_steady());
        forming.observe(true, true, TOGETHER, now);
        assert!(forming.formed() && !forming.founder_is_steady());
        forming.observe(true, true, TOGETHER, now + TOGETHER * 2);
        assert!(!forming.founder_is_steady());
    }

    #[test]
    fn a_founder_that_was_away_is_a_newcomer_and_where_nobody_is_steady_all_begin_anew() {
        let now = Instant::now();
        let mut forming = Forming::Formed { founder: true };
        forming.was_away();
        forming.observe(true, true, TOGETHER, now);
        assert!(forming.formed() && !forming.founder_is_steady());
        forming.observe(true, false, TOGETHER, now);
        forming.was_away();
        assert!(!forming.formed());
        forming.observe(true, true, TOGETHER, now);
        assert!(forming.founder_is_steady());
    }
}
