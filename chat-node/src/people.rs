//! Users as each other's: profiles, and finding somebody by name (ID-7); contacts and blocks ([`relations`]).
//!
//! All of it is rows of the store. Of a user others see the id, the name, the picture and the presence, and nothing else.

mod relations;

use common::{
    ids::{AttachmentId, UserId},
    model::{OwnUserView, Page, PageRequest, ProfileView, UserView, limits},
    problem::Problem,
    store::{ProfileChange, SharedStore},
    token::Caller,
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{
    attachments::CheckAttachments,
    auth::unauthenticated,
    check::Checks,
    control::Clock,
    identity::{a_name, a_timezone, own_view},
    presence::Whereabouts,
    relationships::Relationships,
};

/// What is to be changed of one's profile; what is absent stays. The body of `PATCH /api/v1/users/me`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub struct ProfileUpdate {
    #[serde(default)]
    name: Option<String>,
    /// Null takes it away.
    #[serde(default, deserialize_with = "given")]
    avatar: Option<Option<String>>,
    /// Null takes it away.
    #[serde(default, deserialize_with = "given")]
    timezone: Option<Option<String>>,
}

/// A field that is there, be it null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl ProfileUpdate {
    fn check(self) -> Result<ProfileChange, Problem> {
        let Self { name, mut avatar, timezone } = self;
        let mut checks = Checks::default();
        if name.is_none() && avatar.is_none() && timezone.is_none() {
            checks.wrong("name", "name, avatar or timezone was expected");
        }
        if let Some(name) = &name {
            a_name(&mut checks, name);
        }
        if let Some(Some(avatar)) = &avatar
            && !is_a_picture(avatar)
        {
            let max = limits::AVATAR_CHARS;
            checks.wrong(
                "avatar",
                format!(
                    "must be an attachment's id, or an address with https://, of at most {max} characters"
                ),
            );
        }
        a_timezone(&mut checks, timezone.as_ref().and_then(Option::as_deref));
        checks.done()?;
        // As the store compares ids: in lower case.
        if let Some(Some(avatar)) = &mut avatar
            && let Some(id) = upload(avatar)
        {
            *avatar = id.to_string();
        }
        Ok(ProfileChange { name, avatar, timezone })
    }
}

/// Whether a text may stand for a picture in others' clients: nothing in it runs, and nothing ends the attribute that it is put in.
fn is_a_picture(text: &str) -> bool {
    let harmless = |byte: u8| byte.is_ascii_graphic() && !b"\"'<>\\`{}|^".contains(&byte);
    let address = |text: &str| {
        let rest = text.strip_prefix("https://").unwrap_or_default();
        rest.starts_with(|char: char| char.is_ascii_alphanumeric()) && rest.bytes().all(harmless)
    };
    (1..=limits::AVATAR_CHARS).contains(&text.len()) && (upload(text).is_some() || address(text))
}

/// The uploaded file that a picture is, if it is one.
fn upload(text: &str) -> Option<AttachmentId> {
    text.parse().ok()
}

/// What users know of each other. Cheap to clone.
#[derive(Clone)]
pub struct People {
    store: SharedStore,
    presence: Whereabouts,
    relationships: Relationships,
    clock: Clock,
}

impl std::fmt::Debug for People {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("People")
    }
}

impl People {
    /// People whose rows are in `store`, shown with their presence. What changes between two of them is looked for at once by `relationships`.
    pub fn new(
        store: SharedStore,
        presence: Whereabouts,
        relationships: Relationships,
        clock: Clock,
    ) -> Self {
        Self { store, presence, relationships, clock }
    }

    /// Changes the caller's profile. A picture that is an upload of theirs can be read by everybody in the application from then on.
    ///
    /// # Errors
    /// `invalid` with the fields (a picture too that is no upload of the caller's), `unauthenticated` when the user is no more, `retry_later`:
    /// asking again is harmless.
    pub async fn update(
        &self,
        caller: &Caller,
        update: ProfileUpdate,
        uploads: &CheckAttachments,
    ) -> Result<OwnUserView, Problem> {
        let change = update.check()?;
        if let Some(id) = change.avatar.as_ref().and_then(Option::as_deref).and_then(upload) {
            uploads.may_be_shown(caller, "avatar", id).await?;
        }
        let user = self.store.update_profile(caller.app, caller.user, &change).await?;
        user.map(own_view).ok_or_else(unauthenticated)
    }

    /// A page of the people whose names have words that begin with those of `query`.
    ///
    /// # Errors
    /// `retry_later`.
    pub async fn find(
        &self,
        caller: &Caller,
        query: &str,
        page: PageRequest,
    ) -> Result<Page<UserView>, Problem> {
        Ok(self.store.find_people(caller.app, query, page).await?)
    }

    /// Any user, as others see them.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub async fn profile(&self, caller: &Caller, user: UserId) -> Result<ProfileView, Problem> {
        let found = self.store.users(caller.app, &[user]).await?;
        let user = found.into_iter().next().ok_or_else(|| Problem::not_found("user"))?;
        Ok(ProfileView { presence: self.presence.of(caller.key(), user.id).await?, user })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_an_attachment_or_an_address_and_nothing_that_runs() {
        for good in ["0b1c2d3e4f5061728394a5b6c7d8e9f0", "https://example.org/ana.png?size=64#x"] {
            assert!(is_a_picture(good), "{good}");
        }
        for bad in [
            "",
            "0b1c2d3e4f",
            "javascript:alert(1)",
            "http://example.org/ana.png",
            "https://",
            "https:///x",
            "https://example.org/\"onload=",
            "https://example.org/a b",
            "data:image/png;base64,x",
            "a\0b",
            &"x".repeat(513),
        ] {
            assert!(!is_a_picture(bad), "{bad}");
        }
    }
}
