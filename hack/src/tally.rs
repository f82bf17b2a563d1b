//! Counting what the test runner reports.

use std::ops::AddAssign;

/// How many tests passed, failed and were skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// The names of those that failed, as far as they were told.
    pub(crate) failures: Vec<String>,
}

impl Tally {
    /// One check that passed and is no test of the runner's (formatting, say).
    pub(crate) const CHECK: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
        failures: Vec::new(),
    };

    /// The same, where it failed.
    pub(crate) fn failed_check(what: &str) -> Self {
        Self {
            failed: 1,
            failures: vec![what.to_owned()],
            ..Self::default()
        }
    }

    /// Takes in a line of output; lines other than libtest's `test result:` count nothing.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim();
        let failed = line.strip_prefix("test ");
        if let Some(name) = failed.and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
        let Some(rest) = line.strip_prefix("test result:") else {
            return;
        };
        for part in rest.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(count), Some(what)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(count) = count.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_a_result_line_of_the_test_runner() {
        let mut tally = Tally::default();
        tally.read("test result: ok. 12 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 0.01s\n");
        assert_eq!(
            tally,
            Tally {
                passed: 12,
                failed: 1,
                skipped: 2,
                failures: Vec::new(),
            }
        );
    }

    #[test]
    fn remembers_which_test_failed() {
        let mut tally = Tally::default();
        tally.read("test bgp::flaps ... ok\n");
        tally.read("test bgp::session ... FAILED\n");
        // What a test printed that was run inside of another.
        tally.read("  | test bgp::session ... FAILED\n");
        assert_eq!(tally.failures, ["bgp::session"]);
    }

    #[test]
    fn ignores_every_other_line() {
        let mut tally = Tally::default();
        tally.read("test range::tests::parses ... ok");
        tally.read("running 12 tests");
        assert_eq!(tally, Tally::default());
    }
}
