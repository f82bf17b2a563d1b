//! When there is time for what can wait: addresses first, then what is said about them.
//!
//! The engine tells what it is doing; whoever writes at lower priority waits here before each write. A
//! write goes out once address work has rested for [`QUIET`]; under a load that never rests, at the
//! latest at the deadline that the caller sets, so that nothing starves.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long address work must have rested.
pub(crate) const QUIET: Duration = Duration::from_millis(150);

/// Since when address work rests; `None` while it goes on.
type Since = Option<Instant>;

/// The engine's side.
pub(crate) struct Activity(watch::Sender<Since>);

/// The waiting side; clones wait each on its own.
#[derive(Clone)]
pub(crate) struct Calm(watch::Receiver<Since>);

/// Both sides, at rest for long.
pub(crate) fn channel() -> (Activity, Calm) {
    let (sender, receiver) = watch::channel(Instant::now().checked_sub(QUIET));
    (Activity(sender), Calm(receiver))
}

impl Activity {
    /// Address work goes on.
    pub(crate) fn works(&self) {
        self.0.send_if_modified(|since| since.take().is_some());
    }

    /// Nothing is left to do for addresses.
    pub(crate) fn rests(&self) {
        self.0.send_if_modified(|since| {
            let begins = since.is_none();
            since.get_or_insert_with(Instant::now);
            begins
        });
    }
}

impl Calm {
    /// Waits until address work has rested for [`QUIET`], or until `deadline`.
    pub(crate) async fn wait(&mut self, deadline: Instant) {
        loop {
            let since = *self.0.borrow_and_update();
            tokio::select! {
                () = sleep_until(goes_at(since, deadline)) => return,
                changed = self.0.changed() => {
                    if changed.is_err() {
                        // The engine has ended: there is no address work any more.
                        return;
                    }
                }
            }
        }
    }
}

/// When a write may go out.
fn goes_at(since: Since, deadline: Instant) -> Instant {
    since.map_or(deadline, |since| (since + QUIET).min(deadline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_goes_out_after_a_rest_and_at_the_deadline_at_the_latest() {
        let now = Instant::now();
        let deadline = now + QUIET * 4;
        assert_eq!(goes_at(None, deadline), deadline);
        assert_eq!(goes_at(Some(now), deadline), now + QUIET);
        assert_eq!(goes_at(Some(now + QUIET * 4), deadline), deadline);
    }

    #[tokio::test]
    async fn nobody_waits_for_an_engine_that_rests_or_has_ended() {
        let (activity, mut calm) = channel();
        let never = Instant::now() + Duration::from_hours(24);
        calm.wait(never).await;
        activity.works();
        drop(activity);
        calm.wait(never).await;
    }

    #[tokio::test]
    async fn a_rest_that_is_broken_begins_anew() {
        let (activity, mut calm) = channel();
        activity.works();
        activity.rests();
        let first = *calm.0.borrow_and_update();
        activity.rests();
        assert_eq!(*calm.0.borrow(), first, "resting on is no news");
        activity.works();
        assert_eq!(*calm.0.borrow(), None);
        activity.rests();
        assert!(*calm.0.borrow() > first);
    }
}
