//! How many tests run side by side on this machine.

/// What tests of a tier need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowd {
    /// So many at once keep two cores busy, and no busier than their timers bear.
    pub(crate) per_two_cores: usize,
    /// What one of them takes of the memory at its peak, in MB.
    pub(crate) megabytes: usize,
}

impl Crowd {
    /// So many at once on this machine, as it is now.
    pub(crate) fn here(self) -> usize {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        self.of(cores, available(&memory))
    }

    /// So many at once with so many cores and so many MB of free memory, where that is known; at least one.
    fn of(self, cores: usize, megabytes: Option<usize>) -> usize {
        let by_cores = cores * self.per_two_cores / 2;
        let by_memory = megabytes.map_or(by_cores, |free| free / self.megabytes);
        by_cores.min(by_memory).max(1)
    }
}

/// The available memory in MB, from the text of `/proc/meminfo`.
fn available(text: &str) -> Option<usize> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CROWD: Crowd = Crowd {
        per_two_cores: 3,
        megabytes: 2_000,
    };

    #[test]
    fn cores_and_memory_bound_how_many_run_at_once() {
        assert_eq!(CROWD.of(2, Some(16_000)), 3);
        assert_eq!(CROWD.of(8, Some(100_000)), 12);
        assert_eq!(CROWD.of(8, Some(7_000)), 3);
        assert_eq!(CROWD.of(2, None), 3);
    }

    #[test]
    fn one_runs_on_the_smallest_machine() {
        assert_eq!(CROWD.of(1, Some(500)), 1);
    }

    #[test]
    fn the_kernel_says_how_much_memory_is_free() {
        let text = "MemTotal:       8000000 kB\nMemAvailable:    4096000 kB\n";
        assert_eq!(available(text), Some(4_000));
        assert_eq!(available(""), None);
    }
}
