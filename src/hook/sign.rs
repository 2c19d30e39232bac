//! Signatures: how a receiver knows that a request is ours, is whole, and is new.

use aws_lc_rs::hmac;

use crate::stdx::units::Secret;

/// The header with the time of signing, in seconds since the Unix epoch.
pub const TIMESTAMP: &str = "sluicegate-timestamp";
/// The header with the name of what is sent: the event's, the batch's or the question's.
pub const EVENT_ID: &str = "sluicegate-event-id";
/// The header with one signature for each secret.
pub const SIGNATURE: &str = "sluicegate-signature";
/// The header that says by which secrets, in the same order.
pub const KEY_ID: &str = "sluicegate-key-id";

/// Signs with every secret that is in use: one, or two during a rotation.
pub struct Signer {
    keys: Vec<hmac::Key>,
    key_ids: String,
}

impl Signer {
    /// A signer with these secrets. Without any, nothing is signed.
    #[must_use]
    pub fn new(secrets: &[Secret]) -> Self {
        let keys: Vec<hmac::Key> =
            secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes())).collect();
        let key_ids: Vec<String> = keys.iter().map(key_id).collect();
        Self { keys, key_ids: key_ids.join(", ") }
    }

    /// The values of [`SIGNATURE`] and [`KEY_ID`], when there is a secret: HMAC-SHA256 over
    /// `timestamp "." event_id "." body`.
    #[must_use]
    pub fn sign(&self, timestamp: u64, event_id: &str, body: &[u8]) -> Option<(String, &str)> {
        let signatures: Vec<String> = self
            .keys
            .iter()
            .map(|key| {
                let mut context = hmac::Context::with_key(key);
                context.update(timestamp.to_string().as_bytes());
                context.update(b".");
                context.update(event_id.as_bytes());
                context.update(b".");
                context.update(body);
                format!("v1={}", hex(context.sign().as_ref()))
            })
            .collect();
        (!signatures.is_empty()).then(|| (signatures.join(", "), self.key_ids.as_str()))
    }
}

/// What names a secret without giving it away: the first four bytes of a signature that nothing else has.
fn key_id(key: &hmac::Key) -> String {
    hex(hmac::sign(key, b"sluicegate key id").as_ref().get(..4).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_the_guide_says() {
        // From Python: hmac.new(secret, b"1795155521.a-1.{}", "sha256").hexdigest().
        let signer = Signer::new(&[Secret::new("b3BlbiBzZXNhbWUgcGxlYXNl".into())]);
        let (signature, key_ids) = signer.sign(1_795_155_521, "a-1", b"{}").unwrap();
        assert_eq!(signature, "v1=95c5de796ab45c41b6f81a466686c33f2d43359a3afecc0e14c4a53291809aca");
        assert_eq!(key_ids, "a2713e83");
    }

    #[test]
    fn two_secrets_sign_both() {
        let secret = |text: &str| Secret::new(text.into());
        let both = Signer::new(&[secret("new secret"), secret("old secret")]);
        let (signature, key_ids) = both.sign(7, "e", b"body").unwrap();
        let alone: Vec<String> = ["new secret", "old secret"]
            .map(|text| Signer::new(&[secret(text)]).sign(7, "e", b"body").unwrap().0)
            .to_vec();
        assert_eq!(signature, alone.join(", "));
        assert_ne!(alone[0], alone[1]);
        assert_eq!(key_ids.split(", ").count(), 2);
        assert_eq!(Signer::new(&[]).sign(7, "e", b"body"), None);
    }

    #[test]
    fn everything_that_is_signed_counts() {
        let signer = Signer::new(&[Secret::new("secret".into())]);
        let all: std::collections::HashSet<String> =
            [(1, "a", "b"), (2, "a", "b"), (1, "c", "b"), (1, "a", "c"), (1, "a.b", "")]
                .map(|(time, id, body)| signer.sign(time, id, body.as_bytes()).unwrap().0)
                .into_iter()
                .collect();
        assert_eq!(all.len(), 5);
    }
}
