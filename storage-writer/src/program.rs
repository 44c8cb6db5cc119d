//! The program `storage-writer`: its settings, and the making of log and store.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use clap::Subcommand;
use common::{
    cache::GRACE,
    engines::{self, EngineUrls, Seam, masked, waiting},
    ids::Partition,
    partition::check_count,
    program::{Process, Program, Ready, operators, say},
    store::postgres::PostgresSettings,
    telemetry::LogFormat,
};
use prometheus::{Registry, process_collector::ProcessCollector};
use serde::{Deserialize, Serialize};

use crate::{Clock, Engines, Joined, WriterConfig};

/// Its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    listen: SocketAddr,
    partitions: Partition,
    log: String,
    log_format: LogFormat,
    engines: EngineUrls,
    writer: WriterConfig,
}

impl Default for Settings {
    fn default() -> Self {
        // One transaction at a time.
        let postgres = PostgresSettings { max_connections: 4, ..PostgresSettings::default() };
        Self {
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8090),
            partitions: 64,
            log: "info".into(),
            log_format: LogFormat::Text,
            engines: EngineUrls { postgres, ..EngineUrls::default() },
            writer: WriterConfig::default(),
        }
    }
}

/// What it can do besides running.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes what is missing: the log's topic, with `partitions` partitions and an id, and the store's tables in their newest form. Waits for
    /// the servers. Does nothing to what is there already.
    Init,
}

impl Program for Settings {
    const NAME: &'static str = "storage-writer";
    const ABOUT: &'static str =
        "Drains the log into the store. Any number may run: they share the partitions among them.";
    const MEANINGS: &'static [(&'static str, &'static str)] = &[
        ("listen", "Where operators and Prometheus reach it, by HTTP: /healthz, /readyz, /metrics."),
        ("partitions", "Of the log: the same in every service, fixed when the topic is made."),
        ("log", "What is logged, to the standard error: `info`, or `warn,storage_writer=debug`."),
        ("log_format", "`text`, or `json`: an object a line."),
        ("engines.log", "Kafka."),
        ("engines.store", "Postgres."),
        ("engines.cache", "Redis: who is connected."),
        ("writer.group", "The group of readers that all writers are in."),
        ("writer.batch_records", "Most rows in one transaction."),
        ("writer.batch_bytes", "Bytes of records after which no more are gathered."),
        ("writer.linger", "Milliseconds for which a record waits for others to share its transaction."),
        (
            "writer.sweep_every",
            "Milliseconds from one sweep for messages that are past their time, and for what the log may forget, to the next.",
        ),
        (
            "writer.log_keep",
            "Milliseconds for which the log keeps what is drained: longer than any backup of the store is old that may still be put back. 0: for ever.",
        ),
        (
            "writer.notify.allow",
            "Internal networks that webhooks and push services may be in, the same as the nodes': a list of 10.0.0.0/8, fd00::/8, or single addresses.",
        ),
        (
            "writer.notify.contact",
            "Whom operators of push services may ask: `mailto:you@example.com`, or an https address. Some want one.",
        ),
        ("writer.notify.every", "Milliseconds from one look for who is to be notified to the next."),
        (
            "writer.notify.settle",
            "Milliseconds that a message waits before anybody is notified, whatever its application says: the nodes' presence.timeout_ms, and never \
             less than their presence.grace_ms, or who goes right before a message is never notified of it.",
        ),
        (
            "writer.notify.gather",
            "Milliseconds from telling those who were away from a chat to the next time: what is said meanwhile is told together.",
        ),
        ("writer.notify.retry_first", "Milliseconds until what was not taken is sent again; doubles."),
        ("writer.notify.retry_longest", "Milliseconds that this grows to."),
        ("writer.notify.keep", "Milliseconds after which what nobody takes is given up."),
    ];

    type Command = Command;

    fn log(&self) -> (&str, LogFormat) {
        (&self.log, self.log_format)
    }

    fn listen(&self) -> SocketAddr {
        self.listen
    }

    fn check(&self) -> anyhow::Result<Vec<String>> {
        self.engines.check_shared(&Seam::ALL)?;
        check_count(self.partitions)?;
        ensure!(!self.writer.group.is_empty(), "writer.group: it needs a name");
        ensure!(self.writer.batch_records > 0, "writer.batch_records: at least 1");
        ensure!(self.writer.batch_bytes > 0, "writer.batch_bytes: at least 1");
        ensure!(!self.writer.sweep_every.is_zero(), "writer.sweep_every: at least 1 millisecond");
        self.writer.notify.check().map_err(|fault| anyhow::anyhow!("writer.notify.{fault}"))?;
        // What the nodes were told is not known here.
        Ok(self.writer.notify.forgets(GRACE).into_iter().collect())
    }

    async fn command(self, Command::Init: Command) -> anyhow::Result<()> {
        // Who makes log and tables need have no cache yet.
        self.engines.check_shared(&[Seam::Log, Seam::Store])?;
        check_count(self.partitions)?;
        let made = engines::init(&self.engines, self.partitions).await?;
        let (log, store) = (masked(&self.engines.log), masked(&self.engines.store));
        let topic = if made.log_made { "made" } else { "was there" };
        say(format_args!("log    {log}: {topic}, {} partitions, id {}", self.partitions, made.log_id));
        let tables =
            if made.store_made { "made, or brought to their newest form" } else { "were up to date" };
        say(format_args!("store  {store}: tables {tables}"));
        Ok(())
    }

    async fn run(self, process: Process) -> anyhow::Result<()> {
        self.writer.notify.forgets(GRACE).iter().for_each(|fault| tracing::warn!("{fault}"));
        let shutdown = process.shutdown.clone();
        let soft = shutdown.soft();
        let opening = waiting::engines(&self.engines, self.partitions, &process.waits, &soft);
        let Some(opened) = process.meanwhile(opening).await?? else { return Ok(()) };
        let engines::Engines { log, store, cache } = opened;

        let (registry, joined) = (Registry::new(), Joined::default());
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let asked = joined.clone();
        let ready: Ready = Arc::new(move || match asked.get() {
            true => Ok(()),
            false => Err("the log's group of readers is not joined".to_owned()),
        });
        process.serve(operators(ready, registry.clone()))?;
        tracing::info!("engines are there: joining the log's readers");
        let engines = Engines {
            log: log.clone(),
            search: store.clone(),
            retention: store.clone(),
            notify: store.clone(),
            reads: store.clone(),
            store,
            cache,
            clock: Clock::default(),
        };
        crate::run_telling(self.writer, engines, registry, joined, soft).await?;
        // Leaves the group in good order, so that others have its partitions at once.
        log.close().await.context("the log did not close")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_meaning() {
        assert_eq!(common::program::unexplained::<Settings>(), Vec::<String>::new());
    }
}
