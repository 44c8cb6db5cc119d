//! Chats as their application has them: by number, whoever is in them (CH-5, CH-8, ME-11).

use async_trait::async_trait;

use super::Result;
use crate::{
    ids::{AppId, ChatId, ChatKey},
    model::{ChatView, Page, PageRequest},
};

/// How much an application has, as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppCounts {
    /// Chats that are not deleted.
    pub chats: u64,
    /// Messages in them, deleted ones included, for they keep their numbers.
    pub messages: u64,
}

/// What applications read.
#[async_trait]
pub trait Numbered: Send + Sync {
    /// How much an application has. Counted: its cost is that of its chats.
    async fn application_counts(&self, app: AppId) -> Result<AppCounts>;

    /// A page of an application's chats in order of their numbers, without deleted ones, as nobody sees them: nothing is unread, and no
    /// message shows its `client_id`.
    async fn app_chats(&self, app: AppId, page: PageRequest) -> Result<Page<ChatView>>;

    /// One of them.
    async fn app_chat(&self, chat: ChatKey) -> Result<Option<ChatView>>;

    /// The chat with this number, unless it was deleted.
    async fn chat_numbered(&self, app: AppId, number: u64) -> Result<Option<ChatId>>;
}
