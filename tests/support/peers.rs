//! Foreign programs. One that is missing fails the test.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A program that is ended with its test.
pub struct Running {
    child: Child,
    name: String,
    log: tempfile::NamedTempFile,
}

impl Running {
    /// Starts a program; what it writes to standard error is kept.
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("the peer {name} is needed: {error}"));
        Self { child, name, log }
    }

    /// What it wrote to standard error.
    pub fn errors(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// Waits for its end; false when it failed.
    pub fn wait(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < deadline, "{} does not end:\n{}", self.name, self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// True while it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: kill takes numbers; the process is our child and has not been waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.name, self.errors());
        }
    }
}

/// Debian's ffmpeg, quiet but for errors.
pub fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-y", "-loglevel", "warning"]);
    command
}

/// An ffmpeg that speaks Enhanced RTMP. `tools/test` installs it and says where.
pub fn new_ffmpeg() -> Command {
    let path = std::env::var("SLUICEGATE_NEW_FFMPEG")
        .expect("SLUICEGATE_NEW_FFMPEG names an ffmpeg that publishes HEVC and AV1 over RTMP; tools/test installs one");
    let mut command = Command::new(path);
    command.args(["-hide_banner", "-nostdin", "-y", "-loglevel", "warning"]);
    command
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().unwrap_or_else(|error| panic!("the peer {name} is needed: {error}"));
    assert!(output.status.success(), "{name} failed: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Makes a clip of H.264 and AAC of `seconds`, with a keyframe every second.
pub fn make_clip(path: &Path, seconds: u32) {
    run(ffmpeg()
        .args(["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-i", "sine=frequency=440"])
        .args(["-t", &seconds.to_string(), "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-bf", "0"])
        .args(["-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "64k", "-f", "flv"])
        .arg(path));
}

/// This ffmpeg publishes a clip as it is, in its own time and again and again.
pub fn publish_for_ever(mut ffmpeg: Command, clip: &Path, url: &str) -> Running {
    Running::start(ffmpeg.args(["-re", "-stream_loop", "-1", "-i"]).arg(clip).args(["-c", "copy", "-f", "flv", url]))
}

/// The hash of every packet of a file or stream, by stream index and in order, as `ffmpeg -c copy -f framehash` tells.
pub fn packet_hashes(text: &str) -> Vec<Vec<String>> {
    let mut streams: Vec<Vec<String>> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [stream, .., hash] = fields.as_slice() else { continue };
        let Ok(stream) = stream.parse::<usize>() else { continue };
        if streams.len() <= stream {
            streams.resize(stream + 1, Vec::new());
        }
        streams[stream].push((*hash).to_owned());
    }
    streams
}

/// The hashes of a file's packets.
pub fn file_hashes(mut ffmpeg: Command, path: &Path) -> Vec<Vec<String>> {
    let output = run(ffmpeg.arg("-i").arg(path).args([
        "-map",
        "0:v?",
        "-map",
        "0:a?",
        "-c",
        "copy",
        "-f",
        "framehash",
        "-hash",
        "md5",
        "-",
    ]));
    packet_hashes(&String::from_utf8_lossy(&output.stdout))
}

/// Sleeps for as long as a foreign program needs to notice something; nothing is asserted about the time.
pub fn settle(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}
