//! What an operator may choose: by flag, by environment, by file; each with a default that works.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use chat_node::{NodeConfig, owner::OwnerLimits, socket::SocketConfig};
pub use chat_node::{
    attachments::AttachmentSettings,
    settings::{Auth, Limits, Presence, StorageApi},
};
use common::{
    admin_key::AdminKey,
    ids::{Incarnation, NodeId},
    partition::check_count,
};
use serde::{Deserialize, Serialize};
use storage_writer::WriterConfig;

/// The settings of a standalone cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the dispatcher listens: the cluster's one address. The nodes listen on the ports after it.
    pub listen: SocketAddr,
    /// The host that clients are told, when it is not the address that is listened on.
    pub advertise: Option<String>,
    /// How many chat nodes.
    pub nodes: u16,
    /// How many storage writers.
    pub writers: u16,
    /// Where everything is kept.
    pub data: PathBuf,
    /// Partitions of the log; fixed when it is made.
    pub partitions: u16,
    /// Sockets that one node takes.
    pub capacity: u32,
    /// Origins whose pages may call from a browser.
    pub allowed_origins: Vec<String>,
    /// What is logged: `info`, or `warn,chat_node=debug`.
    pub log: String,
    /// The operator's key for applications; empty: nobody may.
    pub admin_key: AdminKey,
    /// The storage API: the first node listens there, the others on the ports after it.
    pub storage_api: StorageApi,
    /// Sign-in.
    pub auth: Auth,
    /// What the owners' memory may hold.
    pub owner: OwnerLimits,
    /// Who is shown as connected.
    pub presence: Presence,
    /// What one user may do.
    pub limits: Limits,
    /// Files that messages refer to; in the folder of the data unless said otherwise.
    pub attachments: AttachmentSettings,
    /// The storage writers.
    pub writer: WriterConfig,
    /// What is planted in all of it.
    #[cfg(feature = "planted")]
    pub planted: common::planted::Planted,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            advertise: None,
            nodes: 3,
            writers: 1,
            data: "data".into(),
            partitions: 16,
            capacity: 20_000,
            allowed_origins: Vec::new(),
            log: "info".into(),
            admin_key: AdminKey::default(),
            storage_api: StorageApi::default(),
            auth: Auth::default(),
            owner: OwnerLimits::default(),
            presence: Presence::default(),
            limits: Limits::default(),
            attachments: AttachmentSettings::default(),
            writer: WriterConfig::default(),
            #[cfg(feature = "planted")]
            planted: Default::default(),
        }
    }
}

impl Settings {
    /// What is wrong with them, in words that say what to do.
    ///
    /// # Errors
    /// The first thing found.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            (1..=64).contains(&self.nodes),
            "nodes: {} are asked for; 1 to 64 can be",
            self.nodes
        );
        anyhow::ensure!(
            (1..=16).contains(&self.writers),
            "writers: {} are asked for; 1 to 16 can be",
            self.writers
        );
        check_count(self.partitions)?;
        self.auth.check()?;
        self.presence.check()?;
        self.limits.check()?;
        anyhow::ensure!(!self.admin_key.is_short(), "admin_key: at least 16 characters");
        self.storage_api.check()?;
        if let Some(storage) = self.storage_api.listen {
            let last = u32::from(storage.port()) + u32::from(self.nodes) - 1;
            anyhow::ensure!(
                last <= 65_535,
                "storage_api.listen: the nodes need {} ports from it on",
                self.nodes
            );
        }
        self.attachments.check()?;
        self.writer.notify.check().map_err(|fault| anyhow::anyhow!("writer.notify.{fault}"))?;
        if let Some(fault) = self.writer.notify.forgets(self.presence.config().grace) {
            anyhow::bail!(fault);
        }
        let last = u32::from(self.listen.port()) + u32::from(self.nodes);
        anyhow::ensure!(last <= 65_535, "listen: the nodes need the {} ports after it", self.nodes);
        Ok(())
    }

    /// The host in the URLs that clients are given.
    pub(crate) fn host(&self) -> String {
        match (&self.advertise, self.listen.ip()) {
            (Some(host), _) => host.clone(),
            (None, ip) if ip.is_unspecified() => "localhost".into(),
            (None, IpAddr::V6(ip)) => format!("[{ip}]"),
            (None, IpAddr::V4(ip)) => ip.to_string(),
        }
    }

    /// A node's part of them.
    pub(crate) fn node(&self, name: NodeId, http: SocketAddr) -> NodeConfig {
        let host = self.host();
        let port = http.port();
        NodeConfig {
            node: name,
            socket_url: format!("ws://{host}:{port}"),
            // The gateway is in this process.
            http_url: format!("http://{}", reachable(http)),
            identity: self.auth.identity(),
            admin_key: self.admin_key.clone(),
            storage_key: self.storage_api.key.clone(),
            attachments: self.attachments.clone().or_in(&self.data.join("attachments")),
            gateways: vec![IpAddr::V4(Ipv4Addr::LOCALHOST), reachable(http).ip()],
            owner: self.limits.owner(self.owner),
            chat_rate: self.limits.chat_rate(),
            socket: SocketConfig {
                origins: self.allowed_origins.clone(),
                capacity: self.capacity,
                ..SocketConfig::default()
            },
            presence: self.presence.config(),
            // One list for who takes a URL and who sends there.
            notify_allow: self.writer.notify.allow.clone(),
            incarnation: Incarnation::random(),
            #[cfg(feature = "planted")]
            planted: self.planted,
        }
    }
}

/// Where this process itself reaches what listens there.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}
