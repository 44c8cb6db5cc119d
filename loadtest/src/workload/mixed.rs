//! Everything a user may do, at random and all at once: write, edit, delete, react, open direct chats from both ends, let members in and
//! take them out while they write, lose the connection. For the judge.
//!
//! One more user is in no chat and tries all the same: the stranger.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use common::ids::{ChatId, ClientId, Number, Seq};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Crowd, WorkloadError, body};
use crate::{
    client::{Client, Outcome, Post},
    progress::Progress,
};

/// How much.
#[derive(Clone, Debug)]
pub struct MixedOptions {
    /// Groups to begin with.
    pub chats: usize,
    /// Members of each to begin with.
    pub group_size: usize,
    /// What a user waits between two things, at most; half of it on average.
    pub pause: Duration,
    /// Of 1,000 things a user does, how many are the loss of a connection.
    pub breaks: u32,
    /// Likewise, how many are signing out: the device signs in again by itself.
    pub sign_outs: u32,
    /// Likewise, how many are saying that messages were read.
    pub reads: u32,
    /// Whether users look at the list of their chats. Its counts are those of the rows: of a store that is put back to an earlier state
    /// they are old ones until the log is drained again, which the judge does not expect.
    pub lists: bool,
    /// What chance begins from: the same seed, the same choices (though not the same timing).
    pub seed: u64,
}

impl Default for MixedOptions {
    fn default() -> Self {
        Self {
            chats: 4,
            group_size: 4,
            pause: Duration::from_millis(40),
            breaks: 10,
            sign_outs: 1,
            reads: 30,
            lists: true,
            seed: rand::random(),
        }
    }
}

/// A chat as the workload keeps it; what the server thinks may differ for a moment.
#[derive(Clone, Debug)]
struct Known {
    chat: ChatId,
    owner: usize,
    group: bool,
    /// Who is in, and who was: a user who was removed goes on writing for a while, as people do.
    inside: BTreeSet<usize>,
    ever: BTreeSet<usize>,
}

type Chats = Arc<Mutex<Vec<Known>>>;

/// A mixed workload under way.
#[derive(Debug)]
pub struct Mixed {
    stop: CancellationToken,
    users: Vec<JoinHandle<()>>,
}

impl Mixed {
    /// Makes the groups and lets everybody loose. The last user of the crowd is the stranger.
    ///
    /// # Errors
    /// When the groups cannot be made.
    pub async fn start(
        crowd: &Arc<Crowd>,
        options: &MixedOptions,
        progress: &Progress,
    ) -> Result<Self, WorkloadError> {
        let users = crowd.people().len().saturating_sub(1);
        let size = options.group_size.clamp(1, users.max(1));
        if users < 2 {
            return Err(WorkloadError::Impossible(
                "a mixed workload needs three users: two and a stranger".into(),
            ));
        }
        let members = |n: usize| (0..size).map(|m| (n + m) % users).collect::<Vec<_>>();
        let made = crowd
            .make_chats(options.chats.max(1), progress, |n| {
                let members = members(n);
                async move {
                    let (owner, others) =
                        members.split_first().map_or((0, &[][..]), |(owner, others)| (*owner, others));
                    crowd.group(&format!("mixed {n}"), owner, others).await
                }
            })
            .await?;
        let chats: Vec<Known> = made
            .into_iter()
            .enumerate()
            .map(|(n, chat)| {
                let inside: BTreeSet<usize> = members(n).into_iter().collect();
                Known { chat, owner: n % users, group: true, ever: inside.clone(), inside }
            })
            .collect();
        let chats: Chats = Arc::new(Mutex::new(chats));
        let stop = CancellationToken::new();
        let users = (0..=users)
            .map(|user| {
                let one = One {
                    crowd: Arc::clone(crowd),
                    chats: Arc::clone(&chats),
                    options: options.clone(),
                    user,
                    stranger: user == users,
                    random: StdRng::seed_from_u64(options.seed.wrapping_add(user as u64)),
                    own: Vec::new(),
                    written: 0,
                };
                let stop = stop.clone();
                tokio::spawn(async move {
                    // Four requests at once are a large future: on the heap, once a user.
                    stop.run_until_cancelled_owned(Box::pin(one.live())).await;
                })
            })
            .collect();
        Ok(Self { stop, users })
    }

