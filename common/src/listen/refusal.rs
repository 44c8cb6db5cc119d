//! What is refused before any handler sees it, said in the one format as everything else.

use crate::{
    problem::{Problem, ProblemBody},
    wire::{client::FieldError, codes::ErrorCode},
};

/// What is said in place of `head`, when that is hyper's own answer to a request that it could not read: a status and nothing else.
pub(super) fn instead(head: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(head.strip_prefix(b"HTTP/1.1 ")?).ok()?;
    let (status, fields) = head.strip_suffix("\r\n\r\n")?.split_once("\r\n")?;
    let has = |field: &str| fields.split("\r\n").any(|known| known.eq_ignore_ascii_case(field));
    if !has("content-length: 0") || !has("connection: close") {
        return None;
    }
    let (code, problem) = match status.get(..3)? {
        "400" => (400, invalid("the request is not HTTP/1.1")),
        "414" => (414, Problem::new(ErrorCode::TooLarge, "the request's address is too long")),
        "431" => (431, Problem::new(ErrorCode::TooLarge, "the request's header is too long")),
        _ => return None,
    };
    Some(answer(status, ProblemBody { status: code, ..problem.into() }, ""))
}

/// What a client is told when there are too many.
pub(super) fn full() -> Vec<u8> {
    let problem = Problem::retry_later("there are too many connections at the moment");
    answer("503 Service Unavailable", problem.into(), "retry-after: 1\r\n")
}

fn invalid(msg: &str) -> Problem {
    Problem::invalid(FieldError { location: "headers".into(), param: String::new(), msg: msg.into() })
}

fn answer(status: &str, body: ProblemBody, more: &str) -> Vec<u8> {
    // It is made of words and numbers, which can always be written.
    let body = serde_json::to_string(&body).unwrap_or_default();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_refusal_is_said_otherwise() {
        let bare = |status: &str| {
            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\ndate: today\r\n\r\n")
        };
        for status in ["400 Bad Request", "414 URI Too Long", "431 Request Header Fields Too Large"] {
            let said = String::from_utf8(instead(bare(status).as_bytes()).unwrap()).unwrap();
            assert!(said.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{said}");
            let (head, body) = said.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{said}");
            let problem: ProblemBody = serde_json::from_str(body).unwrap();
            assert_eq!(problem.status.to_string(), status[..3]);
        }
        for other in ["200 OK", "204 No Content", "404 Not Found", "503 Service Unavailable"] {
            assert_eq!(instead(bare(other).as_bytes()), None, "{other}");
        }
        let with_body = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx";
        for other in [with_body, "", "HTTP/1.1 400", "HTTP/1.1 400 Bad Request\r\n\r\n"] {
            assert_eq!(instead(other.as_bytes()), None, "{other}");
        }
    }
}
