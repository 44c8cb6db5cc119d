//! `chat-cluster`: the whole cluster in one process.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use common::{config, runtime, shutdown::Shutdown, telemetry};
use standalone::{Cluster, Runtimes, Settings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A chat cluster in one process: a dispatcher, chat nodes and a storage writer, on embedded engines.
#[derive(Debug, Parser)]
#[command(name = "chat-cluster", version, after_help = AFTER_HELP)]
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
  admin_key          CHAT_ADMIN_KEY                 (none) the operator's, for /api/v1/applications
  [storage_api] listen       CHAT_STORAGE_API__LISTEN       (none) of the first node; the others take the ports after it
  [storage_api] key          CHAT_STORAGE_API__KEY          (none) what opens it
  [auth] token_life          CHAT_AUTH__TOKEN_LIFE          2592000 seconds
  [auth] argon2_memory_kib   CHAT_AUTH__ARGON2_MEMORY_KIB   19456
  [auth] argon2_iterations   CHAT_AUTH__ARGON2_ITERATIONS   2
  [owner] undrained_bytes    CHAT_OWNER__UNDRAINED_BYTES    67108864 a partition
  [owner] drained_bytes      CHAT_OWNER__DRAINED_BYTES      16777216 a partition
  [owner] chats              CHAT_OWNER__CHATS              50000 a partition
  [presence] grace_ms        CHAT_PRESENCE__GRACE_MS        10000 milliseconds that a drop is not seen; at most writer.notify.settle
  [presence] timeout_ms      CHAT_PRESENCE__TIMEOUT_MS      30000 milliseconds after a node's death
  [presence] group           CHAT_PRESENCE__GROUP           100 members, above which only a number is told
  [limits] messages_per_second CHAT_LIMITS__MESSAGES_PER_SECOND 1 of one user in one chat; 0: no limit
  [limits] message_burst     CHAT_LIMITS__MESSAGE_BURST     10 at once after a pause
  [limits] chats_per_second  CHAT_LIMITS__CHATS_PER_SECOND  1 that one user makes; 0, or no limit on messages: no limit
  [limits] chat_burst        CHAT_LIMITS__CHAT_BURST        100 at once after a pause
  [limits] chats_per_user    CHAT_LIMITS__CHATS_PER_USER    10000 that one user may be in; 0: as many as come
  [attachments] url             CHAT_ATTACHMENTS__URL             (attachments beside the data) or s3://BUCKET[/PREFIX]
  [attachments] max_bytes       CHAT_ATTACHMENTS__MAX_BYTES       104857600
  [attachments] types           (file only)                       [\"*/*\"] by content
  [attachments] refused_types   (file only)                       programs
  [attachments] unused_after    CHAT_ATTACHMENTS__UNUSED_AFTER    86400 seconds
  [attachments] upload_time     CHAT_ATTACHMENTS__UPLOAD_TIME     3600 seconds
  [writer] group             CHAT_WRITER__GROUP             storage-writer
  [writer] batch_records     CHAT_WRITER__BATCH_RECORDS     2000
  [writer] batch_bytes       CHAT_WRITER__BATCH_BYTES       4194304
  [writer] linger            CHAT_WRITER__LINGER            2 milliseconds
  [writer] sweep_every       CHAT_WRITER__SWEEP_EVERY       60000 milliseconds between sweeps for messages past their time
  [writer] log_keep          CHAT_WRITER__LOG_KEEP          604800000 milliseconds that the log keeps what is stored; 0: for ever
  [writer.notify] allow         CHAT_WRITER__NOTIFY__ALLOW         [] internal networks that webhooks may be in: 10.0.0.0/8,fd00::/8
  [writer.notify] contact       CHAT_WRITER__NOTIFY__CONTACT       mailto: or https:, for operators of push services
  [writer.notify] every         CHAT_WRITER__NOTIFY__EVERY         1000 milliseconds between looks for who is to be notified
  [writer.notify] settle        CHAT_WRITER__NOTIFY__SETTLE        30000 milliseconds that a message waits at least: presence.grace_ms or more
  [writer.notify] gather        CHAT_WRITER__NOTIFY__GATHER        30000 milliseconds from telling of a chat to the next time
  [writer.notify] retry_first   CHAT_WRITER__NOTIFY__RETRY_FIRST   5000 milliseconds, then twice as many
  [writer.notify] retry_longest CHAT_WRITER__NOTIFY__RETRY_LONGEST 3600000 milliseconds
  [writer.notify] keep          CHAT_WRITER__NOTIFY__KEEP          259200000 milliseconds, then it is given up";

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
    let runtime = runtime::start()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    let cluster = Cluster::start(settings, Runtimes::Shared, shutdown.clone()).await?;
    // It serves, read or not.
    let _ = greet(&cluster);
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
fn greet(cluster: &Cluster) -> io::Result<()> {
    let (url, mut out) = (cluster.url(), io::stdout().lock());
    writeln!(out, "The cluster is at   {url}")?;
    for (name, address) in cluster.nodes() {
        writeln!(out, "  {name:<17} {address}")?;
    }
    for (name, address) in cluster.storage() {
        writeln!(out, "  {name:<17} {address} (storage API)")?;
    }
    writeln!(
        out,
        "
Try it:
  curl -s {url}/api/v1/users -H 'content-type: application/json' \\
       -d '{{\"username\":\"ana\",\"password\":\"correct horse\",\"name\":\"Ana\"}}'
  TOKEN=$(curl -s {url}/api/v1/sessions -H 'content-type: application/json' \\
       -d '{{\"username\":\"ana\",\"password\":\"correct horse\"}}' | sed 's/.*\"token\":\"\\([^\"]*\\).*/\\1/')
  curl -s {url}/chat/location -H \"authorization: Bearer $TOKEN\"
Open the url of that answer with a WebSocket client, and say  {{\"type\":\"hello\",\"ref\":1}}
Ctrl-C stops it; what was said is kept."
    )
}

#[allow(clippy::print_stderr, reason = "what goes wrong before or after logging")]
fn say(what: std::fmt::Arguments<'_>) {
    eprintln!("{what}");
}
