//! Large payloads are encoded and decoded where no task is held up, some at a time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Waker},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use lazy_layers_cache::{
    BoxError, Codec, LazyLayersCache, SystemClock, WireCodec, testing::SharedStore,
};
use serde::{Deserialize, Deserializer, Serialize};

/// Its decoding notes where it happens.
#[derive(Serialize)]
#[serde(transparent)]
struct Text {
    text: String,
    #[serde(skip)]
    decoded_on: ThreadId,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self { text, decoded_on: thread::current().id() })
    }
}

/// What a [`Probe`] saw, and what it waits for.
#[derive(Default)]
struct Log {
    encoded_on: Mutex<Vec<ThreadId>>,
    begun: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
    alive: AtomicUsize,
    gate: Mutex<Option<Receiver<()>>>,
    linger: Mutex<Duration>,
}

/// Bytes as they are; more than 1,000 of them are heavy.
#[derive(Clone, Default)]
struct Probe(Arc<Log>);

/// Counts those of its kind.
struct Counted(Vec<u8>, Arc<Log>);

impl Counted {
    fn new(bytes: Vec<u8>, log: &Arc<Log>) -> Self {
        log.alive.fetch_add(1, Ordering::SeqCst);
        Self(bytes, Arc::clone(log))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

const LARGE: usize = 1_001;
const BAD: u8 = 13;
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

impl Codec<Counted> for Probe {
    fn encode(&self, value: &Counted) -> Result<Vec<u8>, BoxError> {
        self.0.encoded_on.lock().unwrap().push(thread::current().id());
        Ok(value.0.clone())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Counted, BoxError> {
        assert!(bytes[0] != BAD, "the codec panics, as the test wants");
        let log = &self.0;
        log.begun.fetch_add(1, Ordering::SeqCst);
        let others = log.under_way.fetch_add(1, Ordering::SeqCst);
        log.most.fetch_max(others + 1, Ordering::SeqCst);
        // Whoever does not wait for a place comes in meanwhile.
        thread::sleep(*log.linger.lock().unwrap());
        if let Some(gate) = &*log.gate.lock().unwrap() {
            gate.recv_timeout(PATIENCE)?;
        }
        log.under_way.fetch_sub(1, Ordering::SeqCst);
        Ok(Counted::new(bytes.to_vec(), log))
    }

    fn is_heavy_to_decode(&self, bytes: &[u8]) -> bool {
        bytes.len() >= LARGE
    }
}

type Cache = LazyLayersCache<String, Counted>;

fn world() -> (Probe, SharedStore, Cache) {
    let (probe, store) = (Probe::default(), SharedStore::new(SystemClock));
    let cache = Cache::builder().l2(store.clone(), probe.clone()).build().unwrap();
    (probe, store, cache)
}

fn shut(probe: &Probe) -> Sender<()> {
    let (open, gate) = channel();
    *probe.0.gate.lock().unwrap() = Some(gate);
    open
}

fn places() -> usize {
    thread::available_parallelism().unwrap().get()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_is_large_is_decoded_on_another_thread_and_what_is_small_is_not() {
    let store = SharedStore::new(SystemClock);
    let instance = || {
        let builder = LazyLayersCache::<String, Text>::builder();
        builder.l2(store.clone(), WireCodec::new()).build().unwrap()
    };
    let here = thread::current().id();
    for (key, length) in [("small", 100), ("large", 100_000)] {
        let text = Text { text: "x".repeat(length), decoded_on: here };
        instance().set(key, text).await.unwrap();
        let got = instance().get(key).await.unwrap();
        let load = || async { Err::<Text, _>(std::fmt::Error) };
        let loaded = instance().get_or_set(key, load).await.unwrap();
        for text in [got, loaded] {
            assert_eq!((text.text.len(), text.decoded_on == here), (length, key == "small"));
        }
    }
}

#[tokio::test]
async fn what_was_large_is_encoded_on_another_thread_from_then_on() {
    let (probe, _, cache) = world();
    let here = thread::current().id();
    let set = async |length: usize| {
        cache.set("k", Counted::new(vec![1; length], &probe.0)).await.unwrap();
        *probe.0.encoded_on.lock().unwrap().last().unwrap() == here
    };
    assert!(set(10).await && set(LARGE).await, "nobody can know before");
    assert!(!set(LARGE).await);
    // Small ones bring it back, some time.
    let mut small = 0;
    while !set(10).await {
        small += 1;
    }
    assert!((10..1_000).contains(&small), "{small}");
    assert!(set(10).await);
}

#[tokio::test]
async fn a_decode_that_takes_long_holds_up_no_task() {
    let (probe, store, cache) = world();
    store.insert_raw("k", vec![1; LARGE], PATIENCE);
    let open = shut(&probe);
    let reader = tokio::spawn(async move { cache.get("k").await.is_some() });
    until("the decode begins", || probe.0.under_way.load(Ordering::SeqCst) == 1).await;
    // The only thread there is got as far as this.
    open.send(()).unwrap();
    assert!(reader.await.unwrap());
}

#[tokio::test]
async fn no_more_are_decoded_at_a_time_than_there_are_processors() {
    let (probe, store, cache) = world();
    *probe.0.linger.lock().unwrap() = Duration::from_millis(20);
    let readers = (0..4 * places()).map(|number| {
        let (key, cache) = (number.to_string(), cache.clone());
        store.insert_raw(&key, vec![1; LARGE], PATIENCE);
        tokio::spawn(async move { cache.get(&key).await.is_some() })
    });
    let readers: Vec<_> = readers.collect();
    for reader in readers {
        assert!(reader.await.unwrap());
    }
    let most = probe.0.most.load(Ordering::SeqCst);
    assert!((1..=places()).contains(&most), "{most} at a time");
}

#[tokio::test]
async fn callers_that_go_away_leave_nothing_behind() {
    let (probe, store, cache) = world();
    let open = shut(&probe);
    // One more than there are places: it waits. The gate lets one in after the other.
    let readers = (0..=places()).map(|number| {
        let (key, cache) = (number.to_string(), cache.clone());
        store.insert_raw(&key, vec![1; LARGE], PATIENCE);
        tokio::spawn(async move { cache.get(&key).await.is_some() })
    });
    let readers: Vec<_> = readers.collect();
    let begun = || probe.0.begun.load(Ordering::SeqCst);
    until("all places are taken", || begun() == places()).await;
    for reader in readers {
        reader.abort();
        assert!(reader.await.unwrap_err().is_cancelled());
    }
    // What had begun comes to its end, and its result to nothing.
    (0..places()).for_each(|_| open.send(()).unwrap());
    *probe.0.gate.lock().unwrap() = None;
    let alive = || probe.0.alive.load(Ordering::SeqCst);
    // All places are free again, for as many as there are.
    for number in 0..=places() {
        assert!(cache.get(&number.to_string()).await.is_some());
    }
    until("what nobody waits for goes", || alive() == places() + 1).await;
    assert_eq!(begun(), places() + places() + 1, "the one that waited never began");
}

#[tokio::test]
async fn a_panic_aside_is_a_miss_and_gives_its_place_back() {
    let (_, store, cache) = world();
    for number in 0..=places() {
        let key = number.to_string();
        store.insert_raw(&key, vec![BAD; LARGE], PATIENCE);
        assert!(cache.get(&key).await.is_none());
        assert_eq!(store.peek(&key), None, "nobody can read it, so it makes room");
    }
    assert_eq!(cache.stats().l2_errors, places() as u64 + 1);
    store.insert_raw("good", vec![1; LARGE], PATIENCE);
    assert!(cache.get("good").await.is_some());
}

#[tokio::test]
async fn a_caller_that_is_not_polled_any_more_keeps_no_place_from_others() {
    let (probe, store, cache) = world();
    for number in 0..3 * places() {
        cache.set(&number.to_string(), Counted::new(vec![1; LARGE], &probe.0)).await.unwrap();
    }
    let other = Cache::builder().without_l1().l2(store, probe.clone()).build().unwrap();
    let open = shut(&probe);
    let running: Vec<_> = (0..places())
        .map(|number| {
            let other = other.clone();
            tokio::spawn(async move { other.get(&number.to_string()).await.is_some() })
        })
        .collect();
    until("all places are taken", || probe.0.begun.load(Ordering::SeqCst) >= places()).await;
    // They wait for a place, and are not asked again.
    let names: Vec<String> = (places()..2 * places()).map(|number| number.to_string()).collect();
    let mut asleep: Vec<_> = names.iter().map(|name| Box::pin(other.get(name))).collect();
    for _ in 0..3 {
        for call in &mut asleep {
            let mut context = Context::from_waker(Waker::noop());
            assert!(call.as_mut().poll(&mut context).is_pending());
        }
        tokio::task::yield_now().await;
    }
    drop(open);
    *probe.0.gate.lock().unwrap() = None;
    for call in running {
        tokio::time::timeout(PATIENCE, call).await.expect("it ends").unwrap();
    }
    let name = (2 * places()).to_string();
    let last = tokio::time::timeout(PATIENCE, other.get(&name)).await;
    assert!(last.expect("a place is to be had").is_some());
    drop(asleep);
}
