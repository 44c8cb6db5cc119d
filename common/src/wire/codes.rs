//! Two closed tables: an [`ErrorCode`] answers one request and the session goes on; a [`CloseCode`] ends the
//! connection. Source: the socket's specification; REST uses the same words in `code`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:literal, $temporary:literal, $title:literal;)*) => {
        /// Why one request was not done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its word in frames and in REST answers.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Whether the same request may succeed later.
            pub fn temporary(self) -> bool {
                match self { $(Self::$name => $temporary,)* }
            }

            /// What it says to a person, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

error_codes! {
    /// A field is missing, of the wrong type or out of range; `errors` names it.
    Invalid = "invalid", 400, false, "The request is not valid";
    /// The frame's `type` is not one this server knows.
    UnknownType = "unknown_type", 400, false, "The frame's type is not known";
    /// No token, or one that is not good here.
    Unauthenticated = "unauthenticated", 401, false, "A valid token is needed";
    /// The ticket is forged, expired, used, or another node's.
    BadTicket = "bad_ticket", 401, false, "The ticket is not good: ask for a new location";
    /// Known and yours to see, but not yours to do.
    Forbidden = "forbidden", 403, false, "This is not yours to do";
    /// It does not exist, or it is not yours to know of.
    NotFound = "not_found", 404, false, "There is no such thing, or it is not yours";
    /// The method is not one this path has.
    MethodNotAllowed = "method_not_allowed", 405, false, "This path does not have this method";
    /// The request's body took too long to arrive.
    TooSlow = "too_slow", 408, true, "The request took too long to arrive";
    /// Something else has this name already.
    Conflict = "conflict", 409, false, "This is taken already";
    /// The same `client_id` came with another body; the first one stands.
    IdConflict = "id_conflict", 409, false, "The same client_id came with another body";
    /// Longer than what is stored or read here.
    TooLarge = "too_large", 413, false, "This is too large";
    /// Too many in too short a time.
    RateLimited = "rate_limited", 429, true, "Too many: wait a moment";
    /// Too many of this session's requests are still being worked on.
    TooManyPending = "too_many_pending", 429, true, "Too many requests are still pending";
    /// The application does not allow one of the words.
    RefusedWords = "refused_words", 403, false, "A word in it is not allowed here";
    /// The application does not allow links.
    RefusedLinks = "refused_links", 403, false, "Links are not allowed here";
    /// Surely not stored: try again.
    RetryLater = "retry_later", 503, true, "Not possible at the moment: try again";
    /// May or may not be stored: send again with the same `client_id` and `retry: true`.
    Unknown = "unknown", 503, true, "It may be stored or not: send it again under the same client_id";
    /// A bug of ours; what it was is in the log and not in the answer.
    Internal = "internal", 500, true, "Something went wrong here";
}

impl ErrorCode {
    /// Its word in REST answers: as in frames, but for `unknown`, which HTTP clients meet beside errors of proxies.
    pub fn rest_word(self) -> &'static str {
        if self == Self::Unknown { "outcome_unknown" } else { self.word() }
    }
}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $word:literal, $reconnect:expr;)*) => {
        /// Why a connection ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $($(#[$doc])* $name,)*
        }

        impl CloseCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its number in the WebSocket close frame.
            pub fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }

            /// Its word: the close frame's reason.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What a client does next.
            pub fn reconnect(self) -> Reconnect {
                match self { $(Self::$name => $reconnect,)* }
            }

            /// The code with this number.
            pub fn from_code(code: u16) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.code() == code)
            }
        }
    };
}

/// What a client does after a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reconnect {
    /// Nothing: coming back would end the same way.
    No,
    /// Ask for a location and come back, with resume.
    Yes,
    /// Sign in first.
    AfterSignIn,
}

close_codes! {
    /// The client said goodbye.
    Bye = 1000, "bye", Reconnect::No;
    /// A frame was longer than the server reads.
    FrameTooLarge = 1009, "frame_too_large", Reconnect::Yes;
    /// Not JSON or MessagePack, no `hello` in time, or `hello` twice.
    ProtocolError = 4000, "protocol_error", Reconnect::No;
    /// The ticket is forged, expired, used, or another node's.
    BadTicket = 4001, "bad_ticket", Reconnect::Yes;
    /// The token that the ticket stood for has expired.
    TokenExpired = 4002, "token_expired", Reconnect::AfterSignIn;
    /// The session was ended.
    Revoked = 4003, "revoked", Reconnect::AfterSignIn;
    /// The client reads more slowly than its chats speak.
    SlowConsumer = 4004, "slow_consumer", Reconnect::Yes;
    /// The user's place is another node.
    Moved = 4005, "moved", Reconnect::Yes;
    /// The node is going away.
    ShuttingDown = 4006, "shutting_down", Reconnect::Yes;
    /// No answer to pings.
    Idle = 4007, "idle", Reconnect::Yes;
    /// The user has as many sockets as a user may have.
    TooManySessions = 4008, "too_many_sessions", Reconnect::No;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_word_and_number_stands_once() {
        let words: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(words.len(), ErrorCode::ALL.len());
        let numbers: HashSet<_> = CloseCode::ALL.iter().map(|code| code.code()).collect();
        assert_eq!(numbers.len(), CloseCode::ALL.len());
    }

    #[test]
    fn a_close_code_is_found_by_its_number() {
        assert_eq!(CloseCode::from_code(4004), Some(CloseCode::SlowConsumer));
        assert_eq!(CloseCode::from_code(4999), None);
        assert_eq!(CloseCode::Revoked.reconnect(), Reconnect::AfterSignIn);
    }

    #[test]
    fn an_error_reads_back_from_its_word() {
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{}\"", code.word()));
            assert_eq!(serde_json::from_str::<ErrorCode>(&json).unwrap(), *code);
        }
    }
}
