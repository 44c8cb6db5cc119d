//! The command line: what can be asked for, and how it is answered.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::{
    bench::{self, Bench, Part},
    check::{Exercise, Journals, RULES, Violation, judge, read_stored},
    client::{Nobody, Options},
    clock::Clock,
    progress::Progress,
    self_test::{self, Case, Outcome, SelfTest},
    server_process::ServerProcess,
    workload::{
        Crowd, CrowdOptions,
        chat::{self, ChatLoad, Kind},
        connect::{self, ConnectLoad},
        mixed::{Mixed, MixedOptions},
    },
};

/// How long what is under way may take to be answered once nobody writes any more.
const DRAIN_WITHIN: Duration = Duration::from_secs(60);

/// How long every view may take to reach its chat's head after that: what invariant 6 allows, and some.
const SETTLE_WITHIN: Duration = Duration::from_secs(12);

/// How long somebody has to stop the cluster whose data is to be read.
const STOPPED_WITHIN: Duration = Duration::from_secs(300);

/// Violations that are printed one by one; the others are counted.
const SHOWN: usize = 50;

/// Puts load on a chat cluster, and judges whether it keeps its word.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  durable ack at a rate       loadtest run --rate 200 --users 200 --chats 100 --kind direct
  as fast as it goes          loadtest run --rate 0 --window 32 --users 100 --chats 50 --kind direct
  location to ready session   loadtest run --scenario connect --concurrency 64
  beside a bare loop          loadtest bench --server target/release/chat-cluster
  does it keep its word?      loadtest check --users 20 --chats 8 --duration 60
  judge an older run again    loadtest check --journal DIR --judge-only
  can the judge see?          cargo build -p standalone --features planted
                              loadtest check --self-test --server target/debug/chat-cluster --clean 20"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure: rates, latencies, what the server pays for them.
    Run(RunArgs),
    /// Compare: speed and memory of a standalone cluster beside a bare loop of `send` calls.
    Bench(BenchArgs),
    /// The bare loop itself: a process that `bench` starts.
    #[command(hide = true)]
    Bare {
        /// How many connections it takes.
        sockets: usize,
        /// Bytes of a message's body.
        body_bytes: usize,
    },
    /// Prove: run a mixed workload with journals, read every history, judge. Exits with 1 when an invariant does not hold.
    Check(CheckArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Messages at a rate, or as fast as a window allows.
    Chat,
    /// From location to ready session, again and again.
    Connect,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The cluster's public origin.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// What is measured.
    #[arg(long, value_enum, default_value_t = Scenario::Chat)]
    scenario: Scenario,
    /// Users to register (each costs the server an Argon2 hash or two before the clock starts).
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// Devices of each user, each with a socket of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// Chats among them.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    chats: u32,
    /// Direct chats of two, or groups.
    #[arg(long, value_enum, default_value_t = Kind::Direct)]
    kind: Kind,
    /// Members of a group.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    group_size: u32,
    /// Members of each chat that write.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    senders: u32,
    /// Sends a second, all together, on a fixed schedule; latency counts from when a send was due. 0: as fast as the window allows.
    #[arg(long, default_value_t = 200.0, value_parser = rate)]
    rate: f64,
    /// Sends under way for each sender and chat.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Of the connect scenario: openings under way at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// Seconds before that.
    #[arg(long, default_value_t = 3)]
    warmup: u64,
    /// Bytes of a message's text.
    #[arg(long, default_value_t = 100)]
    body_bytes: u32,
    /// Where the report goes as JSON as well: a file, or - for standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The server's process, for its CPU time and memory. Found by the URL's port when it is on this machine.
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// The standalone program: a release build.
    #[arg(long, value_name = "PROGRAM", default_value = "target/release/chat-cluster")]
    server: PathBuf,
    /// Sessions in the one chat.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=20_000))]
    sessions: u32,
    /// Idle sessions, each with a chat of its own; and sockets that are cut at once.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(100..=20_000))]
    idle: u32,
    /// Bytes of a message's body.
    #[arg(long, default_value_t = 150)]
    body_bytes: u32,
    /// Seconds of each slice; the cluster's and the loop's take turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Slices of each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these figures.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Where the report goes as JSON as well: a file, or - for standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Faults {
    /// Nothing but what the clients do themselves: they lose their connections.
    None,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The cluster's public origin.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Users, without the stranger who is in no chat.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..))]
    users: u32,
    /// Devices of each user.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// Groups to begin with; direct chats come by themselves.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    chats: u32,
    /// Members of each group to begin with.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    group_size: u32,
    /// Seconds of work.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    duration: u64,
    /// Milliseconds a user waits between two things, at most.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..))]
    pause: u64,
    /// Sends of one device and chat under way at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// What is done to the cluster meanwhile.
    #[arg(long, value_enum, default_value_t = Faults::None)]
    faults: Faults,
    /// What chance begins from, to make the same choices again.
    #[arg(long)]
    seed: Option<u64>,
    /// Where the journals go: an empty or new folder. By default one is made among the temporary files.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// Only judge the journals that are in --journal.
    #[arg(long, requires = "journal")]
    judge_only: bool,
    /// The data folder of a standalone cluster on this machine: once everything is at rest, stop it, and its rows are compared with its log.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// See whether the judge can see: start clusters with a bug planted in each, and clean ones, and judge them all.
    #[arg(long, requires = "server", conflicts_with_all = ["judge_only", "journal", "data"])]
    self_test: bool,
    /// Of the self-test: the standalone cluster's program, built with the feature `planted`.
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// Of the self-test: how many clean runs follow.
    #[arg(long, value_name = "N", default_value_t = 20)]
    clean: usize,
    /// Of the self-test: only this bug; may be given again. `none`: no bug.
    #[arg(long, value_name = "BUG")]
    bug: Vec<String>,
    /// Of the self-test: keep the files of every run, not only of those that did not go as they should.
    #[arg(long)]
    keep: bool,
    /// Of the self-test: runs under way at once.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    at_once: u16,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=1e7).contains(&rate) => Ok(rate),
        _ => Err("a number from 0 to 10,000,000 was expected".to_owned()),
    }
}

