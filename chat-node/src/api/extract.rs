//! What handlers take from a request: the caller, ids in the path, a JSON body, the client's address. Whatever is wrong with any of them
//! is a [`Problem`].

use std::net::{IpAddr, SocketAddr};

use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, RawPathParams, Request};
use common::{
    ids::{AppId, AttachmentId, ChatId, ClientId, EndpointId, MessageId, Number, SessionId, UserId},
    problem::Problem,
    token::{Caller, Presented},
    wire::{client::FieldError, codec, codes::ErrorCode},
};
use http::{HeaderMap, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, IgnoredAny};
use uuid::Uuid;

use super::Api;

/// Bytes of a JSON body. A message's 16 KiB, of which a client may escape each byte in six (`\u0001`), are 96 KiB; the rest is for the
/// other fields.
pub(super) const JSON_BYTES: usize = 128 * 1024;

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        Ok(Presented::from_request_parts(parts, api).await?.caller)
    }
}

impl FromRequestParts<Api> for Presented {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let presented = api.auth.caller(&parts.headers, &api.admission).await?;
        api.admission.admit(&presented, api.auth.now()).await?;
        Ok(presented)
    }
}

/// A JSON object as the body, of at most `MAX` bytes, whatever its content type says.
pub(crate) struct Json<T, const MAX: usize = JSON_BYTES>(pub(crate) T);

impl<T: DeserializeOwned, const MAX: usize> FromRequest<Api> for Json<T, MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        object(&body(request, api, MAX).await?).map(Self)
    }
}

/// Likewise, where a body may be left out: nothing, or `null`, is the default.
pub(super) struct MaybeJson<T, const MAX: usize = JSON_BYTES>(pub(super) T);

impl<T: DeserializeOwned + Default, const MAX: usize> FromRequest<Api> for MaybeJson<T, MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let body = body(request, api, MAX).await?;
        if matches!(body.trim_ascii(), b"" | b"null") {
            return Ok(Self(T::default()));
        }
        object(&body).map(Self)
    }
}

/// The whole body, of at most `max` bytes.
async fn body(request: Request, api: &Api, max: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(ErrorCode::TooLarge, format!("the body must have at most {max} bytes"));
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let read = Limited::new(request.into_body(), max).collect();
    match tokio::time::timeout(api.patience.body, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(invalid("the body broke off")),
        Err(_) => Err(Problem::new(ErrorCode::TooSlow, "the body took too long to arrive")),
    }
}

/// The fields of a JSON object.
fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|_| invalid("the body is not UTF-8"))?;
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Err(invalid("the body is not JSON"));
    }
    // Otherwise an array would be read as the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(invalid("a JSON object was expected"));
    }
    codec::fields(text).map_err(Problem::invalid)
}

fn invalid(msg: &str) -> Problem {
    Problem::invalid(FieldError::body("", msg))
}

/// Something that stands in a path.
pub(crate) trait PathPart: Sized {
    /// What there is none of when it is malformed.
    const WHAT: &'static str;

    /// Read strictly.
    fn read(text: &str) -> Option<Self>;
}

macro_rules! id_in_path {
    ($($id:ident: $what:literal),*) => {$(
        impl PathPart for $id {
            const WHAT: &'static str = $what;

            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )*};
}

id_in_path!(
    AppId: "application",
    ChatId: "chat",
    MessageId: "message",
    UserId: "user",
    SessionId: "session",
    AttachmentId: "attachment",
    EndpointId: "endpoint"
);

/// A delivery's id in a path, as it stands in `webhook-id`, or without hyphens like every other id.
pub(super) struct DeliveryId(pub(super) Uuid);

impl PathPart for DeliveryId {
    const WHAT: &'static str = "delivery";

    fn read(text: &str) -> Option<Self> {
        // Neither in braces nor as a URN.
        let plain = matches!(text.len(), 32 | 36);
        Uuid::try_parse(text).ok().filter(|_| plain).map(Self)
    }
}

/// A message's number in a path.
pub(super) struct InChat(pub(super) Number);

impl PathPart for InChat {
    const WHAT: &'static str = "message";

    fn read(text: &str) -> Option<Self> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        // Numbers are kept in signed 64 bits.
        let number = text.parse().ok().filter(|number| i64::try_from(*number).is_ok());
        number.filter(|_| digits).map(Self)
    }
}

/// An emoji in a path, as it is after `%` was undone. What it may be is checked where frames' are.
pub(super) struct Emoji(pub(super) String);

impl PathPart for Emoji {
    const WHAT: &'static str = "reaction";

    fn read(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }
}

/// A chat's number in a path.
pub(super) struct InApp(pub(super) u64);

impl PathPart for InApp {
    const WHAT: &'static str = "chat";

