//! Files that messages refer to (ME-7): taken in as a stream, kept as objects, given out to members of the chats that they were sent to, and
//! collected when nothing refers to them.
//!
//! [`objects`] keeps the bytes, the store the rows; [`content`] says what a file is; [`thumbnail`] makes pictures small; [`check`] looks
//! at what a message refers to before its chat's owner is asked; [`sweep`] collects. The forms of HTTP are in `api`.

mod check;
mod content;
mod objects;
mod settings;
mod sweep;
mod thumbnail;

use std::{collections::HashMap, fmt, ops::Range, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use common::{
    ids::{AttachmentId, ClientId, ObjectId, UserKey},
    problem::Problem,
    store::{Added, Attachment, SharedStore},
    token::Caller,
    wire::{client::FieldError, codes::ErrorCode},
};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

pub use self::{check::CheckAttachments, settings::AttachmentSettings};
use self::{
    content::Content,
    objects::{Failed, Name, Objects, Writer},
};
use crate::control::Clock;

/// Uploads of one node at once: each holds 5 MiB at most, together 320 MiB.
const UPLOADS: usize = 64;
/// Uploads of one user to one node at once.
const UPLOADS_PER_USER: u32 = 4;
/// Pictures of one node that are made small at once: each takes a core, and some 150 MiB at most.
const THUMBNAILS: usize = 2;
/// How long a thumbnail's turn is waited for.
const TURN: Duration = Duration::from_secs(5);
/// How long a client may send nothing of an upload.
const PAUSE: Duration = Duration::from_secs(30);
/// How long the rest of an upload that is refused is read, so that its client sees why: one that is cut off mostly does not.
const REST: Duration = Duration::from_secs(10);

/// Attachments that cannot be kept as the settings say.
#[derive(Debug, thiserror::Error)]
#[error("attachments.url: {url:?}: {why}")]
pub struct BadAttachments {
    url: String,
    why: String,
}

/// Uploads and downloads. Cheap to clone.
#[derive(Clone)]
pub struct Attachments(Arc<Inner>);

struct Inner {
    store: SharedStore,
    /// None: this cluster keeps none.
    objects: Option<Objects>,
    settings: AttachmentSettings,
    clock: Clock,
    uploads: Semaphore,
    of_user: Mutex<HashMap<UserKey, u32>>,
    thumbnails: Arc<Semaphore>,
}

impl fmt::Debug for Attachments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachments").finish_non_exhaustive()
    }
}

/// What is said of an upload beside its bytes. None of it is believed.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The file's name.
    pub(crate) name: Option<String>,
    /// The media type.
    pub(crate) media_type: Option<String>,
    /// Its length.
    pub(crate) length: Option<u64>,
    /// The same key, the same upload.
    pub(crate) key: Option<ClientId>,
}

/// Why an upload that had begun came to nothing.
enum Undone {
    Refused(Problem),
    Failed(Failed),
    /// The client's connection.
    Broken,
}

impl From<Problem> for Undone {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<Failed> for Undone {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl Attachments {
    /// Opens what the settings name.
    ///
    /// # Errors
    /// [`BadAttachments`].
    pub fn open(
        settings: AttachmentSettings,
        store: SharedStore,
        clock: Clock,
    ) -> Result<Self, BadAttachments> {
        let bad = |why| BadAttachments { url: common::engines::masked(&settings.url), why };
        let objects = match settings.url.as_str() {
            "" => None,
            url => Some(Objects::open(url).map_err(bad)?),
        };
        let (uploads, thumbnails) = (Semaphore::new(UPLOADS), Arc::new(Semaphore::new(THUMBNAILS)));
        Ok(Self(Arc::new(Inner {
            store,
            objects,
            settings,
            clock,
            uploads,
            of_user: Mutex::default(),
            thumbnails,
        })))
    }

    fn objects(&self) -> Result<&Objects, Problem> {
        self.0
            .objects
            .as_ref()
            .ok_or_else(|| Problem::new(ErrorCode::NotFound, "no attachments are kept here"))
    }

    /// Takes a file in, and says whether this request made it: under a key that was used before it is the same one.
    ///
    /// # Errors
    /// `invalid` (empty, or a type that is not taken), `too_large`, `id_conflict` for another file under the same key, `rate_limited`,
    /// `too_slow`, `retry_later`.
    pub(crate) async fn upload(
        &self,
        caller: &Caller,
        said: Said,
        mut body: Body,
    ) -> Result<(Attachment, bool), Problem> {
        let objects = self.objects()?;
        let limit = Duration::from_secs(self.0.settings.upload_time);
        let taken = async {
            let most = self.0.settings.max_bytes;
            if said.length.is_some_and(|length| length > most) {
                return Err(self.too_large());
            }
            let _turn = self.turn(caller.key())?;
            self.receive(objects, caller, said, &mut body).await
        };
        let slow = || Problem::new(ErrorCode::TooSlow, "the upload took too long");
        let outcome = tokio::time::timeout(limit, taken).await.unwrap_or_else(|_| Err(slow()));
        if outcome.is_err() {
            let _ = tokio::time::timeout(REST, swallow(&mut body, self.0.settings.max_bytes)).await;
        }
        outcome
    }

