//! The program `chat-node`: its settings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, bail, ensure};
use common::{
    admin_key::AdminKey,
    engines::{EngineUrls, Seam, waiting},
    ids::{Incarnation, NodeId, Partition},
    link::{Endpoint, Role},
    partition::check_count,
    program::{self, NoCommand, Process, Program, Tls},
    telemetry::LogFormat,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::{
    Listeners, NodeConfig,
    attachments::AttachmentSettings,
    owner::OwnerLimits,
    settings::{Auth, Limits, Notify, Presence, StorageApi},
    socket::SocketConfig,
};

/// Its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    name: String,
    listen: SocketAddr,
    advertise: Option<String>,
    advertise_http: Option<String>,
    listen_links: SocketAddr,
    dispatchers: Vec<String>,
    gateways: Vec<IpAddr>,
    partitions: Partition,
    capacity: u32,
    allowed_origins: Vec<String>,
    log: String,
    log_format: LogFormat,
    admin_key: AdminKey,
    storage_api: StorageApi,
    auth: Auth,
    owner: OwnerLimits,
    presence: Presence,
    notify: Notify,
    limits: Limits,
    attachments: AttachmentSettings,
    engines: EngineUrls,
    tls: Tls,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "node-1".into(),
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8081),
            advertise: None,
            advertise_http: None,
            listen_links: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            dispatchers: vec!["127.0.0.1:7080".into()],
            gateways: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            partitions: 64,
            capacity: SocketConfig::default().capacity,
            allowed_origins: Vec::new(),
            log: "info".into(),
            log_format: LogFormat::Text,
            admin_key: AdminKey::default(),
            storage_api: StorageApi::default(),
            auth: Auth::default(),
            owner: OwnerLimits::default(),
            presence: Presence::default(),
            notify: Notify::default(),
            limits: Limits::default(),
            attachments: AttachmentSettings::default(),
            engines: EngineUrls::default(),
            tls: Tls::default(),
        }
    }
}

