//! What the server process costs, as the kernel counts it. Only for a server on the same machine (Linux); otherwise "not known".

use std::{
    fs, io,
    net::{IpAddr, TcpListener},
    ops::Range,
    path::Path,
};

/// The kernel's clock ticks per second in `/proc/*/stat`: 100 on every Linux that runs today (`getconf CLK_TCK`).
const TICKS_PER_SECOND: u64 = 100;

/// Below those that the system gives to outgoing connections (`net.ipv4.ip_local_port_range`): a program that is started again finds its
/// ports free.
const PORTS: Range<u16> = 15_000..32_000;

/// The first of so many free ports in a row, on the loopback: for a cluster and its nodes.
///
/// # Errors
/// When there are none, after many tries.
pub fn consecutive_ports(count: u16) -> io::Result<u16> {
    for _ in 0..1_000 {
        let first = rand::random_range(PORTS);
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok(first);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no {count} free ports in a row")))
}

/// A process on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerProcess {
    /// Its id.
    pub pid: u32,
}

impl ServerProcess {
    /// The process with this id, if there is one.
    pub fn with_pid(pid: u32) -> Option<Self> {
        let process = Self { pid };
        process.cpu_micros().map(|_| process)
    }

    /// The process that listens on the URL's port, when the URL's host is this machine.
    pub fn listening_at(url: &str) -> Option<Self> {
        let uri: http::Uri = url.parse().ok()?;
        let host = uri.host()?.trim_matches(['[', ']']);
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !here {
            return None;
        }
        let port = uri.port_u16().unwrap_or(80);
        let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|table| fs::read_to_string(table).ok())
            .find_map(|table| listening_inode(&table, port))?;
        holder_of(&format!("socket:[{inode}]"))
    }

    /// CPU time used so far, user and system, in microseconds.
    pub fn cpu_micros(&self) -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        // The name in parentheses may hold anything, parentheses included.
        let rest = stat.rsplit_once(')')?.1;
        let mut fields = rest.split_whitespace().skip(11);
        let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some((user + system) * 1_000_000 / TICKS_PER_SECOND)
    }

    /// Resident memory, in bytes.
    pub fn memory_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1_024)
    }
}

/// The inode of the listening socket on `port`, from `/proc/net/tcp`'s text.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let local = fields.nth(1)?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?;
        let its_port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (its_port == port && state == LISTEN).then(|| inode.parse().ok()).flatten()
    })
}

fn holder_of(socket: &str) -> Option<ServerProcess> {
    let processes = fs::read_dir("/proc").ok()?;
    processes.filter_map(Result::ok).find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let descriptors = fs::read_dir(entry.path().join("fd")).ok()?;
        let holds = descriptors
            .filter_map(Result::ok)
            .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|link| link == Path::new(socket)));
        holds.then_some(ServerProcess { pid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listener_is_found_in_the_kernel_s_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            \x20  0: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 11 1 0\n\
            \x20  1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n";
        assert_eq!(listening_inode(table, 8080), Some(4711));
        assert_eq!(listening_inode(table, 8081), None);
        assert_eq!(listening_inode("nonsense", 8080), None);
    }

    #[test]
    fn a_process_is_found_by_the_port_it_listens_on() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let process = ServerProcess::listening_at(&url).unwrap();
        assert_eq!(process.pid, std::process::id());
        assert!(process.memory_bytes().unwrap() > 100_000);
        assert!(process.cpu_micros().is_some());
        assert_eq!(ServerProcess::listening_at("http://192.0.2.1:80"), None);
    }
}
