//! `chat-cluster`: the whole cluster in one process.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use common::{config, shutdown::Shutdown, telemetry};
use standalone::{Cluster, Runtimes, Settings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A chat cluster in one process: a dispatcher, chat nodes and a storage writer, on embedded engines.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Args {
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the cluster listens; the nodes take the ports after it [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The host that clients are told, when it is not the address listened on.
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// How many chat nodes [default: 3]
    #[arg(long, value_name = "N")]
    nodes: Option<u16>,
    /// Where everything is kept; made when it is not there [default: data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// What is logged, to the standard error: `info`, or `warn,chat_node=debug` [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

const AFTER_HELP: &str = "\
Settings come from the file, then from the environment, then from flags; the last one wins. In the file and the environment:

  listen             CHAT_LISTEN                    127.0.0.1:8080
  advertise          CHAT_ADVERTISE                 (the address listened on)
  nodes              CHAT_NODES                     3
  writers            CHAT_WRITERS                   1
  data               CHAT_DATA                      data
  partitions         CHAT_PARTITIONS                16, fixed when the log is made
  capacity           CHAT_CAPACITY                  20000 sockets a node
  allowed_origins    (file only)                    [] browsers' origins that may call
  log                CHAT_LOG                       info
  [auth] token_life          CHAT_AUTH__TOKEN_LIFE          2592000 seconds
  [auth] argon2_memory_kib   CHAT_AUTH__ARGON2_MEMORY_KIB   19456
  [auth] argon2_iterations   CHAT_AUTH__ARGON2_ITERATIONS   2
  [writer] group             CHAT_WRITER__GROUP             storage-writer
  [writer] batch_records     CHAT_WRITER__BATCH_RECORDS     2000
  [writer] batch_bytes       CHAT_WRITER__BATCH_BYTES       4194304
  [writer] linger            CHAT_WRITER__LINGER            2 milliseconds";

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("chat-cluster: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let mut settings: Settings = config::load(args.config.as_deref())?;
    settings.listen = args.listen.unwrap_or(settings.listen);
    settings.advertise = args.advertise.or(settings.advertise);
    settings.nodes = args.nodes.unwrap_or(settings.nodes);
    settings.data = args.data.unwrap_or(settings.data);
    settings.log = args.log.unwrap_or(settings.log);
    telemetry::init(&settings.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    let cluster = Cluster::start(settings, Runtimes::Shared, shutdown.clone()).await?;
    greet(&cluster);
    let signals = shutdown.clone();
    let signals = tokio::spawn(async move { signals.signals().await });
    shutdown.soft().cancelled().await;
    say(format_args!("stopping; once more to stop at once"));
    tokio::select! {
        stopped = cluster.stop() => stopped?,
        () = shutdown.hard().cancelled_owned() => anyhow::bail!("stopped at once"),
    }
    signals.abort();
    Ok(())
}

/// Says where everything is, and what to try first.
#[allow(clippy::print_stdout, reason = "this is what the program prints")]
fn greet(cluster: &Cluster) {
    let url = cluster.url();
    println!("The cluster is at   {url}");
    for (name, address) in cluster.nodes() {
        println!("  {name:<17} {address}");
    }
    println!(
        "
Try it:
  curl -s {url}/api/v1/users -H 'content-type: application/json' \\
       -d '{{\"username\":\"ana\",\"password\":\"correct horse\",\"name\":\"Ana\"}}'
  TOKEN=$(curl -s {url}/api/v1/sessions -H 'content-type: application/json' \\
       -d '{{\"username\":\"ana\",\"password\":\"correct horse\"}}' | sed 's/.*\"token\":\"\\([^\"]*\\).*/\\1/')
  curl -s {url}/chat/location -H \"authorization: Bearer $TOKEN\"
Open the url of that answer with a WebSocket client, and say  {{\"type\":\"hello\",\"ref\":1}}
Ctrl-C stops it; what was said is kept."
    );
}

#[allow(clippy::print_stderr, reason = "what goes wrong before or after logging")]
fn say(what: std::fmt::Arguments<'_>) {
    eprintln!("{what}");
}
