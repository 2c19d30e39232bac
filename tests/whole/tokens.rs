//! Keys, signed URLs and JSON web tokens, made with openssl as whoever runs a site would.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::peers::{self, Running};
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, scratch};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Runs a line of shell with `input`, and returns what it writes.
fn shell(line: &str, input: &str) -> String {
    let mut child = Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the peer sh is needed");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{line}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// The end of the pipelines that the guide shows.
const FOR_URLS: &str = "openssl base64 -A | tr '+/' '-_' | tr -d =";

/// A signed URL's stream name, made by the line in the guide.
fn signed(kind: &str, stream: &str, expires: u64) -> String {
    let line = format!(
        "printf '%s\\n%s\\n%s\\n%s\\n%s' {kind} default/live/{stream} {expires} '' '' |
         openssl dgst -sha256 -hmac {SECRET} -binary | {FOR_URLS}"
    );
    format!("{stream}?expires={expires}&sign={}", shell(&line, ""))
}

/// A JSON web token that openssl signs with `sign`, a command from standard input to standard output.
fn jwt(algorithm: &str, claims: &str, sign: &str) -> String {
    jwt_of(&format!("{{\"alg\":\"{algorithm}\",\"typ\":\"JWT\"}}"), claims, sign)
}

/// The same with a header of its own.
fn jwt_of(header: &str, claims: &str, sign: &str) -> String {
    let part = |text: &str| shell(FOR_URLS, text);
    let head = format!("{}.{}", part(header), part(claims));
    let signature = shell(&format!("{sign} | {FOR_URLS}"), &head);
    format!("{head}.{signature}")
}

/// A publisher whose stream is on, or the reason why it is not let in.
fn try_publish(server: &Server, name: &str) -> Result<Raw, String> {
    let mut raw = Raw::publish(server.rtmp, "live", name);
    assert!(raw.pump_until(PATIENCE, |it| it.started || it.refused.is_some() || it.closed));
    if raw.started {
        raw.send_picture(0);
        return Ok(raw);
    }
    let remote = raw.local();
    let ends = || server.sessions(&format!("state=finished&remote={remote}"));
    crate::support::eventually("its end is known", || ends().len() == 1);
    Err(ends()[0]["reason"].as_str().unwrap().to_owned())
}

/// Waits until the session is shown with a user.
fn assert_user(server: &Server, raw: &Raw, user: &str) {
    server.wait_for_sessions(&format!("remote={}&user={user}", raw.local()), 1);
}

#[test]
fn a_key_opens_and_another_does_not() {
    let server = Server::start(&format!(
        "[admission]\npublish = \"deny\"\n[[admission.keys]]\nkeys = [\"{SECRET}\"]\nuser = \"studio\"\nkinds = [\"publish\"]\n"
    ));
    let raw = try_publish(&server, &format!("cam?key={SECRET}")).expect("the key opens");
    assert_user(&server, &raw, "studio");
    for name in ["other", "other?key=", "other?key=1123456789abcdef0123456789abcdef"] {
        assert_eq!(try_publish(&server, name).err().as_deref(), Some("auth_denied"), "{name}");
    }
    // Players need none.
    Raw::play(server.rtmp, "live", "cam").start();
}

#[test]
fn a_signed_url_opens_its_stream_and_ends_its_session() {
    let server = Server::start(&format!("[[admission.signed]]\nsecrets = [\"{SECRET}\"]\n"));
    let later = unix_seconds() + 600;
    let publisher = try_publish(&server, &signed("publish", "signed", later)).expect("the URL opens");
    let mut player = Raw::play(server.rtmp, "live", &signed("play", "signed", later)).start();
    assert!(player.pump_until(PATIENCE, |it| !it.messages.is_empty()));
    for name in [
        signed("play", "other", later),
        signed("publish", "other", later).replace("other?", "another?"),
        signed("publish", "other", later).replace(&format!("expires={later}"), &format!("expires={}", later + 1)),
        "other".into(),
    ] {
        assert_eq!(try_publish(&server, &name).err().as_deref(), Some("auth_denied"), "{name}");
    }
    assert_eq!(
        try_publish(&server, &signed("publish", "other", unix_seconds() - 60)).err().as_deref(),
        Some("token_expired")
    );
    // Clocks differ by up to 30 s: this one is over in two or three.
    let mut short = try_publish(&server, &signed("publish", "short", unix_seconds() - 27)).expect("it is tolerated");
    let here = server.wait_for_sessions(&format!("remote={}", short.local()), 1);
    short.drain();
    assert_eq!(server.wait_for_end(here[0]["id"].as_str().unwrap())["reason"], "token_expired");
    assert!(!player.closed && server.sessions(&format!("remote={}", publisher.local())).len() == 1);
}

/// Makes a private key, and returns where it is.
fn private_key(dir: &Path, algorithm: &[&str], name: &str) -> PathBuf {
    let path = dir.join(name);
    let made = Command::new("openssl").arg("genpkey").args(algorithm).arg("-out").arg(&path).output();
    assert!(made.expect("the peer openssl is needed").status.success());
    path
}

/// The command that signs a token with this key. Ed25519 signs a file and no pipe.
fn sign_with_ed25519(dir: &Path, key: &Path) -> String {
    let message = dir.join("message").display().to_string();
    format!("cat >{message}; openssl pkeyutl -sign -rawin -inkey {} -in {message}", key.display())
}

#[test]
fn json_web_tokens_of_three_families_open_and_end() {
    let (_dir, dir) = scratch();
    let rsa = private_key(&dir, &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "rsa.pem");
    let ed = private_key(&dir, &["-algorithm", "ed25519"], "ed.pem");
    let public = |path: &Path| shell(&format!("openssl pkey -pubout -in {}", path.display()), "").replace('\n', "\\n");
    let server = Server::start(&format!(
        "[[admission.jwt]]\nsecrets = [\"{SECRET}\"]\npublic_keys = [\"{}\", \"{}\"]\nissuer = \"https://login.example\"\nkinds = [\"publish\"]\n",
        public(&rsa),
        public(&ed)
    ));
    let families = [
        ("HS256", format!("openssl dgst -sha256 -hmac {SECRET} -binary")),
        ("RS256", format!("openssl dgst -sha256 -sign {} -binary", rsa.display())),
        ("EdDSA", sign_with_ed25519(&dir, &ed)),
    ];
    let claims = |expires: u64, stream: &str| {
        format!(
            "{{\"iss\":\"https://login.example\",\"sub\":\"anna\",\"exp\":{expires},\"stream\":\"live/{stream}\",\"kinds\":[\"publish\"],\"labels\":{{\"plan\":\"gold\"}}}}"
        )
    };
    let mut short = Vec::new();
    for (algorithm, sign) in &families {
        let later = unix_seconds() + 600;
        let token = jwt(algorithm, &claims(later, algorithm), sign);
        let raw = try_publish(&server, &format!("{algorithm}?token={token}")).expect("the token opens");
        assert_user(&server, &raw, "anna");
        let wrong_stream = try_publish(&server, &format!("other?token={token}")).err();
        assert_eq!(wrong_stream.as_deref(), Some("auth_denied"), "{algorithm}");
        let cut = &token[..token.len() - 6];
        let wrong_signature = try_publish(&server, &format!("{algorithm}?token={cut}AAAAAA")).err();
        assert_eq!(wrong_signature.as_deref(), Some("auth_denied"), "{algorithm}");
        let over = jwt(algorithm, &claims(unix_seconds() - 60, algorithm), sign);
        assert_eq!(try_publish(&server, &format!("{algorithm}?token={over}")).err().as_deref(), Some("token_expired"));
        let name = format!("{algorithm}-short");
        let token = jwt(algorithm, &claims(unix_seconds() - 27, &name), sign);
        let raw = try_publish(&server, &format!("{name}?token={token}")).expect("it is tolerated");
        let id = server.wait_for_sessions(&format!("remote={}", raw.local()), 1)[0]["id"].clone();
        short.push((raw, id));
    }
    for (mut raw, id) in short {
        raw.drain();
        let end = server.wait_for_end(id.as_str().unwrap());
        assert_eq!(end["reason"], "token_expired", "{end:#}");
        assert_eq!(end["labels"], serde_json::json!({"plan": "gold"}));
    }
}

#[test]
fn a_key_set_is_read_at_the_start_and_again_when_a_token_names_a_key_that_is_new() {
    let (_dir, dir) = scratch();
    let keys = ["old", "new"].map(|name| private_key(&dir, &["-algorithm", "ed25519"], name));
    // What follows the fixed head of an Ed25519 key's DER is the key itself.
    let jwk = |number: usize, id: &str| {
        let line =
            format!("openssl pkey -pubout -outform DER -in {} | tail -c 32 | {FOR_URLS}", keys[number].display());
        format!(
            "{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"EdDSA\",\"kid\":\"{id}\",\"x\":\"{}\"}}",
            shell(&line, "")
        )
    };
    let set = dir.join("keys.json");
    let write = |set_of: &[String]| std::fs::write(&set, format!("{{\"keys\":[{}]}}", set_of.join(","))).unwrap();
    write(&[jwk(0, "old")]);
    let server = Server::start(&format!(
        "[shard]\nauth_failures_per_ip = 0\n[[admission.jwt]]\njwks_file = \"{}\"\nkinds = [\"publish\"]\n",
        set.display()
    ));
    let token = |number: usize, id: &str| {
        let claims = format!("{{\"sub\":\"anna\",\"exp\":{}}}", unix_seconds() + 600);
        let header = format!("{{\"alg\":\"EdDSA\",\"kid\":\"{id}\"}}");
        jwt_of(&header, &claims, &sign_with_ed25519(&dir, &keys[number]))
    };
    let old = token(0, "old");
    let mut publisher = None;
    crate::support::eventually("the key set is read", || {
        publisher = try_publish(&server, &format!("cam?token={old}")).ok();
        publisher.is_some()
    });
    assert_user(&server, &publisher.unwrap(), "anna");
    let forged = token(1, "old");
    assert_eq!(try_publish(&server, &format!("other?token={forged}")).err().as_deref(), Some("auth_denied"));
    // The issuer changes its keys: the first who comes with the new one has it fetched.
    write(&[jwk(1, "new")]);
    let new = token(1, "new");
    crate::support::eventually("the key set is read again", || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let publisher = try_publish(&server, &format!("next?token={new}"));
        publisher.is_ok()
    });
    assert_eq!(try_publish(&server, &format!("more?token={old}")).err().as_deref(), Some("auth_denied"));
}

