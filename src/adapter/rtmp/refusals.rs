//! What a peer and its user read when something ends, and the reasons behind what an engine refuses.

use crate::names::{Kind, NameError};
use crate::proto::rtmp::ProtocolError;
use crate::proto::rtmp::server::Refusal;
use crate::session::{CloseReason, Reason};

pub(super) const NOT_FOUND: Refusal =
    Refusal { code: "NetStream.Play.StreamNotFound", description: "Nobody publishes this stream." };

pub(super) const NO_KEYFRAME: Refusal =
    Refusal { code: "NetStream.Play.Failed", description: "The stream has had no keyframe to begin with." };

pub(super) fn reason_of(error: ProtocolError) -> CloseReason {
    match error {
        ProtocolError::Illegal(rule) => CloseReason::with(Reason::ProtocolError, rule),
        ProtocolError::Limit(key) => CloseReason::with(Reason::LimitExceeded, key),
        ProtocolError::BadMedia(rule) => CloseReason::with(Reason::BadMedia, rule),
        ProtocolError::Deadline(stage) => match stage {
            "handshake" => Reason::HandshakeTimeout.into(),
            "command" => Reason::CommandTimeout.into(),
            "first_media" => Reason::FirstMediaTimeout.into(),
            "media" => Reason::MediaTimeout.into(),
            other => CloseReason::with(Reason::SlowSender, other),
        },
    }
}

pub(super) fn bad_name(error: NameError) -> CloseReason {
    CloseReason::with(
        Reason::ProtocolError,
        match error {
            NameError::Empty => "name_empty",
            NameError::TooLong { .. } => "name_too_long",
            NameError::BadCharacter => "name_character",
            NameError::BadSegment => "name_segment",
            NameError::Blank => "name_blank",
        },
    )
}

pub(super) fn refusal_bad_name(kind: Kind) -> Refusal<'static> {
    Refusal {
        code: if kind == Kind::Publish { "NetStream.Publish.BadName" } else { "NetStream.Play.Failed" },
        description: "The name is not allowed.",
    }
}

/// What the peer's user reads for a reason.
pub(super) fn refusal(reason: CloseReason, kind: Kind) -> Refusal<'static> {
    let publish = kind == Kind::Publish;
    let description = match reason.reason {
        Reason::DuplicatePublish => {
            return Refusal {
                code: "NetStream.Publish.BadName",
                description: "The stream is already being published.",
            };
        }
        Reason::Replaced => "Another publisher took the stream over.",
        Reason::Banned => "You have been refused for some time.",
        Reason::Kicked => "The session was ended by the operator.",
        Reason::AuthDenied | Reason::IpDenied | Reason::ReauthDenied => "You are not allowed to do this.",
        Reason::AuthUnavailable => "Nobody could decide whether you may; try again later.",
        Reason::TokenExpired => "Your token has expired.",
        Reason::MaxDuration => "The session lasted as long as it may.",
        Reason::BitrateExceeded => "You send more than you may.",
        Reason::ConcurrencyLimit => "Too many sessions at once.",
        Reason::LimitExceeded => "A limit of this server was exceeded.",
        Reason::Drain => {
            return Refusal {
                code: "NetConnection.Connect.Closed",
                description: "The server is going away; try another.",
            };
        }
        Reason::SlowConsumer => "You receive too slowly for this stream.",
        Reason::StreamEnded => "The stream has ended.",
        Reason::Overload => "The server is overloaded; try again later.",
        Reason::ConfigChanged => "The rules of this server have changed.",
        Reason::InternalError => "The server failed on this connection.",
        _ => "The session was ended by the server.",
    };
    let code = match (reason.reason, publish) {
        (
            Reason::Banned
            | Reason::AuthDenied
            | Reason::AuthUnavailable
            | Reason::ReauthDenied
            | Reason::TokenExpired
            | Reason::IpDenied,
            true,
        ) => "NetStream.Publish.Denied",
        (_, true) => "NetStream.Publish.Failed",
        (_, false) => "NetStream.Play.Failed",
    };
    Refusal { code, description }
}
