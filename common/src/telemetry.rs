//! Logs to the console, and the metrics page. Set up once, by a `main`; libraries only use `tracing` and the registry they are given.

use prometheus::{Encoder, Registry, TextEncoder};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// The filter is not one.
#[derive(Debug, thiserror::Error)]
#[error("the log filter {filter:?} cannot be read ({why}); try `info` or `info,chat_node=debug`")]
pub struct BadFilter {
    filter: String,
    why: String,
}

/// Writes the process's log to the standard error, as far as `filter` lets it through (`info`, `warn,chat_node=debug`).
///
/// # Errors
/// [`BadFilter`]. That a log is set up already is no error: the first one stays.
pub fn init(filter: &str) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| BadFilter { filter: filter.to_owned(), why: error.to_string() })?;
    let console = fmt::layer().with_writer(std::io::stderr).with_target(true);
    let _ = tracing_subscriber::registry().with(filter).with(console).try_init();
    Ok(())
}

/// A registry's metrics in Prometheus' text format.
pub fn metrics_page(registry: &Registry) -> String {
    let mut page = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut page) {
        tracing::error!(%error, "the metrics cannot be written");
    }
    String::from_utf8(page).unwrap_or_default()
}