/// Does what was asked for.
pub async fn run(cli: Cli) -> ExitCode {
    // A second subscriber (a test's) is no reason not to run.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .try_init();
    let done = match cli.command {
        Command::Run(args) => measure(args).await.map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench(args).await.map(|()| ExitCode::SUCCESS),
        Command::Bare { sockets, body_bytes } => {
            bench::serve_bare(sockets, body_bytes).map(|()| ExitCode::SUCCESS)
        }
        Command::Check(args) => check(args).await,
    };
    done.unwrap_or_else(|error| {
        say(std::io::stderr(), &format!("loadtest: {error:#}\n"));
        ExitCode::from(2)
    })
}

async fn bench(args: BenchArgs) -> anyhow::Result<()> {
    let bench = Bench {
        server: args.server,
        sessions: args.sessions as usize,
        idle: args.idle as usize,
        body_bytes: args.body_bytes as usize,
        seconds: args.seconds,
        rounds: args.rounds,
        only: args.only,
    };
    publish(&bench::run(&bench, &Progress::to_stderr()).await?, args.json.as_deref())
}

async fn measure(args: RunArgs) -> anyhow::Result<()> {
    let progress = Progress::to_stderr();
    let server = match args.server_pid {
        Some(pid) => {
            Some(ServerProcess::with_pid(pid).with_context(|| format!("there is no process {pid}"))?)
        }
        None => ServerProcess::listening_at(&args.url),
    };
    let duration = Duration::from_secs(args.duration);
    let warmup = Duration::from_secs(args.warmup);
    match args.scenario {
        Scenario::Chat => {
            let load = ChatLoad {
                url: args.url,
                users: args.users as usize,
                devices: args.devices as usize,
                chats: args.chats as usize,
                kind: args.kind,
                group_size: args.group_size as usize,
                senders: args.senders as usize,
                rate: args.rate,
                window: args.window as usize,
                duration,
                warmup,
                body_bytes: args.body_bytes as usize,
                server,
            };
            publish(&chat::run(&load, &progress).await?, args.json.as_deref())
        }
        Scenario::Connect => {
            let (users, concurrency) = (args.users as usize, args.concurrency as usize);
            let load = ConnectLoad { url: args.url, users, concurrency, duration, warmup, server };
            publish(&connect::run(&load, &progress).await?, args.json.as_deref())
        }
    }
}

