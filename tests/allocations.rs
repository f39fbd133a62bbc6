//! Counts allocations: a hit in L1 makes none. A binary of its own, because it counts those of the
//! whole process.

use lazy_layers_cache::{LazyLayersCache, NegativeCache};

fn allocations(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).count_total
}

#[test]
fn a_hit_allocates_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let texts = LazyLayersCache::<String, u32>::builder()
        .negative_cache(NegativeCache::enabled())
        .build()
        .unwrap();
    let numbers = LazyLayersCache::<u64, u32>::builder().build().unwrap();
    let none = || async { Ok::<Option<u32>, String>(None) };
    let some = || async { Ok::<_, String>(1) };
    runtime.block_on(async {
        texts.set("key", 1).await.unwrap();
        numbers.set(&u64::MAX, 1).await.unwrap();
        texts.get_or_set("none", none).await.unwrap();
    });
    let miss = allocations(|| drop(runtime.block_on(texts.get_or_set("new", some).into_future())));
    assert!(miss > 0, "the counter works");

    let hit = |times: usize| {
        runtime.block_on(async {
            for _ in 0..times {
                assert!(texts.get_l1("key").is_some());
                assert!(texts.get("key").await.is_some());
                assert_eq!(*texts.get_or_set("key", some).await.unwrap(), 1);
                assert!(texts.get_or_set("none", none).await.unwrap().is_none());
                assert!(texts.has("key").await);
                assert!(numbers.get(&u64::MAX).await.is_some());
                assert_eq!(*numbers.get_or_set(&u64::MAX, some).await.unwrap(), 1);
            }
        });
    };
    // The first hits of a process start the thread of the coarse clock.
    hit(100);
    assert_eq!(allocations(|| hit(100)), 0);
}
