//! Memory: the contract, and its faults on demand.

use flannel_rs::cluster::datastore::{
    CONFIG, Datastore, Event, Fence, Outcome, StoreError, Watch, WatchError,
};
use flannel_rs::cluster::memory::Memory;

use crate::contract::{self, Bench, put, stored};

struct InMemory(Memory);

impl Bench for InMemory {
    type Store = Memory;

    fn open(&self) -> Memory {
        self.0.clone()
    }

    async fn compact(&self) {
        self.0.compact();
    }
}

fn bench() -> Option<InMemory> {
    Some(InMemory(Memory::new()))
}

contract::keeps!(bench);

#[tokio::test]
async fn fails_until_it_is_healed() {
    let memory = Memory::new();
    let from = memory.list().await.unwrap().revision;
    let mut watch = memory.watch(from).await.unwrap();
    memory.fail();
    let end = contract::end(&mut watch).await;
    assert!(matches!(
        end,
        WatchError::Store(StoreError::Unavailable { .. })
    ));
    assert!(memory.list().await.is_err());
    assert!(memory.put(put(CONFIG, "x", Fence::Absent)).await.is_err());
    assert!(memory.watch(from).await.is_err());
    memory.heal();
    assert_eq!(memory.list().await.unwrap().entries, []);
}

#[tokio::test]
async fn can_lose_an_answer_but_not_the_write() {
    let memory = Memory::new();
    memory.lose_answers(1);
    assert!(memory.put(put(CONFIG, "x", Fence::Absent)).await.is_err());
    let again = memory.put(put(CONFIG, "x", Fence::Absent)).await;
    assert_eq!(again.unwrap(), Outcome::Conflict);
}

#[tokio::test(start_paused = true)]
async fn an_entry_expires_on_demand_or_in_paused_time() {
    let memory = Memory::new();
    stored(&memory, put("subnets/a", "x", Fence::Absent)).await;
    let from = stored(&memory, put("subnets/b", "x", Fence::Absent)).await;
    let mut watch = memory.watch(from).await.unwrap();
    memory.expire("subnets/b");
    let events = watch.next().await.unwrap();
    assert!(matches!(&events[..], [Event::Deleted { key, .. }] if key == "subnets/b"));
    tokio::time::sleep(std::time::Duration::from_secs(3601)).await;
    let events = watch.next().await.unwrap();
    assert!(matches!(&events[..], [Event::Deleted { key, .. }] if key == "subnets/a"));
}
