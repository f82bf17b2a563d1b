//! Counting what the test runner reports.

use std::ops::AddAssign;

/// How many tests passed, failed and were skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// One check that passed and is no test of the runner's (formatting, say).
    pub(crate) const CHECK: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };

    /// Takes in a line of output; lines other than libtest's `test result:` count nothing.
    pub(crate) fn read(&mut self, line: &str) {
        let Some(rest) = line.trim().strip_prefix("test result:") else {
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
                skipped: 2
            }
        );
    }

    #[test]
    fn ignores_every_other_line() {
        let mut tally = Tally::default();
        tally.read("test range::tests::parses ... ok");
        tally.read("running 12 tests");
        assert_eq!(tally, Tally::default());
    }
}
