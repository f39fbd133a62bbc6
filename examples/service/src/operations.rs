//! The endpoints of operators: health, and metrics for Prometheus.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::App;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/health/live", get(StatusCode::OK))
        .route("/health/ready", get(ready))
        .route("/metrics", get(metrics))
}

/// Whether requests may be sent here: until shutdown. A Redis or a bus that does not answer is no
/// reason to take the process out of service, because its caches serve without them. The body names
/// the part that does not work.
async fn ready(State(app): State<Arc<App>>) -> Response {
    let health = app.caches.manager.health();
    let status = if health.closed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, Json(health)).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> String {
    app.caches.manager.export_metrics();
    app.prometheus.render()
}

/// The recorder of the metrics. Without buckets, the exporter would make summaries of durations.
pub(crate) fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let buckets = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1];
    let slow = [0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let caches = Matcher::Prefix("lazy_layers_cache_".to_owned());
    let builder = PrometheusBuilder::new();
    Ok(builder.set_buckets_for_metric(caches, &[&buckets[..], &slow].concat())?.build_recorder())
}
