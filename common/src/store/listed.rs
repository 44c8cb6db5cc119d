//! All that an application has, for whoever runs it (OP-6): lists by the page. That of users costs what comes before the page; that of messages
//! a look at each chat, whose head says how many it has, and the messages of the page.

use async_trait::async_trait;

use super::{Result, User};
use crate::{
    ids::{AppId, ChatId, MessageId, Number},
    model::{Message, Page, PageRequest},
};

/// What the operator reads.
#[async_trait]
pub trait Listed: Send + Sync {
    /// A page of an application's users, in order of their ids.
    async fn all_users(&self, app: AppId, page: PageRequest) -> Result<Page<User>>;

    /// A page of the messages of an application's chats, as stored and without their `client_id`: chats in order of their numbers, without
    /// deleted ones, and in each the messages in order of theirs.
    async fn all_messages(&self, app: AppId, page: PageRequest) -> Result<Page<Message>>;

    /// Where the message with this id is; none in a chat that was deleted.
    async fn message_place(&self, app: AppId, id: MessageId) -> Result<Option<(ChatId, Number)>>;
}

/// A message as nobody's.
pub(super) fn nobodys(mut message: Message) -> Message {
    message.client_id = None;
    message
}
