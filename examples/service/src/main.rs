//! A web service with three caches over SQLite. Two processes of it share the file, and a Redis and
//! a bus if there is one. README.md says how to run them.
//!
//!     cargo run -p service

mod api;
mod caches;
mod database;
mod operations;
mod settings;
#[cfg(test)]
mod tests;

use std::{error::Error, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use lazy_layers_cache::CacheManager;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, time::interval};
use tracing::info;

use crate::{caches::Caches, database::Database, settings::Settings};

/// What the handlers share.
struct App {
    database: Database,
    caches: Caches,
    prometheus: PrometheusHandle,
}

fn router(app: Arc<App>) -> Router {
    api::routes().merge(operations::routes()).with_state(app)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().init();
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/service.toml");
    let file = std::env::args_os().nth(1).map_or_else(|| default.into(), PathBuf::from);
    let settings = Settings::read(&file)?;

    // Before the caches: they record durations with the recorder that is installed.
    let recorder = operations::recorder()?;
    let prometheus = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    let upkeep = prometheus.clone();
    tokio::spawn(async move {
        let mut ticks = interval(Duration::from_secs(5));
        loop {
            ticks.tick().await;
            upkeep.run_upkeep();
        }
    });

    let database = Database::open(&settings.database)?;
    let caches = Caches::build(CacheManager::builder().options(settings.cache))?;
    let app = Arc::new(App { database, caches, prometheus });

    let listener = TcpListener::bind(settings.listen).await?;
    // Subscribes to the bus in the background, so that a bus that is down delays no start.
    let subscribing = app.caches.manager.clone();
    tokio::spawn(async move { subscribing.ready().await });
    info!(address = %listener.local_addr()?, "the service is ready");
    axum::serve(listener, router(Arc::clone(&app))).with_graceful_shutdown(shutdown()).await?;

    // All requests are answered. Now the invalidations that wait for Redis or the bus are sent.
    // `serve` has dropped its handles of the caches. Those of `app` keep the caches alive: without
    // them, deletes that wait for Redis would be lost.
    app.caches.manager.close().await;
    info!("the service has ended");
    Ok(())
}

/// Waits for Ctrl-C or for the signal by which a supervisor ends the process.
async fn shutdown() {
    let interrupted = async { drop(tokio::signal::ctrl_c().await) };
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        () = interrupted => {}
        () = terminated => {}
    }
}
