//! What the kernel says about this process.

/// Numbers of the process; `None` where the kernel did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Open descriptors.
    pub fds: Option<u64>,
    /// The most descriptors the process may open.
    pub fds_max: Option<u64>,
}

impl Process {
    /// Asks. These files are made by the kernel as they are read; no disk is waited for.
    #[must_use]
    pub fn read() -> Self {
        let limits = std::fs::read_to_string("/proc/self/limits").ok();
        Self {
            resident_bytes: std::fs::read_to_string("/proc/self/status").ok().and_then(|text| resident(&text)),
            fds: std::fs::read_dir("/proc/self/fd").ok().and_then(|fds| {
                // One of them is the folder being read.
                u64::try_from(fds.count()).ok()?.checked_sub(1)
            }),
            fds_max: limits.and_then(|text| soft_limit(&text)),
        }
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2 << 20));
        assert_eq!(resident("Name:\tx\n"), None);
        assert_eq!(soft_limit("Limit  Soft  Hard  Units\nMax open files   1024    4096  files\n"), Some(1_024));
        assert_eq!(soft_limit("Max open files   unlimited    unlimited  files\n"), None);
        let process = Process::read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 100_000), "{process:?}");
        assert!(process.fds.is_some_and(|fds| fds >= 3), "{process:?}");
    }
}
