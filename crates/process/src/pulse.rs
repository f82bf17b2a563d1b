//! Whether the process's loops go round: what `/healthz` is made of.
//!
//! A loop [beats](Pulse::beat) at each turn, and turns by itself at least every [`TURN`]. One that has not for
//! [`STANDSTILL`] hangs, and only a restart helps. A task that waits for others as long as it must does not
//! beat, and is only watched for a panic, which would take it away without a word.
//!
//! Loops that beat must not wait for the API server in between: a server that is away is no reason to restart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Within this time a loop goes round, also when nothing happens.
const TURN: Duration = Duration::from_secs(5);

/// A loop that has not gone round for this long hangs. Long, because a machine may starve a process for
/// seconds, and a speaker that is restarted for that helps nobody.
const STANDSTILL: Duration = Duration::from_mins(1);

/// The loops and tasks of the process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Pulses(Arc<Mutex<BTreeMap<String, Vital>>>);

#[derive(Clone, Copy, Debug)]
enum Vital {
    /// Goes round; last at this moment.
    Beat(Instant),
    /// Waits for others.
    Runs,
    Panicked,
}

impl Vital {
    /// What is wrong at `now`.
    fn fault(self, name: &str, now: Instant) -> Option<String> {
        match self {
            Self::Runs => None,
            Self::Panicked => Some(format!("{name} has panicked")),
            Self::Beat(last) => {
                let since = now.saturating_duration_since(last);
                (since > STANDSTILL)
                    .then(|| format!("{name} has been standing still for {} s", since.as_secs()))
            }
        }
    }
}

impl Pulses {
    /// A loop that goes round at least every [`TURN`]; it counts until the pulse is dropped.
    #[must_use]
    pub fn of_loop(&self, name: &str) -> Pulse {
        self.add(name, Vital::Beat(Instant::now()))
    }

    /// The same work, which counts until it ends: it must not panic.
    pub fn of_task<F: Future>(
        &self,
        name: &str,
        work: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let pulse = self.add(name, Vital::Runs);
        async move {
            let done = work.await;
            drop(pulse);
            done
        }
    }

    /// What is wrong now, in words; empty when all is well.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.faults_at(Instant::now())
    }

    fn faults_at(&self, now: Instant) -> Vec<String> {
        self.with(|vitals| {
            let faults = vitals.iter();
            faults
                .filter_map(|(name, vital)| vital.fault(name, now))
                .collect()
        })
    }

    fn add(&self, name: &str, vital: Vital) -> Pulse {
        self.with(|vitals| vitals.insert(name.to_owned(), vital));
        Pulse {
            name: name.to_owned(),
            pulses: self.clone(),
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<String, Vital>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The sign of life of one loop or task.
#[derive(Debug)]
pub struct Pulse {
    name: String,
    pulses: Pulses,
}

impl Pulse {
    /// Waits until the loop should go round again although nothing happens.
    pub async fn due(&self) {
        tokio::time::sleep(TURN).await;
    }

    /// Says that the loop has gone round.
    pub fn beat(&self) {
        let beat = Vital::Beat(Instant::now());
        self.pulses.with(|vitals| {
            if let Some(vital) = vitals.get_mut(&self.name) {
                *vital = beat;
            }
        });
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        let panics = std::thread::panicking();
        self.pulses.with(|vitals| match vitals.get_mut(&self.name) {
            Some(vital) if panics => *vital = Vital::Panicked,
            _ => drop(vitals.remove(&self.name)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stands_still_is_named_and_one_that_ended_is_not() {
        let pulses = Pulses::default();
        let engine = pulses.of_loop("the engine");
        let writer = pulses.of_task("the writer", std::future::pending::<()>());
        let soon = Instant::now() + STANDSTILL / 2;
        assert!(pulses.faults_at(soon).is_empty());
        let late = Instant::now() + STANDSTILL + Duration::from_secs(5);
        let faults = pulses.faults_at(late);
        assert_eq!(faults.len(), 1);
        assert!(
            faults[0].starts_with("the engine has been standing still for 6"),
            "{faults:?}"
        );
        drop((engine, writer));
        assert!(pulses.faults_at(late).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_goes_round_stays_well_although_nothing_happens() {
        let pulses = Pulses::default();
        let engine = pulses.of_loop("the engine");
        pulses.with(|vitals| {
            let long_ago = Instant::now().checked_sub(2 * STANDSTILL).unwrap();
            vitals.insert("the engine".to_owned(), Vital::Beat(long_ago));
        });
        assert_eq!(pulses.faults().len(), 1);
        engine.due().await;
        engine.beat();
        assert!(pulses.faults().is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_not_forgotten_and_an_end_is() {
        let pulses = Pulses::default();
        let panics = pulses.of_task("the writer", async { panic!("as planned") });
        assert!(tokio::spawn(panics).await.is_err());
        tokio::spawn(pulses.of_task("the reader", async {}))
            .await
            .unwrap();
        assert_eq!(pulses.faults(), ["the writer has panicked"]);
    }
}