    /// Stops everybody where they are. What they asked last may be unanswered in their journals.
    pub async fn stop(self) {
        self.stop.cancel();
        for user in self.users {
            // A user that fell is seen in what is missing.
            if let Err(error) = user.await {
                tracing::error!(%error, "a user of the mixed workload fell");
            }
        }
    }
}

/// One user of the workload.
struct One {
    crowd: Arc<Crowd>,
    chats: Chats,
    options: MixedOptions,
    user: usize,
    stranger: bool,
    random: StdRng,
    /// Messages of one's own whose number is known.
    own: Vec<(ChatId, Number)>,
    written: u64,
}

/// Own messages that are remembered for editing and deleting.
const REMEMBERED: usize = 64;

/// How long a device is away that does not come back at once, at most: messages, edits, removals go on, and a cursor or two.
const AWAY: Duration = Duration::from_secs(2);

/// How far back changes are asked for once more, at most.
const ONCE_MORE: Seq = 20;

/// Messages of a page that is read on the way.
const PAGE: u32 = 30;

impl One {
    async fn live(mut self) -> std::convert::Infallible {
        loop {
            self.act().await;
            let pause = self.options.pause.mul_f64(self.random.random());
            tokio::time::sleep(pause).await;
        }
    }

    async fn act(&mut self) {
        let crowd = Arc::clone(&self.crowd);
        let Some(device) =
            crowd.people().get(self.user).and_then(|person| person.devices.choose(&mut self.random))
        else {
            return;
        };
        if self.stranger {
            return self.intrude(device).await;
        }
        let MixedOptions { breaks, sign_outs, reads, .. } = self.options;
        match self.random.random_range(0..1_000) {
            what if what < breaks => self.lose_connection(device).await,
            what if what < breaks + sign_outs => {
                // Refused or unanswered: the journal has it.
                let _ = device.sign_out().await;
            }
            what if what < breaks + sign_outs + reads => self.mark_read(device).await,
            what if what < 700 => self.write(device).await,
            what if what < 830 => self.write_and_wait(device).await,
            what if what < 850 => self.read_back(device).await,
            what if what < 900 => self.edit(device).await,
            what if what < 930 => self.delete(device).await,
            what if what < 955 => self.react(device).await,
            what if what < 980 => self.change_members(&crowd).await,
            _ => self.open_direct(&crowd).await,
        }
    }

    /// Comes back at once, or stays away for a while in which others go on.
    async fn lose_connection(&mut self, device: &Client) {
        let away = match self.random.random_range(0..3) {
            0 => AWAY.mul_f64(self.random.random()),
            _ => Duration::ZERO,
        };
        device.stay_away(away).await;
    }

    fn post(&mut self, device: &Client, chat: ChatId) -> Post {
        self.written += 1;
        let unique = (self.user as u64) << 40 | self.written;
        Post::new(chat, body::compose(device.clock().micros(), unique, self.random.random_range(0..200)))
    }

    fn some_chat(&mut self) -> Option<ChatId> {
        let chats = self.chats.lock();
        let mine: Vec<ChatId> =
            chats.iter().filter(|known| known.ever.contains(&self.user)).map(|known| known.chat).collect();
        drop(chats);
        mine.choose(&mut self.random).copied()
    }

    async fn write(&mut self, device: &Client) {
        let Some(chat) = self.some_chat() else { return };
        // Now and then several in a row, as people write.
        let row = if self.random.random_range(0..8) == 0 { self.random.random_range(2..8) } else { 1 };
        for _ in 0..row {
            let post = self.post(device, chat);
            device.post(post).await;
        }
    }

    async fn write_and_wait(&mut self, device: &Client) {
        let Some(chat) = self.some_chat() else { return };
        let post = self.post(device, chat);
        if let Ok(Outcome::Acked { number, .. }) = device.start_send(post).await.await {
            self.own.push((chat, number));
            if self.own.len() > REMEMBERED {
                self.own.swap_remove(0);
            }
        }
    }

    /// Reads the newest page of a chat, what is unread in all of them, or what came of one of late.
    async fn read_back(&mut self, device: &Client) {
        // Refused or unanswered: the journal has it.
        let what = self.random.random_range(0..4);
        if what == 0 {
            if self.options.lists {
                let _ = device.chats(1).await;
            }
            return;
        }
        let Some(chat) = self.some_chat() else { return };
        if what == 1 {
            // What came before one was let in again is not asked for: it was not for this user.
            let Some((since, head)) = device.came(chat) else { return };
            let after = head.saturating_sub(self.random.random_range(0..=ONCE_MORE)).max(since);
            let _ = device.changes(chat, after).await;
        } else {
            let _ = device.newest(chat, None, PAGE).await;
        }
    }

