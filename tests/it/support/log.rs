//! The log lines and spans of one test.

use std::sync::LazyLock;

use tracing_subscriber::{
    Layer, Registry, layer::SubscriberExt, registry, util::SubscriberInitExt,
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
