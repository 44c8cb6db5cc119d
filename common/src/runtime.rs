//! What every program runs its tasks on.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// A runtime with a thread for each core. `TOKIO_WORKER_THREADS` says otherwise.
///
/// Without huge pages: one of 2 MiB is cleared by whoever touches it first, which takes a thread some 5 ms on a virtual machine, in which
/// everything behind it waits, and is counted as used when a few KiB of it are.
///
/// # Errors
/// When the system gives no more threads.
pub fn start() -> io::Result<Runtime> {
    // A system that does not know the setting goes on as it did.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    Builder::new_multi_thread().enable_all().build()
}