    async fn receive(
        &self,
        objects: &Objects,
        caller: &Caller,
        said: Said,
        body: &mut Body,
    ) -> Result<(Attachment, bool), Problem> {
        let mut head = BytesMut::new();
        while head.len() < content::HEAD
            && let Some(bytes) = next(body).await.map_err(|undone| self.problem(undone))?
        {
            head.extend_from_slice(&bytes);
        }
        let head = head.freeze();
        let content = self.look(&head, &said)?;
        let (app, object) = (caller.app, ObjectId::random());
        self.0.store.note_object(app, object, self.0.clock.now()).await?;
        let mut writer = objects.write(Name::Whole(app, object));
        let digest = said.key.is_some().then(Sha256::new);
        let written = match self.write(&mut writer, head, body, digest).await {
            Ok(written) => writer.finish().await.map(|()| written).map_err(Undone::Failed),
            Err(undone) => {
                writer.abort().await;
                Err(undone)
            }
        };
        let (size, digest) = match written {
            Ok(written) => written,
            Err(undone) => {
                self.discard(objects, caller, object).await;
                return Err(self.problem(undone));
            }
        };
        let id = match &said.key {
            Some(key) => AttachmentId::keyed(app, caller.user, key.as_str()),
            None => AttachmentId::random(),
        };
        let attachment = Attachment {
            id,
            uploader: caller.user,
            object,
            kind: content.kind,
            media_type: content.media_type.to_owned(),
            size,
            name: said.name.as_deref().and_then(content::name),
            digest,
            created_at: self.0.clock.now(),
        };
        match self.0.store.add_attachment(app, &attachment).await? {
            Added::New => Ok((attachment, true)),
            Added::Known(known) => {
                self.discard(objects, caller, object).await;
                if known.digest == attachment.digest {
                    Ok((known, false))
                } else {
                    let detail = "another file was uploaded under this key; it stands";
                    Err(Problem::new(ErrorCode::IdConflict, detail))
                }
            }
            Added::Gone => Err(Problem::retry_later("the upload took too long")),
        }
    }

    /// What the file is, if it is one that is taken.
    fn look(&self, head: &[u8], said: &Said) -> Result<Content, Problem> {
        if head.is_empty() {
            return Err(Problem::invalid(FieldError::body("", "the file is empty")));
        }
        let content = Content::of(head);
        let wrong = |msg: String| {
            Problem::invalid(FieldError { location: "headers".into(), param: "Content-Type".into(), msg })
        };
        if said.media_type.as_deref().is_some_and(|declared| !content.is(declared)) {
            return Err(wrong(format!("the file is no such thing, it is {}", content.media_type)));
        }
        let settings = &self.0.settings;
        if !content::matches(&settings.types, content.media_type)
            || content::matches(&settings.refused_types, content.media_type)
        {
            return Err(wrong(format!("files of type {} are not taken", content.media_type)));
        }
        Ok(content)
    }

    /// Writes the file from its head to its end; answers its length and digest.
    async fn write(
        &self,
        writer: &mut Writer,
        head: Bytes,
        body: &mut Body,
        mut digest: Option<Sha256>,
    ) -> Result<(u64, Option<Vec<u8>>), Undone> {
        let mut size = 0;
        let mut ready = Some(head);
        while let Some(bytes) = ready {
            size += bytes.len() as u64;
            if size > self.0.settings.max_bytes {
                return Err(self.too_large().into());
            }
            if let Some(digest) = &mut digest {
                digest.update(&bytes);
            }
            writer.write(bytes).await?;
            ready = next(body).await?;
        }
        Ok((size, digest.map(|digest| digest.finalize().to_vec())))
    }

    /// Takes an object away that became nothing. When that fails, the sweep does it.
    async fn discard(&self, objects: &Objects, caller: &Caller, object: ObjectId) {
        let gone = match objects.delete(caller.app, object).await {
            Ok(()) => self.0.store.forget_object(caller.app, object).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = gone {
            tracing::debug!(error, "an upload that came to nothing is left to the sweep");
        }
    }

    fn too_large(&self) -> Problem {
        let most = self.0.settings.max_bytes;
        Problem::new(ErrorCode::TooLarge, format!("a file may have {most} bytes"))
    }

    fn problem(&self, undone: Undone) -> Problem {
        match undone {
            Undone::Refused(problem) => problem,
            Undone::Broken => Problem::invalid(FieldError::body("", "the body broke off")),
            Undone::Failed(failed) => unavailable(&failed),
        }
    }

    /// A place among the uploads under way.
    fn turn(&self, user: UserKey) -> Result<impl Sized, Problem> {
        let too_many = |detail: &str| Problem {
            retry_after_ms: Some(1_000),
            ..Problem::new(ErrorCode::RateLimited, detail)
        };
        let turn = self.0.uploads.try_acquire();
        let turn = turn.map_err(|_| Problem::retry_later("too many uploads are under way"))?;
        let mut of_user = self.0.of_user.lock();
        let count = of_user.entry(user).or_default();
        if *count >= UPLOADS_PER_USER {
            return Err(too_many("wait until your other uploads are done"));
        }
        *count += 1;
        Ok((turn, UserTurn { attachments: self, user }))
    }

    /// The attachment, if the caller may read it.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub(crate) async fn attachment(&self, caller: &Caller, id: AttachmentId) -> Result<Attachment, Problem> {
        let found = self.0.store.attachment(caller.app, id, caller.user).await?;
        found.ok_or_else(|| Problem::not_found("attachment"))
    }

