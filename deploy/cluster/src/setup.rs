//! What a cluster is made of.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use common::{engines::EngineUrls, ids::Partition};
use rand::Rng;

use crate::Kind;

/// Ports that are chosen: below those that systems give to outgoing connections (from 32,768 on Linux), so that a process that is
/// started again finds its own free.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where everything about it is kept.
    pub folder: PathBuf,
    /// Where log, store and cache are.
    pub engines: EngineUrls,
    /// Chat nodes, `node-1` and so on.
    pub nodes: u16,
    /// Storage writers, `writer-1` and so on.
    pub writers: u16,
    /// Partitions of the log, if it is made.
    pub partitions: Partition,
    /// Where the dispatcher listens; nodes take the ports after it. Port 0: free ones for all.
    pub listen: SocketAddr,
    /// Where the storage API of the first node listens, if there is to be one; the others take the ports after it. Its key is a setting.
    pub storage: Option<SocketAddr>,
    /// What processes log.
    pub log: String,
    /// More settings by kind of process: key, and value as TOML ([`quoted`] for text).
    pub settings: Vec<(Kind, String, String)>,
    /// The folder of the programs.
    pub programs: PathBuf,
}

impl Setup {
    /// Three nodes and two writers on free ports, of the programs beside this one.
    pub fn new(folder: impl Into<PathBuf>, engines: EngineUrls) -> Self {
        Self {
            folder: folder.into(),
            engines,
            nodes: 3,
            writers: 2,
            partitions: 64,
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            storage: None,
            log: "info".into(),
            settings: Vec::new(),
            programs: beside(),
        }
    }

    /// Likewise, with one more setting for every process of a kind. `value` is TOML.
    #[must_use]
    pub fn with(mut self, kind: Kind, key: &str, value: impl ToString) -> Self {
        self.settings.push((kind, key.to_owned(), value.to_string()));
        self
    }

    /// The program of a kind of process.
    pub(crate) fn program(&self, kind: Kind) -> anyhow::Result<PathBuf> {
        let program = self.programs.join(kind.program());
        if !program.is_file() {
            bail!(
                "{} is not there; cargo build -p dispatcher -p chat-node -p storage-writer makes it (with --release for target/release)",
                program.display()
            );
        }
        Ok(program)
    }

    /// The settings of a process, but for where it listens.
    pub(crate) fn settings_of(&self, kind: Kind, name: &str) -> BTreeMap<String, String> {
        let mut settings = BTreeMap::new();
        let mut set = |key: &str, value: String| _ = settings.insert(key.to_owned(), value);
        set("log", quoted(&self.log));
        set("partitions", self.partitions.to_string());
        set("engines.log", quoted(&self.engines.log));
        set("engines.store", quoted(&self.engines.store));
        set("engines.cache", quoted(&self.engines.cache));
        if kind != Kind::Writer {
            // Its own certificate is beside it, under its name.
            let authority = self.certificates().join("authority.pem");
            set("name", quoted(name));
            set("tls.authority", quoted(&authority.to_string_lossy()));
        }
        if kind == Kind::Node {
            let url = format!("file:{}", self.folder.join("attachments").display());
            set("attachments.url", quoted(&url));
        }
        for (_, key, value) in self.settings.iter().filter(|(of, _, _)| *of == kind) {
            set(key, value.clone());
        }
        settings
    }

    pub(crate) fn certificates(&self) -> PathBuf {
        self.folder.join("certificates")
    }
}

/// Text as TOML has it.
pub fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

/// Where the programs are that were built together with this one: beside it, or, for a test, one folder above.
fn beside() -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    let folder = here.parent().unwrap_or(Path::new("."));
    match folder.file_name() {
        Some(name) if name == "deps" => folder.parent().unwrap_or(folder).to_owned(),
        _ => folder.to_owned(),
    }
}

/// A port that nobody has, for TCP and UDP.
pub(crate) fn free_port(like: SocketAddr) -> anyhow::Result<SocketAddr> {
    for _ in 0..1_000 {
        let address = SocketAddr::new(like.ip(), rand::rng().random_range(PORTS));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(std::io::Error::from(std::io::ErrorKind::AddrInUse)).context("no free port was found")
}
