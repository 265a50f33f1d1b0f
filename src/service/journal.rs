//! Where log lines go: to the journal, with fields to filter on, when stderr is the journal's
//! socket; else to stderr, for people to read. `docs/journal.md` is the operators' side of it.
//!
//! No fault may make the log a fault of its own:
//!
//! - A line is handed to a thread that does nothing else (`queue`): a journal that is stuck, or
//!   a pipe that nobody reads, costs lines, which are counted, and not the service.
//! - No place in the code says more than a few lines in a row, and then one a minute (`relay`).
//! - What a line says of the outside has no control characters and an end: no value can pass for
//!   another line or another field.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use tracing::Subscriber;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

pub use occasion::Occasion;
use queue::Queue;
use relay::Relay;

use crate::config;

mod occasion;
mod queue;
mod relay;

/// The running log. Dropped, it waits a moment for what is still to be written.
#[derive(Debug)]
pub(super) struct Log {
    queue: Arc<Queue>,
    valve: Valve,
}

/// Says what is logged, at any time.
#[derive(Debug, Clone)]
pub(super) struct Valve(reload::Handle<EnvFilter, Registry>);

impl Log {
    /// Begins to log what `level`, which was checked, lets through.
    ///
    /// # Errors
    /// When there can be no thread for it.
    pub(super) fn start(level: &str) -> io::Result<Self> {
        let queue = Queue::start(paper)?;
        let (filter, handle) = reload::Layer::new(filter(level));
        let registry = tracing_subscriber::registry().with(filter);
        // whoever has set up another log, as tests may, has that one
        drop(registry.with(Relay::new(queue.clone())).try_init());
        let valve = Valve(handle);
        Ok(Self { queue, valve })
    }

    pub(super) fn valve(&self) -> Valve {
        self.valve.clone()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.drain();
    }
}

impl Valve {
    /// Logs what `level` lets through from now on.
    ///
    /// # Errors
    /// In a text for people, which names the levels that there are.
    pub(super) fn set(&self, level: &str) -> Result<(), String> {
        config::log_level(level).map_err(|reason| format!("no log level: {level:?}: {reason}"))?;
        let tell = || {
            let message_id = Occasion::LogLevelChanged.id();
            tracing::info!(message_id, level, "log level");
        };
        // who turns the log down, or up, is to be seen in it
        let heard = tracing::enabled!(tracing::Level::INFO);
        if heard {
            tell();
        }
        let set = self.0.reload(filter(level));
        if !heard {
            tell();
        }
        set.map_err(|error| error.to_string())
    }
}

/// A bare level is about this service; of its libraries only warnings are worth a line.
fn filter(level: &str) -> EnvFilter {
    match level.trim().parse::<LevelFilter>() {
        Ok(bare) => {
            let libraries = bare.min(LevelFilter::WARN);
            EnvFilter::new(format!("{libraries},flannel_rs={bare}"))
        }
        Err(_) => EnvFilter::new(level),
    }
}

/// What lines are written on. Made by the thread that writes, as a stuck journal lets nobody open
/// it either.
type Paper = Box<dyn Subscriber + Send + Sync>;

fn paper() -> Paper {
    let journal = is_journal().then(journal).and_then(Result::ok);
    journal.unwrap_or_else(|| stderr(io::stderr))
}

fn journal() -> io::Result<Paper> {
    let priorities = PriorityMappings {
        // the layer's own default files INFO under "notice"
        info: Priority::Informational,
        debug: Priority::Debug,
        ..PriorityMappings::new()
    };
    let journal = tracing_journald::layer()?
        .with_syslog_identifier("flannel-rs".to_owned())
        .with_field_prefix(None)
        .with_priority_mappings(priorities);
    Ok(Box::new(tracing_subscriber::registry().with(journal)))
}

fn stderr<W>(writer: W) -> Paper
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .fmt_fields(debug_fn(show))
        .with_target(false)
        .with_ansi(false);
    Box::new(tracing_subscriber::registry().with(lines))
}

/// What the fields say is in the message already.
fn show(line: &mut Writer<'_>, field: &Field, value: &dyn std::fmt::Debug) -> std::fmt::Result {
    match field.name() {
        "message" => write!(line, "{value:?}"),
        _ => Ok(()),
    }
}

/// `$JOURNAL_STREAM` holds device and inode of the socket (systemd.exec(5)).
pub(super) fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

#[cfg(test)]
pub(in crate::service) use tests::overheard;

#[cfg(test)]
mod tests;
