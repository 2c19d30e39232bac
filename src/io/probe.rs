//! What this machine allows: descriptors, locked memory, and whether rings can be made at all.
//!
//! The runtime's own answer to a machine without `io_uring` is a panic on the first executor. Asking first, with the
//! real calls and flags, costs a millisecond and lets the start fail with the setting that mends it.

use std::fmt;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::io::pages::Pages;

/// Rings that one executor of the runtime makes: main, latency, and the polling one for storage.
pub const RINGS_PER_EXECUTOR: u64 = 3;

/// Bytes of registered buffers that each executor must be built with. They serve direct file access, which shards
/// do not do, so this is the least that the runtime accepts; its own default is 10 MiB, locked once for each ring.
pub const IO_MEMORY_BYTES: usize = 64 << 10;

/// The runtime refuses to start below this soft limit, whatever it really needs.
pub const MEMLOCK_FLOOR_BYTES: u64 = 512 << 10;

/// The oldest kernel with every operation that the runtime submits.
const KERNEL_MIN: (u32, u32) = (5, 8);

/// From this kernel on, rings are charged to the memory control group and not to `RLIMIT_MEMLOCK`.
const KERNEL_RINGS_IN_CGROUP: (u32, u32) = (5, 12);

/// From this kernel on, they are charged to both.
const KERNEL_RINGS_LOCKED_AGAIN: (u32, u32) = (6, 14);

/// How long the kernel may take to give back what rings had locked after they were closed: it frees them in the
/// background.
const RELEASE: Duration = Duration::from_secs(1);

/// What the server is going to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Executors.
    pub shards: usize,
    /// Entries of each ring.
    pub ring_depth: usize,
}

impl Plan {
    /// Memory of all rings, in bytes: for each a submission queue of 64-byte entries rounded up to a power of two,
    /// and a completion queue of twice as many 16-byte entries behind a header, each in whole pages.
    #[must_use]
    pub fn ring_bytes(self) -> u64 {
        let entries = (self.ring_depth as u64).max(1).next_power_of_two();
        let pages = |bytes: u64| bytes.div_ceil(4_096).next_power_of_two() * 4_096;
        let one = pages(entries * 64) + pages(entries * (2 * 16 + 4) + 320);
        one * RINGS_PER_EXECUTOR * self.shards as u64
    }

    /// Memory of all registered buffers, in bytes. Every ring charges its registration by itself.
    #[must_use]
    pub fn buffer_bytes(self) -> u64 {
        IO_MEMORY_BYTES as u64 * RINGS_PER_EXECUTOR * self.shards as u64
    }

    /// What of it counts against `RLIMIT_MEMLOCK` on a kernel of this version.
    #[must_use]
    pub fn locked_bytes(self, kernel: Option<(u32, u32)>) -> u64 {
        let rings = match kernel {
            Some(version) if (KERNEL_RINGS_IN_CGROUP..KERNEL_RINGS_LOCKED_AGAIN).contains(&version) => 0,
            _ => self.ring_bytes(),
        };
        rings + self.buffer_bytes()
    }

    /// The soft limit that a start needs.
    #[must_use]
    pub fn memlock_needed(self, kernel: Option<(u32, u32)>) -> u64 {
        self.locked_bytes(kernel).max(MEMLOCK_FLOOR_BYTES)
    }
}

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What holds; `u64::MAX` is unlimited.
    pub soft: u64,
    /// How far it may be raised.
    pub hard: u64,
}

/// Which resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Open descriptors.
    Descriptors,
    /// Locked memory in bytes.
    LockedMemory,
}

impl Resource {
    fn id(self) -> libc::__rlimit_resource_t {
        match self {
            Self::Descriptors => libc::RLIMIT_NOFILE,
            Self::LockedMemory => libc::RLIMIT_MEMLOCK,
        }
    }

