//! What becomes of an event before it is a line: values are made harmless and short, and a place
//! in the code that has said too much is silent for a while.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::queue::{Line, Queue};

/// So many lines in quick succession are said at one place in the code, for each fault.
pub(super) const BURST: u32 = 20;
/// After those, one in this time.
pub(super) const BREATH: Duration = Duration::from_secs(60);
/// A longer value has an end here, in bytes.
pub(super) const LENGTH: usize = 4096;

/// Takes events from everywhere and passes them on as lines.
#[derive(Debug)]
pub(super) struct Relay {
    queue: Arc<Queue>,
    measure: Mutex<Measure>,
}

impl Relay {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        let measure = Mutex::default();
        Self { queue, measure }
    }
}

impl<S: Subscriber> Layer<S> for Relay {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line {
            metadata,
            values: vec![None; metadata.fields().len()],
        };
        event.record(&mut line);
        let mut measure = self.measure.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = measure.admit(&line, Instant::now());
        drop(measure);
        if let Some(unsaid) = admitted {
            line.complete(unsaid);
            self.queue.put(line);
        }
    }
}

impl Line {
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let field = self.metadata.fields().field(name)?;
        self.values.get(field.index())?.as_deref()
    }

    /// Makes the message all that a person needs: with what the fields say, which `journalctl`
    /// does not show by itself. Quotes only where a value has blanks, and in them `\` before `"` and
    /// `\`; no numbers for machines.
    fn complete(&mut self, unsaid: u64) {
        let mut whole = String::new();
        for (field, value) in self.metadata.fields().iter().zip(&self.values) {
            let (name, Some(value)) = (field.name(), value) else {
                continue;
            };
            let quoted = value.is_empty() || value.contains([' ', '"', '=']);
            match name {
                "message" => whole.insert_str(0, value),
                "message_id" => {}
                _ if quoted => {
                    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                    whole.push_str(&format!(" {name}=\"{value}\""));
                }
                _ => whole.push_str(&format!(" {name}={value}")),
            }
        }
        if unsaid > 0 {
            whole.push_str(&format!(" ({unsaid} more like this went unsaid)"));
        }
        let message = self.metadata.fields().field("message");
        let message = message.and_then(|field| self.values.get_mut(field.index()));
        if let Some(message) = message {
            *message = Some(whole);
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if let Some(place) = self.values.get_mut(field.index()) {
            let mut text = Harmless(String::new());
            // an error is the end of what there is room for
            let _ = write!(text, "{value:?}");
            *place = Some(text.0);
        }
    }
}

/// Text without control characters, of limited length.
struct Harmless(String);

impl Write for Harmless {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.len() >= LENGTH {
                self.0.push('…');
                return Err(fmt::Error);
            }
            if character.is_control() {
                self.0.extend(character.escape_default());
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

/// How much was said where.
#[derive(Debug, Default)]
pub(super) struct Measure(BTreeMap<(Place, String), Words>);

/// A line of the source.
type Place = (&'static str, u32);

/// What may still be said.
#[derive(Debug)]
struct Words {
    left: u32,
    since: Instant,
    unsaid: u64,
}

impl Measure {
    /// Whether a line may be said at `now`, and how many like it were not since the last.
    pub(super) fn admit(&mut self, line: &Line, now: Instant) -> Option<u64> {
        // who turns on debugging wants to see it all
        if *line.metadata.level() > Level::INFO {
            return Some(0);
        }
        let fresh = Words {
            left: BURST,
            since: now,
            unsaid: 0,
        };
        let words = self.0.entry(topic(line)).or_insert(fresh);
        while words.left < BURST && now.saturating_duration_since(words.since) >= BREATH {
            words.left += 1;
            words.since += BREATH;
        }
        if words.left == BURST {
            words.since = now;
        }
        let Some(left) = words.left.checked_sub(1) else {
            words.unsaid += 1;
            return None;
        };
        words.left = left;
        Some(std::mem::take(&mut words.unsaid))
    }
}

/// One fault must not use up what is to be said of another. There are as many as there are codes:
/// what libraries call so may be anything.
fn topic(line: &Line) -> (Place, String) {
    let place = place(line.metadata);
    let ours = line.metadata.target().starts_with("flannel_rs");
    let fault = line.value("fault").filter(|_| ours);
    (place, fault.unwrap_or_default().to_owned())
}

fn place(metadata: &'static Metadata<'static>) -> Place {
    let file = metadata.file().unwrap_or(metadata.target());
    (file, metadata.line().unwrap_or_default())
}
