//! What an instance was doing when its process was frozen: the answers that arrive afterwards are
//! as old as the freeze is long, and L1 serves none of them. Paused time, and a clock that jumps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use lazy_layers_cache::{
    Clock, NegativeCache, Store, StoreFuture, WireCodec,
    testing::{ForwardStore, SharedBus, SharedStore, TokioClock},
};
use tokio::time::sleep;

use crate::support::{Broken, Cache, ms, on_tokio_time};

/// A clock that jumps, as after a freeze: no task of the instance has run meanwhile.
#[derive(Clone)]
struct Jumping {
    time: TokioClock,
    ahead: Arc<AtomicU64>,
    /// How far the ticks are behind.
    tick_behind: Arc<AtomicU64>,
}

impl Jumping {
    fn new() -> Self {
        Self { time: TokioClock::new(), ahead: Arc::default(), tick_behind: Arc::default() }
    }
}

impl Clock for Jumping {
    fn now(&self) -> u64 {
        self.time.now() + self.ahead.load(SeqCst)
    }

    fn now_for_hits(&self) -> u64 {
        self.now() - self.tick_behind.load(SeqCst)
    }
}

/// A store whose answers are on their way for a while.
struct LateAnswers(SharedStore);

const ON_THE_WAY: Duration = ms(10);

impl ForwardStore for LateAnswers {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn forward<T: Send + 'static>(
        &self,
        call: impl FnOnce(Arc<dyn Store>) -> StoreFuture<'static, T> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        let call = call(self.inner());
        Box::pin(async move {
            let answer = call.await;
            sleep(ON_THE_WAY).await;
            answer
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Work {
    ReadOfL2,
    LoadFromL2,
    NoneFromL2,
    Load,
    LoadOfNone,
}

/// The instance does something, is frozen while it waits, and a peer deletes the key meanwhile.
async fn freeze_during(work: Work, phase: u64) {
    let (store, bus, clock) =
        (SharedStore::new(TokioClock::new()), SharedBus::new(1), Jumping::new());
    let with_l2 = !matches!(work, Work::Load | Work::LoadOfNone);
    let negative = NegativeCache::enabled().ttl(ms(60_000));
    let mut here = Cache::builder()
        .clock(clock.clone())
        .name("test")
        .negative_cache(negative.clone())
        .event_bus(bus.link(), WireCodec::new());
    let mut peer = on_tokio_time()
        .name("test")
        .negative_cache(negative)
        .event_bus(bus.link(), WireCodec::new());
    if with_l2 {
        peer = peer.l2(store.clone(), WireCodec::new());
    }
    let peer = peer.build().unwrap();
    peer.ready().await.unwrap();
    match work {
        Work::NoneFromL2 => {
            peer.get_or_set("k", || async { Ok::<Option<u32>, Broken>(None) }).await.unwrap();
        }
        _ => drop(peer.set("k", 1).await.unwrap()),
    }
    if with_l2 {
        here = here.l2(LateAnswers(store.clone()), WireCodec::new());
    }
    let here = here.build().unwrap();
    here.ready().await.unwrap();
    sleep(ms(4_000 + phase)).await;
    let call = {
        let here = here.clone();
        tokio::spawn(async move {
            let load = async move || {
                sleep(ON_THE_WAY).await;
                Ok::<_, Broken>(Some(1).filter(|_| !matches!(work, Work::LoadOfNone)))
            };
            match work {
                Work::ReadOfL2 => here.get("k").await,
                _ => here.get_or_set("k", load).await.unwrap(),
            }
        })
    };
    sleep(ON_THE_WAY / 2).await;
    clock.ahead.store(4_000, SeqCst);
    bus.delay_next(ms(1_000));
    peer.delete("k").await.unwrap();
    let got = call.await.unwrap();
    let is_none = matches!(work, Work::NoneFromL2 | Work::LoadOfNone);
    assert_eq!(got.is_none(), is_none, "{work:?}: the call began before the freeze");
    let newer = here.get_or_set("k", || async { Ok::<_, Broken>(Some(2)) }).await.unwrap();
    assert_eq!(newer.as_deref(), Some(&2), "{work:?} at {phase}");
}

#[tokio::test(start_paused = true)]
async fn what_was_on_its_way_during_a_freeze_is_not_served_afterwards() {
    use Work::{Load, LoadFromL2, LoadOfNone, NoneFromL2, ReadOfL2};
    for work in [ReadOfL2, LoadFromL2, NoneFromL2, Load, LoadOfNone] {
        // At any time between two checks of the instance for gaps.
        for phase in (0..260).step_by(20) {
            freeze_during(work, phase).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_with_a_bus_uses_no_tick_from_before_a_freeze() {
    for with_bus in [true, false] {
        let (bus, clock) = (SharedBus::new(1), Jumping::new());
        let mut builder = Cache::builder().clock(clock.clone()).ttl(ms(1_000));
        if with_bus {
            builder = builder.name("test").event_bus(bus.link(), WireCodec::new());
        }
        let cache = builder.build().unwrap();
        cache.ready().await.unwrap();
        cache.set("k", 1).await.unwrap();
        assert!(cache.get_l1("k").is_some());
        clock.ahead.store(4_000, SeqCst);
        clock.tick_behind.store(4_000, SeqCst);
        assert_eq!(cache.get_l1("k").is_none(), with_bus);
    }
}