    /// The limit now.
    ///
    /// # Errors
    /// Those of `getrlimit`.
    pub fn limit(self) -> io::Result<Limit> {
        let mut limit = MaybeUninit::<libc::rlimit>::uninit();
        // SAFETY: the pointer is to one `rlimit` that lives past the call, and the call writes nothing else.
        if unsafe { libc::getrlimit(self.id(), limit.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `getrlimit` returned 0, so it has written the whole structure.
        let limit = unsafe { limit.assume_init() };
        Ok(Limit { soft: limit.rlim_cur, hard: limit.rlim_max })
    }

    /// Raises the soft limit to the hard one, which needs no privilege, and returns the limit that holds then.
    ///
    /// # Errors
    /// Those of `getrlimit`. A refusal to raise is not an error: the number says what holds.
    pub fn raise(self) -> io::Result<Limit> {
        let limit = self.limit()?;
        if limit.soft >= limit.hard {
            return Ok(limit);
        }
        let wanted = libc::rlimit { rlim_cur: limit.hard, rlim_max: limit.hard };
        // SAFETY: the pointer is to one initialised `rlimit` that lives past the call, which only reads it.
        let _ = unsafe { libc::setrlimit(self.id(), &raw const wanted) };
        self.limit()
    }
}

/// The running kernel's version, major and minor; `None` when `/proc` does not say.
#[must_use]
pub fn kernel() -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Cores that this process may run on.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Which cores those are; empty when the kernel does not say.
#[must_use]
pub fn allowed_cores() -> Vec<usize> {
    // SAFETY: an all-zero set is an empty one.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one `cpu_set_t` of the size given, which the call fills.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Vec::new();
    }
    // SAFETY: every index is below the size of the set, and `set` is initialised.
    (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect()
}

/// Rows and columns of the terminal that standard output is, if it is one that tells.
#[must_use]
pub fn terminal() -> Option<(usize, usize)> {
    // SAFETY: an all-zero `winsize` is one of no size.
    let mut size: libc::winsize = unsafe { mem::zeroed() };
    // SAFETY: the call writes one `winsize` behind the pointer, which lives past it.
    let done = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (done == 0 && size.ws_row > 0 && size.ws_col > 0).then(|| (size.ws_row.into(), size.ws_col.into()))
}

/// The longest queue of pending connections that the kernel keeps, whatever is asked for.
#[must_use]
pub fn somaxconn() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// True when this process may lock memory without limit.
#[must_use]
pub fn has_ipc_lock() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    status_field("CapEff:")
        .and_then(|text| u64::from_str_radix(&text, 16).ok())
        .is_some_and(|caps| caps >> CAP_IPC_LOCK & 1 == 1)
}

/// Tries whether `at` can be bound, as a listener of ours would bind it, and lets go of it again.
///
/// # Errors
/// Those of `bind`: in use, not local, privileged.
pub fn bind(at: SocketAddr) -> io::Result<()> {
    TcpListener::bind(at).map(drop)
}

/// An address that no other server of ours takes while this lives.
pub struct Claim {
    _name: std::os::unix::net::UnixListener,
}

/// Claims `at` for this process, by a name in the network namespace. Between the look of [`bind`] and the listeners that
/// share the port, another server that starts at the same moment could slip in and take part of the connections.
///
/// # Errors
/// In use, when another server has it.
pub fn claim(at: SocketAddr) -> io::Result<Claim> {
    use std::os::linux::net::SocketAddrExt as _;
    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("sluicegate-{at}"))?;
    Ok(Claim { _name: std::os::unix::net::UnixListener::bind_addr(&name)? })
}

