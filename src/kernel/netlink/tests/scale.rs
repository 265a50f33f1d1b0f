//! Many peers. The figures are printed (`--nocapture`), only the outcome is asserted.

use std::time::Instant;

use super::*;
use crate::kernel::reconcile::Reconciler;

fn vxlan_of(count: u32) -> KernelState {
    let mut state = vxlan();
    add_many_peers(&mut state, count);
    state
}

/// Resident memory of this process, in kB.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages = statm.split_whitespace().nth(1).unwrap();
    pages.parse::<usize>().unwrap() * 4
}

async fn timed<T>(what: &str, task: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = task.await;
    println!("{what}: {:.0?}", start.elapsed());
    result
}

async fn with_peers(count: u32, only_plain: bool) {
    let desired = vxlan_of(count);
    let mut kernel = Netlink::connect().unwrap();
    kernel.only_plain = only_plain;
    let way = if only_plain { "plain" } else { "objects" };
    let what = format!("{count} peers, {way}, first");
    let report = timed(&what, converged(&mut kernel, &desired)).await;
    assert_eq!(report.passes, 1);
    let rows = if only_plain { 3 } else { 4 };
    let peers = usize::try_from(count).unwrap() + 1;
    assert_eq!(report.applied.len(), 2 + rows * peers);
    let what = format!("{count} peers, {way}, read");
    let before = resident();
    let seen = timed(&what, kernel.observe(&scope(&desired))).await;
    println!(
        "memory: {} of {} kB",
        resident().saturating_sub(before),
        resident()
    );
    drop(seen);
    let more = vxlan_of(count + 1);
    let what = format!("{count} peers, {way}, one more");
    let report = timed(&what, converged(&mut kernel, &more)).await;
    assert_eq!(report.applied.len(), rows);
    let mut reconciler = Reconciler::new(kernel);
    reconciler.converge(&more, &scope(&more)).await.unwrap();
    let more = vxlan_of(count + 2);
    let what = format!("{count} peers, {way}, one more, the rest being known");
    let scope = scope(&more);
    let report = timed(&what, reconciler.converge(&more, &scope))
        .await
        .unwrap();
    assert_eq!((report.applied.len(), report.settled), (rows, true));
    let kernel = reconciler.kernel();
    assert_eq!(observed(kernel, &more).await, more);
    let report = timed("all but one go", converged(kernel, &vxlan())).await;
    assert_eq!(
        report.applied.len(),
        rows * (peers + 1) + if only_plain { 0 } else { 2 }
    );
    assert_eq!(observed(kernel, &vxlan()).await, vxlan());
    converged(kernel, &KernelState::default()).await;
}

#[test]
fn a_thousand_peers_converge_in_one_pass() {
    in_namespace(|| async {
        with_peers(1000, true).await;
        with_peers(1000, false).await;
    });
}

#[test]
#[ignore = "takes seconds; for the figures"]
fn five_thousand_peers_converge_in_one_pass() {
    in_namespace(|| async {
        with_peers(5000, true).await;
        with_peers(5000, false).await;
    });
}

#[test]
#[ignore = "takes seconds; for the figures"]
fn five_thousand_routes_alone() {
    in_namespace(|| async {
        let desired = vxlan_of(5000);
        for only_plain in [true, false] {
            let mut kernel = Netlink::connect().unwrap();
            kernel.only_plain = only_plain;
            converged(&mut kernel, &vxlan()).await;
            let seen = kernel.observe(&scope(&desired)).await.unwrap();
            let mut changes = crate::kernel::diff::diff(&seen, &desired, &scope(&desired)).changes;
            changes.retain(|c| matches!(c, Change::PutRoute(..) | Change::PutNexthop(..)));
            let what = format!("{} messages", changes.len());
            let failed = timed(&what, kernel.apply(&changes)).await;
            assert_eq!(failed.unwrap(), []);
            timed("all go", async { ip_run("link del flannel.1") }).await;
        }
    });
}
