//! The spans of loads, of calls of L2 and of publications: their level, their fields, and whose
//! children they are. Paused time.

use std::sync::{Arc, Mutex};

use lazy_layers_cache::{
    CacheBuilder, DistributedLock, LocalTransport, Store, StoreFuture, WireCodec,
    testing::{ForwardStore, SharedBus, SharedStore, TokioClock},
};
use tokio::time::sleep;
use tracing::{Instrument as _, Level, field::Field, info_span, span};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use crate::support::{Cache, Gate, Origin, log::listen, ms, on_tokio_time};

/// Each span that was opened: `name(fields) in parent`.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<String>>>);

struct Fields(Vec<String>);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push(format!("{}={value:?}", field.name()));
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, new: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Fields(Vec::new());
        new.record(&mut fields);
        let span = context.span(id).unwrap();
        let parent = span.parent().map(|parent| format!(" in {}", parent.name()));
        let level = if *new.metadata().level() == Level::DEBUG { "" } else { " at another level" };
        let (name, fields) = (new.metadata().name(), fields.0.join(" "));
        let line = format!("{name}({fields}){level}{}", parent.unwrap_or_default());
        self.0.lock().unwrap().push(line);
    }
}

impl Spans {
    /// The spans of the cache since the last call.
    fn take(&self) -> Vec<String> {
        let all = std::mem::take(&mut *self.0.lock().unwrap());
        all.into_iter().filter(|line| line.starts_with("lazy_layers.")).collect()
    }
}

/// A store that answers after 100 ms.
#[derive(Clone)]
struct Slow(SharedStore);

impl ForwardStore for Slow {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn forward<T: Send + 'static>(
        &self,
        call: impl FnOnce(Arc<dyn Store>) -> StoreFuture<'static, T> + Send + 'static,
    ) -> StoreFuture<'static, T> {
        let inner = self.inner();
        Box::pin(async move {
            sleep(ms(100)).await;
            call(inner).await
        })
    }
}

fn users() -> CacheBuilder<String, u32> {
    on_tokio_time().name("users")
}

/// The span of a call of L2 within the span of the caller.
fn l2(operation: &str) -> String {
    format!("lazy_layers.l2(cache=\"users\" operation=\"{operation}\") in request")
}

const PUBLISH: &str = "lazy_layers.publish(cache=\"users\")";
const LOAD: &str = "lazy_layers.load(cache=\"users\" key=\"k\") in request";

async fn load(cache: &Cache, gate: Gate) {
    let loading = cache.get_or_set("k", Origin::default().load(gate)).into_future();
    loading.instrument(info_span!("request")).await.unwrap();
}

/// A load continues in a task of its own as soon as it waits.
#[tokio::test(start_paused = true)]
async fn calls_of_l2_are_children_of_the_span_of_their_caller_in_whichever_task() {
    let store = SharedStore::new(TokioClock::new());
    let fast = || users().l2(store.clone(), WireCodec::new());
    let slow = || users().l2(Slow(store.clone()), WireCodec::new());
    let spans = Spans::default();
    let _default = listen(spans.clone());
    for gate in [Gate::Ok, Gate::Slow] {
        for cache in [fast(), slow()] {
            let cache = cache.build().unwrap();
            load(&cache, gate).await;
            let expected = [l2("get_or_lease"), LOAD.to_owned(), l2("publish")];
            assert_eq!(spans.take(), expected);
            // A hit in L1 opens none.
            load(&cache, gate).await;
            cache.get("k").await;
            assert_eq!(spans.take(), [""; 0]);
            async {
                cache.set("k", 1).await.unwrap();
                cache.delete("k").await.unwrap();
                cache.get("k").await;
                cache.clear().await.unwrap();
            }
            .instrument(info_span!("request"))
            .await;
            let operations =
                ["acquire_write_lease", "publish", "delete", "get", "delete_matching"].map(l2);
            assert_eq!(spans.take(), operations);
        }
        let cache = slow().distributed_lock(DistributedLock::enabled()).build().unwrap();
        load(&cache, gate).await;
        let before = ["get_or_lease", "lock", "get_or_lease"].map(l2);
        let expected = [&before[..], &[LOAD.to_owned()], &["publish", "unlock"].map(l2)].concat();
        sleep(ms(1_000)).await;
        assert_eq!(spans.take(), expected);
        cache.delete("k").await.unwrap();
        spans.take();
    }
}

#[tokio::test(start_paused = true)]
async fn a_publication_is_a_child_of_the_span_of_its_caller_where_it_happens_in_the_call() {
    let spans = Spans::default();
    let _default = listen(spans.clone());
    let delete = async |cache: &Cache| {
        cache.ready().await.unwrap();
        assert_eq!(spans.take(), [""; 0], "beacons have no span");
        async { cache.delete("k").await.unwrap() }.instrument(info_span!("request")).await;
        sleep(ms(1_000)).await;
        let taken = spans.take();
        cache.close().await;
        spans.take();
        taken
    };
    let local = users().event_bus(LocalTransport::new(), WireCodec::new()).build().unwrap();
    assert_eq!(delete(&local).await, [format!("{PUBLISH} in request")]);
    // The task of the publisher has no caller.
    let bus = users().event_bus(SharedBus::new(1).link(), WireCodec::new()).build().unwrap();
    assert_eq!(delete(&bus).await, [PUBLISH]);
}
