//! What is written down before a world is gone: the state of things, for people who look at a test that failed.
//!
//! Whoever has something to tell registers it. The first part of a world that is dropped lets all of them speak, while
//! the others still stand; so does each later one that is not dropped right after another. Files are appended to, with
//! the time.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Parts of a world go within so long of each other when a test ends; one that went earlier was part of the story.
const JUST_NOW: Duration = Duration::from_millis(500);

type Speaker = dyn Fn(&str) + Send + Sync;

static SPEAKERS: Mutex<(Vec<Weak<Speaker>>, Option<Instant>)> = Mutex::new((Vec::new(), None));

/// Somebody who has something to tell, until this is dropped.
pub(crate) struct Registration {
    _speaker: Arc<Speaker>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Registration")
    }
}

/// Registers what writes something down; it is told the time.
pub(crate) fn register(speaker: impl Fn(&str) + Send + Sync + 'static) -> Registration {
    let speaker: Arc<Speaker> = Arc::new(speaker);
    let mut all = SPEAKERS.lock().unwrap_or_else(PoisonError::into_inner);
    all.0.retain(|other| other.strong_count() > 0);
    all.0.push(Arc::downgrade(&speaker));
    Registration { _speaker: speaker }
}

/// Lets the user look at the world if that was asked for, and writes everything down unless that was just done. To be
/// called by every part of a world first of all when it is dropped.
pub(crate) fn before_the_end() {
    crate::scenario::stay();
    let mut all = SPEAKERS.lock().unwrap_or_else(PoisonError::into_inner);
    if all.1.is_some_and(|last| last.elapsed() < JUST_NOW) {
        all.1 = Some(Instant::now());
        return;
    }
    let now = Timestamp::now().to_string();
    let speakers: Vec<Arc<Speaker>> = all.0.iter().filter_map(Weak::upgrade).collect();
    std::thread::scope(|scope| {
        for speaker in &speakers {
            scope.spawn(|| speaker(&now));
        }
    });
    all.1 = Some(Instant::now());
}

/// Runs a shell script that writes down the state of things; for at most ten seconds, since the things may hang.
/// Whether it succeeds is no concern of the test: it writes what it can.
pub(crate) fn run(script: &str, args: &[impl AsRef<OsStr>]) -> bool {
    Command::new("timeout")
        .args(["10", "bash", "-c", script, "record"])
        .args(args)
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
