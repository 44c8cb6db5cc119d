//! What a run found, for a person and as JSON.

use std::{collections::BTreeMap, fmt, sync::atomic::Ordering};

use serde::Serialize;

use crate::{
    figures::{Figures, Percentiles},
    workload::{
        chat::{ChatLoad, Kind},
        connect::ConnectLoad,
    },
};

/// Of `loadtest run --scenario chat`.
#[derive(Clone, Debug, Serialize)]
pub struct ChatReport {
    /// What was asked for, in words.
    pub load: String,
    /// Acknowledged sends a second.
    pub sends_per_second: f64,
    /// Messages received a second, on all devices, their senders' own included.
    pub deliveries_per_second: f64,
    /// From when a send was due to its ack.
    pub ack: Percentiles,
    /// From when a send was due to its arrival at a device.
    pub delivery: Percentiles,
    /// What went wrong, by its word.
    pub errors: BTreeMap<String, u64>,
    /// Events that were missing in a session.
    pub gaps: u64,
    /// Open sockets.
    pub connections: u64,
    /// The server's CPU time for each delivery, in microseconds.
    pub server_cpu_per_delivery_us: Option<f64>,
    /// The server's CPU time for each send, deliveries included, in microseconds.
    pub server_cpu_per_send_us: Option<f64>,
    /// How many cores the server kept busy.
    pub server_cores: Option<f64>,
    /// What each connection added to the server's resident memory, in bytes; from 500 connections on.
    pub memory_per_connection_bytes: Option<u64>,
}

impl ChatReport {
    /// From the figures of a run that is over.
    pub fn new(
        load: &ChatLoad,
        figures: &Figures,
        connections: u64,
        cpu_micros: Option<u64>,
        memory_per_connection_bytes: Option<u64>,
    ) -> Self {
        let seconds = load.duration.as_secs_f64();
        let acks = figures.acks.load(Ordering::Relaxed);
        let deliveries = figures.deliveries.load(Ordering::Relaxed);
        let each = |count: u64| cpu_micros.filter(|_| count > 0).map(|cpu| cpu as f64 / count as f64);
        let kind = match load.kind {
            Kind::Direct => "direct chats".to_owned(),
            Kind::Group => format!("groups of {}", load.group_size),
        };
        let pace = if load.rate > 0.0 {
            format!("{} sends/s", load.rate)
        } else {
            format!("as fast as a window of {} allows", load.window)
        };
        Self {
            load: format!(
                "{} users, {} {kind}, {pace}, {} s, {} bytes",
                load.users,
                load.chats,
                load.duration.as_secs(),
                load.body_bytes
            ),
            sends_per_second: acks as f64 / seconds,
            deliveries_per_second: deliveries as f64 / seconds,
            ack: figures.ack.percentiles(),
            delivery: figures.delivery.percentiles(),
            errors: figures.errors.lock().clone(),
            gaps: figures.gaps.load(Ordering::Relaxed),
            connections,
            server_cpu_per_delivery_us: each(deliveries),
            server_cpu_per_send_us: each(acks),
            server_cores: cpu_micros.map(|cpu| cpu as f64 / 1e6 / seconds),
            memory_per_connection_bytes,
        }
    }
}

impl fmt::Display for ChatReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.load)?;
        writeln!(f, "  sends        {:>10.1} /s", self.sends_per_second)?;
        writeln!(f, "  deliveries   {:>10.1} /s", self.deliveries_per_second)?;
        writeln!(f, "  ack          {}", self.ack)?;
        writeln!(f, "  delivery     {}", self.delivery)?;
        writeln!(f, "  connections  {:>10}", self.connections)?;
        let cpu = [
            (self.server_cpu_per_delivery_us, "µs a delivery"),
            (self.server_cpu_per_send_us, "µs a send"),
            (self.server_cores, "cores busy"),
        ];
        writeln!(
            f,
            "  server CPU   {}",
            known(cpu.map(|(value, unit)| value.map(|value| format!("{value:.2} {unit}"))))
        )?;
        let memory = self
            .memory_per_connection_bytes
            .map(|bytes| format!("{:.1} KiB a connection", bytes as f64 / 1_024.0));
        writeln!(f, "  server RAM   {}", known([memory]))?;
        if self.gaps > 0 {
            writeln!(f, "  MISSING      {} events", self.gaps)?;
        }
        errors(f, &self.errors)
    }
}

/// Of `loadtest run --scenario connect`.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectReport {
    /// What was asked for, in words.
    pub load: String,
    /// Sessions that became ready, a second.
    pub sessions_per_second: f64,
    /// The same, second by second.
    pub per_second: Vec<u64>,
    /// From asking for a location to `ready`.
    pub ready: Percentiles,
    /// What went wrong, by its word.
    pub errors: BTreeMap<String, u64>,
    /// The server's CPU time for each session, in microseconds.
    pub server_cpu_per_session_us: Option<f64>,
}

impl ConnectReport {
    /// From the figures of a run that is over.
    pub fn new(load: &ConnectLoad, figures: &Figures, per_second: Vec<u64>, cpu_micros: Option<u64>) -> Self {
        let opened: u64 = per_second.iter().sum();
        let seconds = per_second.len().max(1) as f64;
        Self {
            load: format!("{} users, {} at once, {seconds} s", load.users, load.concurrency),
            sessions_per_second: opened as f64 / seconds,
            per_second,
            ready: figures.ack.percentiles(),
            errors: figures.errors.lock().clone(),
            server_cpu_per_session_us: cpu_micros
                .filter(|_| opened > 0)
                .map(|cpu| cpu as f64 / opened as f64),
        }
    }
}

impl fmt::Display for ConnectReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.load)?;
        let worst = self.per_second.iter().min().copied().unwrap_or_default();
        writeln!(f, "  sessions     {:>10.1} /s, {worst} in the slowest second", self.sessions_per_second)?;
        writeln!(f, "  to ready     {}", self.ready)?;
        let cpu = self.server_cpu_per_session_us.map(|cpu| format!("{cpu:.0} µs a session"));
        writeln!(f, "  server CPU   {}", known([cpu]))?;
        errors(f, &self.errors)
    }
}

fn known<const N: usize>(figures: [Option<String>; N]) -> String {
    let known: Vec<String> = figures.into_iter().flatten().collect();
    if known.is_empty() { "not known".to_owned() } else { known.join(", ") }
}

fn errors(f: &mut fmt::Formatter<'_>, errors: &BTreeMap<String, u64>) -> fmt::Result {
    if errors.is_empty() {
        return writeln!(f, "  errors       none");
    }
    errors.iter().try_for_each(|(word, count)| writeln!(f, "  error        {count} × {word}"))
}
