use std::sync::atomic::{AtomicU32, Ordering};

use rand::SeedableRng;
use tokio::time::sleep;

use super::*;

fn dice() -> StdRng {
    StdRng::seed_from_u64(7)
}

fn rounds() -> Rounds<u32> {
    Rounds::new(Duty::Reconcile, dice())
}

#[test]
fn pauses_double_up_to_a_limit_and_differ_by_chance() {
    let longest = Duration::from_secs(30);
    let mut backoff = Backoff::new(Duration::from_secs(1), longest, dice());
    for due in [1, 2, 4, 8, 16, 30, 30] {
        let due = Duration::from_secs(due);
        let pause = backoff.pause();
        assert!(pause >= due / 2 && pause <= due, "{pause:?} of {due:?}");
    }
    backoff.reset();
    assert!(backoff.pause() <= Duration::from_secs(1));
    let mut other = Backoff::new(longest, longest, StdRng::seed_from_u64(8));
    let mut one = Backoff::new(longest, longest, dice());
    assert_ne!(one.pause(), other.pause());
}

#[tokio::test(start_paused = true)]
async fn a_round_ends_with_what_it_came_to() {
    let mut rounds = rounds();
    rounds.begin(async { 7 });
    assert!(!rounds.is_free());
    assert!(matches!(rounds.next().await, Ended::Done(7)));
    assert!(rounds.is_free());
}

#[tokio::test(start_paused = true)]
async fn a_round_that_hangs_is_dropped_and_told_and_rest_follows() {
    let mut rounds = rounds();
    let began = Instant::now();
    rounds.begin(std::future::pending());
    let Ended::Lapsed(reason) = rounds.next().await else {
        panic!("it went on");
    };
    assert_eq!(reason, "did not end within 60s");
    assert_eq!(began.elapsed(), Duty::Reconcile.budget());
    assert!(!rounds.is_free());
    assert!(matches!(rounds.next().await, Ended::Rested));
    assert!(rounds.is_free());
}

#[tokio::test(start_paused = true)]
async fn a_round_that_panics_is_told_with_its_words_and_pauses_grow() {
    let mut rounds = rounds();
    let mut pauses = Vec::new();
    for _ in 0..10 {
        rounds.begin(async { panic!("no such thing") });
        let Ended::Lapsed(reason) = rounds.next().await else {
            panic!("it went on");
        };
        assert_eq!(reason, "died: no such thing");
        let began = Instant::now();
        assert!(matches!(rounds.next().await, Ended::Rested));
        pauses.push(began.elapsed());
    }
    assert!(pauses[0] <= Duration::from_millis(200), "{pauses:?}");
    assert!(pauses[9] >= Duration::from_secs(15), "{pauses:?}");
    assert!(pauses[9] <= Duration::from_secs(30), "{pauses:?}");
    rounds.begin(async { 1 });
    rounds.next().await;
    rounds.begin(async { panic!("again") });
    rounds.next().await;
    let began = Instant::now();
    rounds.next().await;
    assert!(began.elapsed() <= Duration::from_millis(200));
}

/// A post whose task does as its number, from 0, says.
fn post<F>(work: impl Fn(u32, Pulse) -> F + Send + 'static) -> (Post, Arc<AtomicU32>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let begun = Arc::new(AtomicU32::new(0));
    let count = begun.clone();
    let work = move |pulse| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(work(count.fetch_add(1, Ordering::Relaxed), pulse))
    };
    (Post::new(Duty::Watch, Box::new(work), dice()), begun)
}

async fn beat_for_ever(pulse: Pulse) {
    loop {
        sleep(Duration::from_secs(30)).await;
        pulse.beat();
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_that_ends_dies_or_falls_silent_is_filled_anew() {
    let (mut post, begun) = post(|number, pulse| async move {
        match number {
            0 => {}
            1 => panic!("oh"),
            2 => std::future::pending().await,
            _ => beat_for_ever(pulse).await,
        }
    });
    assert_eq!(post.lapse().await, "ended");
    assert!(!post.is_well());
    assert_eq!(post.lapse().await, "died: oh");
    let began = Instant::now();
    assert_eq!(post.lapse().await, "gave no sign of life for 90s");
    assert!(began.elapsed() < Duration::from_secs(95));
    let lapse = tokio::time::timeout(Duration::from_secs(3600), post.lapse());
    assert!(lapse.await.is_err(), "the last one lives");
    assert!(post.is_well());
    assert_eq!(begun.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn a_post_is_cancel_safe_and_ends_with_its_owner() {
    let (mut post, begun) = post(|_, pulse| beat_for_ever(pulse));
    for _ in 0..100 {
        let lapse = tokio::time::timeout(Duration::from_secs(1), post.lapse());
        assert!(lapse.await.is_err());
    }
    assert_eq!(begun.load(Ordering::Relaxed), 1);
    assert!(post.is_well());
    drop(post);
}
