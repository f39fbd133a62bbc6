//! Shared by all tests: caches on paused time, loaders with a set outcome, a log of events.

pub(crate) mod broker;
pub(crate) mod calling;
pub(crate) mod certificate;
pub(crate) mod child;
pub(crate) mod cluster;
pub(crate) mod fake_sentinel;
pub(crate) mod faulty_store;
pub(crate) mod fleet;
pub(crate) mod instance;
pub(crate) mod interrupter;
pub(crate) mod log;
pub(crate) mod matrix;
pub(crate) mod nats;
pub(crate) mod nats_cluster;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod rabbit_place;
pub(crate) mod rabbitmq;
pub(crate) mod redis;
pub(crate) mod sentinel;
pub(crate) mod slow_subscriber;
pub(crate) mod storm;
pub(crate) mod transports;
pub(crate) mod version_oracle;
pub(crate) mod writes;

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lazy_layers_cache::{
    CacheBuilder, Event, HandlerGuard, LazyLayersCache, LeaseRequest, Publication,
    testing::TokioClock,
};

pub(crate) type Cache = LazyLayersCache<String, u32>;

/// A builder whose clock is tokio's, so that paused time drives expiry. Needs a runtime.
pub(crate) fn on_tokio_time() -> CacheBuilder<String, u32> {
    Cache::builder().clock(TokioClock::new())
}

/// A load that begins by force, and uses nothing but leases.
pub(crate) const REFRESH: LeaseRequest =
    LeaseRequest { lease_for: ms(60_000), refresh: true, with_window: false, with_missing: false };

/// A value without a stale window, to be published.
pub(crate) fn publication(value: impl Into<Vec<u8>>, ttl: Duration) -> Publication {
    Publication::Value { value: value.into(), ttl, stale_for: Duration::ZERO }
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the database is gone")
    }
}

impl std::error::Error for Broken {}

/// The outcome of a loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Ok,
    Err,
    None,
    /// A value after [`SLOW`].
    Slow,
    /// An error after [`SLOW`].
    SlowErr,
    Never,
    Panic,
}

pub(crate) const SLOW: Duration = ms(300);

/// Loaders that count their calls and return the values 1, 2, 3, ...
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin(Arc<AtomicUsize>);

impl Origin {
    pub(crate) fn loads(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn load(&self, gate: Gate) -> impl FnOnce() -> BoxedLoad + Send + 'static {
        let loads = Arc::clone(&self.0);
        move || {
            let value = loads.fetch_add(1, Ordering::SeqCst) as u32 + 1;
            Box::pin(async move {
                match gate {
                    Gate::Ok => Ok(Some(value)),
                    Gate::None => Ok(None),
                    Gate::Err => Err(Broken),
                    Gate::Slow => {
                        tokio::time::sleep(SLOW).await;
                        Ok(Some(value))
                    }
                    Gate::SlowErr => {
                        tokio::time::sleep(SLOW).await;
                        Err(Broken)
                    }
                    Gate::Never => pending().await,
                    Gate::Panic => panic!("the loader panics on purpose"),
                }
            })
        }
    }
}

pub(crate) type BoxedLoad =
    std::pin::Pin<Box<dyn Future<Output = Result<Option<u32>, Broken>> + Send + 'static>>;

/// Records the names of the events of a cache, with a detail where one name has several cases.
pub(crate) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    _subscription: HandlerGuard,
}

impl Log {
    pub(crate) fn of<V: Send + Sync + 'static>(cache: &LazyLayersCache<String, V>) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&lines);
        let subscription = cache.on(move |event| log.lock().unwrap().push(line(event)));
        Self { lines, _subscription: subscription }
    }

    /// The events since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

fn line(event: &Event<'_>) -> String {
    let detail = match event {
        Event::Hit { negative: true, .. } => "negative".to_owned(),
        Event::StaleHit { reason, .. } => reason.to_string(),
        Event::LoaderTimeout { hard, .. } => if *hard { "hard" } else { "soft" }.to_owned(),
        Event::DeletePattern { pattern, .. } => (*pattern).to_owned(),
        _ => return event.name().to_owned(),
    };
    format!("{}({detail})", event.name())
}

/// Runs all tasks that are ready, without letting time pass.
pub(crate) async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}
