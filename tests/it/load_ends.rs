//! Every way in which a load can end, after every kind of change that may come meanwhile: a caller
//! that began after the change gets the result of a newer load, also if it joined the older one.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use lazy_layers_cache::{
    DistributedLock, LazyLayersCache, Loaded, NegativeCache, Timeouts, WireCodec, WireLimits,
    testing::{BusFaults, SharedBus, SharedStore, TokioClock},
};
use tokio::{runtime::Runtime, task::JoinHandle, time::sleep};

use crate::support::{Broken, ms, settle};

type Texts = LazyLayersCache<String, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Value,
    TooLargeForL2,
    /// The key is one that L2 does not hold.
    NoPlaceInL2,
    ZeroTtl,
    None,
    Fails,
    Panics,
    TimesOut,
    /// The runtime of the load ends.
    Abandoned,
}

const ENDS: [End; 9] = [
    End::Value,
    End::TooLargeForL2,
    End::NoPlaceInL2,
    End::ZeroTtl,
    End::None,
    End::Fails,
    End::Panics,
    End::TimesOut,
    End::Abandoned,
];

#[derive(Debug, Clone, Copy)]
enum Change {
    Delete,
    Set,
    Pattern,
    Clear,
}

const CHANGES: [Change; 4] = [Change::Delete, Change::Set, Change::Pattern, Change::Clear];

/// The instance that makes the change, and how this one learns of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Itself,
    /// A peer, whose message arrives before the late callers begin.
    Peer,
    /// A peer, whose message arrives after the late callers have joined.
    LatePeer,
    /// A peer, whose message is lost; the gap is noticed while the load runs.
    LostPeer,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    l1: bool,
    l2: bool,
    bus: bool,
    lock: bool,
    negative: bool,
}

impl Shape {
    fn all() -> impl Iterator<Item = Self> {
        (0..16).map(|bits| {
            let has = |bit: u32| bits & 1 << bit != 0;
            Self { l1: has(0), l2: has(1), bus: has(2), lock: has(3), negative: has(3) != has(0) }
        })
    }

    /// Without L2 there is no lock, and L1 is on.
    fn is_possible(self) -> bool {
        self.l2 || self.l1 && !self.lock
    }

    fn who(self) -> &'static [By] {
        match (self.l2, self.bus) {
            (false, false) => &[By::Itself],
            (true, false) => &[By::Itself, By::Peer],
            (_, true) => &[By::Itself, By::Peer, By::LatePeer, By::LostPeer],
        }
    }
}

type Loading = Pin<Box<dyn Future<Output = Result<Loaded<String>, Broken>> + Send + 'static>>;

struct World {
    bus: SharedBus,
    here: Texts,
    peer: Texts,
    /// Rises with each change.
    version: Arc<AtomicU32>,
    loads: Arc<AtomicU32>,
}

impl World {
    async fn new(shape: Shape) -> Self {
        let (store, bus) = (SharedStore::new(TokioClock::new()), SharedBus::new(1));
        let instance = || {
            let mut builder = Texts::builder().clock(TokioClock::new()).ttl(ms(60_000));
            if shape.negative {
                builder = builder.negative_cache(NegativeCache::enabled());
            }
            if shape.l2 {
                let codec = WireCodec::new().limits(WireLimits::default().stored(1_000));
                builder = builder.l2(store.clone(), codec);
            }
            if shape.lock {
                builder = builder.distributed_lock(DistributedLock::enabled());
            }
            if shape.bus {
                builder = builder.name("test").event_bus(bus.link(), WireCodec::new());
            }
            if !shape.l1 {
                builder = builder.without_l1();
            }
            builder.build().unwrap()
        };
        let (here, peer) = (instance(), instance());
        if shape.bus {
            for cache in [&here, &peer] {
                cache.ready().await.unwrap();
            }
            sleep(ms(4_000)).await;
        }
        Self { bus, here, peer, version: Arc::new(AtomicU32::new(1)), loads: Arc::default() }
    }

