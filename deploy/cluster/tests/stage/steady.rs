//! Three who stay connected and go on talking, whatever happens beside them; and how long what happens lasts.

use std::{sync::Arc, time::Duration};

use common::ids::ChatId;
use loadtest::{client::Outcome, workload::Crowd};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::{Folder, judged};

const PEOPLE: usize = 3;

/// How long a message may take to its answer, and from there to everybody: no measure of speed, but not as long as an outage.
const WITHIN: Duration = Duration::from_secs(5);

/// Between two messages.
const PAUSE: Duration = Duration::from_millis(50);

/// One chat of people who never lose their connection. A crowd of its own, so that a workload's breaks do not concern them.
pub struct Steady {
    folder: Folder,
    crowd: Arc<Crowd>,
    chat: ChatId,
}

impl Steady {
    pub async fn new(url: &str) -> Self {
        let folder = Folder::new();
        let crowd = judged::crowd(url, &folder, PEOPLE, 1).await;
        let chat = crowd.group("steady", 0, &[1, 2]).await.unwrap();
        let steady = Self { folder, crowd, chat };
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
