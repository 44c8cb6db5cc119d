//! Logs to the console, and the metrics page. Set up once, by a `main`; libraries only use `tracing` and the registry they are given.

use std::io::IsTerminal as _;

use prometheus::{Encoder, Registry, TextEncoder};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, Layer as _, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// The filter is not one.
#[derive(Debug, thiserror::Error)]
#[error("the log filter {filter:?} cannot be read ({why}); try `info` or `info,chat_node=debug`")]
pub struct BadFilter {
    filter: String,
    why: String,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: an object a line.
    Json,
}

/// Writes the process's log to the standard error, as far as `filter` lets it through (`info`, `warn,chat_node=debug`).
///
/// # Errors
/// [`BadFilter`]. That a log is set up already is no error: the first one stays.
pub fn init(filter: &str) -> Result<(), BadFilter> {
    init_as(filter, LogFormat::Text)
}

/// Likewise, in a format.
///
/// # Errors
/// As [`init`].
pub fn init_as(filter: &str, format: LogFormat) -> Result<(), BadFilter> {
    let filter = parse(filter)?;
    // Colours are for terminals; in a file they are in the way.
    let colours = std::io::stderr().is_terminal();
    let console = fmt::layer().with_writer(std::io::stderr).with_target(true).with_ansi(colours);
    let console = match format {
        LogFormat::Text => console.boxed(),
        LogFormat::Json => console.json().boxed(),
    };
    let _ = tracing_subscriber::registry().with(filter).with(console).try_init();
    Ok(())
}

/// What [`init`] would say of the filter.
///
/// # Errors
/// [`BadFilter`].
pub fn check(filter: &str) -> Result<(), BadFilter> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, BadFilter> {
    EnvFilter::try_new(filter)
        .map_err(|error| BadFilter { filter: filter.to_owned(), why: error.to_string() })
}

/// A registry's metrics in Prometheus' text format.
pub fn metrics_page(registry: &Registry) -> String {
    let mut page = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut page) {
        tracing::error!(%error, "the metrics cannot be written");
    }
    String::from_utf8(page).unwrap_or_default()
}
