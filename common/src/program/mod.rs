//! What the programs of a cluster have in common: arguments, settings, logs, signals, the listener that answers from the first moment on, and
//! the end. A program says what is its own in [`Program`], and its `main` is [`main`].
//!
//! ```text
//! arguments ─► settings (defaults < file < environment) ─► check ─► log ─► listen ─► run, until a signal ─► exit code
//! ```
//!
//! Exit codes: 0 after a stop that was asked for, 1 for whatever else, 2 for arguments that are none.

mod door;
mod tls;

use std::{
    collections::HashSet,
    convert::Infallible,
    fmt,
    future::Future,
    io::{self, Write as _},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    door::{Process, Ready, operators},
    tls::{Tls, watch},
};
use crate::{
    config,
    engines::{self, masked},
    runtime,
    shutdown::Shutdown,
    telemetry::{self, LogFormat},
};

/// How long a program may take to stop once it is asked to: what the slowest, a node, gives its parts, and some. Then it ends all the same.
const GRACE: Duration = Duration::from_secs(15);

/// A program of the cluster: its settings, and what it does with them.
pub trait Program: Serialize + DeserializeOwned + Default + Send + 'static {
    /// As it is called.
    const NAME: &'static str;
    /// What it does, in a sentence.
    const ABOUT: &'static str;
    /// Every setting's key and what it means, in the order of `--help`; those of the servers ([`engines::MEANINGS`]) come behind.
    const MEANINGS: &'static [(&'static str, &'static str)];
    /// What else it can do than run; [`NoCommand`] when nothing.
    type Command: Subcommand + Send;

    /// What is logged, and how.
    fn log(&self) -> (&str, LogFormat);

    /// Where it listens for HTTP.
    fn listen(&self) -> SocketAddr;

    /// Looks whether it could start with these settings, its files included but not its servers. Gives what is worth knowing.
    ///
    /// # Errors
    /// What is wrong, in words that say what to do.
    fn check(&self) -> anyhow::Result<Vec<String>>;

    /// Does one of its commands.
    fn command(self, command: Self::Command) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Runs until the process is asked to stop, and ends what it has begun.
    fn run(self, process: Process) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// For programs that only run.
#[derive(Clone, Copy, Debug)]
pub enum NoCommand {}

impl Subcommand for NoCommand {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        command
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        command
    }

    fn has_subcommand(_: &str) -> bool {
        false
    }
}

impl FromArgMatches for NoCommand {
    fn from_arg_matches(_: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Err(clap::Error::new(clap::error::ErrorKind::MissingSubcommand))
    }

    fn update_from_arg_matches(&mut self, _: &clap::ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

impl NoCommand {
    /// There is none to do.
    pub fn never(self) -> Infallible {
        match self {}
    }
}

#[derive(Debug, clap::Args)]
struct Common {
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Reads the settings and the files they name, prints what would be used, and says what is wrong. Starts nothing.
    #[arg(long)]
    check_config: bool,
}

#[derive(Debug, Parser)]
#[command(version)]
struct Arguments<C: Subcommand> {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<C>,
}

fn meanings<P: Program>() -> Vec<(&'static str, &'static str)> {
    [P::MEANINGS, engines::MEANINGS].concat()
}

/// Settings without a meaning, and meanings without a setting: there should be none.
pub fn unexplained<P: Program>() -> Vec<String> {
    let settings: HashSet<String> = config::listed(&P::default()).into_iter().map(|(key, _)| key).collect();
    let meant = meanings::<P>().into_iter().map(|(key, _)| key.to_owned()).collect();
    settings.symmetric_difference(&meant).cloned().collect()
}

/// The whole `main` of a program.
pub fn main<P: Program>() -> ExitCode {
    let help = format!(
        "Settings come from the file, then from the environment, whose word is the last. In the file, in the environment, by default:\n\n{}",
        config::table::<P>(&meanings::<P>())
    );
    let command = Arguments::<P::Command>::command().name(P::NAME).about(P::ABOUT).after_help(help);
    let arguments = match command.try_get_matches().and_then(|found| Arguments::from_arg_matches(&found)) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way as well. Where nobody reads, there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match started::<P>(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{}: {error:#}", P::NAME));
            ExitCode::FAILURE
        }
    }
}

fn started<P: Program>(arguments: Arguments<P::Command>) -> anyhow::Result<()> {
    let settings: P = config::load(arguments.common.config.as_deref())?;
    let (filter, format) = settings.log();
    if let Some(command) = arguments.command {
        telemetry::init_as(filter, format)?;
        return runtime::start()?.block_on(settings.command(command));
    }
    if arguments.common.check_config {
        return checked(&settings);
    }
    telemetry::init_as(filter, format)?;
    let notes = settings.check()?;
    let address = settings.listen();
    let listener = TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address}; is something else there? choose another with `listen`")
    })?;
    listener.set_nonblocking(true)?;
    let runtime = runtime::start()?;
    let ended = runtime.block_on(async {
        let shutdown = Shutdown::new();
        let signals = shutdown.clone();
        let signals = tokio::spawn(async move { signals.signals().await });
        let process = Process::new(P::NAME, listener, shutdown.clone())?;
        notes.iter().for_each(|note| tracing::info!("{note}"));
        let ended = tokio::select! {
            ended = settings.run(process) => ended,
            () = shutdown.hard().cancelled_owned() => Err(anyhow::anyhow!("stopped at once")),
            () = late(&shutdown) => Err(anyhow::anyhow!("did not stop within {} s", GRACE.as_secs())),
        };
        signals.abort();
        ended
    });
    // Whatever still blocks a thread has had its time.
    runtime.shutdown_background();
    tracing::info!("stopped");
    ended
}

async fn late(shutdown: &Shutdown) {
    shutdown.soft().cancelled().await;
    tokio::time::sleep(GRACE).await;
}

fn checked<P: Program>(settings: &P) -> anyhow::Result<()> {
    for (key, value) in config::listed(settings) {
        say(format_args!(
            "{key} = {}",
            if key.starts_with("engines.") || value.contains("://") { masked_value(&value) } else { value }
        ));
    }
    let (filter, _) = settings.log();
    telemetry::check(filter)?;
    for note in settings.check()? {
        say(format_args!("# {note}"));
    }
    say(format_args!("# {} could start with this. Its servers were not asked.", P::NAME));
    Ok(())
}

/// A value as a file has it, its URLs without secrets.
fn masked_value(value: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(value) {
        Ok(serde_json::Value::String(url)) => serde_json::Value::String(masked(&url)).to_string(),
        _ => value.to_owned(),
    }
}

/// Writes a line to the standard output: what the program is asked to print. Whoever has stopped reading is told nothing more.
pub fn say(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{what}");
}

#[allow(clippy::print_stderr, reason = "what goes wrong before or after logging")]
fn complain(what: fmt::Arguments<'_>) {
    eprintln!("{what}");
}
