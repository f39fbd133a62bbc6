//! The log lines and spans of one test.

use std::sync::{Arc, LazyLock, Mutex};

use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
    registry,
    util::SubscriberInitExt,
};

/// Makes `layer` the subscriber of this thread until the guard is dropped.
///
/// For each place that logs, `tracing` remembers whether somebody listens. While the process has
/// one subscriber, the thread that comes to the place first decides that, and it may be the thread
/// of a test without a subscriber. So two others live as long as the process.
pub(crate) fn listen(
    layer: impl Layer<Registry> + Send + Sync + 'static,
) -> tracing::subscriber::DefaultGuard {
    static OTHERS: LazyLock<[tracing::Dispatch; 2]> =
        LazyLock::new(|| [registry().into(), registry().into()]);
    LazyLock::force(&OTHERS);
    registry().with(layer).set_default()
}

/// The level and the text of each line.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl tracing::field::Visit for Message {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push(format!("{} {}", event.metadata().level(), message.0));
    }
}

impl Lines {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}
