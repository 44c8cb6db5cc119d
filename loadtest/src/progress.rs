//! What a person sees while a command runs: a bar on a terminal, plain lines elsewhere, nothing in a test.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    Bar,
    Lines,
    Nothing,
}

/// Shows the stages of a command, one after the other, on standard error.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    show: Show,
}

/// One stage under way; gone when it is dropped.
#[derive(Debug)]
pub struct Stage {
    show: Show,
    bar: ProgressBar,
    what: String,
    said: Mutex<Instant>,
}

impl Progress {
    /// For a command: a bar on a terminal, lines otherwise.
    pub fn to_stderr() -> Self {
        Self { show: if std::io::stderr().is_terminal() { Show::Bar } else { Show::Lines } }
    }

    /// For a library's caller.
    pub fn quiet() -> Self {
        Self { show: Show::Nothing }
    }

    /// A line of its own.
    pub fn say(&self, line: &str) {
        if self.show != Show::Nothing {
            print_line(line);
        }
    }

    /// Begins a stage of `total` steps.
    pub fn stage(&self, what: &str, total: u64) -> Stage {
        let target =
            if self.show == Show::Bar { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style = ProgressStyle::with_template("{prefix:32} [{bar:30}] {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_prefix(what.to_owned());
        if self.show == Show::Lines {
            print_line(what);
        }
        Stage { show: self.show, bar, what: what.to_owned(), said: Mutex::new(Instant::now()) }
    }
}

impl Stage {
    /// One step further.
    pub fn step(&self) {
        self.bar.inc(1);
        self.say();
    }

    /// So far.
    pub fn at(&self, position: u64, message: &str) {
        self.bar.set_position(position);
        self.bar.set_message(message.to_owned());
        self.say();
    }

    fn say(&self) {
        let mut said = self.said.lock();
        if self.show == Show::Lines && said.elapsed() >= LINE_EVERY {
            *said = Instant::now();
            let total = self.bar.length().unwrap_or_default();
            print_line(&format!("{}: {}/{total} {}", self.what, self.bar.position(), self.bar.message()));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn print_line(line: &str) {
    use std::io::Write;
    // A closed standard error is no reason to stop measuring.
    let _ = writeln!(std::io::stderr(), "{line}");
}