    fn loader(&self, end: End, takes: Duration) -> impl FnOnce() -> Loading + Send + 'static {
        let (version, loads) = (Arc::clone(&self.version), Arc::clone(&self.loads));
        move || {
            loads.fetch_add(1, SeqCst);
            let value = version.load(SeqCst).to_string();
            Box::pin(async move {
                sleep(takes).await;
                Ok(match end {
                    End::Value | End::NoPlaceInL2 => Loaded::value(value),
                    End::TooLargeForL2 => Loaded::value(format!("{value}{}", " ".repeat(5_000))),
                    End::ZeroTtl => Loaded::value(value).ttl(Duration::ZERO),
                    End::None => Loaded::none(),
                    End::Fails => return Err(Broken),
                    End::Panics => panic!("the loader panics on purpose"),
                    End::TimesOut | End::Abandoned => std::future::pending().await,
                })
            })
        }
    }

    fn call(&self, key: &'static str, end: End, takes: Duration) -> JoinHandle<Option<String>> {
        let (cache, loader) = (self.here.clone(), self.loader(end, takes));
        let timeouts = match end {
            End::TimesOut => Timeouts::none().hard(takes),
            _ => Timeouts::none(),
        };
        tokio::spawn(async move {
            let value = cache.get_or_set(key, loader).timeouts(timeouts).await.ok()?;
            value.map(|value| value.trim_end().to_owned())
        })
    }

    /// Begins a load whose runtime never runs it, and returns that runtime.
    fn abandoned(&self, key: &'static str) -> Runtime {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let loader = || std::future::pending::<Result<Loaded<String>, Broken>>();
        let call = self.here.get_or_set(key, loader).into_future();
        let mut call = Box::pin(call);
        let _entered = runtime.enter();
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
        runtime
    }

    async fn change(&self, key: &str, change: Change, by: By) {
        self.version.fetch_add(1, SeqCst);
        let lost = BusFaults { loses: 1.0, ..BusFaults::default() };
        match by {
            By::LatePeer => self.bus.delay_next(ms(150)),
            By::LostPeer => self.bus.set_faults(lost),
            By::Itself | By::Peer => {}
        }
        let cache = if by == By::Itself { &self.here } else { &self.peer };
        let report = match change {
            Change::Delete => cache.delete(key).await,
            Change::Set => cache.set(key, "2".to_owned()).await,
            Change::Pattern => cache.delete_by_pattern("*k*").await,
            Change::Clear => cache.clear().await,
        };
        report.unwrap();
        settle().await;
        self.bus.set_faults(BusFaults::default());
    }
}

/// Returns whether the late callers joined the load: else one of them led a newer one.
async fn run(shape: Shape, end: End, change: Change, by: By) -> bool {
    let how = format!("{shape:?}: {end:?} after a {change:?} by {by:?}");
    let world = World::new(shape).await;
    let key = if end == End::NoPlaceInL2 { "__k" } else { "k" };
    let takes = if by == By::LostPeer { ms(2_500) } else { ms(400) };
    let (mut leader, mut abandoned) = (None, None);
    if end == End::Abandoned {
        abandoned = Some(world.abandoned(key));
    } else {
        leader = Some(world.call(key, end, takes));
    }
    sleep(ms(100)).await;
    world.change(key, change, by).await;
    let before = world.here.stats().joined;
    let late = [(); 3].map(|()| world.call(key, End::Value, ms(50)));
    settle().await;
    let joined = world.here.stats().joined - before;
    sleep(takes).await;
    if let Some(runtime) = abandoned {
        runtime.shutdown_background();
    }
    for late in late {
        let got = tokio::time::timeout(ms(8_000), late).await;
        let got = got.unwrap_or_else(|_| panic!("{how}: no answer")).unwrap();
        assert_eq!(got.as_deref(), Some("2"), "{how}; {joined} joined");
    }
    if let Some(leader) = leader {
        let _ = leader.await;
    }
    // The next caller gets it too: nothing older was cached.
    let next = world.call(key, End::Value, ms(50)).await.unwrap();
    assert_eq!(next.as_deref(), Some("2"), "{how}: the next caller");
    joined == 3
}

async fn table(who: &[By]) {
    let mut joined = 0;
    let mut cases = 0;
    for shape in Shape::all().filter(|shape| shape.is_possible()) {
        for by in shape.who().iter().filter(|by| who.contains(by)) {
            for end in ENDS {
                // Without a bus nothing tells of such a change: docs/guarantees.md.
                if end == End::NoPlaceInL2 && !shape.bus && *by != By::Itself {
                    continue;
                }
                for change in CHANGES {
                    joined += u32::from(run(shape, end, change, *by).await);
                    cases += 1;
                }
            }
        }
    }
    println!("{who:?}: {cases} cases, in {joined} of them the late callers joined the load");
    assert!(joined > 0 || who == [By::Itself], "nobody joined");
}

#[tokio::test(start_paused = true)]
async fn after_a_change_by_itself() {
    table(&[By::Itself]).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_change_by_a_peer() {
    table(&[By::Peer]).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_change_whose_message_comes_late() {
    table(&[By::LatePeer]).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_change_whose_message_is_lost() {
    table(&[By::LostPeer]).await;
}
