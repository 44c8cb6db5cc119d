//! What an operator has done about notifications, with the key.

use std::time::Duration;

use common::ids::{AppId, ChatId};
use loadtest::client::{
    http::Http,
    rest::{Session, patiently},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// The operator's key.
pub const KEY: &str = "the key of this stage";

/// How long what is asked for may take to be so.
const SOON: Duration = Duration::from_secs(60);

pub struct Operator(Http);

/// A webhook that was made.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub id: String,
    /// As it was shown.
    pub secret: String,
}

impl Operator {
    pub fn at(url: &str) -> Self {
        Self(Http::new(url).unwrap())
    }

    async fn ask(&self, method: Method, rest: &str, body: Value) -> Value {
        let path = format!("/api/v1/applications/{}{rest}", AppId::DEFAULT);
        let body = Some(body).filter(|body| !body.is_null());
        let ask = || self.0.ask(method.clone(), &path, Some(KEY), body.as_ref());
        patiently(ask).await.unwrap()
    }

    /// From here on whoever is away is told without delay, but for what is not sure yet.
    pub async fn at_once(&self) {
        let mut settings = self.ask(Method::GET, "", Value::Null).await["settings"].take();
        settings["notifications"]["after_seconds"] = json!(0);
        self.ask(Method::PUT, "", json!({ "settings": settings })).await;
    }

    pub async fn webhook(&self, url: &str) -> Webhook {
        let made = self.ask(Method::POST, "/webhooks", json!({ "url": url })).await;
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        Webhook { id: text("id"), secret: text("secret") }
    }

    /// What was sent, or is to be, oldest first.
    pub async fn deliveries(&self, webhook: &Webhook) -> Vec<Value> {
        let path = format!("/webhooks/{}/deliveries?perPage=100", webhook.id);
        let mut page = self.ask(Method::GET, &path, Value::Null).await;
        let mut all = std::mem::take(page["results"].as_array_mut().unwrap());
        all.reverse();
        all
    }

    pub async fn until(&self, webhook: &Webhook, what: &str, so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let end = Instant::now() + SOON;
        loop {
            let all = self.deliveries(webhook).await;
            if so(&all) {
                return all;
            }
            assert!(Instant::now() < end, "it did not become so: {what}: {all:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn send_again(&self, webhook: &Webhook, delivery: &Value) {
        let delivery = delivery["id"].as_str().unwrap();
        let path = format!("/webhooks/{}/deliveries/{delivery}/redeliver", webhook.id);
        self.ask(Method::POST, &path, Value::Null).await;
    }
}

/// Writes by REST. Asked again it is the same message.
pub async fn say(by: &Session, chat: ChatId, body: &str) {
    let message = json!({ "body": body, "client_id": body });
    let path = format!("/api/v1/chats/{chat}/messages");
    let _: Value = patiently(|| by.ask(Method::POST, &path, Some(&message))).await.unwrap();
}