fn publish<R: Serialize + std::fmt::Display>(report: &R, json: Option<&Path>) -> anyhow::Result<()> {
    match json {
        Some(path) if path == Path::new("-") => {
            say(std::io::stderr(), &report.to_string());
            say(std::io::stdout(), &format!("{}\n", serde_json::to_string_pretty(report)?));
        }
        Some(path) => {
            std::fs::write(path, serde_json::to_vec_pretty(report)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
            say(std::io::stdout(), &report.to_string());
        }
        None => say(std::io::stdout(), &report.to_string()),
    }
    Ok(())
}

/// Where a run's files go when nobody says where.
fn new_folder() -> PathBuf {
    std::env::temp_dir().join(format!("loadtest-{:08x}", rand::random::<u32>()))
}

async fn self_test(args: CheckArgs, server: PathBuf) -> anyhow::Result<ExitCode> {
    let named = |case: &Case| args.bug.is_empty() || args.bug.contains(&case.name);
    let bugs: Vec<Case> = self_test::bugs().into_iter().filter(named).collect();
    if let Some(unknown) =
        args.bug.iter().find(|bug| *bug != "none" && !bugs.iter().any(|case| case.name == **bug))
    {
        bail!(
            "{unknown} is no bug; known: {}",
            self_test::bugs().iter().map(|case| case.name.as_str()).collect::<Vec<_>>().join(", ")
        );
    }
    let folder = new_folder();
    if args.keep {
        say(std::io::stdout(), &format!("files: {}\n", folder.display()));
    }
    let test = SelfTest {
        server,
        folder,
        keep: args.keep,
        bugs,
        clean: (0..args.clean).map(self_test::clean).collect(),
        at_once: usize::from(args.at_once),
    };
    let outcomes = test.run(|outcome| say(std::io::stdout(), &format!("{outcome}\n"))).await?;
    let (bugs, clean): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| !outcome.case.is_clean());
    let good = |outcomes: &[&Outcome]| outcomes.iter().filter(|outcome| outcome.as_it_should()).count();
    let verdict = format!(
        "{} of {} bugs caught; {} of {} clean runs without a word\n",
        good(&bugs),
        bugs.len(),
        good(&clean),
        clean.len()
    );
    say(std::io::stdout(), &verdict);
    let all = outcomes.iter().all(Outcome::as_it_should);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn check(mut args: CheckArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = args.server.take().filter(|_| args.self_test) {
        return self_test(args, server).await;
    }
    let progress = Progress::to_stderr();
    let folder = match &args.journal {
        Some(folder) => folder.clone(),
        None => new_folder(),
    };
    let behind = if args.judge_only { Vec::new() } else { work(&args, &folder, &progress).await? };
    if let Some(data) = &args.data {
        at_rest(data, &folder, &progress).await?;
    }
    let journals = Journals::read(&folder)?;
    let violations = judge(&journals);
    say(std::io::stdout(), &verdict(&journals, &violations, &behind));
    say(std::io::stdout(), &format!("journals: {}\n", folder.display()));
    let good = violations.is_empty() && behind.is_empty();
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Runs the workload and leaves journals and histories in the folder. Returns the views that never reached their chat's head.
async fn work(args: &CheckArgs, folder: &Path, progress: &Progress) -> anyhow::Result<Vec<String>> {
    let Faults::None = args.faults;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if std::fs::read_dir(folder)?.next().is_some() {
        bail!("{} is not empty: journals of two runs cannot be judged together", folder.display());
    }
    let seed = args.seed.unwrap_or_else(rand::random);
    progress.say(&format!("seed {seed}, journals in {}", folder.display()));
    let options = CrowdOptions {
        users: args.users as usize + 1,
        devices: args.devices as usize,
        journal: Some(folder.to_owned()),
        client: Options { window: args.window as usize, ..Options::default() },
    };
    let crowd =
        Arc::new(Crowd::gather(&args.url, options, Clock::start(), Arc::new(Nobody), progress).await?);
    let mixed = MixedOptions {
        chats: args.chats as usize,
        group_size: args.group_size as usize,
        pause: Duration::from_millis(args.pause),
        seed,
        ..MixedOptions::default()
    };
    let mixed = Mixed::start(&crowd, &mixed, progress).await?;
    let stage = progress.stage("working", args.duration);
    for second in 1..=args.duration {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stage.at(second, "");
    }
    drop(stage);
    mixed.stop().await;

    let waiting = progress.stage("waiting for quiet", 1);
    let busy = crowd.drained(DRAIN_WITHIN).await;
    let mut behind = crowd.settled(SETTLE_WITHIN).await?;
    if busy > 0 {
        behind.push(format!(
            "{busy} devices still have unanswered messages after {} s",
            DRAIN_WITHIN.as_secs()
        ));
    }
    drop(waiting);
    crowd.read_histories(folder, progress).await?;
    let crowd = Arc::into_inner(crowd).context("a user of the workload still runs")?;
    crowd.stop().await?;
    Ok(behind)
}

/// Reads log and store once nobody uses them any more.
async fn at_rest(data: &Path, folder: &Path, progress: &Progress) -> anyhow::Result<()> {
    progress.say(&format!("stop the cluster now; its rows and its log in {} are read then", data.display()));
    let until = tokio::time::Instant::now() + STOPPED_WITHIN;
    loop {
        match read_stored(data, folder).await {
            Err(error) if error.in_use() && tokio::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            read => return Ok(read?),
        }
    }
}

fn verdict(journals: &Journals, violations: &[Violation], behind: &[String]) -> String {
    let mut text = format!("{}\n", Exercise::of(journals));
    for rule in RULES {
        let found = violations.iter().filter(|violation| violation.invariant == rule.invariant).count();
        let verdict = match found {
            // Log and store at rest: only who may read them can say.
            0 if rule.invariant == 12 && journals.rest.is_empty() => "not looked at".to_owned(),
            0 => "holds".to_owned(),
            _ => format!("BROKEN × {found}"),
        };
        text += &format!("  {:>2}  {:<64} {verdict}\n", rule.invariant, rule.says);
    }
    for violation in violations.iter().take(SHOWN) {
        text += &format!("{violation}\n");
    }
    if violations.len() > SHOWN {
        text += &format!("… and {} more\n", violations.len() - SHOWN);
    }
    for line in behind.iter().take(SHOWN) {
        text += &format!("not at rest: {line}\n");
    }
    text
}

fn say(mut to: impl Write, text: &str) {
    // Whoever closed the pipe does not want to know.
    let _ = to.write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["loadtest", "run", "--rate", "0"]).is_ok());
        assert!(Cli::try_parse_from(["loadtest", "run", "--rate", "-1"]).is_err());
        assert!(Cli::try_parse_from(["loadtest", "check", "--judge-only"]).is_err(), "judge what?");
    }
}
