//! `/attachments`: uploading, downloading, thumbnails (ME-7).

use std::{convert::Infallible, fmt::Write as _, ops::Range};

use axum::{
    Json as Answer,
    body::Body,
    extract::{FromRequest, Request, State},
    response::{IntoResponse, Response},
};
use common::{
    document::{Input, Operation, Routes, says},
    ids::AttachmentId,
    model::MessageKind,
    problem::Problem,
    store::Attachment,
    time::Millis,
    token::Caller,
    wire::codes::ErrorCode,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Api, example,
    extract::{IdempotencyKey, One},
    query::FileName,
};
use crate::attachments::{Said, has_thumbnail, served};

/// Paths that answer in time.
pub(super) fn routes() -> Routes<Api> {
    let unchanged = "The client has it already.";
    Routes::new("Attachments")
        .get(
            "/attachments/{attachment}",
            download,
            says("Downloads a file, or a part of it (`Range`)")
                .raw(200, "The file.", "*/*")
                .raw(206, "The part that was asked for.", "*/*")
                .bare(304, unchanged)
                .bare(416, "It has no such part."),
        )
        .get(
            "/attachments/{attachment}/thumbnail",
            thumbnail,
            says("A small picture of it").raw(200, "The picture.", "image/*").bare(304, unchanged),
        )
}

/// The path whose requests take as long as their bodies.
pub(super) fn slow_routes() -> Routes<Api> {
    let uploaded = Uploaded {
        id: example::FILE,
        kind: MessageKind::Image,
        media_type: "image/png".into(),
        size: 48_213,
        name: Some("photo.png".into()),
        created_at: example::AT,
        thumbnail: true,
    };
    Routes::new("Attachments").post(
        "/attachments",
        upload,
        says("Uploads a file: its type is checked by its content").made_or_there(&uploaded).refuses(&[
            ErrorCode::NotFound,
            ErrorCode::IdConflict,
            ErrorCode::RateLimited,
        ]),
    )
}

/// The file as it comes in.
struct Upload(Request);

impl FromRequest<Api> for Upload {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Infallible> {
        Ok(Self(request))
    }
}

impl Input for Upload {
    fn describe(operation: &mut Operation) {
        operation.file();
    }
}

/// An uploaded file as its uploader is told of it.
#[derive(Serialize, JsonSchema)]
struct Uploaded {
    id: AttachmentId,
    kind: MessageKind,
    #[serde(rename = "type")]
    media_type: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    created_at: Millis,
    /// Whether there may be a thumbnail of it.
    thumbnail: bool,
}

impl From<Attachment> for Uploaded {
    fn from(attachment: Attachment) -> Self {
        let thumbnail = has_thumbnail(&attachment);
        let Attachment { id, kind, media_type, size, name, created_at, .. } = attachment;
        Self { id, kind, media_type, size, name, created_at, thumbnail }
    }
}

async fn upload(
    State(api): State<Api>,
    caller: Caller,
    IdempotencyKey(key): IdempotencyKey,
    FileName(name): FileName,
    Upload(request): Upload,
) -> Result<impl IntoResponse, Problem> {
    let (parts, body) = request.into_parts();
    let said = Said {
        name,
        media_type: text(&parts.headers, header::CONTENT_TYPE).map(str::to_owned),
        length: text(&parts.headers, header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
        key,
    };
    let (attachment, made) = api.attachments.upload(&caller, said, body).await?;
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer(Uploaded::from(attachment))))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

async fn download(
    State(api): State<Api>,
    caller: Caller,
    One(id): One<AttachmentId>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let attachment = api.attachments.attachment(&caller, id).await?;
    let tag = format!("\"{}\"", attachment.object);
    if is_known(&headers, &tag) {
        return Ok(answer(StatusCode::NOT_MODIFIED, &tag, Body::empty()));
    }
    let (media_type, shown) = served(&attachment);
    let size = attachment.size;
    let (status, range) = match asked(&headers, &tag, size) {
        Asked::All => (StatusCode::OK, 0..size),
        Asked::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Asked::Nothing => {
            let mut response = answer(StatusCode::RANGE_NOT_SATISFIABLE, &tag, Body::empty());
            set(&mut response, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return Ok(response);
        }
    };
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        api.attachments.read(&caller, &attachment, range.clone()).await?
    };
    let mut response = answer(status, &tag, body);
    set(&mut response, header::CONTENT_TYPE, media_type);
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::CONTENT_LENGTH, &(range.end - range.start).to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end.saturating_sub(1);
        set(&mut response, header::CONTENT_RANGE, &format!("bytes {}-{last}/{size}", range.start));
    }
    set(&mut response, header::CONTENT_DISPOSITION, &disposition(shown, attachment.name.as_deref()));
    Ok(response)
}

