//! FA-21, FA-22, CF-05: the real binary on machines that do not allow what it needs.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

/// The binary, away from any `sluicegate.toml`.
fn sluicegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.args(arguments).current_dir(std::env::temp_dir()).env_clear();
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

/// Makes a system call answer with `errno` in the child, as a container's filter does.
fn deny(command: &mut Command, call: libc::c_long, errno: i32) {
    let call = u32::try_from(call).unwrap();
    let errno = u32::try_from(errno).unwrap();
    let filter = move || {
        const LOAD_NUMBER: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
        const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
        const RETURN: u16 = 0x06; // BPF_RET | BPF_K
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut program = [
            step(LOAD_NUMBER, 0, 0, 0),
            step(JUMP_EQUAL, 0, 1, call),
            step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
            step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
        // SAFETY: both calls take plain numbers and, for the second, a pointer to a program that lives past it; they
        // change this thread only, which is the child between fork and exec.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure allocates nothing and makes system calls only, which is what may be done after fork.
    unsafe { command.pre_exec(filter) };
}

fn limit(command: &mut Command, resource: libc::__rlimit_resource_t, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    let set = move || {
        // SAFETY: the pointer is to an initialised `rlimit` that lives past the call.
        if unsafe { libc::setrlimit(resource, &raw const limit) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: the closure allocates nothing and makes one system call.
    unsafe { command.pre_exec(set) };
}

#[test]
fn fa_22_denied_by_a_filter_ends_with_78_and_names_the_filter() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        for arguments in [&["run"][..], &["check"]] {
            let mut command = sluicegate(arguments);
            deny(&mut command, libc::SYS_io_uring_setup, errno);
            let output = command.output().unwrap();
            let said = text(&output);
            assert_eq!(output.status.code(), Some(78), "{said}");
            assert!(said.contains("seccomp") && said.contains("SystemCallFilter="), "{said}");
        }
    }
}

#[test]
fn fa_22_denied_registration_is_told_too() {
    let mut command = sluicegate(&["run"]);
    deny(&mut command, libc::SYS_io_uring_register, libc::EPERM);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output).contains("io_uring_register"), "{}", text(&output));
}

#[test]
fn fa_21_too_little_locked_memory_ends_with_78_and_tells_both_numbers_and_the_setting() {
    let mut command = sluicegate(&["run", "--shards", "1"]);
    limit(&mut command, libc::RLIMIT_MEMLOCK, 64 << 10);
    let output = command.output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("524288 bytes are needed and 65536 are allowed"), "{said}");
    assert!(said.contains("LimitMEMLOCK=infinity") && said.contains("ulimit -l 512"), "{said}");
}

#[test]
fn fa_21_check_and_a_start_right_after_it_agree_about_locked_memory() {
    // SAFETY: the call takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        // What is locked counts for all processes of a user together, so it takes one that has nothing else.
        return;
    }
    for bytes in [512 << 10, 768 << 10, 1 << 20, 8 << 20] {
        let ran = |command: &[&str]| {
            let ports = ["--rtmp-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--shards", "2"];
            let mut command = sluicegate(&[command, &ports].concat());
            command.uid(100_000 + std::process::id()).current_dir("/");
            limit(&mut command, libc::RLIMIT_MEMLOCK, bytes);
            let output = command.output().unwrap();
            (output.status.code(), text(&output))
        };
        let (check, start) = (ran(&["check"]), ran(&["demo", "--seconds", "1"]));
        assert_eq!(check.0, start.0, "{bytes}\n{}\n{}", check.1, start.1);
        assert_eq!(check.0, if check.1.contains("error    locked memory") { Some(78) } else { Some(0) }, "{}", check.1);
        assert!(!start.1.contains("registering buffers"), "more was charged than was asked for: {}", start.1);
    }
}

#[test]
fn fa_21_a_limit_below_the_runtimes_floor_is_an_error_whoever_may_lift_it() {
    let mut command = sluicegate(&["check"]);
    limit(&mut command, libc::RLIMIT_MEMLOCK, 64 << 10);
    let output = command.output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("error    locked memory"), "{said}");
}

#[test]
fn cf_07_too_few_descriptors_end_with_78_and_name_the_setting() {
    let mut command = sluicegate(&["run"]);
    limit(&mut command, libc::RLIMIT_NOFILE, 200);
    let output = command.output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("200 allowed") && said.contains("LimitNOFILE="), "{said}");
}

#[test]
fn cf_05_check_on_a_busy_port_ends_with_78_and_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let output = sluicegate(&["check", "--rtmp-listen", &at, "--api-listen", "127.0.0.1:0"]).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains(&format!("{at} cannot be bound")), "{said}");
}

