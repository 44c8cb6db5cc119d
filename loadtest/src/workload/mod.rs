//! Crowds of devices, and what they do.
//!
//! | module | what |
//! | --- | --- |
//! | [`crowd`] | users, devices and chats: the beginning of every workload, and of a cluster test of one's own |
//! | [`chat`] | messages at a rate or as fast as a window allows: figures |
//! | [`connect`] | from location to ready session, again and again: figures |
//! | [`mixed`] | everything a user may do, at random, with journals: for the judge |
//!
//! A cluster test drives it in its own process:
//!
//! ```no_run
//! # async fn test(url: &str, folder: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
//! use std::{sync::Arc, time::Duration};
//! use loadtest::{check, client::Nobody, clock::Clock, progress::Progress, workload::{Crowd, CrowdOptions}};
//!
//! let progress = Progress::quiet();
//! let options = CrowdOptions { users: 3, devices: 2, journal: Some(folder.to_owned()), ..Default::default() };
//! let crowd = Crowd::gather(url, options, Clock::start(), Arc::new(Nobody), &progress).await?;
//! let chat = crowd.group("three", 0, &[1, 2]).await?;
//! crowd.device(1)?.send(chat, "hello").await;
//! // …kill something, or have `mixed::Mixed::start(&crowd, …)` running meanwhile…
//! assert_eq!(crowd.drained(Duration::from_secs(30)).await, 0);
//! assert!(crowd.settled(Duration::from_secs(10)).await?.is_empty());
//! crowd.read_histories(folder, &progress).await?;
//! crowd.stop().await?;
//! assert_eq!(check::judge(&check::Journals::read(folder)?), []);
//! # Ok(()) }
//! ```

pub mod body;
pub mod chat;
pub mod connect;
pub mod crowd;
pub mod mixed;

use std::{io, path::PathBuf};

use common::ids::UserId;

pub(crate) use self::crowd::sign_in;
pub use self::crowd::{Crowd, CrowdOptions, Person, SignedIn};
use crate::{check::ReadError, client::http::HttpError};

/// Why a workload did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The API refused what every run needs.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A device found no session.
    #[error("a device of {user} does not connect within a minute ({state})")]
    NotConnected {
        /// Whose.
        user: UserId,
        /// Where it is.
        state: String,
    },
    /// A user that the crowd does not have was asked for.
    #[error("there is no user {user} in this crowd")]
    NoSuchUser {
        /// The number asked for.
        user: usize,
    },
    /// A journal cannot be made or is not whole.
    #[error("journal {path}: {error}")]
    Journal {
        /// Where.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// A history was not read.
    #[error(transparent)]
    History(#[from] ReadError),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Impossible(String),
}