impl Program for Settings {
    const NAME: &'static str = "chat-node";
    const ABOUT: &'static str = "Holds the sockets of its users, runs the REST API, and decides for the chats whose partitions it owns.";
    const MEANINGS: &'static [(&'static str, &'static str)] = &[
        ("name", "Unique among nodes; the one in its certificate."),
        ("listen", "Where clients' sockets, the dispatchers' gateways and Prometheus reach it, by HTTP."),
        (
            "advertise",
            "Where clients are told to open sockets: a host, host:port, ws://… or wss://…; by default `listen`.",
        ),
        (
            "advertise_http",
            "Where dispatchers send requests: a host, host:port or http://…; by default `listen`.",
        ),
        ("listen_links", "The UDP address it dials dispatchers from; of their family: [::]:0 for IPv6."),
        ("dispatchers", "Where the dispatchers' links are: a list of host:port."),
        ("gateways", "Addresses of dispatchers and proxies whose X-Forwarded-For is believed; a list."),
        ("partitions", "Of the log: the same in every service, fixed when the topic is made."),
        ("capacity", "Sockets that it takes."),
        ("allowed_origins", "Browsers' origins whose pages may open sockets; a list."),
        ("log", "What is logged, to the standard error: `info`, or `warn,chat_node=debug`."),
        ("log_format", "`text`, or `json`: an object a line."),
        (
            "admin_key",
            "The operator's key for /api/v1/applications, the same on every node; empty: nobody may.",
        ),
        (
            "storage_api.listen",
            "Where systems of the operator's own reach groups, messages and users (/group/, /message/, /user/); nowhere by default, and never \
             for clients.",
        ),
        ("storage_api.key", "What opens it: Authorization: Bearer KEY, of 16 characters at least."),
        ("auth.token_life", "Seconds for which a token is good."),
        ("auth.argon2_memory_kib", "Argon2id: KiB of memory for one password."),
        ("auth.argon2_iterations", "Argon2id: passes over that memory."),
        (
            "owner.undrained_bytes",
            "Bytes of a partition's changes that the writers may be behind; then it takes no more.",
        ),
        (
            "owner.drained_bytes",
            "Bytes of a partition's stored changes that are kept for nodes that missed some.",
        ),
        ("owner.chats", "Chats of a partition in memory; then only those are served."),
        (
            "presence.grace_ms",
            "Milliseconds after the end of their last session for which users are shown as online; at most the writers' writer.notify.settle.",
        ),
        ("presence.timeout_ms", "Milliseconds after a node's death for which its users are shown as online."),
        ("presence.group", "Members of a group above which only the number of those online is told."),
        (
            "notify.allow",
            "Internal networks that webhooks and push services may be in, the same as the writers': a list of 10.0.0.0/8, fd00::/8, or single addresses.",
        ),
        (
            "limits.messages_per_second",
            "Of one user in one chat in the long run, unless the application has chosen; 0: no limit.",
        ),
        ("limits.message_burst", "Of one user in one chat at once after a pause."),
        (
            "limits.chats_per_second",
            "That one user makes in the long run; 0, or no limit on messages: no limit.",
        ),
        ("limits.chat_burst", "That one user makes at once after a pause."),
        (
            "limits.chats_per_user",
            "Chats that one user may be in, unless the application has chosen; 0: as many as come.",
        ),
        (
            "attachments.url",
            "Where uploaded files are: file:FOLDER, which all nodes share, or s3://BUCKET[/PREFIX][?region=…&endpoint=…] (built with \
             `aws`); empty: none are taken.",
        ),
        ("attachments.max_bytes", "The largest file that is taken; dispatchers have a limit as well."),
        ("attachments.types", "Which types are taken, by content: a list of image/png, image/*, */*."),
        ("attachments.refused_types", "Which of them are refused all the same."),
        (
            "attachments.unused_after",
            "Seconds after which a file is collected that no message refers to; longer than writers may ever lag.",
        ),
        ("attachments.upload_time", "Seconds that one upload may take."),
        ("engines.log", "Kafka."),
        ("engines.store", "Postgres."),
        ("engines.cache", "Redis; need not be there."),
        ("tls.authority", "PEM: the authorities whose certificates are trusted on links."),
        (
            "tls.certificate",
            "PEM: its own, with the DNS name NAME.node.chat.internal; by default NAME.pem beside the authority.",
        ),
        ("tls.key", "PEM: the certificate's key; by default NAME.key beside the authority."),
    ];

    type Command = NoCommand;

    fn log(&self) -> (&str, LogFormat) {
        (&self.log, self.log_format)
    }

    fn listen(&self) -> SocketAddr {
        self.listen
    }

    fn check(&self) -> anyhow::Result<Vec<String>> {
        self.engines.check_shared(&Seam::ALL)?;
        check_count(self.partitions)?;
        NodeId::new(&self.name).with_context(|| format!("name: {:?}", self.name))?;
        ensure!(!self.dispatchers.is_empty(), "dispatchers: name one at least, as host:port of its links");
        for dispatcher in &self.dispatchers {
            let port = dispatcher.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            ensure!(port.is_some(), "dispatchers: {dispatcher:?} is no host:port");
        }
        self.auth.check()?;
        self.presence.check()?;
        self.limits.check()?;
        ensure!(!self.admin_key.is_short(), "admin_key: at least 16 characters");
        self.storage_api.check()?;
        self.attachments.check()?;
        let (sockets, http) = (self.socket_url(self.listen)?, self.http_url(self.listen)?);
        let (_, certificate) = self.tls.load(Role::Node, &self.name)?;
        Ok(vec![
            format!("clients open sockets at {sockets}, dispatchers send requests to {http}"),
            certificate,
        ])
    }

    async fn command(self, command: NoCommand) -> anyhow::Result<()> {
        match command.never() {}
    }

    async fn run(self, process: Process) -> anyhow::Result<()> {
        let (identity, _) = self.tls.load(Role::Node, &self.name)?;
        let shutdown = process.shutdown.clone();
        let soft = shutdown.soft();
        shutdown.spawn("certificate", program::watch(identity.clone(), soft.clone()));
        let opening = waiting::engines(&self.engines, self.partitions, &process.waits, &soft);
        let Some(engines) = process.meanwhile(opening).await?? else { return Ok(()) };

        let config = self.config(process.address())?;
        let links = Endpoint::bind(self.listen_links, &identity, config.incarnation, Default::default())?;
        let storage = match self.storage_api.listen {
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                let listener = listener.with_context(|| {
                    format!("cannot listen on {address}; choose another place with `storage_api.listen`")
                })?;
                process.tell("storage", &format!("http://{}", listener.local_addr()?));
                Some(listener)
            }
            None => None,
        };
        let listeners =
            Listeners { http: process.listener()?, storage, links, dispatchers: self.dispatchers };
        let log = engines.log.clone();
        tracing::info!(node = %config.node, sockets = config.socket_url, "engines are there: joining the cluster");
        let ended = crate::run(config, engines, listeners, shutdown).await;
        log.close().await.context("the log did not close")?;
        match ended {
            // Nothing was begun.
            Err(crate::RunError::StoppedEarly) => Ok(()),
            ended => Ok(ended?),
        }
    }
}