#[test]
fn ffmpeg_publishes_with_a_token_and_plays_by_a_signed_url() {
    let server = Server::start(&format!(
        "[admission]\nplay = \"deny\"\n[[admission.jwt]]\nsecrets = [\"{SECRET}\"]\nkinds = [\"publish\"]\nrequire_stream = true\n\
         [[admission.signed]]\nsecrets = [\"{SECRET}\"]\nkinds = [\"play\"]\n"
    ));
    let (_dir, dir) = scratch();
    let clip = dir.join("clip.flv");
    peers::make_clip(&clip, 2);
    let later = unix_seconds() + 600;
    let claims = format!("{{\"sub\":\"anna\",\"exp\":{later},\"stream\":\"live/*\",\"kinds\":[\"publish\"]}}");
    let token = jwt("HS256", &claims, &format!("openssl dgst -sha256 -hmac {SECRET} -binary"));
    let _publisher = Running::start(peers::ffmpeg().args(["-re", "-stream_loop", "-1", "-i"]).arg(&clip).args([
        "-c",
        "copy",
        "-f",
        "flv",
        &server.url(&format!("live/cam?token={token}")),
    ]));
    server.wait_for_sessions("kind=publish&user=anna&state=running", 1);
    let play = |name: &str| {
        let url = server.url(&format!("live/{name}"));
        Running::start(peers::ffmpeg().args(["-rw_timeout", "15000000", "-i", &url]).args([
            "-frames:v",
            "10",
            "-c",
            "copy",
            "-f",
            "null",
            "-",
        ]))
    };
    let mut player = play(&signed("play", "cam", later));
    assert!(player.wait(), "{}", player.errors());
    assert!(!play("cam").wait(), "it plays without a signature");
    assert!(!play(&signed("play", "cam", unix_seconds() - 60)).wait(), "it plays by a URL that is over");
}
