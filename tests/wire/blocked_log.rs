//! Nobody reads the log.

use std::io::Read;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Stdio;

use crate::support::calm::Calm;
use crate::support::hand::Hand;
use crate::support::{Server, eventually};

/// Both ends of a pipe that holds one page.
fn narrow_pipe() -> (std::fs::File, Stdio) {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: both were just made and have no other owner.
    let (read, write) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    // SAFETY: the descriptor is open; the call takes numbers.
    assert!(unsafe { libc::fcntl(ends[1], libc::F_SETPIPE_SZ, 4_096) } >= 4_096);
    (read.into(), write.into())
}

#[test]
fn fa_34_a_log_that_nobody_reads_costs_lines_and_nothing_else() {
    const PLAYS: usize = 100;
    let (mut reader, errors) = narrow_pipe();
    let server = Server::start_with_errors_to("[log]\nlevel = \"debug\"\nlines_max = 16", Some(errors));
    let mut calm = Calm::start(&server, "calm");
    let before = server.resident_bytes();
    // Each writes three lines at least; the pipe takes some twenty and the queue sixteen.
    for _ in 0..PLAYS {
        let mut hand = Hand::playing(server.rtmp, "live", "calm");
        hand.set_linger(None);
        hand.finish_sending();
        hand.drain();
        calm.beat();
    }
    eventually("all are over", || server.sessions("").len() == 2);
    assert_eq!(server.events("session.closed").len(), PLAYS, "what is told elsewhere is told whole");
    calm.assert_undisturbed(&server);
    let held = server.resident_bytes().saturating_sub(before);
    assert!(held < 16 << 20, "{held} bytes");
    assert!(TcpStream::connect(server.rtmp).is_ok());

    // Somebody reads again: what was lost is told, with its number.
    let (lines, read) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut bytes = [0; 4_096];
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            text.extend_from_slice(&bytes[..count]);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
            }
        }
    });
    let mut lost = None;
    eventually("the loss is told", || {
        // There is a line to tell it with.
        drop(TcpStream::connect(server.rtmp));
        lost = read.try_iter().find(|line| line.contains("ev=log_lost")).or(lost.take());
        lost.is_some()
    });
    // Lines that told of it were lost too, so only the sum counts.
    let told: u64 = lost.unwrap().split(" lines_total=").nth(1).unwrap().trim().parse().unwrap();
    assert!(told > PLAYS as u64, "{told} lines lost of three for each of {PLAYS} players");
}
