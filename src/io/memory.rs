//! How much memory there is for this process, and how much of it is used.
//!
//! In a control group it is the group that is killed for using too much, and the group's use counts what the process's
//! own does not: the kernel's socket buffers above all, which are most of what a server of slow players holds.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the memory of this process is bounded, found once at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The most that may be used, by configuration, group or machine.
    pub limit_bytes: u64,
    /// The group whose own limit that is, or is below.
    group: Option<Group>,
}

/// A control group with a limit of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    path: PathBuf,
    files: Files,
}

/// How the files of a version of control groups are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Files {
    limit: &'static str,
    usage: &'static str,
    /// The line of `memory.stat` with the page cache that the kernel would give up before it kills.
    reclaimable: &'static str,
}

const V1: Files =
    Files { limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", reclaimable: "total_inactive_file" };
const V2: Files = Files { limit: "memory.max", usage: "memory.current", reclaimable: "inactive_file" };

/// A limit from here on is what version 1 writes for none.
const NO_LIMIT: u64 = 1 << 60;

impl Bound {
    /// What bounds this process: `configured` unless that is 0, the limits of its control groups, and 80% of the
    /// machine's memory; the least of them.
    #[must_use]
    pub fn find(configured: u64) -> Self {
        Self::find_in(Path::new("/"), configured)
    }

    fn find_in(root: &Path, configured: u64) -> Self {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let machine = total(&text("proc/meminfo")).map_or(u64::MAX, |bytes| bytes / 5 * 4);
        let ours = if configured == 0 { machine } else { configured };
        let groups = groups(&text("proc/self/cgroup")).into_iter().flat_map(|(path, files)| {
            let mount = root.join(if files == V1 { "sys/fs/cgroup/memory" } else { "sys/fs/cgroup" });
            // The limit of a group holds for those in it; in a container the path may begin outside of what is mounted,
            // and then only the mount itself is there.
            let folders: Vec<PathBuf> =
                Path::new(path.trim_start_matches('/')).ancestors().map(|part| mount.join(part)).collect();
            folders.into_iter().map(move |path| Group { path, files })
        });
        let tightest = groups.filter_map(|group| Some((group.limit()?, group))).min_by_key(|(limit, _)| *limit);
        match tightest {
            Some((limit, group)) => Self { limit_bytes: limit.min(ours), group: Some(group) },
            None => Self { limit_bytes: ours, group: None },
        }
    }

    /// What is used of it. These files are made by the kernel as they are read; no disk is waited for.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let resident = fs::read_to_string("/proc/self/statm").ok().and_then(|text| resident(&text)).unwrap_or(0);
        self.group.as_ref().and_then(Group::used).map_or(resident, |used| used.max(resident))
    }
}

impl Group {
    fn limit(&self) -> Option<u64> {
        let text = fs::read_to_string(self.path.join(self.files.limit)).ok()?;
        text.trim().parse().ok().filter(|bytes| *bytes < NO_LIMIT)
    }

    fn used(&self) -> Option<u64> {
        let usage: u64 = fs::read_to_string(self.path.join(self.files.usage)).ok()?.trim().parse().ok()?;
        let stat = fs::read_to_string(self.path.join("memory.stat")).unwrap_or_default();
        let reclaimable = stat
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(name, _)| *name == self.files.reclaimable)
            .and_then(|(_, bytes)| bytes.trim().parse().ok())
            .unwrap_or(0);
        Some(usage.saturating_sub(reclaimable))
    }
}

/// The groups of a process that bound its memory, by `/proc/self/cgroup`: `0::/path` of version 2, and the line of version
/// 1 that has `memory` among its controllers.
fn groups(text: &str) -> Vec<(String, Files)> {
    let read = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        if number == "0" && controllers.is_empty() {
            Some((path.to_owned(), V2))
        } else if controllers.split(',').any(|controller| controller == "memory") {
            Some((path.to_owned(), V1))
        } else {
            None
        }
    };
    text.lines().filter_map(read).collect()
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The second field of `statm` is resident pages.
fn resident(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(page_bytes())
}

fn page_bytes() -> u64 {
    // SAFETY: sysconf takes a number and touches no memory of ours.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4_096)
}

/// Descriptors that are open. Newer kernels say it in one call; where they do not, `clients` and the few that are not
/// theirs have to do, because counting a hundred thousand of them takes longer than anybody may wait.
#[must_use]
pub fn descriptors_open(clients: usize) -> u64 {
    let said = fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len());
    if said > 0 { said } else { (clients as u64).saturating_add(NOT_CLIENTS) }
}

/// Rings, doorbells, listeners, files.
const NOT_CLIENTS: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine of 10 GiB whose files say what is given.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let memory = ("proc/meminfo", "MemTotal:       10485760 kB\nMemFree:        1 kB\n");
        for (path, text) in files.iter().chain([&memory]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn limits_memory_is_four_fifths_of_the_machine_unless_something_is_less() {
        let root = machine(&[]);
        assert_eq!(Bound::find_in(root.path(), 0), Bound { limit_bytes: 8 * GIB, group: None });
        assert_eq!(Bound::find_in(root.path(), GIB).limit_bytes, GIB);
        // No limit, in the words of both versions.
        let root = machine(&[
            ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a\n0::/a\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/a/memory.max", "max\n"),
        ]);
        assert_eq!(Bound::find_in(root.path(), 0), Bound { limit_bytes: 8 * GIB, group: None });
    }

    #[test]
    fn fa_20_limits_memory_is_that_of_the_tightest_control_group_of_version_2() {
        let root = machine(&[
            ("proc/self/cgroup", "0::/slice/unit\n"),
            ("sys/fs/cgroup/slice/unit/memory.max", "max\n"),
            ("sys/fs/cgroup/slice/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/slice/memory.current", "900000000\n"),
            ("sys/fs/cgroup/slice/memory.stat", "anon 5\ninactive_anon 7\ninactive_file 300000000\n"),
        ]);
        let bound = Bound::find_in(root.path(), 0);
        assert_eq!(bound.limit_bytes, GIB);
        // What the kernel would give up is not used.
        assert_eq!(bound.group.as_ref().and_then(Group::used), Some(600_000_000));
        assert!(bound.used_bytes() >= 600_000_000);
        // A configured limit below the group's still watches the group.
        let bound = Bound::find_in(root.path(), GIB / 2);
        assert_eq!((bound.limit_bytes, bound.group.is_some()), (GIB / 2, true));
    }

    #[test]
    fn fa_20_limits_memory_is_that_of_the_control_group_of_version_1() {
        let root = machine(&[
            ("proc/self/cgroup", "11:pids:/docker/x\n4:memory:/docker/x\n"),
            // A container sees its own group at the mount and not under its outer name.
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "50000000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 10000000\n"),
        ]);
        let bound = Bound::find_in(root.path(), 0);
        assert_eq!(bound.limit_bytes, 64 << 20);
        assert_eq!(bound.group.as_ref().and_then(Group::used), Some(40_000_000));
    }

    #[test]
    fn this_process_uses_memory_and_descriptors() {
        let bound = Bound::find(0);
        assert!(bound.limit_bytes > 0);
        assert!(bound.used_bytes() > 100_000, "{bound:?}");
        assert!(descriptors_open(0) >= 3);
        assert_eq!(resident("1000 25 3 1 0 9 0\n"), Some(25 * page_bytes()));
        assert_eq!(resident("nothing"), None);
    }
}