async fn thumbnail(
    State(api): State<Api>,
    caller: Caller,
    One(id): One<AttachmentId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let attachment = api.attachments.attachment(&caller, id).await?;
    let tag = format!("\"{}-thumbnail\"", attachment.object);
    if is_known(&headers, &tag) {
        return Ok(answer(StatusCode::NOT_MODIFIED, &tag, Body::empty()));
    }
    let (small, media_type) = api.attachments.thumbnail(&caller, &attachment).await?;
    let mut response = answer(StatusCode::OK, &tag, small.into());
    set(&mut response, header::CONTENT_TYPE, media_type);
    set(&mut response, header::CONTENT_DISPOSITION, "inline");
    Ok(response)
}

/// An answer with what keeps a browser from making more of the bytes than they are. It may be kept, and is asked for again each time: who may
/// read it may change, what it is does not.
fn answer(status: StatusCode, tag: &str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "private, no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        set(&mut response, name, value);
    }
    response
}

fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    // Made of our own words, digits, and names with nothing but ASCII left.
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// How a file is to be shown, and under which name (RFC 6266).
fn disposition(shown: bool, name: Option<&str>) -> String {
    let mut text = String::from(if shown { "inline" } else { "attachment" });
    let Some(name) = name else { return text };
    let plain =
        |c: char| if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') || c == ' ' { c } else { '_' };
    let fallback: String = name.chars().map(plain).collect();
    let _ = write!(text, "; filename=\"{fallback}\"");
    if fallback != name {
        text.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            let _ = if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                write!(text, "{}", char::from(byte))
            } else {
                write!(text, "%{byte:02X}")
            };
        }
    }
    text
}

/// Whether the client says that it has this already.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|known| known == "*" || known.trim_start_matches("W/") == tag)
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    All,
    Part(Range<u64>),
    /// A part that there is not.
    Nothing,
}

/// The part that is asked for (RFC 9110, 14.2). A header that is not understood, or asks for several parts, asks for all, as it may.
fn asked(headers: &HeaderMap, tag: &str, size: u64) -> Asked {
    let only = |name| {
        let mut all = headers.get_all(name).iter();
        all.next().filter(|_| all.next().is_none()).and_then(|value| value.to_str().ok())
    };
    let Some(range) = only(header::RANGE) else { return Asked::All };
    if headers.contains_key(header::IF_RANGE) && only(header::IF_RANGE) != Some(tag) {
        return Asked::All;
    }
    let Some((unit, range)) = range.split_once('=') else { return Asked::All };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Asked::All;
    }
    let Some((first, last)) = range.trim().split_once('-') else { return Asked::All };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(size),
        (Some(first), None) if last.is_empty() => first..size,
        (None, Some(count)) if first.is_empty() => size.saturating_sub(count)..size,
        _ => return Asked::All,
    };
    if range.start < range.end { Asked::Part(range) } else { Asked::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn me_7_a_part_is_what_was_asked_for_and_there() {
        for (range, expected) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=10-19", Asked::Part(10..20)),
            ("Bytes = 90-", Asked::Part(90..100)),
            ("bytes=90-1000", Asked::Part(90..100)),
            ("bytes=-10", Asked::Part(90..100)),
            ("bytes=-1000", Asked::Part(0..100)),
            ("bytes=99-99999999999999999999", Asked::Part(99..100)),
            ("bytes=100-", Asked::Nothing),
            ("bytes=99999999999999999999-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=5-4", Asked::All),
            ("bytes=0-1,5-6", Asked::All),
            ("bytes=", Asked::All),
            ("bytes=-", Asked::All),
            ("bytes=a-b", Asked::All),
            ("bytes=+1-2", Asked::All),
            ("lines=1-2", Asked::All),
            ("0-1", Asked::All),
        ] {
            assert_eq!(asked(&headers(&[(header::RANGE, range)]), "\"t\"", 100), expected, "{range}");
        }
        let other = headers(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, "\"other\"")]);
        assert_eq!(asked(&other, "\"t\"", 100), Asked::All);
        let same = headers(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, "\"t\"")]);
        assert_eq!(asked(&same, "\"t\"", 100), Asked::Part(0..2));
        let twice = headers(&[(header::RANGE, "bytes=0-1")]);
        let mut twice = twice;
        twice.append(header::RANGE, HeaderValue::from_static("bytes=5-6"));
        assert_eq!(asked(&twice, "\"t\"", 100), Asked::All);
    }

    #[test]
    fn me_7_a_name_cannot_leave_its_header() {
        assert_eq!(disposition(true, None), "inline");
        assert_eq!(disposition(false, Some("a b.txt")), "attachment; filename=\"a b.txt\"");
        assert_eq!(
            disposition(false, Some("a\"; x=\"é\\%.txt")),
            "attachment; filename=\"a_; x=____.txt\"; filename*=UTF-8''a%22%3B%20x%3D%22%C3%A9%5C%25.txt"
        );
    }
}
