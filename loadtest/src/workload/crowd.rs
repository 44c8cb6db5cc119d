//! Many users, their devices, and the chats they share: what every workload and every cluster test begins with.

mod waiting;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use common::ids::{ChatId, UserId};
use futures_util::{StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use super::WorkloadError;
use crate::{
    check::{ATTEMPTS, ReadError, read_history},
    client::{
        Client, Observer, Options,
        http::Http,
        rest::{Account, Session, register},
    },
    clock::Clock,
    journal::Journal,
    progress::Progress,
};

/// Registrations and sign-ins under way at once. Each is an Argon2id hash, tens of milliseconds of one core: more than a few at once
/// only queue up in the server.
const AT_ONCE: usize = 8;

/// Chats made, and devices stopped, at once.
const CHATS_AT_ONCE: usize = 32;

/// Users who connect at once: enough to keep a server busy, and no storm.
const CONNECTING_AT_ONCE: usize = 64;

/// How long one device may take to its first session.
const CONNECTED_WITHIN: Duration = Duration::from_secs(60);

/// Every password: what is tested is not their strength.
const PASSWORD: &str = "correct horse battery staple";

/// Who gathers, and how.
#[derive(Clone, Debug)]
pub struct CrowdOptions {
    /// How many users.
    pub users: usize,
    /// Devices of each, every one with a sign-in of its own.
    pub devices: usize,
    /// Where their journals go; none are written without.
    pub journal: Option<PathBuf>,
    /// How the devices behave; one in four does not resume, whatever this says.
    pub client: Options,
}

impl Default for CrowdOptions {
    fn default() -> Self {
        Self { users: 2, devices: 1, journal: None, client: Options::default() }
    }
}

/// A user with their devices.
#[derive(Debug)]
pub struct Person {
    /// The account.
    pub account: Account,
    /// Running devices.
    pub devices: Vec<Client>,
}

/// Registered and signed in, without a socket yet: the moment to look at what a server needs before anybody is connected.
#[derive(Debug)]
pub struct SignedIn {
    http: Http,
    options: CrowdOptions,
    people: Vec<(Account, Vec<Session>)>,
}

impl SignedIn {
    /// Registers and signs in users, some at a time.
    ///
    /// # Errors
    /// [`WorkloadError`].
    pub async fn register(
        url: &str,
        options: CrowdOptions,
        progress: &Progress,
    ) -> Result<Self, WorkloadError> {
        let http = Http::new(url)?;
        let people = sign_in(&http, options.users, options.devices, progress).await?;
        Ok(Self { http, options, people })
    }

    /// Starts every device, some at a time. Returns when every one has a session.
    ///
    /// # Errors
    /// [`WorkloadError`].
    pub async fn connect(
        self,
        clock: Clock,
        observer: Arc<dyn Observer>,
        progress: &Progress,
    ) -> Result<Crowd, WorkloadError> {
        let Self { http, options, people } = self;
        let total = people.iter().map(|(_, sessions)| sessions.len()).sum::<usize>();
        let stage = progress.stage("connecting", total as u64);
        let connecting = people.into_iter().enumerate().map(|(n, (account, sessions))| {
            let (options, observer, stage) = (&options, &observer, &stage);
            async move {
                let mut devices = Vec::with_capacity(sessions.len());
                for (d, session) in sessions.into_iter().enumerate() {
                    let name = format!("user-{n:05}-{d}");
                    let client = habits(&options.client, &name, n * options.devices + d);
                    let device = start(options, &name, client, session, clock, observer)?;
                    devices.push(ready(device).await?);
                    stage.step();
                }
                Ok::<_, WorkloadError>(Person { account, devices })
            }
        });
        let people = stream::iter(connecting).buffered(CONNECTING_AT_ONCE).try_collect().await?;
        Ok(Crowd { http, clock, options, people, chats: Mutex::default() })
    }
}

/// How the `n`-th device behaves. One in four does not resume: a crowd has both ways in it.
fn habits(client: &Options, name: &str, n: usize) -> Options {
    let resume = client.resume && n % 4 != 3;
    Options { device: Some(name.to_owned()), resume, ..client.clone() }
}

fn start(
    options: &CrowdOptions,
    name: &str,
    client: Options,
    session: Session,
    clock: Clock,
    observer: &Arc<dyn Observer>,
) -> Result<Client, WorkloadError> {
    let journal = match &options.journal {
        Some(folder) => {
            let path = folder.join(format!("{name}.jsonl"));
            let made = Journal::create(&path, name, session.user(), clock);
            Some(made.map_err(|error| WorkloadError::Journal { path, error })?)
        }
        None => None,
    };
    Ok(Client::start(session, client, clock, journal, Arc::clone(observer)))
}

async fn ready(device: Client) -> Result<Client, WorkloadError> {
    match tokio::time::timeout(CONNECTED_WITHIN, device.ready()).await {
        Ok(true) => Ok(device),
        _ => Err(WorkloadError::NotConnected { user: device.user(), state: format!("{:?}", device.state()) }),
    }
}

/// Registered, signed in, connected.
#[derive(Debug)]
pub struct Crowd {
    http: Http,
    clock: Clock,
    options: CrowdOptions,
    people: Vec<Person>,
    /// Every chat made through this crowd, with who made it.
    chats: Mutex<Vec<(ChatId, usize)>>,
}

impl Crowd {
    /// Registers and signs in users and starts their devices. Returns when every device has a session.
    ///
    /// # Errors
    /// [`WorkloadError`].
    pub async fn gather(
        url: &str,
        options: CrowdOptions,
        clock: Clock,
        observer: Arc<dyn Observer>,
        progress: &Progress,
    ) -> Result<Self, WorkloadError> {
        SignedIn::register(url, options, progress).await?.connect(clock, observer, progress).await
    }

    /// The users.
    pub fn people(&self) -> &[Person] {
        &self.people
    }

    /// Every device.
    pub fn devices(&self) -> impl Iterator<Item = &Client> {
        self.people.iter().flat_map(|person| &person.devices)
    }

    /// The first device of the user with this number.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn device(&self, user: usize) -> Result<&Client, WorkloadError> {
        self.people
            .get(user)
            .and_then(|person| person.devices.first())
            .ok_or(WorkloadError::NoSuchUser { user })
    }

    /// The public id of the user with this number.
    ///
    /// # Errors
    /// When there is no such user.
    pub fn user(&self, user: usize) -> Result<UserId, WorkloadError> {
        self.device(user).map(Client::user)
    }

    /// The run's clock.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The API.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// The direct chat of two users.
    ///
    /// # Errors
    /// [`WorkloadError`].
    pub async fn direct(&self, one: usize, other: usize) -> Result<ChatId, WorkloadError> {
        let chat = self.device(one)?.open_direct(self.user(other)?).await?;
        self.remember(chat, one);
        Ok(chat)
    }

    /// A group that `owner` makes, of itself and `members`.
    ///
    /// # Errors
    /// [`WorkloadError`].
    pub async fn group(&self, name: &str, owner: usize, members: &[usize]) -> Result<ChatId, WorkloadError> {
        let members = members.iter().map(|member| self.user(*member)).collect::<Result<Vec<_>, _>>()?;
        let chat = self.device(owner)?.create_group(name, &members).await?;
        self.remember(chat, owner);
        Ok(chat)
    }

    /// A chat that is to be read in the end, by `reader`, who stays in it.
    pub fn remember(&self, chat: ChatId, reader: usize) {
        let mut chats = self.chats.lock();
        if !chats.iter().any(|(known, _)| *known == chat) {
            chats.push((chat, reader));
        }
    }

    /// Every chat made so far, with who made it.
    pub fn chats(&self) -> Vec<(ChatId, usize)> {
        self.chats.lock().clone()
    }

    /// Makes `count` chats with `make`, some at a time.
    pub(crate) async fn make_chats<F: Future<Output = Result<ChatId, WorkloadError>>>(
        &self,
        count: usize,
        progress: &Progress,
        make: impl Fn(usize) -> F,
    ) -> Result<Vec<ChatId>, WorkloadError> {
        let stage = progress.stage("making chats", count as u64);
        stream::iter(0..count)
            .map(|n| {
                let made = make(n);
                async { made.await.inspect(|_| stage.step()) }
            })
            .buffered(CHATS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Reads every chat's history, each by a fresh sign-in of who made it, into the folder: all that can be read.
    ///
    /// # Errors
    /// The first [`ReadError`], after the others were read; and what signing in gives.
    pub async fn read_histories(&self, folder: &Path, progress: &Progress) -> Result<(), WorkloadError> {
        self.read_histories_within(folder, ATTEMPTS, progress).await
    }

    /// Likewise, with as many attempts to find each complete.
    ///
    /// # Errors
    /// As [`Self::read_histories`].
    pub async fn read_histories_within(
        &self,
        folder: &Path,
        attempts: u32,
        progress: &Progress,
    ) -> Result<(), WorkloadError> {
        let mut by_reader: std::collections::BTreeMap<usize, Vec<ChatId>> = std::collections::BTreeMap::new();
        for (chat, reader) in self.chats() {
            by_reader.entry(reader).or_default().push(chat);
        }
        let stage = progress.stage("reading histories", self.chats.lock().len() as u64);
        let mut outcome = Ok(());
        for (reader, chats) in by_reader {
            let Some(person) = self.people.get(reader) else { continue };
            let session = Session::sign_in(&self.http, &person.account).await?;
            let read: Vec<Result<(), ReadError>> =
                stream::iter(chats)
                    .map(|chat| {
                        let (session, stage) = (&session, &stage);
                        async move {
                            read_history(session, chat, folder, attempts).await.inspect(|()| stage.step())
                        }
                    })
                    .buffer_unordered(AT_ONCE)
                    .collect()
                    .await;
            let read: Result<(), ReadError> = read.into_iter().collect();
            outcome = outcome.and(read.map_err(WorkloadError::History));
        }
        outcome
    }

    /// Says goodbye on every device and writes out every journal.
    ///
    /// # Errors
    /// The first journal that is not whole.
    pub async fn stop(self) -> Result<(), WorkloadError> {
        let folder = self.options.journal.unwrap_or_default();
        let devices = self.people.into_iter().flat_map(|person| person.devices);
        let stopped: Vec<_> =
            stream::iter(devices).map(Client::stop).buffer_unordered(CHATS_AT_ONCE).collect().await;
        for stopped in stopped {
            stopped.map_err(|error| WorkloadError::Journal { path: folder.clone(), error })?;
        }
        Ok(())
    }
}

/// Registers `users` and signs each in `devices` times.
///
/// # Errors
/// [`WorkloadError`].
pub(crate) async fn sign_in(
    http: &Http,
    users: usize,
    devices: usize,
    progress: &Progress,
) -> Result<Vec<(Account, Vec<Session>)>, WorkloadError> {
    let run: u32 = rand::random();
    let stage = progress.stage("registering (Argon2 takes its time)", users as u64);
    stream::iter(0..users)
        .map(|n| {
            let stage = &stage;
            async move {
                let name = format!("load-{run:08x}-{n}");
                let account = register(http, &name, PASSWORD, &format!("Load {n}")).await?;
                let mut sessions = Vec::with_capacity(devices);
                for _ in 0..devices {
                    sessions.push(Session::sign_in(http, &account).await?);
                }
                stage.step();
                Ok((account, sessions))
            }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}
