//! Why sessions end: one enumeration for all protocols, in logs, events, the API and the ledger.

use std::fmt;

/// Whose side ended the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The peer.
    Client,
    /// This server.
    Server,
    /// A rule of ours or of the back end.
    Policy,
    /// The path between.
    Network,
}

macro_rules! reasons {
    ($(#[doc = $doc:literal] $variant:ident = $text:literal, $side:ident;)*) => {
        /// The close reasons of the design.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $(#[doc = $doc] $variant,)* }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name used in APIs, logs and metric labels.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// One sentence on when it is used: the doc comment of the variant.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $doc.trim_ascii(),)* }
            }

            /// Whose side it was.
            #[must_use]
            pub fn side(self) -> Side {
                match self { $(Self::$variant => Side::$side,)* }
            }
        }
    };
}

reasons! {
    /// Orderly end: unpublish, deleteStream, FIN.
    ClientDone = "client_done", Client;
    /// Connection reset.
    ClientReset = "client_reset", Network;
    /// Stage deadline before the protocol was up.
    HandshakeTimeout = "handshake_timeout", Client;
    /// Protocol up, no publish or play in time.
    CommandTimeout = "command_timeout", Client;
    /// Publish accepted, no media.
    FirstMediaTimeout = "first_media_timeout", Client;
    /// Publisher silent.
    MediaTimeout = "media_timeout", Network;
    /// Queue cap reached again and again, or no progress.
    SlowConsumer = "slow_consumer", Client;
    /// Below the minimum rate.
    SlowSender = "slow_sender", Client;
    /// Illegal bytes; the detail names the rule.
    ProtocolError = "protocol_error", Client;
    /// A limit was hit; the detail is its key.
    LimitExceeded = "limit_exceeded", Policy;
    /// Container or codec bytes unusable.
    BadMedia = "bad_media", Client;
    /// The decision was no.
    AuthDenied = "auth_denied", Policy;
    /// Nobody could decide.
    AuthUnavailable = "auth_unavailable", Policy;
    /// A re-check said no.
    ReauthDenied = "reauth_denied", Policy;
    /// The token ran out.
    TokenExpired = "token_expired", Policy;
    /// An address rule.
    IpDenied = "ip_denied", Policy;
    /// Too many at once; the detail says of what.
    ConcurrencyLimit = "concurrency_limit", Policy;
    /// Publish bitrate over the rule.
    BitrateExceeded = "bitrate_exceeded", Policy;
    /// Volume used up.
    QuotaExceeded = "quota_exceeded", Policy;
    /// Longer than allowed.
    MaxDuration = "max_duration", Policy;
    /// Ended by an operator or the API.
    Kicked = "kicked", Policy;
    /// Ended or refused by a ban.
    Banned = "banned", Policy;
    /// The stream already has a publisher.
    DuplicatePublish = "duplicate_publish", Policy;
    /// A newer publisher took the stream over.
    Replaced = "replaced", Policy;
    /// The stream's resume window passed without a publisher.
    StreamEnded = "stream_ended", Server;
    /// Nothing could be decrypted.
    DecryptFailed = "decrypt_failed", Client;
    /// TLS failed.
    TlsError = "tls_error", Client;
    /// Shed under load.
    Overload = "overload", Server;
    /// The server is going away.
    Drain = "drain", Server;
    /// The old generation's time is up.
    UpgradeDeadline = "upgrade_deadline", Server;
    /// A new configuration denies it.
    ConfigChanged = "config_changed", Server;
    /// A defect of ours.
    InternalError = "internal_error", Server;
    /// Closed on the next start after a crash.
    ServerCrash = "server_crash", Server;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Side {
    /// The name used in APIs and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Policy => "policy",
            Self::Network => "network",
        }
    }
}

/// A reason with its detail: a short fixed token, never text from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseReason {
    /// Which of the reasons.
    pub reason: Reason,
    /// The rule, limit or cause within it; empty when the reason says all.
    pub detail: &'static str,
}

impl CloseReason {
    /// A reason that needs no detail.
    #[must_use]
    pub const fn new(reason: Reason) -> Self {
        Self { reason, detail: "" }
    }

    /// A reason with its detail.
    #[must_use]
    pub const fn with(reason: Reason, detail: &'static str) -> Self {
        Self { reason, detail }
    }
}

impl From<Reason> for CloseReason {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() { write!(f, "{}", self.reason) } else { write!(f, "{}:{}", self.reason, self.detail) }
    }
}
