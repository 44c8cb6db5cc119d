//! Requests to addresses that somebody gave us: never to one inside (NO-3). The one file that names reqwest.
//!
//! A name is resolved here, and a connection is made to an address that was looked at and no other, so that a name cannot mean
//! something else a moment later. Hosts that are addresses are looked at as well, and so is everything that a redirect leads to. Proxies that the
//! environment names are not asked: they would resolve names by themselves.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use common::{address::Networks, time::Millis};
use jiff::fmt::rfc2822;
use reqwest::{
    Client, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use tokio::{net::lookup_host, time::timeout};

/// How long a connection may take to be made, with its name and TLS.
const CONNECT: Duration = Duration::from_secs(5);

/// How long everything may take, with redirects and what is read of the answer.
pub(super) const WHOLE: Duration = Duration::from_secs(15);

/// What is read of an answer, and how long. Nothing is kept of it: a connection whose answer was read can be used again.
const ANSWER_BYTES: usize = 16 * 1024;
const ANSWER: Duration = Duration::from_secs(2);

/// Redirects that are followed.
const REDIRECTS: usize = 3;

/// How long a connection waits for its next request. Deliveries to one place come close together or hours apart.
const IDLE: Duration = Duration::from_secs(30);

/// Characters of what is told of a failure.
const REASON_CHARS: usize = 200;

/// Makes requests. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: Client,
    allow: Arc<Networks>,
}

/// What is sent.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
    /// To a push service: by TLS only (but to an address that an operator allows), and without following where it leads, for what authorizes it is for this one.
    pub(super) push: bool,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long to wait before asking again.
    pub(super) retry_after: Option<Duration>,
}

/// Why nothing came back, in a few words and without the address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Failed(pub(super) String);

impl Failed {
    fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string().chars().take(REASON_CHARS).collect())
    }
}

impl From<reqwest::Error> for Failed {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::new("no answer in time");
        }
        // Addresses of browsers are secrets, and only the outermost error names them.
        let error = error.without_url();
        let mut deepest: &dyn std::error::Error = &error;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        Self::new(deepest)
    }
}

impl Http {
    /// Reaches the public internet and `allow`.
    ///
    /// # Errors
    /// When this machine has no list of authorities.
    pub(super) fn new(allow: Networks) -> Result<Self, Failed> {
        let allow = Arc::new(allow);
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .user_agent(concat!("chat-cluster/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Resolver(Arc::clone(&allow))))
            .build()?;
        Ok(Self { client, allow })
    }

    /// Sends it.
    ///
    /// # Errors
    /// When there is no answer, or nobody may be asked.
    pub(super) async fn post(&self, post: Post, now: Millis) -> Result<Answer, Failed> {
        timeout(WHOLE, self.follow(post, now)).await.unwrap_or_else(|_| Err(Failed::new("no answer in time")))
    }

    async fn follow(&self, post: Post, now: Millis) -> Result<Answer, Failed> {
        let mut url = Url::parse(&post.url).map_err(|_| Failed::new("its URL cannot be read"))?;
        for _ in 0..=REDIRECTS {
            self.check(&url, post.push)?;
            let mut request = self.client.post(url.clone()).body(post.body.clone());
            for (name, value) in &post.headers {
                request = request.header(*name, value);
            }
            let answer = request.send().await?;
            let Some(next) = (if post.push { None } else { redirected(&url, &answer)? }) else {
                return Ok(read(answer, now).await);
            };
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(Failed::new("it redirects from https to http"));
            }
            url = next;
        }
        Err(Failed::new("it redirects too often"))
    }

    /// Whether the place may be asked, as far as its URL says.
    fn check(&self, url: &Url, push: bool) -> Result<(), Failed> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Failed::new("neither http nor https"));
        }
        let host = url.host_str().ok_or_else(|| Failed::new("no host"))?;
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        if push && url.scheme() != "https" && !address.is_some_and(|address| self.allow.contains(address)) {
            return Err(Failed::new("not https"));
        }
        match address {
            Some(address) if !self.allow.may_reach(address) => Err(Failed::new(INSIDE)),
            _ => Ok(()),
        }
    }
}

/// The origin of a URL (`https://push.example`), if it can be read.
pub(super) fn origin(url: &str) -> Option<String> {
    Url::parse(url).ok().map(|url| url.origin().ascii_serialization())
}

/// The host of a URL and its port; empty when it cannot be read.
pub(super) fn host_and_port(url: &str) -> String {
    let Ok(url) = Url::parse(url) else { return String::new() };
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    format!("{host}:{port}")
}

/// What is said of an address that may not be reached.
const INSIDE: &str = "not an address of the public internet";

/// Where the answer leads, if it does.
fn redirected(url: &Url, answer: &Response) -> Result<Option<Url>, Failed> {
    let status = answer.status();
    // Others would have the request sent without what it says.
    if !matches!(status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT) {
        return Ok(None);
    }
    let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
    let to = to.and_then(|to| url.join(to).ok());
    to.map(Some).ok_or_else(|| Failed::new("it redirects to nowhere"))
}

/// Reads so much of the answer that its connection may be used again, if it is short. What is slow or breaks off then was answered all the
/// same.
async fn read(mut answer: Response, now: Millis) -> Answer {
    let status = answer.status().as_u16();
    let after = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
    let retry_after = after.and_then(|after| wait(after, now));
    let rest = async {
        let mut room = ANSWER_BYTES;
        while let Ok(Some(some)) = answer.chunk().await {
            match room.checked_sub(some.len()) {
                Some(left) => room = left,
                None => break,
            }
        }
    };
    let _read_or_not = timeout(ANSWER, rest).await;
    Answer { status, retry_after }
}

/// A `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn wait(text: &str, now: Millis) -> Option<Duration> {
    let text = text.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => rfc2822::parse(text).ok().map(|at| Millis(at.timestamp().as_millisecond()).since(now)),
    }
}

/// Gives only addresses that may be reached.
struct Resolver(Arc<Networks>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow = Arc::clone(&self.0);
        Box::pin(async move {
            // The port is put in by whoever connects.
            let mut found = lookup_host((name.as_str(), 0)).await?.peekable();
            if found.peek().is_none() {
                return Err(Failed::new("the name has no address").into());
            }
            let mut reached = found.filter(move |found| allow.may_reach(found.ip())).peekable();
            match reached.peek() {
                Some(_) => Ok(Box::new(reached.collect::<Vec<_>>().into_iter()) as Addrs),
                None => Err(Failed::new(INSIDE).into()),
            }
        })
    }
}

#[cfg(test)]
mod tests;
