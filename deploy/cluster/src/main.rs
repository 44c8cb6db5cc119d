//! `cluster`: the whole cluster as processes on this machine.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use cluster::{Kind, Processes, Setup, quoted};
use common::{config, engines::EngineUrls, program::say};
use serde::{Deserialize, Serialize};

/// The cluster as processes on this machine, on Kafka, Postgres and Redis that run already: a dispatcher, nodes and writers.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where settings, certificates, logs and process ids are kept.
    #[arg(long, value_name = "DIR", default_value = "target/cluster", global = true)]
    folder: PathBuf,
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes what log and store lack, starts everything, waits until it serves, and prints the cluster's address as its last line.
    /// Where the engines are it takes from CHAT_ENGINES__LOG, CHAT_ENGINES__STORE and CHAT_ENGINES__CACHE, as `deploy/engines up` prints them;
    /// CHAT_ADMIN_KEY and CHAT_LIMITS__… it hands on to the nodes, and CHAT_STORAGE_API__KEY and CHAT_STORAGE_API__LISTEN, where the first
    /// node's storage API listens; the others take the ports after it.
    Up {
        /// Where the cluster listens; the nodes take the ports after it.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// How many chat nodes.
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
        nodes: u16,
        /// How many storage writers.
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
        writers: u16,
        /// Partitions of the log, fixed when it is made.
        #[arg(long, value_name = "N", default_value_t = 64)]
        partitions: u16,
        /// What is logged.
        #[arg(long, value_name = "FILTER", default_value = "info")]
        log: String,
    },
    /// Stops everything in order, and leaves the engines.
    Down,
    /// Says what runs; fails unless all of it does.
    Status,
}

/// What the environment says.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Environment {
    engines: EngineUrls,
    admin_key: String,
    limits: BTreeMap<String, f64>,
    storage_api: StorageApi,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StorageApi {
    listen: Option<SocketAddr>,
    key: String,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(Arguments::parse()))) {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("cluster: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let folder = arguments.folder;
    match arguments.command {
        Action::Up { listen, nodes, writers, partitions, log } => {
            let Environment { engines, admin_key, limits, storage_api } = config::load(None)?;
            let folder = std::path::absolute(&folder)?;
            let storage = storage_api.listen;
            let mut setup =
                Setup { listen, nodes, writers, partitions, storage, log, ..Setup::new(folder, engines) }
                    .with(Kind::Node, "admin_key", quoted(&admin_key))
                    .with(Kind::Node, "storage_api.key", quoted(&storage_api.key));
            for (key, value) in limits {
                setup = setup.with(Kind::Node, &format!("limits.{key}"), value);
            }
            let cluster = Processes::start(setup).await?;
            for process in cluster.all() {
                say(format_args!("{:<13} {}", process.name(), process.url()));
            }
            say(format_args!("{}", cluster.url()));
            cluster.leave();
            Ok(ExitCode::SUCCESS)
        }
        Action::Down => {
            let found = Processes::found(&folder)?;
            let running = found.iter().filter(|process| process.is_running()).count();
            Processes::stop_found(found).await?;
            say(format_args!("{running} processes were stopped"));
            Ok(ExitCode::SUCCESS)
        }
        Action::Status => {
            let found = Processes::found(&folder)?;
            let mut all = !found.is_empty();
            for process in &found {
                let state = match process.get("/readyz").await {
                    _ if !process.is_running() => "does not run".to_owned(),
                    Ok((200, _)) => "ready".to_owned(),
                    Ok((_, why)) => format!("not ready: {}", why.trim()),
                    Err(error) => format!("does not answer: {error}"),
                };
                all &= state == "ready";
                say(format_args!("{:<13} {:<28} {state}", process.name(), process.url()));
            }
            if found.is_empty() {
                say(format_args!("nothing was started from {}", folder.display()));
            }
            Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

#[allow(clippy::print_stderr, reason = "what goes wrong")]
fn complain(what: std::fmt::Arguments<'_>) {
    eprintln!("{what}");
}
