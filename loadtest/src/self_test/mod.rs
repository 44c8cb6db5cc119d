//! Whether the judge can see: clusters with a bug planted in them, one at a time, each of which must be caught, and clusters that keep their
//! word, of which nothing may be said.
//!
//! The program is the standalone cluster, built with the feature `planted`. What shows a bug is [`cases`]'s, how the
//! program is run [`server`]'s. Everything else is what any run has: clients with journals, and the judge, who knows nothing of what
//! was planted.

mod cases;
mod server;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{StreamExt, stream};

pub use self::cases::{Case, bugs, clean};
use self::server::Server;
use crate::{
    check::{Journals, Violation, judge, read_stored},
    client::{Nobody, Options as ClientOptions},
    clock::Clock,
    journal::Journal,
    progress::Progress,
    workload::{
        Crowd, CrowdOptions,
        mixed::{Mixed, MixedOptions},
    },
};

/// How long outboxes may take to empty once nobody writes any more. A cluster that keeps its word needs a second or two.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);

/// How long every view may take to be whole then: what invariant 6 allows, and some.
const SETTLE_WITHIN: Duration = Duration::from_secs(12);

/// How long the final reads may take.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// How long nothing is done before the end: what goes wrong at rest has a while to do so.
const QUIET: Duration = Duration::from_secs(2);

/// How often a history is read that is not complete, a second apart. A broken cluster may never call it so.
const READINGS: u32 = 4;

/// Users, without the stranger, and devices of each.
const USERS: usize = 6;
const DEVICES: usize = 2;

/// What is tested, and with what.
#[derive(Clone, Debug)]
pub struct SelfTest {
    /// The standalone cluster's program, built with the feature `planted`.
    pub server: PathBuf,
    /// Where each run's data and journals go, in a folder of its own.
    pub folder: PathBuf,
    /// Whether the files of runs that went as they should stay there.
    pub keep: bool,
    /// Runs with a bug.
    pub bugs: Vec<Case>,
    /// Runs without.
    pub clean: Vec<Case>,
    /// Runs under way at once.
    pub at_once: usize,
}

/// What became of one run.
#[derive(Debug)]
pub struct Outcome {
    /// Which.
    pub case: Case,
    /// What the judge found.
    pub violations: Vec<Violation>,
    /// What did not come to rest, or could not be read; of a cluster that keeps its word, nothing.
    pub trouble: Vec<String>,
    /// Where its journals are.
    pub journals: PathBuf,
}

impl Outcome {
    /// Whether the judge found what there was to find, and nothing else.
    pub fn as_it_should(&self) -> bool {
        if self.case.is_clean() {
            return self.violations.is_empty() && self.trouble.is_empty();
        }
        self.violations.iter().any(|violation| self.case.caught_by.contains(&violation.invariant))
    }

    fn first(&self) -> Option<&Violation> {
        let expected = |violation: &&Violation| self.case.caught_by.contains(&violation.invariant);
        // The one that shows most: two places that contradict each other.
        let shows = |violation: &&Violation| violation.evidence.len() > 1;
        let all = || self.violations.iter().filter(expected);
        all().find(shows).or_else(|| all().next()).or(self.violations.first())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.as_it_should(), self.case.is_clean()) {
            (true, true) => "nothing found".to_owned(),
            (false, true) => "FALSE ALARM".to_owned(),
            (true, false) => {
                let mut invariants: Vec<u8> =
                    self.violations.iter().map(|violation| violation.invariant).collect();
                invariants.sort_unstable();
                invariants.dedup();
                format!("caught, by {invariants:?}")
            }
            (false, false) => "MISSED".to_owned(),
        };
        write!(f, "{:<22} {word:<24}", self.case.name)?;
        if let Some(violation) = self.first() {
            write!(f, " {violation}")?;
        }
        if !self.as_it_should() {
            for trouble in self.trouble.iter().take(5) {
                write!(f, "\n    {trouble}")?;
            }
            write!(f, "\n    journals: {}", self.journals.display())?;
        }
        Ok(())
    }
}