#[test]
fn cf_05_a_start_on_a_busy_port_ends_with_75_and_names_key_and_port() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap().to_string();
    for (key, rtmp, api) in
        [("shard.rtmp_listen", at.as_str(), "127.0.0.1:0"), ("api.listen", "127.0.0.1:0", at.as_str())]
    {
        let output = sluicegate(&["run", "--rtmp-listen", rtmp, "--api-listen", api]).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(75), "{said}");
        assert!(said.contains(&format!("{key}: cannot listen on {at}: ")), "{said}");
        assert!(said.contains("another process has the port"), "{said}");
    }
}

#[test]
fn cf_05_an_address_of_another_machine_is_told_at_check_and_start() {
    // Kept for documentation, so no machine has it.
    let at = "192.0.2.1:1935";
    for (command, said_so) in
        [("check", "192.0.2.1:1935 cannot be bound"), ("run", "shard.rtmp_listen: cannot listen on 192.0.2.1:1935: ")]
    {
        let mut command = sluicegate(&[command, "--rtmp-listen", at, "--api-listen", "127.0.0.1:0"]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        std::fs::write(&path, "[admission]\npublish = \"loopback\"\n").unwrap();
        let output = command.arg("-c").arg(&path).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(said_so), "{said}");
    }
}

#[test]
fn cf_05_equal_listeners_are_refused_at_check_and_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    std::fs::write(&path, "[shard]\nrtmp_listen = [\"127.0.0.1:1935\", \"127.0.0.1:1935\"]\n").unwrap();
    for command in ["check", "run"] {
        let output = sluicegate(&[command, "-c", path.to_str().unwrap()]).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("x.toml:2:1: error: shard.rtmp_listen: 127.0.0.1:1935 is named twice"), "{said}");
    }
}

#[test]
fn cf_14_locale_and_timezone_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    let file = path.to_str().unwrap();
    // Numbers and names that a locale might read or fold otherwise, accepted and refused.
    let good = "[admission]\npublish = \"open\"\n[shard]\nrtmp_listen = [\"127.0.0.1:0\"]\nlatency_max = \"12ms\"\n\
                drain_timeout = \"1m\"\n[stream]\ngop_bytes = \"16MiB\"\n[api]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"INFO\"\n";
    let bad = format!("{good}format = \"HUMAN\"\n[control]\nfinished_kept = \"1,5\"\n");
    let read = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = sluicegate(arguments).envs(environment.iter().copied()).output().unwrap();
        // How much memory is in use just then is nobody's reading.
        let said = text(&output).lines().filter(|line| !line.contains("memory limit")).collect::<Vec<_>>().join("\n");
        (output.status.code(), said)
    };
    let elsewhere = [("LANG", "tr_TR.UTF-8"), ("LC_ALL", "tr_TR.UTF-8"), ("TZ", "Pacific/Chatham")];
    for (written, code) in [(good, 0), (bad.as_str(), 78)] {
        std::fs::write(&path, written).unwrap();
        let here = read(&["check", "-c", file], &[]);
        assert_eq!(here.0, Some(code), "{}", here.1);
        assert_eq!(read(&["check", "-c", file], &elsewhere), here);
    }
}

#[test]
fn check_tells_the_numbers_of_the_machine() {
    let output = sluicegate(&["check", "--rtmp-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--shards", "2"])
        .output()
        .unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in ["6 rings of 512 entries", "descriptors", "locked memory", "backlog", "127.0.0.1:0 is free", "memory"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}

#[test]
fn a_file_in_the_working_directory_is_used_and_said() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sluicegate.toml"), "[shard]\ncuont = 1\n").unwrap();
    let output = sluicegate(&[]).current_dir(folder.path()).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("using ./sluicegate.toml"), "{said}");
    assert!(
        said.contains("sluicegate.toml:2:1: error: shard.cuont: there is no such key; did you mean `shard.count`?")
    );
}

#[test]
fn strict_takes_warnings_for_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    std::fs::write(&path, "").unwrap();
    let output = sluicegate(&["check", "--strict", "-c", path.to_str().unwrap()]).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("error: admission.publish: ") && said.contains("nobody may publish"), "{said}");
}

#[test]
fn clients_of_a_server_that_is_not_there_say_so_and_end_with_one() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for arguments in [&["sessions", "--api", &free][..], &["kick", "--app", "live", "--api", &free]] {
        let output = sluicegate(arguments).output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("no server answers at http://127.0.0.1:") && said.contains("efused"), "{said}");
    }
}
