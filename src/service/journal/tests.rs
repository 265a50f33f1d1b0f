use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::field::Visit;
use tracing_subscriber::layer::{Context, Layer};

use super::queue::CAPACITY;
use super::relay::{BURST, LENGTH};
use super::*;

mod native;
mod papers;

/// All that is logged while `work` is done, as people see it on stderr, without the time.
pub(in crate::service) fn overheard(work: impl FnOnce(&Valve)) -> Vec<String> {
    let sink = Sink::default();
    let copy = sink.clone();
    let queue = Queue::start(move || stderr(move || copy.clone())).unwrap();
    let (filter, handle) = reload::Layer::new(filter("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let registry = registry.with(Relay::new(queue.clone()));
    within(registry, || work(&Valve(handle)));
    queue.drain();
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    let line = |line: &str| line.split_once(' ').unwrap().1.trim_start().to_owned();
    text.lines().map(line).collect()
}

/// Has `subscriber` see what `work` logs. tracing asks the thread that comes first to a place in
/// the code whether anybody wants to hear of it, once for all, while there is but one subscriber:
/// so there are two, or tests beside this one would switch places off.
fn within<T>(subscriber: impl Subscriber + Send + Sync, work: impl FnOnce() -> T) -> T {
    let _another = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    tracing::subscriber::with_default(subscriber, work)
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn people_see_no_numbers_for_machines_and_quotes_only_where_needed() {
    let lines = overheard(|_| {
        tracing::info!(
            message_id = Occasion::LeaseAcquired.id(),
            subnet = "100.96.1.0/24",
            change = "route 100.96.2.0/24 dev \"x\"",
            reason = r#"ends in \" fault="x"#,
            reservation = false,
            revision = 7,
            missing = None::<&str>,
            "lease acquired"
        );
    });
    let line = r#"INFO lease acquired subnet=100.96.1.0/24 change="route 100.96.2.0/24 dev \"x\"" reason="ends in \\\" fault=\"x" reservation=false revision=7"#;
    assert_eq!(lines, [line]);
}

#[test]
fn nothing_from_outside_breaks_a_line_or_goes_on_for_ever() {
    let hostile = "a\nMESSAGE_ID=0\r\n\u{1b}[31m\0b";
    let long = "ä".repeat(LENGTH);
    let lines = overheard(|_| {
        tracing::info!(key = hostile, reason = %hostile, "{hostile}");
        tracing::info!(long, "long");
    });
    let shown = r"a\nMESSAGE_ID=0\r\n\u{1b}[31m\u{0}b";
    let quoted = shown.replace('\\', r"\\");
    assert_eq!(
        lines[0],
        format!("INFO {shown} key=\"{quoted}\" reason=\"{quoted}\"")
    );
    let expected = format!("INFO long long={}…", "ä".repeat(LENGTH / 2));
    assert_eq!(lines[1..], [expected]);
}

#[test]
fn a_level_is_about_this_service_and_can_be_another_at_any_time() {
    let lines = overheard(|valve| {
        let say = |text: &str| {
            tracing::debug!("{text}");
            tracing::warn!(target: "library", "{text}");
            tracing::info!(target: "library", "{text}");
        };
        say("one");
        valve.set("debug").unwrap();
        say("two");
        valve.set("error").unwrap();
        say("three");
        valve.set("off,library=info").unwrap();
        say("four");
        valve.set("off").unwrap();
        say("five");
    });
    let expected = [
        "WARN one",
        "INFO log level level=debug",
        "DEBUG two",
        "WARN two",
        "INFO log level level=error",
        "WARN four",
        "INFO four",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_bad_level_changes_nothing_and_names_the_good_ones() {
    let lines = overheard(|valve| {
        for bad in [
            "infoo",
            "",
            "info,",
            "info,x=y",
            "flannel_rs",
            "a\n=info",
            "[=info",
        ] {
            let error = valve.set(bad).unwrap_err();
            assert!(error.contains("info") && error.contains("trace"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let error = valve.set("infoo").unwrap_err();
        let expected = "no log level: \"infoo\": did you mean \"info\"? expected off, error, \
                        warn, info, debug or trace, or directives such as \
                        \"info,flannel_rs::kernel=debug\"";
        assert_eq!(error, expected);
        assert!(valve.set(&"a=info,".repeat(1000)).is_err());
        tracing::info!("still here");
        tracing::debug!("not this");
    });
    assert_eq!(lines, ["INFO still here"]);
}

/// A minute in the life of a place in the code that is reached every 100 ms.
async fn a_minute_of(say: impl Fn()) {
    for _ in 0..600 {
        say();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[test]
fn no_place_in_the_code_can_flood_nor_silence_another() {
    let burst = BURST as usize;
    let lines = overheard(|_| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fault = |fault| tracing::warn!(fault, "trouble");
            a_minute_of(|| fault("one")).await;
            fault("two");
            tracing::warn!("elsewhere");
            a_minute_of(|| fault("one")).await;
            for _ in 0..1000 {
                // a library has no faults of ours, whatever it calls one
                tracing::warn!(target: "library", fault = rand::random::<u64>(), "flood");
            }
        });
    });
    let count = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    // the line after the silence says how long that was
    assert_eq!(count("trouble fault=one"), burst + 1);
    assert_eq!(count("fault=two"), 1);
    assert_eq!(count("elsewhere"), 1);
    assert_eq!(count("flood"), burst);
    let unsaid = 600 - burst;
    assert_eq!(
        count(&format!(
            "trouble fault=one ({unsaid} more like this went unsaid)"
        )),
        1
    );
}

#[test]
fn who_debugs_sees_it_all() {
    let lines = overheard(|valve| {
        valve.set("debug").unwrap();
        (0..3 * CAPACITY).for_each(|number| tracing::debug!(number, "a step"));
    });
    let steps = lines.iter().filter(|line| line.contains("a step"));
    assert_eq!(steps.count(), 3 * CAPACITY);
}

/// A journal that takes nothing until it is told to.
struct Stuck(Arc<Mutex<()>>, Arc<Mutex<Vec<String>>>);

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "number" {
            self.0 = format!("{value:?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Stuck {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        drop(self.0.lock().unwrap());
        let mut message = Message(String::new());
        event.record(&mut message);
        self.1.lock().unwrap().push(message.0);
    }
}

#[test]
fn a_stuck_journal_costs_lines_and_holds_up_nobody() {
    let (lid, written) = (Arc::new(Mutex::new(())), Arc::default());
    let paper = Stuck(lid.clone(), Arc::clone(&written));
    let queue = Queue::start(|| Box::new(tracing_subscriber::registry().with(paper))).unwrap();
    let (lines, begun) = (10 * CAPACITY, Instant::now());
    let registry = tracing_subscriber::registry().with(Relay::new(queue.clone()));
    within(registry, || {
        let held = lid.lock().unwrap();
        (0..lines).for_each(|number| tracing::debug!(number, "a step"));
        // each line waiting by itself would take a quarter of an hour
        assert!(begun.elapsed() < Duration::from_secs(20));
        drop(held);
        queue.drain();
        let written: Vec<String> = written.lock().unwrap().clone();
        let first: Vec<String> = (0..=CAPACITY).map(|number| number.to_string()).collect();
        // the writer may have taken the first before or after the queue was full
        assert!(
            (CAPACITY..=CAPACITY + 1).contains(&written.len()),
            "{}",
            written.len()
        );
        assert_eq!(written, first[..written.len()]);
        tracing::debug!(number = "later", "a step");
    });
    queue.drain();
    assert_eq!(written.lock().unwrap().last().unwrap(), "later");
}

/// A journal that takes a line every 150 ms.
struct Slow;

impl<S: Subscriber> Layer<S> for Slow {
    fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
        std::thread::sleep(Duration::from_millis(150));
    }
}

#[test]
fn a_slow_journal_holds_up_once_and_not_each_line() {
    let paper = || -> Paper { Box::new(tracing_subscriber::registry().with(Slow)) };
    let queue = Queue::start(paper).unwrap();
    within(
        tracing_subscriber::registry().with(Relay::new(queue)),
        || {
            (0..CAPACITY).for_each(|number| tracing::debug!(number, "a step"));
            let begun = Instant::now();
            for number in 0..40 {
                tracing::debug!(number, "one more");
                // so that there is room for one now and then
                std::thread::sleep(Duration::from_millis(10));
            }
            // each waiting for room would be six seconds
            assert!(begun.elapsed() < Duration::from_secs(3));
        },
    );
}

#[test]
fn every_occasion_has_a_name_and_a_number_of_its_own() {
    let names: BTreeSet<&str> = Occasion::ALL
        .iter()
        .map(|occasion| occasion.name())
        .collect();
    let ids: BTreeSet<&str> = Occasion::ALL.iter().map(|occasion| occasion.id()).collect();
    assert_eq!(
        (names.len(), ids.len()),
        (Occasion::ALL.len(), Occasion::ALL.len())
    );
    for id in ids {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(id.len() == 32 && id.bytes().all(hex), "{id}");
    }
}
