//! Three who stay connected and go on talking, whatever happens beside them; and how long what happens lasts.

use std::{sync::Arc, time::Duration};

use common::{
    ids::{ChatId, ClientId},
    wire::codes::ErrorCode,
};
use loadtest::{
    client::{Client, Observer, Outcome, Post},
    workload::Crowd,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, timeout},
};

use super::{Folder, judged};

const PEOPLE: usize = 3;

/// How long a message may take to its answer, and from there to everybody: no measure of speed, but not as long as an outage.
const WITHIN: Duration = Duration::from_secs(5);

/// Within which a sender is told that nobody knows what became of a message: 5 s of the node's, and some.
const TOLD: Duration = Duration::from_secs(10);

/// Between two messages.
const PAUSE: Duration = Duration::from_millis(50);

/// Counts how often somebody was told that nobody knows what became of a message, and how often a socket was over.
#[derive(Debug, Default)]
struct Watcher {
    unknown: watch::Sender<usize>,
    broken: watch::Sender<usize>,
}

impl Observer for Watcher {
    fn refused(&self, code: ErrorCode, _: bool) {
        if code == ErrorCode::Unknown {
            self.unknown.send_modify(|times| *times += 1);
        }
    }

    fn broken(&self, _: Option<u16>) {
        self.broken.send_modify(|times| *times += 1);
    }
}

/// One chat of people who never lose their connection. A crowd of its own, so that a workload's breaks do not concern them.
pub struct Steady {
    folder: Folder,
    crowd: Arc<Crowd>,
    watcher: Arc<Watcher>,
    chat: ChatId,
}

/// A message that has no answer yet.
pub struct Unanswered {
    client_id: ClientId,
    body: String,
    answer: oneshot::Receiver<Outcome>,
}

impl Steady {
    pub async fn new(url: &str) -> Self {
        let folder = Folder::new();
        let watcher = Arc::<Watcher>::default();
        let crowd = judged::watched(url, &folder, PEOPLE, 1, Arc::clone(&watcher) as _).await;
        let chat = crowd.group("steady", 0, &[1, 2]).await.unwrap();
        let steady = Self { folder, crowd, watcher, chat };
        steady.goes_on(Duration::from_secs(1)).await;
        steady
    }

    pub fn crowd(&self) -> &Crowd {
        &self.crowd
    }

    /// For a while they write in turn, and each message is acknowledged and seen by all. Gives how many there were.
    pub async fn goes_on(&self, long: Duration) -> usize {
        let until = Instant::now() + long;
        let mut said = 0;
        while Instant::now() < until {
            let sender = self.crowd.device(said % PEOPLE).unwrap();
            let sent = timeout(WITHIN, sender.send(self.chat, format!("message {said}"))).await;
            let Ok(Outcome::Acked { seq, .. }) = sent else { panic!("message {said}: {sent:?}") };
            for device in self.crowd.devices() {
                let seen = device.seen(self.chat, |head| head.seq >= seq, WITHIN).await;
                assert!(seen, "{} was not shown message {said}", device.user());
            }
            said += 1;
            tokio::time::sleep(PAUSE).await;
        }
        assert!(said > 0);
        said
    }

    /// Somebody writes while nothing can be appended to the log: they are told that nobody knows what became of it, and nobody is shown it.
    /// Reading goes on: history, lists, read marks; and nobody loses their connection.
    pub async fn reads_on(&self) -> Unanswered {
        let writer = self.crowd.device(0).unwrap();
        let head = writer.head(self.chat).unwrap();
        let last = writer.session().history_after(self.chat, head.number.saturating_sub(1)).await.unwrap();
        // Who wrote the last message has read it: their mark would not move.
        let has_not = |device: &&Client| last.results.iter().all(|message| message.from != device.user());
        let reader = self.crowd.devices().skip(1).find(has_not).unwrap();
        let (mut unknown, broken) = (self.watcher.unknown.subscribe(), *self.watcher.broken.borrow());
        let before = *unknown.borrow_and_update();
        let client_id = ClientId::new(&format!("unknown-{}", head.number)).unwrap();
        let body = format!("nobody knows of {client_id}");
        let post = Post { client_id: Some(client_id.clone()), ..Post::new(self.chat, body.clone()) };
        let mut answer = writer.start_send(post).await;

        let told = timeout(TOLD, unknown.wait_for(|times| *times > before));
        let reading = async {
            let until = Instant::now() + WITHIN;
            while Instant::now() < until {
                let newest = head.number.saturating_sub(1);
                let page = timeout(WITHIN, reader.session().history_after(self.chat, newest));
                let page = page.await.expect("history waits").unwrap();
                assert!(page.complete && page.head == head && page.results.len() == 1, "{page:?}, {head:?}");
                tokio::time::sleep(PAUSE).await;
            }
            timeout(WITHIN, reader.chats(1)).await.expect("lists wait").unwrap();
            timeout(WITHIN, reader.read(self.chat, head.number)).await.expect("read marks wait").unwrap();
            let until = Instant::now() + WITHIN;
            while writer.read_mark(self.chat, reader.user()) != Some(head.number) {
                assert!(Instant::now() < until, "a read mark is not shown to others");
                tokio::time::sleep(PAUSE).await;
            }
        };
        let (told, ()) = tokio::join!(told, reading);
        assert!(told.is_ok(), "the writer is told nothing within {TOLD:?}");
        assert!(answer.try_recv().is_err(), "there is an answer, and no log");
        assert!(self.crowd.devices().all(|device| device.head(self.chat) == Some(head)), "it was shown");
        assert_eq!(*self.watcher.broken.borrow(), broken, "somebody lost their connection");
        Unanswered { client_id, body, answer }
    }

    /// The log is back: the message is acknowledged under its name, shown to all, and in the history once.
    pub async fn is_answered(&self, Unanswered { client_id, body, answer }: Unanswered) {
        let outcome = timeout(judged::MEND, answer).await.expect("no answer").unwrap();
        let Outcome::Acked { client_id: acked, number, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(acked, client_id);
        for device in self.crowd.devices() {
            assert!(device.seen(self.chat, |head| head.number >= number, WITHIN).await, "{}", device.user());
        }
        let reader = self.crowd.device(2).unwrap();
        let history = reader.session().whole_history(self.chat).await.unwrap();
        let numbers: Vec<_> =
            history.messages.iter().filter(|it| it.body == body).map(|it| it.number).collect();
        assert_eq!(numbers, [number]);
    }

    pub async fn judge(self) {
        judged::judge(&self.folder, self.crowd).await;
    }
}

/// How long a server is away, in seconds: `CHAT_OUTAGE__SECONDS`.
#[derive(Serialize, Deserialize)]
#[serde(default)]
struct Outage {
    seconds: u64,
}

impl Default for Outage {
    fn default() -> Self {
        Self { seconds: 15 }
    }
}

/// How long a server is away.
pub fn outage() -> Duration {
    // Other variables of the prefix are none of ours.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Chosen {
        outage: Outage,
    }
    let Chosen { outage } = common::config::load(None).unwrap();
    Duration::from_secs(outage.seconds)
}