impl SelfTest {
    /// Runs everything, and says of each run what came of it as soon as that is known.
    ///
    /// # Errors
    /// What kept a run from being done at all.
    pub async fn run(self, tell: impl Fn(&Outcome)) -> anyhow::Result<Vec<Outcome>> {
        let cases = self.bugs.iter().chain(&self.clean).cloned();
        let mut runs = stream::iter(cases)
            .map(|case| {
                let (server, folder) = (self.server.clone(), self.folder.join(case.name.replace(' ', "-")));
                let keep = self.keep;
                // On a task of its own: the runs share nothing.
                async move {
                    let name = case.name.clone();
                    let run = tokio::spawn(one(server, folder.clone(), case)).await;
                    let outcome = run.map_err(anyhow::Error::from).flatten().with_context(|| name)?;
                    if outcome.as_it_should() && !keep {
                        // Whatever stays is among the temporary files.
                        let _ = std::fs::remove_dir_all(&folder);
                    }
                    Ok::<_, anyhow::Error>(outcome)
                }
            })
            .buffered(self.at_once.max(1));
        let mut outcomes = Vec::new();
        while let Some(outcome) = runs.next().await {
            let outcome = outcome?;
            tell(&outcome);
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }
}

/// One run, from an empty folder to the verdict.
async fn one(program: PathBuf, folder: PathBuf, case: Case) -> anyhow::Result<Outcome> {
    let journals = folder.join("journals");
    std::fs::create_dir_all(&journals)?;
    let mut server = Server::start(&program, &folder, &case).await?;
    let clock = Clock::start();
    let options = CrowdOptions {
        users: USERS + 1,
        devices: DEVICES,
        journal: Some(journals.clone()),
        client: ClientOptions { window: 8, ..ClientOptions::default() },
    };
    let quiet = Progress::quiet();
    let crowd = Arc::new(Crowd::gather(&server.url(), options, clock, Arc::new(Nobody), &quiet).await?);
    let mixed = MixedOptions { breaks: case.breaks, reads: case.reads, ..MixedOptions::default() };
    let mixed = Mixed::start(&crowd, &mixed, &quiet).await?;
    befall(&mut server, &case, &Journal::of_faults(&journals.join("faults.jsonl"), clock)?).await?;
    mixed.stop().await;
    let mut trouble = Vec::new();
    rest(crowd, &journals, &mut trouble).await?;
    server.kill()?;
    if let Err(error) = read_stored(&server.data(), &journals).await {
        trouble.push(error.to_string());
    }
    let violations = judge(&Journals::read(&journals)?);
    Ok(Outcome { case, violations, trouble, journals })
}

/// What happens to the cluster while everybody works.
async fn befall(server: &mut Server, case: &Case, faults: &Journal) -> anyhow::Result<()> {
    let part = case.work / (case.kills + 1);
    for _ in 0..case.kills {
        tokio::time::sleep(part).await;
        faults.fault_begins("the process is killed");
        server.again().await?;
        faults.fault_ends("the process is killed");
    }
    tokio::time::sleep(part).await;
    faults.flush().context("the journal of faults")
}

/// Waits until nothing moves any more, reads everything, and ends the devices. What does not come to rest is trouble.
async fn rest(crowd: Arc<Crowd>, journals: &Path, trouble: &mut Vec<String>) -> anyhow::Result<()> {
    let busy = crowd.drained(DRAIN_WITHIN).await;
    if busy > 0 {
        trouble.push(format!("{busy} devices have unanswered messages"));
    }
    match tokio::time::timeout(SETTLE_WITHIN + READ_WITHIN, crowd.settled(SETTLE_WITHIN)).await {
        // Which of the views that are behind should be whole by now is the judge's to say.
        Ok(Ok(_)) => {}
        Ok(Err(error)) => trouble.push(error.to_string()),
        Err(_) => trouble.push("how far the chats are was not told".to_owned()),
    }
    for person in crowd.people() {
        if let Some(device) = person.devices.first() {
            // What is unread is the judge's to check; that it can be asked, the histories show.
            let _ = tokio::time::timeout(READ_WITHIN, device.chats(1)).await;
        }
    }
    let quiet = Progress::quiet();
    match tokio::time::timeout(READ_WITHIN, crowd.read_histories_within(journals, READINGS, &quiet)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => trouble.push(error.to_string()),
        Err(_) => trouble.push("not every history could be read".to_owned()),
    }
    tokio::time::sleep(QUIET).await;
    Arc::into_inner(crowd).context("a user of the workload still runs")?.stop().await?;
    Ok(())
}
