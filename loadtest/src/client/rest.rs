//! The public REST API, as far as a chat client uses it.

use std::{sync::Arc, time::Duration};

use common::{
    ids::{ChatId, NodeId, Number, UserId},
    model::{ChatView, ChatsPage, Head, Message, limits},
    time::Millis,
};
use http::Method;
use parking_lot::RwLock;
use rand::Rng;
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Http, HttpError};

/// How often a temporary refusal is asked again, in all about a minute.
const ATTEMPTS: u32 = 12;

/// A user with the means to sign in.
#[derive(Clone, Debug)]
pub struct Account {
    /// The public id.
    pub user: UserId,
    /// The sign-in name.
    pub username: String,
    /// The password.
    pub password: String,
}

/// Where a user's socket is opened.
#[derive(Clone, Debug, Deserialize)]
pub struct Location {
    /// The node's address with a ticket for one socket.
    pub url: String,
    /// The node.
    pub node: NodeId,
}

/// One page of history by cursor (ME-4).
#[derive(Clone, Debug, Deserialize)]
pub struct HistoryAnswer {
    /// The messages.
    pub results: Vec<Message>,
    /// How far the chat is.
    pub head: Head,
    /// Whether everything acknowledged so far was looked at.
    pub complete: bool,
}

/// A whole history, oldest first.
#[derive(Clone, Debug)]
pub struct WholeHistory {
    /// Every message.
    pub messages: Vec<Message>,
    /// How far the chat was when the last page was read.
    pub head: Head,
    /// Whether every page was complete.
    pub complete: bool,
}

#[derive(Deserialize)]
struct Id<T> {
    id: T,
}

/// Registers a user (ID-1).
///
/// # Errors
/// [`HttpError`], after temporary ones were asked again.
pub async fn register(http: &Http, username: &str, password: &str, name: &str) -> Result<Account, HttpError> {
    let body = json!({ "username": username, "password": password, "name": name });
    let made: Id<UserId> = patiently(|| http.ask(Method::POST, "/api/v1/users", None, Some(&body))).await?;
    Ok(Account { user: made.id, username: username.to_owned(), password: password.to_owned() })
}

/// A signed-in user: every call carries the token. Cheap to clone; clones share the token, so that signing in again is seen by all.
#[derive(Clone, Debug)]
pub struct Session {
    http: Http,
    account: Arc<Account>,
    token: Arc<RwLock<Token>>,
}

/// What a sign-in gave.
#[derive(Clone, Debug)]
struct Token {
    text: Arc<str>,
    expires_at: Millis,
}

impl Session {
    /// Signs in (ID-2): a session, and so a device, of its own.
    ///
    /// # Errors
    /// [`HttpError`], after temporary ones were asked again.
    pub async fn sign_in(http: &Http, account: &Account) -> Result<Self, HttpError> {
        let session = Self {
            http: http.clone(),
            account: Arc::new(account.clone()),
            token: Arc::new(RwLock::new(Token { text: Arc::from(""), expires_at: Millis::default() })),
        };
        session.sign_in_again().await?;
        Ok(session)
    }

    /// Signs in anew, for a token that is no longer good.
    ///
    /// # Errors
    /// [`HttpError`], after temporary ones were asked again.
    pub async fn sign_in_again(&self) -> Result<(), HttpError> {
        #[derive(Deserialize)]
        struct SignedIn {
            token: String,
            expires_at: Millis,
        }

        let body = json!({ "username": self.account.username, "password": self.account.password });
        let signed_in: SignedIn =
            patiently(|| self.http.ask(Method::POST, "/api/v1/sessions", None, Some(&body))).await?;
        let SignedIn { token, expires_at } = signed_in;
        *self.token.write() = Token { text: Arc::from(token), expires_at };
        Ok(())
    }

    /// How long the token is good from now on, by this machine's clock.
    pub fn good_for(&self) -> Duration {
        self.token.read().expires_at.since(Millis::now())
    }

    /// Ends this sign-in (ID-2): the token is good for nothing from then on, and the sockets opened with it are closed.
    ///
    /// # Errors
    /// [`HttpError`]; nothing is asked again.
    pub async fn sign_out(&self) -> Result<(), HttpError> {
        self.ask(Method::DELETE, "/api/v1/sessions/current", None).await.map(|_: Value| ())
    }

    /// Whose session this is.
    pub fn user(&self) -> UserId {
        self.account.user
    }

    /// The account, to sign in once more as another device.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The API it was signed in at.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// The same sign-in at another origin of the cluster: at one of its nodes (`http://host:port`).
    ///
    /// # Errors
    /// When it is no such URL.
    pub fn at(&self, url: &str) -> Result<Self, HttpError> {
        Ok(Self { http: Http::new(url)?, ..self.clone() })
    }

