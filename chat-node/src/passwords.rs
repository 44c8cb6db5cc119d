//! Passwords: Argon2id, on blocking threads, a bounded number at once.
//!
//! A hash costs tens of milliseconds and its memory for as long, so at most one runs per core, and those that wait are bounded too: past
//! that a request is told to come again, and the node goes on serving sockets.

use std::{fmt, sync::Arc, thread, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use common::{problem::Problem, wire::codes::ErrorCode};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
};

/// Requests that may wait, for each core: at about 25 ms a hash (the default cost) the last one waits 1.6 s.
const WAITING_PER_CORE: usize = 64;

/// How long one waits for a core at most. Reached only with a cost far above the default.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a hash costs whoever makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

impl Default for PasswordCost {
    /// OWASP's minimum for Argon2id (Password Storage Cheat Sheet): 19 MiB, 2 passes, 1 lane.
    fn default() -> Self {
        Self { memory_kib: 19_456, iterations: 2, parallelism: 1 }
    }
}

/// The cost is not one that Argon2 knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cost of passwords is out of range: {0}")]
pub struct BadCost(String);

/// Hashes and verifies. Cheap to clone.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    argon2: Argon2<'static>,
    /// One permit for each core.
    cores: Arc<Semaphore>,
    /// One permit for each request that waits or is worked on.
    places: Arc<Semaphore>,
    /// The hash of nothing anybody knows: verified when there is no such user, so that both take as long.
    decoy: String,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("cost", self.0.argon2.params()).finish_non_exhaustive()
    }
}

impl Passwords {
    /// With this cost for new hashes; old ones name their own. Makes one hash.
    ///
    /// # Errors
    /// [`BadCost`].
    pub fn new(cost: PasswordCost) -> Result<Self, BadCost> {
        let params = Params::new(cost.memory_kib, cost.iterations, cost.parallelism, None)
            .map_err(|error| BadCost(error.to_string()))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let decoy = hash_now(&argon2, &rand::random::<[u8; 16]>()).map_err(|Broken(why)| BadCost(why))?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok(Self(Arc::new(Inner {
            argon2,
            cores: Arc::new(Semaphore::new(cores)),
            places: Arc::new(Semaphore::new(cores * (WAITING_PER_CORE + 1))),
            decoy,
        })))
    }

    /// The hash of `password`, in PHC form.
    ///
    /// # Errors
    /// `retry_later` when too many are waiting.
    pub async fn hash(&self, password: String) -> Result<String, Problem> {
        self.work(move |inner| hash_now(&inner.argon2, password.as_bytes())).await
    }

    /// Whether `password` has the hash `known`. With none, `false` after the same work.
    ///
    /// # Errors
    /// `retry_later` when too many are waiting.
    pub async fn verify(&self, password: String, known: Option<String>) -> Result<bool, Problem> {
        self.work(move |inner| {
            let hash = PasswordHash::new(known.as_deref().unwrap_or(&inner.decoy))
                .map_err(|error| Broken(error.to_string()))?;
            let matches = inner.argon2.verify_password(password.as_bytes(), &hash).is_ok();
            Ok(matches && known.is_some())
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Inner) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, Problem> {
        let busy = || Problem::retry_later("too many are signing in at the moment");
        let place = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| busy())?;
        let core = tokio::time::timeout(PATIENCE, Arc::clone(&self.0.cores).acquire_owned()).await;
        let core = core.map_err(|_| busy())?.map_err(|_| busy())?;
        let inner = Arc::clone(&self.0);
        // A request that goes away does not stop the thread: the permits stay with the work.
        let permits: (OwnedSemaphorePermit, OwnedSemaphorePermit) = (place, core);
        let done = task::spawn_blocking(move || {
            let outcome = job(&inner);
            drop(permits);
            outcome
        })
        .await;
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Broken(why))) => Err(broken(&why)),
            Err(error) => Err(broken(&error.to_string())),
        }
    }
}

/// Something that only a bug or a damaged row brings about.
struct Broken(String);

fn broken(why: &str) -> Problem {
    tracing::error!(why, "a password could not be hashed or verified");
    Problem::new(ErrorCode::Internal, "something is wrong here; it was reported")
}

fn hash_now(argon2: &Argon2<'_>, password: &[u8]) -> Result<String, Broken> {
    let hash: PasswordHash = argon2.hash_password(password).map_err(|error| Broken(error.to_string()))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As little as Argon2 takes.
    const CHEAP: PasswordCost = PasswordCost { memory_kib: 8, iterations: 1, parallelism: 1 };

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_and_no_other_is() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash("correct horse".into()).await.unwrap(), "each has a salt of its own");
        assert!(passwords.verify("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("battery staple".into(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("correct horse".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn hashes_of_another_cost_still_count() {
        let old = Passwords::new(CHEAP).unwrap().hash("correct horse".into()).await.unwrap();
        let passwords = Passwords::new(PasswordCost { iterations: 2, ..CHEAP }).unwrap();
        assert!(passwords.verify("correct horse".into(), Some(old)).await.unwrap());
    }

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_is_told_to_come_again() {
        let passwords = Passwords::new(CHEAP).unwrap();
        let all = u32::try_from(passwords.0.places.available_permits()).unwrap();
        let held = Arc::clone(&passwords.0.places).acquire_many_owned(all).await.unwrap();
        let refused = passwords.hash("correct horse".into()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::RetryLater);
        drop(held);
        assert!(passwords.hash("correct horse".into()).await.is_ok());
    }

    #[test]
    fn a_cost_out_of_range_is_refused() {
        assert!(Passwords::new(PasswordCost { memory_kib: 1, ..CHEAP }).is_err());
    }
}