    fn read(text: &str) -> Option<Self> {
        InChat::read(text).map(|InChat(number)| Self(number))
    }
}

/// The one thing in the path. A malformed one does not exist: 404.
pub(crate) struct One<A>(pub(crate) A);

impl<A: PathPart> FromRequestParts<Api> for One<A> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        Ok(Self(nth(&params(parts, api).await?, 0)?))
    }
}

/// The two things in the path.
pub(super) struct Two<A, B>(pub(super) A, pub(super) B);

impl<A: PathPart, B: PathPart> FromRequestParts<Api> for Two<A, B> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let params = params(parts, api).await?;
        Ok(Self(nth(&params, 0)?, nth(&params, 1)?))
    }
}

/// The three things in the path.
pub(super) struct Three<A, B, C>(pub(super) A, pub(super) B, pub(super) C);

impl<A: PathPart, B: PathPart, C: PathPart> FromRequestParts<Api> for Three<A, B, C> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let params = params(parts, api).await?;
        Ok(Self(nth(&params, 0)?, nth(&params, 1)?, nth(&params, 2)?))
    }
}

async fn params(parts: &mut Parts, api: &Api) -> Result<RawPathParams, Problem> {
    let params = RawPathParams::from_request_parts(parts, api).await;
    params.map_err(|_| Problem::new(ErrorCode::NotFound, "there is no such path"))
}

fn nth<A: PathPart>(params: &RawPathParams, at: usize) -> Result<A, Problem> {
    params.iter().nth(at).and_then(|(_, text)| A::read(text)).ok_or_else(|| Problem::not_found(A::WHAT))
}

/// The `Idempotency-Key`, which works as a `client_id`.
pub(crate) struct IdempotencyKey(pub(crate) Option<ClientId>);

impl FromRequestParts<Api> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let mut all = parts.headers.get_all("idempotency-key").iter();
        let key = match (all.next(), all.next()) {
            (None, _) => return Ok(Self(None)),
            (Some(only), None) => only.to_str().ok().and_then(|text| ClientId::new(text).ok()),
            (Some(_), Some(_)) => None,
        };
        let bad = || {
            let msg = format!("must be one, of 1 to {} visible ASCII characters", ClientId::MAX_CHARS);
            Problem::invalid(FieldError { location: "headers".into(), param: "Idempotency-Key".into(), msg })
        };
        key.map(|key| Self(Some(key))).ok_or_else(bad)
    }
}

impl IdempotencyKey {
    /// The name of what a request makes: the header's or the body's; both only when they are the same.
    pub(crate) fn or_body(self, client_id: Option<ClientId>) -> Result<Option<ClientId>, Problem> {
        match (self.0, client_id) {
            (Some(header), Some(body)) if header != body => {
                Err(Problem::invalid(FieldError::body("client_id", "is not the same as Idempotency-Key")))
            }
            (header, body) => Ok(header.or(body)),
        }
    }
}

/// The client's address: the peer's, or when the peer is a gateway the one that it names last (the only one it has seen itself).
pub(super) struct ClientAddress(pub(super) Option<IpAddr>);

impl FromRequestParts<Api> for ClientAddress {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        Ok(Self(peer.map(|peer| client_address(peer, &parts.headers, &api.gateways))))
    }
}

fn client_address(peer: IpAddr, headers: &HeaderMap, gateways: &[IpAddr]) -> IpAddr {
    let peer = peer.to_canonical();
    if !gateways.contains(&peer) {
        return peer;
    }
    let last = headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
    let named =
        last.and_then(|list| list.rsplit(',').next()).and_then(|text| text.trim().parse::<IpAddr>().ok());
    named.map_or(peer, |named| named.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_gateway_is_believed_about_whom_it_saw_and_nobody_else_is() {
        let gateway: IpAddr = "10.0.0.1".parse().unwrap();
        let stranger: IpAddr = "203.0.113.9".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("1.1.1.1, 198.51.100.7"));
        let seen = |peer| client_address(peer, &headers, &[gateway]).to_string();
        assert_eq!(seen(gateway), "198.51.100.7");
        assert_eq!(seen("::ffff:10.0.0.1".parse().unwrap()), "198.51.100.7");
        assert_eq!(seen(stranger), "203.0.113.9");
        assert_eq!(client_address(gateway, &HeaderMap::new(), &[gateway]), gateway);
    }

    #[test]
    fn a_number_in_a_path_has_one_form() {
        assert_eq!(InChat::read("12").map(|number| number.0), Some(12));
        for bad in ["", "0", "007", "+1", "-1", "1.0", "9223372036854775808", "99999999999999999999"] {
            assert!(InChat::read(bad).is_none(), "{bad}");
        }
    }
}
