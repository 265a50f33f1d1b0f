//! Lines on their way to the thread that writes them. The journal's socket is a blocking one: once
//! its queue is full, because journald hangs or is stopped, a `send` on it waits for as long as
//! that takes.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use tracing::field::{DisplayValue, Value, display};
use tracing::{Event, Metadata};

use super::{Occasion, Paper};

/// So many lines wait at most; one is some hundred bytes.
pub(super) const CAPACITY: usize = 512;
/// How long a line waits for half of the queue before the journal counts as stuck. One that is
/// only slower than a burst of debug lines gets them all.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long the end of the service waits for the last lines.
const FAREWELL: Duration = Duration::from_secs(1);

/// A log line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) metadata: &'static Metadata<'static>,
    /// In the order of the fields in the metadata.
    pub(super) values: Vec<Option<String>>,
}

/// The lines that are to be written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    /// How many found no room, of which nobody has been told.
    lost: u64,
    /// A line has waited in vain, and the queue was more than half full ever since: a journal
    /// that takes a line now and then must not have each of the others wait for it.
    stuck: bool,
    /// Something taken is being written.
    writing: bool,
}

/// What there is to write.
enum Work {
    Line(Line),
    Lost(u64),
}

impl Queue {
    /// A queue, and a thread that writes what comes in on what `paper` answers.
    pub(super) fn start(paper: impl FnOnce() -> Paper + Send + 'static) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self::default());
        let work = queue.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || {
                let paper = paper();
                loop {
                    match work.take() {
                        Work::Line(line) => line.write(&paper),
                        Work::Lost(lines) => tracing::warn!(
                            message_id = Occasion::LinesLost.id(),
                            lines,
                            "log lines were lost, as nobody took them; what the service did \
                             meanwhile it did all the same"
                        ),
                    }
                }
            })?;
        Ok(queue)
    }

    /// Adds a line, or counts it if there is no room.
    pub(super) fn put(&self, line: Line) {
        let mut state = self.lock();
        if state.is_full() && !state.stuck {
            let waited = self
                .emptied
                .wait_timeout_while(state, PATIENCE, |state| !state.has_much_room());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.stuck = !state.has_much_room();
        }
        if state.is_full() {
            state.lost += 1;
        } else {
            state.lines.push_back(line);
            self.filled.notify_one();
        }
    }

    /// Waits until all is written, but not for long.
    pub(super) fn drain(&self) {
        let pending =
            |state: &mut State| !state.lines.is_empty() || state.lost > 0 || state.writing;
        let waited = self
            .emptied
            .wait_timeout_while(self.lock(), FAREWELL, pending);
        drop(waited);
    }

    fn take(&self) -> Work {
        let mut state = self.lock();
        state.writing = false;
        self.emptied.notify_all();
        let nothing = |state: &mut State| state.lines.is_empty() && state.lost == 0;
        let mut state = self
            .filled
            .wait_while(state, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        state.stuck &= !state.has_much_room();
        state.writing = true;
        self.emptied.notify_all();
        match state.lines.pop_front() {
            Some(line) => Work::Line(line),
            None => Work::Lost(std::mem::take(&mut state.lost)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.lines.len() >= CAPACITY
    }

    fn has_much_room(&self) -> bool {
        self.lines.len() <= CAPACITY / 2
    }
}

impl Line {
    fn write(&self, paper: &Paper) {
        let values = self.values.iter();
        let shown: Vec<Option<DisplayValue<&str>>> =
            values.map(|value| value.as_deref().map(display)).collect();
        let values: Vec<Option<&dyn Value>> = shown
            .iter()
            .map(|value| value.as_ref().map(|value| value as &dyn Value))
            .collect();
        let values = self.metadata.fields().value_set_all(&values);
        paper.event(&Event::new(self.metadata, &values));
    }
}
