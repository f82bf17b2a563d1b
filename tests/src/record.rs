//! What is written down before a world is gone: the state of things, for people who look at a test that failed.
//!
//! Whoever has something to tell holds a [`Record`]. The first part of a world that is dropped lets all of them speak,
//! while the others still stand; so does each later one that is not dropped right after another. Files are appended to,
//! with the time.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// Parts of a world go within so long of each other when a test ends; one that went earlier was part of the story.
const JUST_NOW: Duration = Duration::from_millis(500);

type Speaker = dyn Fn(&str) + Send + Sync;

static SPEAKERS: Mutex<(Vec<Weak<Speaker>>, Option<Instant>)> = Mutex::new((Vec::new(), None));

/// What a part of a world has to tell. Let it be the first field of the part: dropped, it lets all speak, this one too,
/// and what the rest of the part runs still lives then.
pub struct Record {
    speaker: Option<Arc<Speaker>>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Record")
    }
}

impl Record {
    /// Of what writes something down; it is told the time.
    pub(crate) fn new(speaker: impl Fn(&str) + Send + Sync + 'static) -> Self {
        let speaker: Arc<Speaker> = Arc::new(speaker);
        let mut all = SPEAKERS.lock().unwrap_or_else(PoisonError::into_inner);
        all.0.retain(|other| other.strong_count() > 0);
        all.0.push(Arc::downgrade(&speaker));
        Self {
            speaker: Some(speaker),
        }
    }

    /// Of a text that is made then and appended to a file.
    #[must_use]
    pub fn of_text(file: PathBuf, text: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self::new(move |now| {
            let said = format!("==== {now}\n{}\n", text());
            let file = OpenOptions::new().create(true).append(true).open(&file);
            // Like all here, it writes what it can.
            let _ = file.and_then(|mut file| file.write_all(said.as_bytes()));
        })
    }

    /// Of what programs print then, such as a router's tool, which is appended to a file: each with the question that
    /// its words ask.
    #[must_use]
    pub fn of_answers(file: &Path, asked: Vec<(String, Vec<String>)>) -> Self {
        let script = r#"exec >>"$1" 2>&1; echo "==== $2: $3"; shift 3; timeout 2 "$@" </dev/null"#;
        let file = file.display().to_string();
        Self::new(move |now| {
            for (question, words) in &asked {
                let head = [file.clone(), now.to_owned(), question.clone()];
                if !run(script, &[head.as_slice(), words].concat()) {
                    // Who was asked is gone, paused or in trouble, and would be at the next question.
                    return;
                }
            }
        })
    }

    /// Nothing is to be told any more, and nobody speaks: the part goes as a part of the story.
    pub fn withdraw(mut self) {
        self.speaker = None;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.speaker.is_some() {
            before_the_end();
        }
    }
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
