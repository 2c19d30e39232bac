//! Keys, signed URLs and JSON web tokens, made with openssl as whoever runs a site would.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::back_end::BackEnd;
use crate::support::peers::{self, Running};
use crate::support::raw::Raw;
use crate::support::{PATIENCE, Server, eventually, scratch};

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
    match try_to_publish(server, name) {
        Ok(raw) => Ok(raw),
        Err(end) => Err(end["reason"].as_str().unwrap().to_owned()),
    }
}

/// The same with the whole end of whoever is not let in.
fn try_to_publish(server: &Server, name: &str) -> Result<Raw, Value> {
    let mut raw = Raw::publish(server.rtmp, "live", name);
    assert!(raw.pump_until(PATIENCE, |it| it.started || it.refused.is_some() || it.closed));
    if raw.started {
        raw.send_picture(0);
        return Ok(raw);
    }
    // Of many who come one after the other, two may have come from the same port.
    let stream = name.split('?').next().unwrap();
    let ends = || server.sessions(&format!("state=finished&remote={}&stream={stream}", raw.local()));
    eventually("its end is known", || ends().len() == 1);
    Err(ends().remove(0))
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

/// Two keys of somebody who issues tokens: the one in use and the one that follows it.
struct Issuer {
    dir: PathBuf,
    keys: [PathBuf; 2],
    _scratch: tempfile::TempDir,
}

impl Issuer {
    fn new() -> Self {
        let (scratch, dir) = scratch();
        let keys = ["old", "new"].map(|name| private_key(&dir, &["-algorithm", "ed25519"], name));
        Self { dir, keys, _scratch: scratch }
    }

    /// A key set of these keys, each with the name that it goes by.
    fn set(&self, keys: &[(usize, &str)]) -> String {
        // What follows the fixed head of an Ed25519 key's DER is the key itself.
        let jwk = |(number, id): &(usize, &str)| {
            let line = format!(
                "openssl pkey -pubout -outform DER -in {} | tail -c 32 | {FOR_URLS}",
                self.keys[*number].display()
            );
            format!(
                "{{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"alg\":\"EdDSA\",\"kid\":\"{id}\",\"x\":\"{}\"}}",
                shell(&line, "")
            )
        };
        format!("{{\"keys\":[{}]}}", keys.iter().map(jwk).collect::<Vec<_>>().join(","))
    }

    /// A token that this key signed and that names the key so.
    fn token(&self, number: usize, id: &str) -> String {
        let claims = format!("{{\"sub\":\"anna\",\"exp\":{}}}", unix_seconds() + 600);
        let header = format!("{{\"alg\":\"EdDSA\",\"kid\":\"{id}\"}}");
        jwt_of(&header, &claims, &sign_with_ed25519(&self.dir, &self.keys[number]))
    }
}

/// Comes with a token again and again, as encoders do, until it is let in.
fn publish_in_the_end(server: &Server, name: &str, token: &str) -> Raw {
    let (mut publisher, mut tries) = (None, 0);
    eventually("the key set is read", || {
        publisher = try_publish(server, &format!("{name}-{tries}?token={token}")).ok();
        tries += 1;
        publisher.is_some()
    });
    publisher.unwrap()
}

#[test]
fn a_key_set_is_read_at_the_start_and_again_when_a_token_names_a_key_that_is_new() {
    let issuer = Issuer::new();
    let set = issuer.dir.join("keys.json");
    std::fs::write(&set, issuer.set(&[(0, "old")])).unwrap();
    let server = Server::start(&format!(
        "[shard]\nauth_failures_per_ip = 0\n[[admission.jwt]]\njwks_file = \"{}\"\nkinds = [\"publish\"]\n",
        set.display()
    ));
    let old = issuer.token(0, "old");
    assert_user(&server, &publish_in_the_end(&server, "cam", &old), "anna");
    let forged = issuer.token(1, "old");
    assert_eq!(try_publish(&server, &format!("other?token={forged}")).err().as_deref(), Some("auth_denied"));
    // The issuer changes its keys: the first who comes with the new one has it read.
    std::fs::write(&set, issuer.set(&[(1, "new")])).unwrap();
    publish_in_the_end(&server, "next", &issuer.token(1, "new"));
    assert_eq!(try_publish(&server, &format!("more?token={old}")).err().as_deref(), Some("auth_denied"));
}

/// A server with one rule, whose keys are fetched from the back end.
fn server_with_keys_of(back_end: &BackEnd, set: &str, keys: &str) -> Server {
    let url = back_end.publish("/keys", set);
    Server::start(&format!(
        "[rtmp]\nmedia_timeout = \"1h\"\n[shard]\nauth_failures_per_ip = 0\n\
         [[admission.jwt]]\njwks_url = \"{url}\"\nkinds = [\"publish\"]\n{keys}\n"
    ))
}

#[test]
fn a_key_set_is_fetched_and_keys_that_its_issuer_changes_are_changed_without_a_restart() {
    let (issuer, back_end) = (Issuer::new(), BackEnd::start());
    let server = server_with_keys_of(&back_end, &issuer.set(&[(0, "old")]), "jwks_refresh = \"10s\"");
    let (old, new) = (issuer.token(0, "old"), issuer.token(1, "new"));
    let before = publish_in_the_end(&server, "cam", &old);
    assert_user(&server, &before, "anna");
    let forged = issuer.token(1, "old");
    assert_eq!(try_publish(&server, &format!("forged?token={forged}")).err().as_deref(), Some("auth_denied"));
    // For a while both keys are good: the first who comes with the new one has the set fetched, and waits for it.
    back_end.publish("/keys", &issuer.set(&[(0, "old"), (1, "new")]));
    drop(try_publish(&server, &format!("first?token={new}")).expect("the new key is waited for"));
    drop(try_publish(&server, &format!("both?token={old}")).expect("the old key is still good"));
    // The old one is taken away. Nobody tells the server, which looks every ten seconds.
    back_end.publish("/keys", &issuer.set(&[(1, "new")]));
    let fetched = back_end.fetched("/keys");
    eventually("the set is fetched again", || back_end.fetched("/keys") > fetched);
    let mut tries = 0;
    eventually("the old key is gone", || {
        tries += 1;
        try_publish(&server, &format!("late-{tries}?token={old}")).err().as_deref() == Some("auth_denied")
    });
    drop(try_publish(&server, &format!("more?token={new}")).expect("the new key is good"));
    // Whoever came with the old one before goes on.
    assert_eq!(server.sessions(&format!("kind=publish&remote={}", before.local())).len(), 1);
}

#[test]
fn tokens_of_keys_that_nobody_has_do_not_become_a_flood_at_the_issuer() {
    let (issuer, back_end) = (Issuer::new(), BackEnd::start());
    let server = server_with_keys_of(&back_end, &issuer.set(&[(0, "old")]), "");
    publish_in_the_end(&server, "cam", &issuer.token(0, "old"));
    let (began, fetched) = (Instant::now(), back_end.fetched("/keys"));
    let stranger = issuer.token(0, "nobody");
    for number in 0..60 {
        assert!(try_publish(&server, &format!("strange-{number}?token={stranger}")).is_err());
    }
    eventually("one of them made the server look", || back_end.fetched("/keys") > fetched);
    let (again, took) = (back_end.fetched("/keys") - fetched, began.elapsed());
    assert!(again <= 1 + took.as_secs() as usize / 10, "60 strangers had the set fetched {again} times in {took:?}");
}

#[test]
fn while_an_issuer_was_never_heard_its_tokens_are_undecided_and_nobody_is_blamed() {
    let (issuer, back_end) = (Issuer::new(), BackEnd::start());
    let token = issuer.token(0, "old");
    let url = back_end.publish("/keys", &issuer.set(&[(0, "old")]));
    back_end.go_down();
    let server =
        Server::start(&format!("[shard]\nauth_failures_per_ip = 1\n[[admission.jwt]]\njwks_url = \"{url}\"\n"));
    for number in 0..8 {
        let end = try_to_publish(&server, &format!("early-{number}?token={token}")).err().expect("it is let in");
        assert_eq!((&end["reason"], &end["detail"]), (&"auth_unavailable".into(), &"key_set".into()), "{end:#}");
    }
    eventually("the log tells", || {
        server.log().lines().any(|line| line.contains("key_set") && line.contains("cannot be read: connect"))
    });
    back_end.go_up();
    publish_in_the_end(&server, "cam", &token);
}

#[test]
fn an_issuer_that_is_down_or_makes_no_sense_takes_no_key_away() {
    let (issuer, back_end) = (Issuer::new(), BackEnd::start());
    let server = server_with_keys_of(&back_end, &issuer.set(&[(0, "old")]), "");
    let (old, new) = (issuer.token(0, "old"), issuer.token(1, "new"));
    publish_in_the_end(&server, "cam", &old);
    let told =
        |why: &str| server.log().lines().any(|line| line.contains("the keys stay as they were") && line.contains(why));
    // A token of a new key makes the server look, and it finds nobody, or nothing that it can use.
    back_end.go_down();
    assert_eq!(try_publish(&server, &format!("next?token={new}")).err().as_deref(), Some("auth_unavailable"));
    eventually("the log tells that nobody is there", || told("connect"));
    drop(try_publish(&server, &format!("down?token={old}")).expect("the keys are as they were"));
    back_end.publish("/keys", "<html>Down for maintenance</html>");
    back_end.go_up();
    assert_eq!(try_publish(&server, &format!("next?token={new}")).err().as_deref(), Some("auth_unavailable"));
    eventually("the log tells that this is no key set", || told("that is no key set"));
    drop(try_publish(&server, &format!("senseless?token={old}")).expect("the keys are as they were"));
    // It is back, with other keys.
    back_end.publish("/keys", &issuer.set(&[(1, "new")]));
    publish_in_the_end(&server, "next", &new);
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
    let url = server.url(&format!("live/cam?token={token}"));
    let _publisher = peers::publish_for_ever(peers::ffmpeg(), &clip, &url);
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
