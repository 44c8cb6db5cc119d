//! Waiting until everything a crowd wrote is answered, and everything there is was seen.

use std::time::Duration;

use common::{ids::ChatId, model::ChatView};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::{CHATS_AT_ONCE, Crowd};
use crate::{
    client::{Client, http::HttpError, rest::patiently},
    workload::WorkloadError,
};

/// Between two questions whether who is behind is still a member.
const LOOK: Duration = Duration::from_secs(1);

/// How often somebody who is signed out is asked, so long apart: the longest wait before a device tries again, and once more.
const SIGNING_IN: u32 = 10;

impl Crowd {
    /// Waits until every outbox is empty; says how many devices are not done when `within` is over.
    pub async fn drained(&self, within: Duration) -> usize {
        let until = Instant::now() + within;
        let mut busy = 0;
        for device in self.devices() {
            let left = until.saturating_duration_since(Instant::now());
            if !device.drained(left).await {
                busy += 1;
            }
        }
        busy
    }

    /// Waits until every member's every device has seen every chat as far as it is now, however busy it goes on to be. What is behind when
    /// `within` is over is returned: chat, user, and what was seen of how much.
    ///
    /// # Errors
    /// When a chat's head cannot be read.
    pub async fn settled(&self, within: Duration) -> Result<Vec<String>, WorkloadError> {
        let behind: Vec<Vec<String>> = stream::iter(self.chats())
            .map(|(chat, reader)| self.behind(chat, reader, within))
            .buffered(CHATS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(behind.into_iter().flatten().collect())
    }

    /// Who of one chat is behind where it is now, once so much time is over.
    async fn behind(
        &self,
        chat: ChatId,
        reader: usize,
        within: Duration,
    ) -> Result<Vec<String>, WorkloadError> {
        let Some(reader) = self.people.get(reader).and_then(|person| person.devices.first()) else {
            return Ok(Vec::new());
        };
        let view = view(reader, chat).await?;
        let member = |view: &ChatView, user| view.members.iter().any(|member| member.id == user);
        let mut late: Vec<_> = self.devices().filter(|device| member(&view, device.user())).collect();
        let until = Instant::now() + within;
        loop {
            let there = |device: &&Client| device.head(chat).is_some_and(|head| head.seq >= view.seq);
            late.retain(|device| !there(device));
            let Some(first) = late.first() else { break };
            let left = until.saturating_duration_since(Instant::now());
            if first.seen(chat, |head| head.seq >= view.seq, left.min(LOOK)).await {
                continue;
            }
            // Who was taken out meanwhile is shown nothing more.
            let now = self::view(reader, chat).await?;
            late.retain(|device| member(&now, device.user()));
            if left.is_zero() {
                break;
            }
        }
        let behind = late.into_iter().map(|device| {
            let seen = device.head(chat).map_or(0, |head| head.seq);
            format!("{} saw chat {chat} up to seq {seen} of {}", device.user(), view.seq)
        });
        Ok(behind.collect())
    }
}

/// The chat as it is now, through a device that may be signed out at the moment: it signs in again by itself.
async fn view(device: &Client, chat: ChatId) -> Result<ChatView, HttpError> {
    let mut tries = 0;
    loop {
        match patiently(|| device.session().chat(chat)).await {
            Err(error) if error.unauthenticated() && tries < SIGNING_IN => tries += 1,
            answer => return answer,
        }
        tokio::time::sleep(LOOK).await;
    }
}