/// Why rings cannot be made, and what mends it.
#[derive(Debug)]
pub enum RingError {
    /// The kernel is older than the runtime needs.
    OldKernel {
        /// Its version.
        found: (u32, u32),
    },
    /// `kernel.io_uring_disabled` forbids it.
    Sysctl {
        /// The value: 1 (only the group and root may) or 2 (nobody may).
        value: u8,
    },
    /// A system call filter forbids it.
    Seccomp {
        /// Which call.
        call: &'static str,
        /// With what it answers.
        error: io::Error,
    },
    /// The kernel was built without it.
    NotBuilt,
    /// Not enough memory may be locked.
    Memlock {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed (the soft limit, which is already as high as the hard one lets it be).
        available: u64,
    },
    /// Enough may be locked, and others of the same user have locked some of it.
    MemlockTaken {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed to all processes of the user together.
        available: u64,
        /// Other processes of the user that have rings, as far as they can be seen, and how many each has.
        holders: Vec<(u32, usize)>,
    },
    /// The kernel lacks operations.
    Operations {
        /// Their numbers in the kernel's own numbering.
        missing: Vec<u8>,
    },
    /// The descriptors ran out.
    Descriptors,
    /// Anything else, as the kernel said it.
    Other(io::Error),
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OldKernel { found: (major, minor) } => write!(
                f,
                "kernel {major}.{minor} is too old for io_uring as this server uses it; run kernel {}.{} or newer",
                KERNEL_MIN.0, KERNEL_MIN.1
            ),
            Self::Sysctl { value } => write!(
                f,
                "io_uring is switched off by the sysctl kernel.io_uring_disabled = {value}; \
                 set `sysctl -w kernel.io_uring_disabled=0`{}",
                if *value == 1 { ", or put this user in the group that kernel.io_uring_group names" } else { "" }
            ),
            Self::Seccomp { call, error } => write!(
                f,
                "a seccomp filter denies {call} ({error}); allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the container's seccomp profile (`--security-opt seccomp=<profile>`) or in the \
                 unit's SystemCallFilter="
            ),
            Self::NotBuilt => f.write_str("this kernel was built without io_uring; run one with CONFIG_IO_URING=y"),
            Self::Memlock { needed, available } => write!(
                f,
                "locked memory is too small: {needed} bytes are needed and {available} are allowed; set \
                 `LimitMEMLOCK=infinity` in the unit, `--ulimit memlock=-1` for a container, or `ulimit -l {}` \
                 before the start (limits.conf: `* - memlock {}`)",
                needed.div_ceil(1_024),
                needed.div_ceil(1_024)
            ),
            Self::MemlockTaken { needed, available, holders } => {
                write!(
                    f,
                    "locked memory is used up: {available} bytes are allowed to all processes of this user together, and \
                     others leave less of them than the {needed} that are needed"
                )?;
                for (index, (process, rings)) in holders.iter().enumerate() {
                    let before = if index == 0 { " (" } else { ", " };
                    write!(f, "{before}process {process} has {rings} rings")?;
                }
                let after = if holders.is_empty() { "" } else { ")" };
                write!(
                    f,
                    "{after}; set `LimitMEMLOCK=infinity` in the unit, `--ulimit memlock=-1` for a container, or a higher \
                     `ulimit -l` before the start, or run as a user of its own"
                )
            }
            Self::Operations { missing } => write!(
                f,
                "this kernel's io_uring lacks the operations {missing:?}; run kernel {}.{} or newer",
                KERNEL_MIN.0, KERNEL_MIN.1
            ),
            Self::Descriptors => f.write_str(
                "no descriptors are left for the rings; raise the limit with `LimitNOFILE=` in the unit or `ulimit -n`",
            ),
            Self::Other(error) => write!(f, "io_uring cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for RingError {}

/// Makes all rings of `plan` with the flags that the runtime will use, registers buffers with each as it does, asks for
/// the operations that it will submit, and lets go of them. Call it after [`Resource::raise`]. Where locked memory is
/// limited it returns when the kernel has taken it back, so that whoever makes rings next finds it free.
///
/// # Errors
/// The cause, told apart as far as the kernel lets one.
pub fn rings(plan: Plan) -> Result<(), RingError> {
    let kernel = kernel();
    if let Some(found) = kernel.filter(|version| *version < KERNEL_MIN) {
        return Err(RingError::OldKernel { found });
    }
    let available = Resource::LockedMemory.limit().map_err(RingError::Other)?.soft;
    let is_limited = !has_ipc_lock();
    // Whoever may lock without limit still meets the runtime's own floor.
    let needed = if is_limited { plan.memlock_needed(kernel) } else { MEMLOCK_FLOOR_BYTES };
    if available < needed {
        return Err(RingError::Memlock { needed, available });
    }
    let buffer = Pages::new(IO_MEMORY_BYTES).map_err(RingError::Other)?;
    let pinned_before = pinned_kib();
    // Rings of a process that has just ended may still be charged to this user.
    let until = Instant::now() + RELEASE;
    let mut held = Vec::new();
    for _ in 0..plan.shards {
        for flags in [0, IORING_SETUP_IOPOLL, 0] {
            let ring = patiently(until, || setup(plan.ring_depth, flags))
                .map_err(|error| explain("io_uring_setup", error, needed, available))?;
            patiently(until, || register(&ring, &buffer))
                .map_err(|error| explain("io_uring_register", error, needed, available))?;
            held.push(ring);
        }
    }
    let Some(ring) = held.first() else { return Ok(()) };
    let missing = missing_operations(ring).map_err(|error| explain("io_uring_register", error, needed, available))?;
    drop(held);
    if is_limited && available < u64::MAX {
        let until = Instant::now() + RELEASE;
        while pinned_kib() > pinned_before && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(RingError::Operations { missing }) }
}

/// Tries again what fails because too much memory is locked.
fn patiently<T>(until: Instant, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}

/// Memory that this process has pinned by registering it, in KiB. The rings' own is not in it, and is given back with it.
fn pinned_kib() -> u64 {
    status_field("VmPin:").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Other processes of this user that have rings, and how many. Only those that let themselves be looked at.
fn holders() -> Vec<(u32, usize)> {
    let own = std::process::id();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    // SAFETY: the call takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    let of_user = |path: &std::path::Path| {
        use std::os::unix::fs::MetadataExt as _;
        path.metadata().is_ok_and(|meta| meta.uid() == user)
    };
    let rings = |path: &std::path::Path| {
        let descriptors = std::fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.filter(|target| target.as_os_str() == "anon_inode:[io_uring]").count()
    };
    let mut holders: Vec<(u32, usize)> = processes
        .filter(|(process, path)| *process != own && of_user(path))
        .map(|(process, path)| (process, rings(&path)))
        .filter(|(_, rings)| *rings > 0)
        .collect();
    holders.sort_unstable();
    holders.truncate(HOLDERS_TOLD_MAX);
    holders
}

/// Enough to see who it is.
const HOLDERS_TOLD_MAX: usize = 8;

fn explain(call: &'static str, error: io::Error, needed: u64, available: u64) -> RingError {
    let filtered = status_field("Seccomp:").is_some_and(|mode| mode == "2");
    match error.raw_os_error() {
        Some(libc::ENOMEM) if available >= needed => RingError::MemlockTaken { needed, available, holders: holders() },
        Some(libc::ENOMEM) => RingError::Memlock { needed, available },
        Some(libc::EMFILE | libc::ENFILE) => RingError::Descriptors,
        Some(libc::EPERM | libc::EACCES) => match disabled_by_sysctl() {
            Some(value @ 1..) => RingError::Sysctl { value },
            _ if filtered => RingError::Seccomp { call, error },
            _ => RingError::Other(error),
        },
        Some(libc::ENOSYS) if filtered => RingError::Seccomp { call, error },
        Some(libc::ENOSYS) => RingError::NotBuilt,
        _ => RingError::Other(error),
    }
}

fn disabled_by_sysctl() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// A field of `/proc/self/status`.
fn status_field(name: &str) -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

const IORING_SETUP_IOPOLL: u32 = 1;
const IORING_REGISTER_PROBE: libc::c_uint = 8;
const IO_URING_OP_SUPPORTED: u16 = 1;

/// The operations that the runtime submits, by the kernel's numbers: NOP, READV, WRITEV, FSYNC, `READ_FIXED`,
/// `WRITE_FIXED`, `POLL_ADD`, `POLL_REMOVE`, SENDMSG, RECVMSG, TIMEOUT, `TIMEOUT_REMOVE`, ACCEPT, `LINK_TIMEOUT`,
/// CONNECT, FALLOCATE, OPENAT, CLOSE, STATX, READ, WRITE, SEND, RECV.
const OPERATIONS: [u8; 23] = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 15, 16, 17, 18, 19, 21, 22, 23, 26, 27];

/// `struct io_uring_params` of `linux/io_uring.h`: 120 bytes, of which only the flags are ours to set.
#[repr(C)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    rest: [u32; 27],
}

