//! Asking the owner of a chat, wherever it is.

use common::{
    ids::ChatId,
    token::Caller,
    wire::owner::{Answer, Draft, OwnerRequest, Refusal, Sent},
};
use tokio::sync::oneshot;

/// The way to every chat's owner. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Forward;

impl Forward {
    /// Asks the chat's owner; see the module.
    pub async fn ask(&self, _request: OwnerRequest) -> Answer {
        todo!()
    }
}

/// One device's sends, in order per chat.
#[derive(Clone, Debug)]
pub struct Lanes;

impl Lanes {
    /// For one socket of `caller`.
    pub fn new(_forward: Forward, _caller: Caller) -> Self {
        todo!()
    }

    /// Takes its place in the chat's order before it returns.
    pub fn send(&self, _chat: ChatId, _draft: Draft) -> oneshot::Receiver<Result<Sent, Refusal>> {
        todo!()
    }
}