    /// Says that a chat was read up to somewhere: what the device has seen, less, or more than there is.
    async fn mark_read(&mut self, device: &Client) {
        let Some(chat) = self.some_chat() else { return };
        let seen = device.head(chat).unwrap_or_default().number;
        let number = match self.random.random_range(0..10) {
            0 => seen + self.random.random_range(1..20),
            1..=3 => self.random.random_range(0..=seen),
            _ => seen,
        };
        let _ = device.read(chat, number.max(1)).await;
    }

    async fn edit(&mut self, device: &Client) {
        let Some((chat, number)) = self.own.choose(&mut self.random).copied() else { return };
        let post = self.post(device, chat);
        // Refused or unanswered: the journal has it.
        let _ = device.edit(chat, number, &post.body).await;
    }

    /// Answers one of the newest messages that the device has seen, or takes that back.
    async fn react(&mut self, device: &Client) {
        let Some(chat) = self.some_chat() else { return };
        let newest = device.head(chat).unwrap_or_default().number;
        let number = newest.saturating_sub(self.random.random_range(0..5)).max(1);
        let emoji = ["👍", "🎉", "👀"].choose(&mut self.random).copied().unwrap_or_default();
        let on = self.random.random_range(0..3) > 0;
        // Refused or unanswered: the journal has it.
        let _ = device.react(chat, number, emoji, on).await;
    }

    async fn delete(&mut self, device: &Client) {
        if self.own.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.own.len());
        let (chat, number) = self.own.swap_remove(at);
        let _ = device.delete(chat, number).await;
    }

    /// As the owner of a group: takes somebody out, or lets somebody in.
    async fn change_members(&mut self, crowd: &Crowd) {
        let users = crowd.people().len() - 1;
        let (mine, other) = {
            let chats = self.chats.lock();
            let mine: Vec<Known> =
                chats.iter().filter(|known| known.group && known.owner == self.user).cloned().collect();
            (mine, self.random.random_range(0..users))
        };
        let (Some(group), false) = (mine.choose(&mut self.random), other == self.user) else { return };
        let (Ok(device), Ok(user)) = (crowd.device(self.user), crowd.user(other)) else { return };
        let inside = group.inside.contains(&other);
        let done = if inside {
            device.remove_member(group.chat, user).await
        } else {
            device.add_member(group.chat, user).await
        };
        if done.is_ok()
            && let Some(known) = self.chats.lock().iter_mut().find(|known| known.chat == group.chat)
        {
            if inside {
                known.inside.remove(&other);
            } else {
                known.inside.insert(other);
                known.ever.insert(other);
            }
        }
    }

    /// Opens the direct chat with somebody, from both ends and twice each, at once.
    async fn open_direct(&mut self, crowd: &Crowd) {
        let other = self.random.random_range(0..crowd.people().len() - 1);
        let (Ok(here), Ok(there)) = (crowd.device(self.user), crowd.device(other)) else { return };
        if other == self.user {
            return;
        }
        let (one, two, three, four) = tokio::join!(
            here.open_direct(there.user()),
            there.open_direct(here.user()),
            here.open_direct(there.user()),
            there.open_direct(here.user()),
        );
        for chat in [one, two, three, four].into_iter().flatten() {
            crowd.remember(chat, self.user);
            let mut chats = self.chats.lock();
            if !chats.iter().any(|known| known.chat == chat) {
                let inside = BTreeSet::from([self.user, other]);
                chats.push(Known { chat, owner: self.user, group: false, ever: inside.clone(), inside });
            }
        }
    }

    /// Tries to write where one does not belong.
    async fn intrude(&mut self, device: &Client) {
        let chat = {
            let chats = self.chats.lock();
            chats.choose(&mut self.random).map(|known| known.chat)
        };
        let Some(chat) = chat else { return };
        let client_id = ClientId::new(&format!("intruder-{}-{}", device.user(), self.written)).ok();
        let post = Post { client_id, ..self.post(device, chat) };
        device.follow(chat).await;
        device.post(post).await;
        tokio::time::sleep(self.options.pause * 10).await;
    }
}