const _: () = assert!(mem::size_of::<Params>() == 120);

fn setup(entries: usize, flags: u32) -> io::Result<OwnedFd> {
    let mut params = Params { sq_entries: 0, cq_entries: 0, flags, rest: [0; 27] };
    let entries = libc::c_uint::try_from(entries).unwrap_or(libc::c_uint::MAX);
    // SAFETY: the kernel reads and writes one `io_uring_params` behind the pointer; `params` has its size (asserted
    // above), its alignment (u32) and lives past the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, &raw mut params) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

const IORING_REGISTER_BUFFERS: libc::c_uint = 0;

fn register(ring: &OwnedFd, buffer: &Pages) -> io::Result<()> {
    let buffer = buffer.iovec();
    // SAFETY: the kernel reads one `iovec` behind the pointer, which lives past the call, and pins the pages it names,
    // which are mapped. Nothing is ever read into them, because no operation is submitted.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), IORING_REGISTER_BUFFERS, &raw const buffer, 1)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `struct io_uring_probe_op`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ProbeOp {
    op: u8,
    reserved: u8,
    flags: u16,
    reserved2: u32,
}

/// `struct io_uring_probe` with room for every operation there can be.
#[repr(C)]
struct Probe {
    last_op: u8,
    ops_len: u8,
    reserved: u16,
    reserved2: [u32; 3],
    ops: [ProbeOp; 256],
}

const _: () = assert!(mem::size_of::<Probe>() == 16 + 256 * 8);

fn missing_operations(ring: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut probe = Probe { last_op: 0, ops_len: 0, reserved: 0, reserved2: [0; 3], ops: [ProbeOp::default(); 256] };
    // SAFETY: the kernel writes a header and at most as many operations as the last argument says, 256, behind the
    // pointer; `probe` has room for them (asserted above), is zeroed as the call wants it, and lives past the call.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), IORING_REGISTER_PROBE, &raw mut probe, 256)
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let supported = |op: u8| {
        op <= probe.last_op && probe.ops.iter().any(|known| known.op == op && known.flags & IO_URING_OP_SUPPORTED != 0)
    };
    Ok(OPERATIONS.into_iter().filter(|op| !supported(*op)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_memory_adds_up() {
        // 512 entries: 32 KiB of submissions, and 18.3 KiB of queues in eight pages.
        let plan = Plan { shards: 2, ring_depth: 512 };
        assert_eq!(plan.ring_bytes(), (32_768 + 32_768) * 3 * 2);
        assert_eq!(plan.buffer_bytes(), 65_536 * 3 * 2);
        assert_eq!(plan.locked_bytes(Some((5, 10))), plan.ring_bytes() + plan.buffer_bytes());
        assert_eq!(plan.locked_bytes(Some((6, 1))), plan.buffer_bytes());
        assert_eq!(plan.locked_bytes(Some((6, 14))), plan.ring_bytes() + plan.buffer_bytes());
        assert_eq!(plan.memlock_needed(Some((6, 1))), MEMLOCK_FLOOR_BYTES);
        assert_eq!(Plan { shards: 64, ring_depth: 4_096 }.memlock_needed(Some((6, 1))), 12 << 20);
    }

    #[test]
    fn fa_22_each_cause_names_its_own_remedy() {
        let error = |code| io::Error::from_raw_os_error(code);
        for (error, remedy) in [
            (RingError::OldKernel { found: (5, 4) }, "kernel 5.8 or newer"),
            (RingError::Sysctl { value: 2 }, "sysctl -w kernel.io_uring_disabled=0"),
            (RingError::Sysctl { value: 1 }, "kernel.io_uring_group"),
            (RingError::Seccomp { call: "io_uring_setup", error: error(libc::EPERM) }, "seccomp profile"),
            (RingError::NotBuilt, "CONFIG_IO_URING=y"),
            (RingError::Memlock { needed: 524_288, available: 65_536 }, "ulimit -l 512"),
            (RingError::Memlock { needed: 524_288, available: 65_536 }, "LimitMEMLOCK=infinity"),
            (
                RingError::MemlockTaken { needed: 786_432, available: 1 << 20, holders: vec![(7, 6), (9, 3)] },
                "needed (process 7 has 6 rings, process 9 has 3 rings); set `LimitMEMLOCK=infinity`",
            ),
            (RingError::MemlockTaken { needed: 9, available: 9, holders: Vec::new() }, "needed; set `LimitMEMLOCK"),
            (RingError::Operations { missing: vec![26] }, "kernel 5.8 or newer"),
            (RingError::Descriptors, "LimitNOFILE="),
        ] {
            assert!(error.to_string().contains(remedy), "{error}");
        }
    }

    #[test]
    fn fa_22_errors_of_the_kernel_are_told_apart() {
        let of = |code| explain("io_uring_setup", io::Error::from_raw_os_error(code), 1_000, 10);
        assert!(matches!(of(libc::ENOMEM), RingError::Memlock { needed: 1_000, available: 10 }));
        let enough = explain("io_uring_setup", io::Error::from_raw_os_error(libc::ENOMEM), 10, 1_000);
        assert!(matches!(enough, RingError::MemlockTaken { needed: 10, available: 1_000, .. }), "{enough}");
        assert!(matches!(of(libc::EMFILE), RingError::Descriptors));
        assert!(matches!(of(libc::ENOSYS), RingError::NotBuilt | RingError::Seccomp { .. }));
        assert!(matches!(of(libc::EINVAL), RingError::Other(_)));
    }

    #[test]
    fn fa_21_what_the_probe_locks_is_given_back_before_it_ends() {
        let Ok(ring) = setup(32, 0) else { return };
        let buffer = Pages::new(IO_MEMORY_BYTES).unwrap();
        let before = pinned_kib();
        register(&ring, &buffer).unwrap();
        assert_eq!(pinned_kib(), before + (IO_MEMORY_BYTES as u64 >> 10), "no huge page is charged");
        drop(ring);
        let until = Instant::now() + Duration::from_secs(10);
        while pinned_kib() > before {
            assert!(Instant::now() < until, "the kernel does not give it back");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn cf_05_a_port_in_use_is_found() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = taken.local_addr().unwrap();
        assert_eq!(bind(at).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(taken);
        assert!(bind(at).is_ok());
    }
}