    /// One authenticated request. For what has no function of its own here.
    ///
    /// # Errors
    /// [`HttpError`]; nothing is asked again.
    pub async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, HttpError> {
        let token = Arc::clone(&self.token.read().text);
        self.http.ask(method, path, Some(&token), body).await
    }

    /// Where to open the socket (LO-1).
    ///
    /// # Errors
    /// [`HttpError`]; nothing is asked again.
    pub async fn location(&self) -> Result<Location, HttpError> {
        self.ask(Method::GET, "/chat/location", None).await
    }

    /// Opens the direct chat with `host` (CH-2).
    ///
    /// # Errors
    /// [`HttpError`]; nothing is asked again.
    pub async fn open_direct(&self, host: UserId) -> Result<ChatId, HttpError> {
        let body = json!({ "host_id": host });
        self.ask(Method::POST, "/api/v1/chats", Some(&body)).await.map(|made: Id<ChatId>| made.id)
    }

    /// Makes a group (CH-3) of the caller and `members`.
    ///
    /// # Errors
    /// [`HttpError`]; nothing is asked again.
    pub async fn create_group(&self, name: &str, members: &[UserId]) -> Result<ChatId, HttpError> {
        let body = json!({ "name": name, "members": members });
        self.ask(Method::POST, "/api/v1/chats", Some(&body)).await.map(|made: Id<ChatId>| made.id)
    }

    /// The chat as the caller sees it.
    ///
    /// # Errors
    /// [`HttpError`]; nothing is asked again.
    pub async fn chat(&self, chat: ChatId) -> Result<ChatView, HttpError> {
        self.ask(Method::GET, &format!("/api/v1/chats/{chat}"), None).await
    }

    /// The caller's chats, newest activity first; pages from 1.
    ///
    /// # Errors
    /// [`HttpError`]; nothing is asked again.
    pub async fn chats(&self, page: u32) -> Result<ChatsPage, HttpError> {
        let per_page = limits::PER_PAGE;
        self.ask(Method::GET, &format!("/api/v1/chats?page={page}&perPage={per_page}"), None).await
    }

    /// Lets `user` into a group.
    ///
    /// # Errors
    /// [`HttpError`]; nothing is asked again.
    pub async fn add_member(&self, chat: ChatId, user: UserId) -> Result<(), HttpError> {
        self.ask(Method::PUT, &format!("/api/v1/chats/{chat}/members/{user}"), None).await.map(|_: Value| ())
    }

    /// Takes `user` out of a group.
    ///
    /// # Errors
    /// [`HttpError`]; nothing is asked again.
    pub async fn remove_member(&self, chat: ChatId, user: UserId) -> Result<(), HttpError> {
        self.ask(Method::DELETE, &format!("/api/v1/chats/{chat}/members/{user}"), None)
            .await
            .map(|_: Value| ())
    }

    /// Messages above `after`, oldest first (ME-4).
    ///
    /// # Errors
    /// [`HttpError`]; nothing is asked again.
    pub async fn history_after(&self, chat: ChatId, after: Number) -> Result<HistoryAnswer, HttpError> {
        let limit = limits::PER_PAGE;
        self.ask(Method::GET, &format!("/api/v1/chats/{chat}/messages?after={after}&limit={limit}"), None)
            .await
    }

    /// Every message of the chat, page by page.
    ///
    /// # Errors
    /// [`HttpError`], after temporary ones were asked again.
    pub async fn whole_history(&self, chat: ChatId) -> Result<WholeHistory, HttpError> {
        let mut whole = WholeHistory { messages: Vec::new(), head: Head::default(), complete: true };
        let mut after = 0;
        loop {
            let page = patiently(|| self.history_after(chat, after)).await?;
            whole.complete &= page.complete;
            whole.head = page.head;
            let last = page.results.iter().map(|message| message.number).max();
            whole.messages.extend(page.results);
            match last {
                // A page that does not go on would be asked for ever.
                Some(last) if last > after => after = last,
                _ => return Ok(whole),
            }
            if after >= page.head.number {
                return Ok(whole);
            }
        }
    }
}

/// Asks again, with jitter and up to [`ATTEMPTS`] times, while the answer is a temporary refusal or none. For requests that may be
/// done twice without harm.
///
/// # Errors
/// The last answer.
pub async fn patiently<T, F: Future<Output = Result<T, HttpError>>>(
    ask: impl Fn() -> F,
) -> Result<T, HttpError> {
    let mut wait = Duration::from_millis(100);
    let mut attempt = 1;
    loop {
        match ask().await {
            Err(error) if error.temporary() && attempt < ATTEMPTS => {
                tracing::debug!(%error, attempt, "asking again");
                let jittered = wait.mul_f64(rand::rng().random_range(0.5..1.0));
                tokio::time::sleep(jittered).await;
                wait = (wait * 2).min(Duration::from_secs(10));
                attempt += 1;
            }
            answer => return answer,
        }
    }
}
