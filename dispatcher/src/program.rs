//! The program `dispatcher`: its settings, and the certificates of a small cluster.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::Subcommand;
use common::{
    engines::{EngineUrls, Seam, waiting},
    ids::{Incarnation, Partition},
    link::{Authority, Endpoint, Name, Role},
    partition::check_count,
    program::{self, Process, Program, Tls, say},
    store::postgres::PostgresSettings,
    telemetry::LogFormat,
    time::Millis,
};
use serde::{Deserialize, Serialize};

use crate::{DispatcherConfig, Listeners, cors, gateway::GatewaySettings};

/// Its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    name: String,
    listen: SocketAddr,
    listen_links: SocketAddr,
    partitions: Partition,
    expect_nodes: usize,
    allowed_origins: Vec<String>,
    max_upload: u64,
    log: String,
    log_format: LogFormat,
    engines: EngineUrls,
    tls: Tls,
}

impl Default for Settings {
    fn default() -> Self {
        // Keys at the start, revocations each second.
        let postgres = PostgresSettings { max_connections: 4, ..PostgresSettings::default() };
        let config = DispatcherConfig::default();
        Self {
            name: "dispatcher-1".into(),
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080),
            listen_links: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 7080),
            partitions: config.partitions,
            expect_nodes: config.expect_nodes,
            allowed_origins: config.allowed_origins,
            max_upload: config.gateway.max_upload,
            log: "info".into(),
            log_format: LogFormat::Text,
            engines: EngineUrls { postgres, ..EngineUrls::default() },
            tls: Tls::default(),
        }
    }
}

/// What it can do besides running.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes certificates for links, for development and small clusters: an authority, unless the folder has one, and NAME.pem and NAME.key
    /// for each name. In production bring your own, with the DNS name NAME.dispatcher.chat.internal or NAME.node.chat.internal.
    Certificates {
        /// Where they are put: authority.pem for every service, authority.key for nobody.
        #[arg(long, value_name = "DIR", default_value = "certificates")]
        folder: PathBuf,
        /// A dispatcher's name.
        #[arg(long, value_name = "NAME")]
        dispatcher: Vec<String>,
        /// A node's name.
        #[arg(long, value_name = "NAME")]
        node: Vec<String>,
        /// For how long they are good.
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3_650))]
        days: u16,
    },
}

impl Program for Settings {
    const NAME: &'static str = "dispatcher";
    const ABOUT: &'static str = "Says which chat node serves whom and which owns what, forwards frames between nodes, and is the cluster's one address.";
    const MEANINGS: &'static [(&'static str, &'static str)] = &[
        ("name", "Unique among dispatchers; the one in its certificate."),
        ("listen", "Where clients, operators and Prometheus reach it, by HTTP."),
        ("listen_links", "Where nodes reach it, by QUIC (UDP)."),
        ("partitions", "Of the log: the same in every service, fixed when the topic is made."),
        (
            "expect_nodes",
            "With this many nodes the first placement is made at once; 0: not known, it waits 3 s.",
        ),
        ("allowed_origins", "Browsers' origins that may call; a list."),
        ("max_upload", "Bytes of an uploaded file that is passed on; nodes have a limit as well."),
        ("log", "What is logged, to the standard error: `info`, or `warn,dispatcher=debug`."),
        ("log_format", "`text`, or `json`: an object a line."),
        ("engines.log", "Not used by this service."),
        ("engines.store", "Postgres: keys of tokens, ended sign-ins."),
        ("engines.cache", "Not used by this service."),
        ("tls.authority", "PEM: the authorities whose certificates are trusted on links."),
        (
            "tls.certificate",
            "PEM: its own, with the DNS name NAME.dispatcher.chat.internal; by default NAME.pem beside the authority.",
        ),
        ("tls.key", "PEM: the certificate's key; by default NAME.key beside the authority."),
    ];

    type Command = Command;

    fn log(&self) -> (&str, LogFormat) {
        (&self.log, self.log_format)
    }

    fn listen(&self) -> SocketAddr {
        self.listen
    }

    fn check(&self) -> anyhow::Result<Vec<String>> {
        self.engines.check_shared(&[Seam::Store])?;
        check_count(self.partitions)?;
        cors::allowed(&self.allowed_origins).map_err(|why| anyhow::anyhow!("allowed_origins: {why}"))?;
        let (_, certificate) = self.tls.load(Role::Dispatcher, &self.name)?;
        Ok(vec![certificate])
    }

    async fn command(self, command: Command) -> anyhow::Result<()> {
        let Command::Certificates { folder, dispatcher, node, days } = command;
        let named = |role| move |name: String| Ok((role, Name::new(&name)?));
        let names = dispatcher.into_iter().map(named(Role::Dispatcher));
        let names =
            names.chain(node.into_iter().map(named(Role::Node))).collect::<anyhow::Result<Vec<_>>>()?;
        tokio::task::spawn_blocking(move || certificates(&folder, &names, days)).await?
    }

    async fn run(self, process: Process) -> anyhow::Result<()> {
        let (identity, _) = self.tls.load(Role::Dispatcher, &self.name)?;
        let links = Endpoint::bind(self.listen_links, &identity, Incarnation::random(), Default::default())?;
        process.tell("links", &links.local_addr()?.to_string());
        let shutdown = process.shutdown.clone();
        shutdown.spawn("certificate", program::watch(identity, shutdown.soft()));
        let config = DispatcherConfig {
            partitions: self.partitions,
            expect_nodes: self.expect_nodes,
            allowed_origins: self.allowed_origins,
            gateway: GatewaySettings { max_upload: self.max_upload, ..GatewaySettings::default() },
            ..DispatcherConfig::default()
        };
        let (urls, waits, soft) = (self.engines, process.waits.clone(), shutdown.soft());
        let store = async move { waiting::store(&urls, &waits, &soft).await };
        let listeners = Listeners { http: process.listener()?, links };
        Ok(crate::run_while_opening(config, store, listeners, shutdown).await?)
    }
}

fn certificates(folder: &std::path::Path, names: &[(Role, Name)], days: u16) -> anyhow::Result<()> {
    let authority = if folder.join("authority.pem").exists() {
        Authority::load(folder).context("the authority that is there already")?
    } else {
        let authority = Authority::generate()?;
        authority.save(folder)?;
        say(format_args!("made     {}", folder.join("authority.pem").display()));
        authority
    };
    let life = Duration::from_secs(u64::from(days) * 24 * 3600);
    for (role, name) in names {
        authority.issue_for(*role, name, Millis::now(), life)?.save_as(folder, name.as_str())?;
        let file = folder.join(format!("{name}.pem"));
        say(format_args!("made     {} for {role} {name}, good for {days} days", file.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_meaning() {
        assert_eq!(program::unexplained::<Settings>(), Vec::<String>::new());
    }
}
