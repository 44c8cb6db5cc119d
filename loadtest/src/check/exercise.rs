//! How much a run exercised: a verdict on journals in which little happened proves little.

use std::fmt;

use super::Journals;
use crate::journal::{Answer, Ask, Entry};

/// Counts over all journals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exercise {
    /// Devices.
    pub devices: u64,
    /// Socket sessions.
    pub sessions: u64,
    /// Of these, how many were to be told what they missed, and how many were, to the end.
    pub resuming: u64,
    /// See `resuming`.
    pub resumed: u64,
    /// Chats that were told to resumed sessions, and are complete.
    pub complete: u64,
    /// Likewise, and are not.
    pub incomplete: u64,
    /// Times that a chat's changes were asked for and told.
    pub mended: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Of these, how many had been there already.
    pub repeats: u64,
    /// Sends answered with an error.
    pub refused: u64,
    /// Events seen.
    pub events: u64,
    /// Edits, deletes and reactions that were done.
    pub changes: u64,
    /// Members let in and taken out.
    pub members: u64,
    /// Histories read, and the messages in them.
    pub histories: u64,
    /// See `histories`.
    pub messages: u64,
}

impl Exercise {
    /// Counts.
    pub fn of(journals: &Journals) -> Self {
        let mut counts = Self { devices: journals.devices.len() as u64, ..Self::default() };
        for journal in &journals.devices {
            let mut asks = std::collections::HashMap::new();
            for line in &journal.lines {
                match &line.entry {
                    Entry::Opened { resuming, .. } => {
                        counts.sessions += 1;
                        counts.resuming += u64::from(*resuming);
                    }
                    Entry::Resumed { hello: false, .. } => counts.mended += 1,
                    Entry::Resumed { chats, hello: true } => {
                        counts.resumed += 1;
                        let complete = chats.iter().filter(|mended| mended.complete).count() as u64;
                        counts.complete += complete;
                        counts.incomplete += chats.len() as u64 - complete;
                    }
                    Entry::Acked { repeat, .. } => {
                        counts.acked += 1;
                        counts.repeats += u64::from(*repeat);
                    }
                    Entry::Refused { .. } => counts.refused += 1,
                    Entry::Event(_) => counts.events += 1,
                    Entry::Asked { request, ask } => drop(asks.insert(*request, ask)),
                    Entry::Answered { request, answer: Answer::Done { .. } } => match asks.remove(request) {
                        Some(Ask::Edit { .. } | Ask::Delete { .. } | Ask::React { .. }) => {
                            counts.changes += 1
                        }
                        Some(Ask::Add { .. } | Ask::Remove { .. }) => counts.members += 1,
                        _ => {}
                    },
                    _ => {}
                }
            }
        }
        for history in &journals.histories {
            counts.histories += 1;
            counts.messages += history.lines.len().saturating_sub(1) as u64;
        }
        counts
    }
}

impl fmt::Display for Exercise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            devices,
            sessions,
            resuming,
            resumed,
            complete,
            incomplete,
            mended,
            acked,
            repeats,
            refused,
            events,
            changes,
            members,
            histories,
            messages,
        } = self;
        writeln!(
            f,
            "{devices} devices in {sessions} sessions: {acked} acks ({repeats} of repeats), {refused} errors, {events} events,"
        )?;
        writeln!(
            f,
            "{resuming} sessions resumed, {resumed} to the end: {complete} chats complete and {incomplete} not; {mended} times changes were asked for,"
        )?;
        write!(
            f,
            "{changes} edits and deletes, {members} members in and out; {messages} messages in {histories} histories"
        )
    }
}
