//! When a certificate that was read is also served: only once clients trust it.

use std::time::Duration;

use jiff::Timestamp;

use super::{bundle::Bundle, config::CertConfig};

/// How far the webhook configurations are, in monotonic time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Since the candidate was read.
    pub waiting: Duration,
    /// Since all configurations were seen to trust it; `None` while one does not.
    pub trusted: Option<Duration>,
}

/// How long `candidate` has to wait before it replaces `current`; zero means now.
#[must_use]
pub fn wait(
    current: Option<&Bundle>,
    candidate: &Bundle,
    progress: Progress,
    now: Timestamp,
    config: &CertConfig,
) -> Duration {
    let Some(current) = current else {
        return Duration::ZERO;
    };
    let current_is_good = current.is_trusted_by(&current.trust, now);
    if !current_is_good || candidate.is_trusted_by(&current.trust, now) {
        return Duration::ZERO;
    }
    let patience = config.patience.saturating_sub(progress.waiting);
    match progress.trusted {
        Some(trusted) => config.grace.saturating_sub(trusted).min(patience),
        None => patience,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::issue;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn config() -> CertConfig {
        CertConfig::new("lb", &[])
    }

    fn new() -> Bundle {
        issue::everything(&[], &config(), now()).unwrap()
    }

    fn progress(waiting: u64, trusted: Option<u64>) -> Progress {
        Progress {
            waiting: seconds(waiting),
            trusted: trusted.map(seconds),
        }
    }

    #[test]
    fn the_first_certificate_and_one_of_the_same_authority_are_served_at_once() {
        let first = new();
        assert!(wait(None, &first, progress(0, None), now(), &config()).is_zero());
        let renewed = issue::renewed(&first, &config().names, &config(), now()).unwrap();
        assert!(wait(Some(&first), &renewed, progress(0, None), now(), &config()).is_zero());
    }

    #[test]
    fn one_of_a_new_authority_waits_until_clients_know_it_but_not_for_ever() {
        let (old, new) = (new(), new());
        for (waiting, trusted, expected) in [
            (0, None, 60),
            (3, Some(0), 5),
            (8, Some(5), 0),
            (59, Some(0), 1),
            (60, None, 0),
        ] {
            let progress = progress(waiting, trusted);
            let wait = wait(Some(&old), &new, progress, now(), &config());
            assert_eq!(wait, seconds(expected), "{progress:?}");
        }
    }

    #[test]
    fn an_expired_certificate_is_replaced_at_once() {
        let (old, new) = (new(), new());
        let later = now() + config().serving_life + seconds(60);
        assert!(wait(Some(&old), &new, progress(0, None), later, &config()).is_zero());
    }
}
