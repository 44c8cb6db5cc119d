//! What every program runs its tasks on.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Open files that a process has room for from the start: 8 bytes each. Their table is otherwise doubled whenever it is full, which takes Linux
/// a grace period of RCU, some 15 ms, while whoever opens or accepts anything waits (`expand_fdtable` in `fs/file.c`): half of a server's threads or
/// all of them, eight times on the way to 10,000 sockets. While there is one thread it takes no time.
#[cfg(target_os = "linux")]
const FILES: u64 = 65_536;

/// A runtime with a thread for each core. `TOKIO_WORKER_THREADS` says otherwise. To be called before any other thread is started.
///
/// Without huge pages: one of 2 MiB is cleared by whoever touches it first, which takes a thread some 5 ms on a virtual machine, in which
/// everything behind it waits, and is counted as used when a few KiB of it are. And with room for as many sockets as a node has.
///
/// # Errors
/// When the system gives no more threads.
pub fn start() -> io::Result<Runtime> {
    // A system that does not know the settings goes on as it did.
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::thread::disable_transparent_huge_pages(true);
        let _ = make_room_for_files();
    }
    Builder::new_multi_thread().enable_all().build()
}

/// Opens a file under the highest number, and closes it again: the table stays as large as that took. Gives the number.
#[cfg(target_os = "linux")]
fn make_room_for_files() -> io::Result<i32> {
    use rustix::process::{Resource, getrlimit};

    let most = getrlimit(Resource::Nofile).current.unwrap_or(FILES).min(FILES);
    let highest = i32::try_from(most.saturating_sub(1)).unwrap_or(i32::MAX);
    rustix::io::fcntl_dupfd_cloexec(io::stderr(), highest)?;
    Ok(highest)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_files_that_are_not_open() {
        let highest = make_room_for_files().unwrap();
        assert!(std::fs::symlink_metadata(format!("/proc/self/fd/{highest}")).is_err());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        assert!(size.trim().parse::<i32>().unwrap() > highest, "{size}");
    }
}
