//! People who are signed in, and what they ask for over REST.

use common::{ids::UserId, wire::codes::ErrorCode};
use loadtest::client::{
    http::{Http, HttpError},
    rest::{self, Session},
};
use reqwest::Method;
use serde_json::Value;

use super::Stage;

/// Somebody who is signed in.
pub async fn person(stage: &Stage, name: &str) -> Session {
    person_at(&stage.cluster.url(), name).await
}

/// Likewise, at a cluster with this URL.
pub async fn person_at(url: &str, name: &str) -> Session {
    let http = Http::new(url).unwrap();
    let username = format!("{}-{}", name.to_lowercase(), UserId::random());
    let account = rest::register(&http, &username, "correct horse", name).await.unwrap();
    Session::sign_in(&http, &account).await.unwrap()
}

pub async fn get(session: &Session, path: &str) -> Value {
    session.ask(Method::GET, path, None).await.unwrap()
}

pub async fn ask(session: &Session, method: Method, path: &str, body: Value) -> Result<Value, HttpError> {
    let body = Some(body).filter(|body| !body.is_null());
    session.ask(method, path, body.as_ref()).await
}

#[track_caller]
pub fn refused(answer: Result<Value, HttpError>, code: ErrorCode) {
    match answer {
        Err(HttpError::Refused { code: Some(said), .. }) if said == code => {}
        other => panic!("not {code:?}: {other:?}"),
    }
}