    /// These bytes of it.
    ///
    /// # Errors
    /// `not_found`, `retry_later`.
    pub(crate) async fn read(
        &self,
        caller: &Caller,
        attachment: &Attachment,
        range: Range<u64>,
    ) -> Result<Body, Problem> {
        let read = self.objects()?.read(Name::Whole(caller.app, attachment.object), range).await;
        let stream = read.map_err(|failed| unavailable(&failed))?;
        stream.map(Body::from_stream).ok_or_else(|| Problem::not_found("attachment"))
    }

    /// A picture made small, and its type.
    ///
    /// # Errors
    /// `not_found` when there is none of this attachment, `retry_later`.
    pub(crate) async fn thumbnail(
        &self,
        caller: &Caller,
        attachment: &Attachment,
    ) -> Result<(Bytes, &'static str), Problem> {
        let objects = self.objects()?;
        let none = || Problem::not_found("thumbnail");
        if !has_thumbnail(attachment) {
            return Err(none());
        }
        let name = Name::Thumbnail(caller.app, attachment.object);
        let small = match read_small(objects, name).await? {
            Some(small) => small,
            None => self.make_thumbnail(objects, caller, attachment).await?,
        };
        // One of no bytes says that none can be made.
        if small.is_empty() { Err(none()) } else { Ok((small.clone(), thumbnail::media_type(&small))) }
    }

    async fn make_thumbnail(
        &self,
        objects: &Objects,
        caller: &Caller,
        attachment: &Attachment,
    ) -> Result<Bytes, Problem> {
        let turn = tokio::time::timeout(TURN, Arc::clone(&self.0.thumbnails).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(Problem::retry_later("too many pictures are being made small"));
        };
        let name = Name::Thumbnail(caller.app, attachment.object);
        // Somebody before us may have asked for the same one.
        if let Some(small) = read_small(objects, name).await? {
            return Ok(small);
        }
        let source = read_small(objects, Name::Whole(caller.app, attachment.object)).await?;
        let source = source.ok_or_else(|| Problem::not_found("thumbnail"))?;
        // A decoder that falls has found a picture that none can be made of. It keeps its turn when its client is gone: it cannot be stopped.
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            thumbnail::make(&source)
        });
        let small = Bytes::from(made.await.ok().flatten().unwrap_or_default());
        if let Err(error) = objects.put(name, small.clone()).await {
            tracing::warn!(%error, "a thumbnail could not be kept; it is made again");
        }
        Ok(small)
    }
}

/// An object that thumbnails are made of, or one of them.
async fn read_small(objects: &Objects, name: Name) -> Result<Option<Bytes>, Problem> {
    objects.read_whole(name, thumbnail::SOURCE_BYTES).await.map_err(|failed| unavailable(&failed))
}

/// Whether there may be a thumbnail of it.
pub(crate) fn has_thumbnail(attachment: &Attachment) -> bool {
    thumbnail::can_be_made_of(&attachment.media_type) && attachment.size <= thumbnail::SOURCE_BYTES
}

/// The type that an attachment is served with, and whether browsers may show it in place.
pub(crate) fn served(attachment: &Attachment) -> (&str, bool) {
    content::served(&attachment.media_type)
}

struct UserTurn<'a> {
    attachments: &'a Attachments,
    user: UserKey,
}

impl Drop for UserTurn<'_> {
    fn drop(&mut self) {
        let mut of_user = self.attachments.0.of_user.lock();
        if let Some(count) = of_user.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                of_user.remove(&self.user);
            }
        }
    }
}

/// The next bytes of a body; none at its end.
async fn next(body: &mut Body) -> Result<Option<Bytes>, Undone> {
    loop {
        let frame = tokio::time::timeout(PAUSE, body.frame()).await.map_err(|_| {
            Undone::Refused(Problem::new(ErrorCode::TooSlow, "nothing more of the upload came"))
        })?;
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(Undone::Broken),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Ok(Some(bytes)),
                // Trailers say nothing here.
                Err(_) => {}
            },
        }
    }
}

/// Reads what is left of a body, so much at most.
async fn swallow(body: &mut Body, most: u64) {
    let mut left = most;
    while let Ok(Some(bytes)) = next(body).await {
        match left.checked_sub(bytes.len() as u64) {
            Some(less) => left = less,
            None => return,
        }
    }
}

fn unavailable(failed: &Failed) -> Problem {
    tracing::warn!(error = %failed, "what keeps attachments did not do what was asked");
    Problem::retry_later("attachments cannot be read or written at the moment")
}
