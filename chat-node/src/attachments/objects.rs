//! Where the bytes of uploaded files are kept: a folder, or a bucket of an S3-compatible service.
//!
//! An object is whole or not there: it shows under its name when its last byte is written, and synced. What a killed process leaves behind
//! of one that was being written lies beside it under a longer name, and goes with it. In a bucket that is the service's part: give it a
//! rule that ends incomplete multipart uploads.

use std::{
    collections::VecDeque,
    fmt,
    ops::Range,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use common::ids::{AppId, ObjectId};
use futures_util::{StreamExt, stream, stream::BoxStream};
use object_store::{
    Error, GetOptions, GetRange, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload,
    local::LocalFileSystem, path::Path,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Bytes that are written together, and so what an upload holds in memory: the least that S3 takes as a part, where every part but the last
/// must have the same length.
const PART: usize = 5 * 1024 * 1024;

/// Bytes that are read together from a file.
const CHUNK: usize = 64 * 1024;

/// How long one step may take: a part of 5 MiB at 1.4 Mbit/s.
const STEP: Duration = Duration::from_secs(30);

/// Why an object was not written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("what keeps attachments did not answer in time")]
    Late,
    #[error(transparent)]
    Engine(#[from] Error),
    #[error(transparent)]
    File(#[from] std::io::Error),
}

/// An object's bytes, as they come.
pub(super) type Stream = BoxStream<'static, Result<Bytes, Failed>>;

/// An object's name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Name {
    /// The file as it was uploaded.
    Whole(AppId, ObjectId),
    /// Its small picture.
    Thumbnail(AppId, ObjectId),
}

impl Name {
    /// Folders of one application have at most 256 others in them.
    fn path(self) -> Path {
        let (app, object, ending) = match self {
            Self::Whole(app, object) => (app, object, ""),
            Self::Thumbnail(app, object) => (app, object, ".thumbnail"),
        };
        let name = object.to_string();
        let shelf = name.get(..2).unwrap_or_default();
        Path::from_iter([app.to_string(), shelf.to_owned(), format!("{name}{ending}")])
    }
}

/// Keeps objects. Cheap to clone.
#[derive(Clone)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    /// When it is one.
    folder: Option<PathBuf>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

impl Objects {
    /// What the URL names: `file:FOLDER`, which is made when it is not there, or `s3://BUCKET[/PREFIX][?region=…&endpoint=…]`, with
    /// credentials from the environment as AWS names it (`AWS_ACCESS_KEY_ID`, …).
    ///
    /// # Errors
    /// In words for an operator.
    pub(super) fn open(url: &str) -> Result<Self, String> {
        match url.split_once(':') {
            Some(("file", folder)) if !folder.is_empty() => Self::folder(FilePath::new(folder)),
            Some(("s3", rest)) if rest.starts_with("//") => bucket(url),
            _ => Err("known are file:FOLDER and s3://BUCKET[/PREFIX]".to_owned()),
        }
    }

    fn folder(folder: &FilePath) -> Result<Self, String> {
        let told = |error: &dyn fmt::Display| format!("the folder {}: {error}", folder.display());
        std::fs::create_dir_all(folder).map_err(|error| told(&error))?;
        // Whoever is told that a file was uploaded finds it after a crash.
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| told(&error))?.with_fsync(true);
        Ok(Self { store: Arc::new(store), folder: Some(folder.to_owned()) })
    }

    /// Begins to write an object.
    pub(super) fn write(&self, name: Name) -> Writer {
        Writer {
            store: Arc::clone(&self.store),
            path: name.path(),
            held: VecDeque::new(),
            length: 0,
            upload: None,
        }
    }

    /// Writes a small one.
    pub(super) async fn put(&self, name: Name, bytes: Bytes) -> Result<(), Failed> {
        step(self.store.put(&name.path(), bytes.into())).await.map(drop)
    }

    /// These bytes of it; none when it is not there.
    pub(super) async fn read(&self, name: Name, range: Range<u64>) -> Result<Option<Stream>, Failed> {
        let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let got = match step(self.store.get_opts(&name.path(), options)).await {
            Ok(got) => got,
            Err(Failed::Engine(Error::NotFound { .. })) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(match got.payload {
            GetResultPayload::File(file, _) => {
                let mut file = tokio::fs::File::from_std(file);
                file.seek(std::io::SeekFrom::Start(got.range.start)).await?;
                file_stream(file, got.range.end.saturating_sub(got.range.start))
            }
            GetResultPayload::Stream(stream) => bounded(stream),
        }))
    }

    /// All of a small one; none when it is not there, or has more bytes than `most`.
    pub(super) async fn read_whole(&self, name: Name, most: u64) -> Result<Option<Bytes>, Failed> {
        let got = match step(self.store.get(&name.path())).await {
            Ok(got) if got.meta.size <= most => got,
            Ok(_) | Err(Failed::Engine(Error::NotFound { .. })) => return Ok(None),
            Err(error) => return Err(error),
        };
        step(got.bytes()).await.map(Some)
    }

    /// Takes an object away, with its thumbnail and what was left of the writing of both. One that is not there is away.
    pub(super) async fn delete(&self, app: AppId, object: ObjectId) -> Result<(), Failed> {
        if let Some(folder) = &self.folder {
            let shelf = folder.join(Name::Whole(app, object).path().as_ref());
            let removed = tokio::task::spawn_blocking(move || remove(&shelf));
            return removed.await.map_err(std::io::Error::other)?.map_err(Failed::File);
        }
        for name in [Name::Thumbnail(app, object), Name::Whole(app, object)] {
            match step(self.store.delete(&name.path())).await {
                Ok(()) | Err(Failed::Engine(Error::NotFound { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Removes a file, and those beside it whose names begin with its name.
fn remove(file: &FilePath) -> std::io::Result<()> {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let gone = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|other| other.starts_with(name)) {
            match std::fs::remove_file(entry.path()) {
                Err(error) if !gone(&error) => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(feature = "aws")]
fn bucket(url: &str) -> Result<Objects, String> {
    use object_store::{
        ClientOptions,
        aws::{AmazonS3Builder, AmazonS3ConfigKey},
        prefix::PrefixStore,
    };

    let (place, query) = url.split_once('?').unwrap_or((url, ""));
    let prefix = place.trim_start_matches("s3://").split_once('/').map_or("", |(_, prefix)| prefix);
    // Whole answers may take as long as their readers; each step is bounded here.
    let client = ClientOptions::new().with_timeout_disabled().with_connect_timeout(Duration::from_secs(5));
    let mut builder = AmazonS3Builder::from_env().with_client_options(client).with_url(place);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let known: AmazonS3ConfigKey =
            key.parse().map_err(|_| format!("{key:?} is no parameter of a bucket"))?;
        builder = builder.with_config(known, value);
    }
    let store = builder.build().map_err(|error| error.to_string())?;
    Ok(Objects { store: Arc::new(PrefixStore::new(store, prefix)), folder: None })
}

#[cfg(not(feature = "aws"))]
fn bucket(_: &str) -> Result<Objects, String> {
    Err("this program is built without buckets (cargo feature `aws`)".to_owned())
}

/// An object that is being written. Dropped before it is finished, it leaves nothing under its name.
pub(super) struct Writer {
    store: Arc<dyn ObjectStore>,
    path: Path,
    held: VecDeque<Bytes>,
    /// Of `held`.
    length: usize,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Writer {
    /// Takes the next bytes; waits while they are written.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), Failed> {
        self.length += bytes.len();
        self.held.push_back(bytes);
        while self.length > PART {
            let part = self.part();
            self.send(part).await?;
        }
        Ok(())
    }

    /// The first bytes that are held, a part of them.
    fn part(&mut self) -> PutPayload {
        let mut left = PART.min(self.length);
        self.length -= left;
        let mut part = Vec::new();
        while left > 0
            && let Some(mut bytes) = self.held.pop_front()
        {
            if bytes.len() > left {
                self.held.push_front(bytes.split_off(left));
            }
            left -= bytes.len();
            part.push(bytes);
        }
        part.into_iter().collect()
    }

    async fn send(&mut self, part: PutPayload) -> Result<(), Failed> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(step(self.store.put_multipart(&self.path)).await?),
        };
        step(upload.put_part(part)).await
    }

    /// Writes what is left, and shows the object under its name.
    pub(super) async fn finish(mut self) -> Result<(), Failed> {
        let last = self.part();
        match self.upload.take() {
            None => step(self.store.put(&self.path, last)).await.map(drop),
            Some(mut upload) => {
                step(upload.put_part(last)).await?;
                step(upload.complete()).await.map(drop)
            }
        }
    }

    /// Gives it up.
    pub(super) async fn abort(mut self) {
        if let Some(mut upload) = self.upload.take()
            && let Err(error) = step(upload.abort()).await
        {
            tracing::debug!(%error, "an upload that was given up could not be taken away yet");
        }
    }
}

async fn step<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Failed> {
    Ok(tokio::time::timeout(STEP, work).await.map_err(|_| Failed::Late)??)
}

fn file_stream(file: tokio::fs::File, length: u64) -> Stream {
    stream::try_unfold((file, length), async |(mut file, left)| {
        if left == 0 {
            return Ok(None);
        }
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let mut bytes = bytes::BytesMut::with_capacity(most);
        let mut part = (&mut file).take(most as u64);
        match tokio::time::timeout(STEP, part.read_buf(&mut bytes)).await.map_err(|_| Failed::Late)?? {
            0 => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            some => Ok(Some((bytes.freeze(), (file, left.saturating_sub(some as u64))))),
        }
    })
    .boxed()
}

fn bounded(stream: BoxStream<'static, Result<Bytes, Error>>) -> Stream {
    stream::unfold(Some(stream), async |stream| {
        let mut stream = stream?;
        match tokio::time::timeout(STEP, stream.next()).await {
            Ok(next) => next.map(|bytes| (bytes.map_err(Failed::Engine), Some(stream))),
            Err(_) => Some((Err(Failed::Late), None)),
        }
    })
    .boxed()
}

/// An S3-compatible service for tests (`deploy/s3/run`).
#[cfg(all(test, feature = "aws"))]
#[path = "service.rs"]
mod service;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &FilePath) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    found.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        found.sort();
        found
    }

    async fn read(objects: &Objects, name: Name, range: Range<u64>) -> Option<Vec<u8>> {
        let mut stream = objects.read(name, range).await.unwrap()?;
        let mut all = Vec::new();
        while let Some(bytes) = stream.next().await {
            all.extend_from_slice(&bytes.unwrap());
        }
        Some(all)
    }

    #[tokio::test]
    async fn me_7_an_object_is_read_as_it_was_written_whatever_the_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(&format!("file:{}", folder.path().join("new/one").display())).unwrap();
        is_read_as_it_was_written(&objects).await;
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[cfg(feature = "aws")]
    #[tokio::test]
    async fn me_7_an_object_in_a_bucket_is_read_as_it_was_written_whatever_the_pieces() {
        let service = super::service::Service::start();
        let objects = Objects::open(&service.bucket("some/where")).unwrap();
        is_read_as_it_was_written(&objects).await;
        assert_eq!(service.objects(), 0);
        let (app, object) = (AppId::DEFAULT, ObjectId::random());
        let mut writer = objects.write(Name::Whole(app, object));
        writer.write(Bytes::from(vec![7; 2 * PART])).await.unwrap();
        writer.abort().await;
        assert!(read(&objects, Name::Whole(app, object), 0..1).await.is_none());
        assert_eq!(service.objects(), 0);
    }

    async fn is_read_as_it_was_written(objects: &Objects) {
        for length in [1, CHUNK, PART - 1, PART, PART + 1, 2 * PART + 12_345] {
            let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let (app, object) = (AppId::DEFAULT, ObjectId::random());
            let name = Name::Whole(app, object);
            let mut writer = objects.write(name);
            for piece in bytes.chunks(70_001) {
                writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            assert!(read(objects, name, 0..1).await.is_none(), "it shows when it is whole");
            writer.finish().await.unwrap();
            let end = length as u64;
            assert!(read(objects, name, 0..end).await.unwrap() == bytes, "{length}");
            let (from, to) = (length / 3, length / 3 + length / 2 + 1);
            let to = to.min(length);
            assert!(
                read(objects, name, from as u64..to as u64).await.unwrap() == bytes[from..to],
                "{length}"
            );
            assert!(objects.read_whole(name, end).await.unwrap().unwrap() == bytes);
            assert!(objects.read_whole(name, end - 1).await.unwrap().is_none());
            objects.put(Name::Thumbnail(app, object), Bytes::from_static(b"small")).await.unwrap();
            objects.delete(app, object).await.unwrap();
            objects.delete(app, object).await.unwrap();
            assert!(read(objects, name, 0..1).await.is_none());
        }
    }

    #[tokio::test]
    async fn me_7_what_is_left_of_a_writing_that_was_killed_goes_with_its_object() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(&format!("file:{}", folder.path().display())).unwrap();
        let (app, object, other) = (AppId::DEFAULT, ObjectId::random(), ObjectId::random());
        objects.put(Name::Whole(app, other), Bytes::from_static(b"other")).await.unwrap();
        let mut writer = objects.write(Name::Whole(app, object));
        writer.write(Bytes::from(vec![7; 2 * PART])).await.unwrap();
        // A process that is killed drops nothing.
        std::mem::forget(writer);
        assert_eq!(names(folder.path()).len(), 2);
        assert!(read(&objects, Name::Whole(app, object), 0..1).await.is_none());
        objects.delete(app, object).await.unwrap();
        assert_eq!(names(folder.path()), [other.to_string()]);
        let mut writer = objects.write(Name::Whole(app, object));
        writer.write(Bytes::from(vec![7; 2 * PART])).await.unwrap();
        writer.abort().await;
        assert_eq!(names(folder.path()), [other.to_string()]);
    }

    #[test]
    fn me_7_a_url_of_nothing_known_is_refused_with_what_would_do() {
        for url in ["", "file:", "http://x", "attachments", "s3:bucket"] {
            assert!(Objects::open(url).unwrap_err().contains("file:FOLDER and s3://BUCKET"), "{url}");
        }
        #[cfg(not(feature = "aws"))]
        assert!(Objects::open("s3://bucket").unwrap_err().contains("`aws`"));
        #[cfg(feature = "aws")]
        {
            assert!(Objects::open("s3://bucket?colour=red").unwrap_err().contains("colour"));
            let url = "s3://bucket/some/where?region=eu-1&endpoint=http://127.0.0.1:9&allow_http=true";
            Objects::open(url).unwrap();
        }
    }
}
