//! What the held store answers about notifications: what the one behind it does.

use std::time::Duration;

use async_trait::async_trait;
use common::{
    ids::{AppId, ChatKey, EndpointId, Partition, UserId, UserKey},
    model::{Page, PageRequest},
    notifications::{ChatPreferences, Delivery, Endpoint, Preferences, WebhookChange},
    store::{
        self, Attempt, Candidate, EndpointAdded, Except, Leased, Looked, Notifications, Notify, Queued,
        Receivers, Result, Sending, Waiting,
    },
    time::Millis,
};
use uuid::Uuid;

use super::Held;

#[async_trait]
impl Notifications for Held {
    async fn preferences(&self, user: UserKey) -> Result<Preferences> {
        self.inner().preferences(user).await
    }

    async fn set_preferences(&self, user: UserKey, preferences: &Preferences) -> Result<bool> {
        self.inner().set_preferences(user, preferences).await
    }

    async fn chat_preferences(&self, chat: ChatKey, user: UserId) -> Result<Option<ChatPreferences>> {
        self.inner().chat_preferences(chat, user).await
    }

    async fn set_chat_preferences(
        &self,
        chat: ChatKey,
        user: UserId,
        preferences: &ChatPreferences,
    ) -> Result<bool> {
        self.inner().set_chat_preferences(chat, user, preferences).await
    }

    async fn add_endpoint(&self, endpoint: &Endpoint) -> Result<EndpointAdded> {
        self.inner().add_endpoint(endpoint).await
    }

    async fn endpoints(&self, app: AppId, user: Option<UserId>) -> Result<Vec<Endpoint>> {
        self.inner().endpoints(app, user).await
    }

    async fn endpoint(&self, app: AppId, user: Option<UserId>, id: EndpointId) -> Result<Option<Endpoint>> {
        self.inner().endpoint(app, user, id).await
    }

    async fn update_webhook(
        &self,
        app: AppId,
        id: EndpointId,
        change: &WebhookChange,
    ) -> Result<Option<Endpoint>> {
        self.inner().update_webhook(app, id, change).await
    }

    async fn remove_endpoint(&self, app: AppId, user: Option<UserId>, id: EndpointId) -> Result<bool> {
        self.inner().remove_endpoint(app, user, id).await
    }

    async fn deliveries(&self, app: AppId, id: EndpointId, page: PageRequest) -> Result<Page<Delivery>> {
        self.inner().deliveries(app, id, page).await
    }

    async fn deliver_again(&self, app: AppId, id: EndpointId, delivery: Uuid, now: Millis) -> Result<bool> {
        self.inner().deliver_again(app, id, delivery, now).await
    }
}

#[async_trait]
impl Notify for Held {
    async fn notifying(&self) -> Result<Vec<(AppId, Duration)>> {
        self.inner().notifying().await
    }

    async fn waiting(
        &self,
        app: AppId,
        partitions: &[Partition],
        before: Millis,
        limit: u32,
    ) -> Result<Vec<Waiting>> {
        self.inner().waiting(app, partitions, before, limit).await
    }

    async fn candidates(&self, chat: ChatKey, after: Option<UserId>, limit: u32) -> Result<Vec<Candidate>> {
        self.inner().candidates(chat, after, limit).await
    }

    async fn candidates_among(&self, chat: ChatKey, users: &[UserId]) -> Result<Vec<Candidate>> {
        self.inner().candidates_among(chat, users).await
    }

    async fn looked(&self, looked: &Looked) -> Result<bool> {
        self.inner().looked(looked).await
    }

    async fn held(&self, partitions: &[Partition], now: Millis, limit: u32) -> Result<Vec<store::Held>> {
        self.inner().held(partitions, now, limit).await
    }

    async fn told(
        &self,
        held: &store::Held,
        again: Option<Millis>,
        send: Vec<Sending>,
        now: Millis,
    ) -> Result<bool> {
        self.inner().told(held, again, send, now).await
    }

    async fn look_again_at(&self, app: AppId, users: &[UserId]) -> Result<()> {
        self.inner().look_again_at(app, users).await
    }

    async fn lease_endpoints(
        &self,
        receivers: Receivers,
        except: Except<'_>,
        now: Millis,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Leased>> {
        self.inner().lease_endpoints(receivers, except, now, lease, limit).await
    }

    async fn oldest_pending(&self) -> Result<Option<Millis>> {
        self.inner().oldest_pending().await
    }

    async fn queued(&self, app: AppId, endpoint: EndpointId, limit: u32) -> Result<Vec<Queued>> {
        self.inner().queued(app, endpoint, limit).await
    }

    async fn attempted(
        &self,
        leased: &Leased,
        delivery: Uuid,
        attempt: &Attempt,
        now: Millis,
    ) -> Result<bool> {
        self.inner().attempted(leased, delivery, attempt, now).await
    }

    async fn release_endpoint(&self, leased: &Leased, next: Millis) -> Result<()> {
        self.inner().release_endpoint(leased, next).await
    }

    async fn end_endpoint(&self, leased: &Leased) -> Result<()> {
        self.inner().end_endpoint(leased).await
    }

    async fn prune_deliveries(&self, waiting: Millis, ended: Millis, most: u32) -> Result<u64> {
        self.inner().prune_deliveries(waiting, ended, most).await
    }
}