impl Settings {
    fn config(&self, bound: SocketAddr) -> anyhow::Result<NodeConfig> {
        Ok(NodeConfig {
            node: NodeId::new(&self.name)?,
            incarnation: Incarnation::random(),
            socket_url: self.socket_url(bound)?,
            http_url: self.http_url(bound)?,
            gateways: self.gateways.clone(),
            identity: self.auth.identity(),
            admin_key: self.admin_key.clone(),
            storage_key: self.storage_api.key.clone(),
            owner: self.limits.owner(self.owner),
            chat_rate: self.limits.chat_rate(),
            attachments: self.attachments.clone(),
            socket: SocketConfig {
                origins: self.allowed_origins.clone(),
                capacity: self.capacity,
                ..SocketConfig::default()
            },
            presence: self.presence.config(),
            notify_allow: self.notify.allow.clone(),
            #[cfg(feature = "planted")]
            planted: Default::default(),
        })
    }

    fn socket_url(&self, bound: SocketAddr) -> anyhow::Result<String> {
        told("advertise", self.advertise.as_deref(), bound, &["ws", "wss"])
    }

    fn http_url(&self, bound: SocketAddr) -> anyhow::Result<String> {
        told("advertise_http", self.advertise_http.as_deref(), bound, &["http"])
    }
}

/// What others are told of the address `bound`: as it is said, with the first of `schemes` and its port where it says none.
fn told(setting: &str, said: Option<&str>, bound: SocketAddr, schemes: &[&str]) -> anyhow::Result<String> {
    let first = schemes.first().copied().unwrap_or_default();
    let Some(said) = said else {
        ensure!(
            !bound.ip().is_unspecified(),
            "{setting}: say where others reach this node; `listen` is every address of the machine"
        );
        return Ok(format!("{first}://{bound}"));
    };
    let (scheme, authority) = match said.split_once("://") {
        Some((scheme, _)) if !schemes.contains(&scheme) => {
            bail!("{setting}: {said:?} begins with {scheme}://, and {} is meant", schemes.join("://, "))
        }
        // As it is: there may be a proxy at the scheme's own port.
        Some((scheme, authority)) => (scheme, authority.to_owned()),
        None if has_port(said) => (first, said.to_owned()),
        None => (first, format!("{said}:{}", bound.port())),
    };
    let url = format!("{scheme}://{authority}");
    let parsed: http::Uri = url.parse().with_context(|| format!("{setting}: {said:?} is no address"))?;
    ensure!(
        parsed.path_and_query().is_none_or(|path| path == "/") && !authority.ends_with('/'),
        "{setting}: {said:?} has a path, and only scheme, host and port are told"
    );
    Ok(url)
}

fn has_port(authority: &str) -> bool {
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    port.is_some_and(|port| port.parse::<u16>().is_ok())
        && (!authority.contains("::") || authority.contains("]:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_meaning() {
        assert_eq!(program::unexplained::<Settings>(), Vec::<String>::new());
    }

    #[test]
    fn what_clients_are_told_is_what_was_said_or_where_it_listens() {
        let bound: SocketAddr = "10.1.2.3:8081".parse().unwrap();
        let told = |said| told("advertise", said, bound, &["ws", "wss"]);
        for (said, url) in [
            (None, "ws://10.1.2.3:8081"),
            (Some("chat.example.org"), "ws://chat.example.org:8081"),
            (Some("chat.example.org:99"), "ws://chat.example.org:99"),
            (Some("wss://chat.example.org"), "wss://chat.example.org"),
            (Some("[2001:db8::1]"), "ws://[2001:db8::1]:8081"),
            (Some("[2001:db8::1]:99"), "ws://[2001:db8::1]:99"),
        ] {
            assert_eq!(told(said).unwrap(), url);
        }
        for bad in
            ["http://chat.example.org", "wss://chat.example.org/path", "a b", "wss://chat.example.org/"]
        {
            let error = format!("{:#}", told(Some(bad)).unwrap_err());
            assert!(error.contains("advertise"), "{bad}: {error}");
        }
        let everywhere: SocketAddr = "0.0.0.0:8081".parse().unwrap();
        let error = super::told("advertise", None, everywhere, &["ws"]).unwrap_err();
        assert!(error.to_string().contains("say where others reach"), "{error}");
    }
}
