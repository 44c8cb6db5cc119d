//! A crowd of real clients on a cluster, however that runs, and the judge who looks at their journals in the end.

use std::{sync::Arc, time::Duration};

use loadtest::{
    check::{self, Exercise},
    client::{Nobody, Observer, Options},
    clock::Clock,
    journal::Journal,
    progress::Progress,
    workload::{Crowd, CrowdOptions},
};
use tempfile::TempDir;

/// How long what was cut or killed may take to be whole again.
pub const MEND: Duration = Duration::from_secs(30);

/// Complaints that are printed; the others are counted.
const SHOWN: usize = 30;

pub fn faults(folder: &TempDir, crowd: &Crowd) -> Journal {
    Journal::of_faults(&folder.path().join("journal/faults.jsonl"), crowd.clock()).unwrap()
}

pub async fn crowd(url: &str, folder: &TempDir, users: usize, devices: usize) -> Arc<Crowd> {
    watched(url, folder, users, devices, Arc::new(Nobody)).await
}

/// A crowd whose devices somebody looks at.
pub async fn watched(
    url: &str,
    folder: &TempDir,
    users: usize,
    devices: usize,
    observer: Arc<dyn Observer>,
) -> Arc<Crowd> {
    let journal = folder.path().join("journal");
    std::fs::create_dir_all(&journal).unwrap();
    let options = CrowdOptions { users, devices, journal: Some(journal), client: Options::default() };
    let quiet = Progress::quiet();
    let gathering = Crowd::gather(url, options, Clock::start(), observer, &quiet);
    Arc::new(gathering.await.unwrap())
}

/// Waits until everything is said and seen, reads the histories, and has the judge look.
pub async fn judge(folder: &TempDir, crowd: Arc<Crowd>) {
    let trouble = rest(folder, crowd).await;
    verdict(folder, trouble);
}

/// Waits until everything is said and seen, reads the histories, and ends the devices, whatever comes of it: a journal that is whole says
/// more than the first complaint. Gives the complaints.
pub async fn rest(folder: &TempDir, crowd: Arc<Crowd>) -> Vec<String> {
    let mut trouble = Vec::new();
    let busy = crowd.drained(MEND).await;
    if busy > 0 {
        trouble.push(format!("{busy} devices have messages without an answer"));
    }
    match crowd.settled(MEND).await {
        Ok(behind) => trouble.extend(behind),
        Err(error) => trouble.push(error.to_string()),
    }
    let read = crowd.read_histories(&folder.path().join("journal"), &Progress::quiet()).await;
    trouble.extend(read.err().map(|error| error.to_string()));
    Arc::try_unwrap(crowd).expect("somebody still uses the crowd").stop().await.unwrap();
    trouble
}

/// Has the judge look, and falls for what it finds and for `trouble`. Gives how much there was to look at.
pub fn verdict(folder: &TempDir, trouble: Vec<String>) -> Exercise {
    let journals = check::Journals::read(&folder.path().join("journal")).unwrap();
    let violations = check::judge(&journals);
    let complaints: Vec<String> =
        trouble.into_iter().chain(violations.iter().map(ToString::to_string)).collect();
    let first = complaints.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(complaints.is_empty(), "{} complaints:\n{first}", complaints.len());
    Exercise::of(&journals)
}
