//! One node's REST API, and somebody who calls it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
};
use chat_node::{
    api::{Deps, HttpMetrics, Patience, router},
    attachments::{AttachmentSettings, Attachments, CheckAttachments},
    attempts::AttemptLimits,
    auth::Auth,
    commands::Commands,
    control::Clock,
    erasing::Erasing,
    identity::{Identity, IdentityConfig, IdentityParts},
    making::Making,
    notifications::Notifications,
    passwords::PasswordCost,
    people::People,
    presence::Whereabouts,
    reads::{Reads, TellRead},
    relationships::Relationships,
    storage_api,
};
use common::{
    address::Networks,
    admission::Admission,
    applications::{Applications, MessageRate},
    cache::{LimitPolicy, SharedCache, memory::MemoryCache},
    ids::UserId,
    problem::ProblemBody,
    revocations::Revocations,
    store::{Relations, SharedStore, sqlite::Sqlite},
    token::{self, Tickets, Tokens},
    wire::{
        codes::ErrorCode,
        peer::{Live, Topic},
    },
};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tower::ServiceExt;

use crate::{document, owner::PaperOwner};

/// What a test gets back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    /// The answer is a problem with this status and word.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status.as_u16(), self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        self.body
    }
}

/// For whom, and what.
pub(crate) type Announced = (Vec<Topic>, Live);

pub(crate) struct World {
    pub(crate) router: Router,
    /// The storage API.
    pub(crate) storage: Router,
    pub(crate) owner: Arc<PaperOwner>,
    pub(crate) store: SharedStore,
    /// Where attachments are.
    pub(crate) files: PathBuf,
    pub(crate) cache: SharedCache,
    pub(crate) tokens: Tokens,
    pub(crate) tickets: Tickets,
    pub(crate) announced: Arc<parking_lot::Mutex<Vec<Announced>>>,
    pub(crate) ready: Arc<AtomicBool>,
    _running: DropGuard,
    _folder: tempfile::TempDir,
}

/// A user who has signed in.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) id: UserId,
    pub(crate) token: String,
}

/// Who calls: the gateway, for somebody at an address of documentation (RFC 5737).
pub(crate) const GATEWAY: &str = "10.0.0.1";

/// The operator's.
pub(crate) const ADMIN_KEY: &str = "the key of this world";
/// The storage API's.
pub(crate) const STORAGE_KEY: &str = "the storage key of this world";
/// The internal network that webhooks may be in.
pub(crate) const ALLOWED: &str = "10.9.0.0/16";
/// The longest file that is taken, in bytes.
pub(crate) const MAX_UPLOAD: usize = 400_000;

pub(crate) const PASSWORD: &str = "correct horse";

impl World {
    pub(crate) async fn new() -> Self {
        let plenty = LimitPolicy { per_second: 1e6, burst: 1_000_000 };
        Self::with(AttemptLimits { per_username: plenty, per_username_there: plenty, per_address: plenty })
            .await
    }

    pub(crate) async fn with(attempts: AttemptLimits) -> Self {
        Self::made(attempts, Patience::default(), MessageRate::UNLIMITED).await
    }

    /// One in which users make chats so fast.
    pub(crate) async fn making(rate: MessageRate) -> Self {
        Self::made(AttemptLimits::default(), Patience::default(), rate).await
    }

    pub(crate) async fn impatient() -> Self {
        let patience = Patience { request: Duration::from_millis(300), body: Duration::from_millis(100) };
        Self::made(AttemptLimits::default(), patience, MessageRate::UNLIMITED).await
    }

