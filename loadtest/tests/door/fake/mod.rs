//! A chat server in one process and in memory, honest unless it is told to do something wrong every so many sends.

mod resume;
mod socket;
mod world;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Query, State, WebSocketUpgrade},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use common::ids::{ChatId, UserId};
use parking_lot::Mutex;
use serde_json::{Value, json};

pub(crate) use self::world::Fault;
use self::world::World;

pub(crate) type Shared = Arc<Mutex<World>>;

/// Starts a server that does `fault` at every `every`-th send (never, when 0). Returns its URL.
pub(crate) async fn start(fault: Fault, every: u64) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let world: Shared = Arc::new(Mutex::new(World::new(fault, every)));
    let app = Router::new()
        .route("/api/v1/users", post(register))
        .route("/api/v1/sessions", post(sign_in))
        .route("/api/v1/chats", post(make_chat).get(list))
        .route("/api/v1/chats/{chat}", get(one_chat))
        .route("/api/v1/chats/{chat}/messages", get(messages))
        .route("/api/v1/chats/{chat}/members/{user}", put(add).delete(remove))
        .route("/chat/location", get(move |state, headers| location(state, headers, address)))
        .route("/socket", get(socket))
        .with_state(world);
    #[expect(clippy::disallowed_methods, reason = "a test's own server, on loopback")]
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    format!("http://{address}")
}

fn refuse(status: StatusCode, code: &str) -> Response {
    (status, Json(json!({ "status": status.as_u16(), "code": code, "title": "", "detail": "" })))
        .into_response()
}

fn not_found() -> Response {
    refuse(StatusCode::NOT_FOUND, "not_found")
}

fn caller(world: &Shared, headers: &HeaderMap) -> Result<UserId, Response> {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let user = token.and_then(|token| world.lock().tokens.get(token).copied());
    user.ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "unauthenticated"))
}

async fn register(State(world): State<Shared>, Json(body): Json<Value>) -> Response {
    let id = UserId::random();
    world.lock().users.insert(body["username"].as_str().unwrap().to_owned(), id);
    (StatusCode::CREATED, Json(json!({ "id": id }))).into_response()
}

async fn sign_in(State(world): State<Shared>, Json(body): Json<Value>) -> Response {
    let mut world = world.lock();
    let id = world.users[body["username"].as_str().unwrap()];
    let token = UserId::random().to_string();
    world.tokens.insert(token.clone(), id);
    (
        StatusCode::CREATED,
        Json(json!({ "token": token, "expires_at": "2030-01-01T00:00:00.000Z", "user": { "id": id } })),
    )
        .into_response()
}

async fn location(State(world): State<Shared>, headers: HeaderMap, address: SocketAddr) -> Response {
    let user = match caller(&world, &headers) {
        Ok(user) => user,
        Err(refused) => return refused,
    };
    let ticket = UserId::random().to_string();
    world.lock().tickets.insert(ticket.clone(), user);
    let url = format!("ws://{address}/socket?ticket={ticket}");
    Json(json!({ "url": url, "node": "fake", "ring_epoch": 1, "expires_at": "2030-01-01T00:00:00.000Z" }))
        .into_response()
}

async fn socket(
    State(world): State<Shared>,
    Query(query): Query<std::collections::HashMap<String, String>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let Some(user) = query.get("ticket").and_then(|ticket| world.lock().tickets.remove(ticket)) else {
        return refuse(StatusCode::UNAUTHORIZED, "bad_ticket");
    };
    upgrade.protocols(["chat.v1.json"]).on_upgrade(move |ws| socket::serve(ws, world, user))
}

async fn make_chat(State(world): State<Shared>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let user = match caller(&world, &headers) {
        Ok(user) => user,
        Err(refused) => return refused,
    };
    let id = |value: &Value| value.as_str().and_then(|text| text.parse::<UserId>().ok());
    let mut world = world.lock();
    let chat = match id(&body["host_id"]) {
        Some(host) => world.direct(user, host),
        None => {
            let members = body["members"].as_array().into_iter().flatten().filter_map(id).collect();
            world.group(user, members)
        }
    };
    (StatusCode::CREATED, Json(world.view(chat))).into_response()
}

async fn list(State(world): State<Shared>, headers: HeaderMap) -> Response {
    match caller(&world, &headers) {
        Ok(user) => {
            let chats = world.lock().list(user);
            Json(json!({ "current": 1, "total": 1, "results": chats })).into_response()
        }
        Err(refused) => refused,
    }
}

async fn one_chat(State(world): State<Shared>, headers: HeaderMap, Path(chat): Path<ChatId>) -> Response {
    match caller(&world, &headers) {
        Ok(user) if world.lock().is_member(chat, user) => Json(world.lock().view(chat)).into_response(),
        Ok(_) => not_found(),
        Err(refused) => refused,
    }
}

async fn messages(
    State(world): State<Shared>,
    headers: HeaderMap,
    Path(chat): Path<ChatId>,
    Query(query): Query<std::collections::HashMap<String, u64>>,
) -> Response {
    match caller(&world, &headers) {
        Ok(user) if world.lock().is_member(chat, user) => {
            let world = world.lock();
            let (results, head) = world.page(chat, query.get("after").copied(), query["limit"] as usize);
            Json(json!({ "results": results, "head": head, "complete": true })).into_response()
        }
        Ok(_) => not_found(),
        Err(refused) => refused,
    }
}

async fn add(
    State(world): State<Shared>,
    headers: HeaderMap,
    Path((chat, user)): Path<(ChatId, UserId)>,
) -> Response {
    match caller(&world, &headers) {
        Ok(by) if world.lock().is_member(chat, by) => {
            world.lock().join(chat, by, user);
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(_) => not_found(),
        Err(refused) => refused,
    }
}

async fn remove(
    State(world): State<Shared>,
    headers: HeaderMap,
    Path((chat, user)): Path<(ChatId, UserId)>,
) -> Response {
    match caller(&world, &headers) {
        Ok(by) if world.lock().is_member(chat, by) && world.lock().is_member(chat, user) => {
            world.lock().leave(chat, by, user);
            StatusCode::NO_CONTENT.into_response()
        }
        Ok(_) => not_found(),
        Err(refused) => refused,
    }
}