    async fn made(attempts: AttemptLimits, patience: Patience, chat_rate: MessageRate) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store: SharedStore = Arc::new(Sqlite::open(&folder.path().join("store.db")).await.unwrap());
        let cache: SharedCache = Arc::new(MemoryCache::default());
        let shutdown = CancellationToken::new();
        let (tokens, tickets) = token::load(&store, &shutdown).await.unwrap();
        let revocations = Revocations::load(Arc::clone(&store), &shutdown).await.unwrap();
        tokio::spawn(revocations.clone().run(shutdown.clone()));
        let applications = Applications::load(&store, &shutdown).await.unwrap();
        applications.keep_keys(&tokens);
        tokio::spawn(applications.clone().run(Arc::clone(&store), shutdown.clone()));
        let owner = Arc::new(PaperOwner::new(Arc::clone(&store)));
        let announced = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let registry = prometheus::Registry::new();
        let cheap = PasswordCost { memory_kib: 8, iterations: 1, parallelism: 1 };
        let config = IdentityConfig { password_cost: cheap, attempts, ..IdentityConfig::default() };
        let parts = IdentityParts {
            store: Arc::clone(&store),
            cache: Arc::clone(&cache),
            tokens: tokens.clone(),
            revocations: revocations.clone(),
            clock: Clock::default(),
            announce: {
                let announced = Arc::clone(&announced);
                Arc::new(move |topics, live| announced.lock().push((topics, live)))
            },
        };
        let tell_read: TellRead = {
            let announced = Arc::clone(&announced);
            Arc::new(move |topics, live| announced.lock().push((topics, live)))
        };
        let tasks = TaskTracker::new();
        let reads =
            Reads::start(Arc::clone(&store), Clock::default(), tell_read, &tasks, shutdown.child_token());
        let ready = Arc::new(AtomicBool::new(true));
        let whereabouts = Whereabouts::without_sessions(Arc::clone(&cache), Arc::clone(&store));
        let relationships = Relationships::new(Arc::clone(&store) as Arc<dyn Relations>);
        let files = folder.path().join("attachments");
        let commands = Commands::new(
            owner.clone(),
            Arc::clone(&store),
            reads,
            CheckAttachments::new(Arc::clone(&store), Clock::default()),
        )
        .at_most(Making::new(Arc::clone(&cache), Clock::default(), chat_rate));
        let deps = Deps {
            erasing: Erasing::new(
                commands.clone(),
                Arc::clone(&store),
                applications.clone(),
                Clock::default(),
            ),
            commands,
            attachments: Attachments::open(
                AttachmentSettings {
                    url: format!("file:{}", files.display()),
                    max_bytes: MAX_UPLOAD as u64,
                    ..AttachmentSettings::default()
                },
                Arc::clone(&store),
                Clock::default(),
            )
            .unwrap(),
            identity: Identity::new(&config, parts).unwrap(),
            presence: whereabouts.clone(),
            auth: Auth::new(tokens.clone(), revocations, Clock::default())
                .with_admin_key(ADMIN_KEY.to_owned().into()),
            admission: Admission::new(Arc::clone(&store), applications.clone()),
            people: People::new(Arc::clone(&store), whereabouts, relationships, Clock::default()),
            notifications: Notifications::new(
                Arc::clone(&store),
                Networks::parse([ALLOWED]).unwrap(),
                Clock::default(),
            ),
            applications,
            http_metrics: HttpMetrics::new(&registry).unwrap(),
            registry,
            ready: {
                let ready = Arc::clone(&ready);
                Arc::new(move || if ready.load(Ordering::SeqCst) { Ok(()) } else { Err("no log yet".into()) })
            },
            patience,
            gateways: vec![GATEWAY.parse().unwrap()],
        };
        let storage = storage_api::router(deps.clone(), STORAGE_KEY.to_owned().into());
        let router = router(deps);
        let running = shutdown.drop_guard();
        Self {
            router,
            storage,
            owner,
            store,
            files,
            cache,
            tokens,
            tickets,
            announced,
            ready,
            _running: running,
            _folder: folder,
        }
    }

    /// Sends a request as it is. Whatever is refused must be a problem of the one form, and whatever is answered is in the document.
    pub(crate) async fn raw(&self, request: Request) -> Reply {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let reply = self.sent(&self.router, request).await;
        document::hold(&self.router, &method, &path, &reply).await;
        reply
    }

    /// Sends a request to the storage API, with its key. Whatever is refused must be a problem of the one form, and whatever is answered is in
    /// its document.
    pub(crate) async fn storage(&self, method: Method, path: &str, body: Value) -> Reply {
        let key = format!("Bearer {STORAGE_KEY}");
        let request = request(None, method.clone(), path).header(header::AUTHORIZATION, key);
        let body = if body.is_null() { Body::empty() } else { body.to_string().into() };
        let reply = self.sent(&self.storage, request.body(body).unwrap()).await;
        let path = path.split('?').next().unwrap();
        document::hold_storage(&self.storage, &method, path, &reply).await;
        reply
    }

    pub(crate) async fn sent(&self, router: &Router, mut request: Request) -> Reply {
        let peer = SocketAddr::new(GATEWAY.parse().unwrap(), 4711);
        request.extensions_mut().insert(ConnectInfo(peer));
        let response = router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = match std::str::from_utf8(&bytes).unwrap() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
        };
        if parts.status.is_client_error() || parts.status.is_server_error() {
            is_a_problem(parts.status, &parts.headers, &body);
        }
        Reply { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn call(&self, who: Option<&Person>, method: Method, path: &str, body: Value) -> Reply {
        self.raw(
            request(who, method, path)
                .body(if body.is_null() { Body::empty() } else { body.to_string().into() })
                .unwrap(),
        )
        .await
    }

    pub(crate) async fn get(&self, who: &Person, path: &str) -> Reply {
        self.call(Some(who), Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, who: &Person, path: &str, body: Value) -> Reply {
        self.call(Some(who), Method::POST, path, body).await
    }

    pub(crate) async fn put(&self, who: &Person, path: &str, body: Value) -> Reply {
        self.call(Some(who), Method::PUT, path, body).await
    }

    pub(crate) async fn patch(&self, who: &Person, path: &str, body: Value) -> Reply {
        self.call(Some(who), Method::PATCH, path, body).await
    }

    pub(crate) async fn delete(&self, who: &Person, path: &str) -> Reply {
        self.call(Some(who), Method::DELETE, path, Value::Null).await
    }

    pub(crate) async fn sign_in(&self, username: &str, password: &str, from: &str) -> Reply {
        let body = json!({"username": username, "password": password}).to_string();
        let request = request(None, Method::POST, "/api/v1/sessions").header("x-forwarded-for", from);
        self.raw(request.body(body.into()).unwrap()).await
    }

    /// Registers somebody and signs them in.
    pub(crate) async fn person(&self, name: &str) -> Person {
        let body = json!({"username": name, "password": PASSWORD, "name": name});
        self.call(None, Method::POST, "/api/v1/users", body).await.expect(201);
        self.again(name).await
    }

    /// Signs somebody in once more.
    pub(crate) async fn again(&self, name: &str) -> Person {
        let body = self.sign_in(name, PASSWORD, "198.51.100.7").await.expect(201);
        Person {
            id: body["user"]["id"].as_str().unwrap().parse().unwrap(),
            token: body["token"].as_str().unwrap().into(),
        }
    }

    /// A group of these people, owned by the first; its path.
    pub(crate) async fn group(&self, people: &[&Person]) -> String {
        let members: Vec<UserId> = people.iter().skip(1).map(|person| person.id).collect();
        let body = json!({"name": "Group", "members": members});
        let chat = self.post(people[0], "/api/v1/chats", body).await.expect(201);
        format!("/api/v1/chats/{}", chat["id"].as_str().unwrap())
    }
}

pub(crate) fn request(who: Option<&Person>, method: Method, path: &str) -> http::request::Builder {
    let request = Request::builder().method(method).uri(path);
    match who {
        Some(who) => request.header(header::AUTHORIZATION, format!("Bearer {}", who.token)),
        None => request,
    }
}

#[track_caller]
fn is_a_problem(status: StatusCode, headers: &HeaderMap, body: &Value) {
    assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json", "{status} {body}");
    let problem: ProblemBody = serde_json::from_value(body.clone()).unwrap();
    assert_eq!(problem.status, status.as_u16());
    let known = ErrorCode::ALL.iter().find(|code| code.rest_word() == problem.code);
    assert_eq!(known.map(|code| code.status()), Some(status.as_u16()), "{body}");
    assert!(!problem.title.is_empty() && !problem.detail.is_empty(), "{body}");
    assert!(problem.errors.is_empty() || problem.code == "invalid", "{body}");
    if status == StatusCode::BAD_REQUEST {
        assert!(!problem.errors.is_empty(), "a bad request names what is bad: {body}");
    }
    if [503, 429].contains(&status.as_u16()) {
        assert!(headers.contains_key(header::RETRY_AFTER), "{body}");
    }
    if status == StatusCode::UNAUTHORIZED {
        assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer");
    }
    let text = body.to_string().to_lowercase();
    for word in ["select ", "sqlite", "panicked", ".rs", "tokio", "serde"] {
        assert!(!text.contains(word), "something internal shows: {body}");
    }
}
