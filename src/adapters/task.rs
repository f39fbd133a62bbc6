//! Tasks and time limits of the connections to brokers.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::error::BoxError;

#[derive(Debug)]
pub(crate) struct AbortOnDrop(AbortHandle);

impl AbortOnDrop {
    pub(crate) fn spawn(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(runtime.spawn(work).abort_handle())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Ends a subscription from elsewhere. Clones share one state, which is never reset.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shutdown(Arc<watch::Sender<bool>>);

impl Shutdown {
    pub(crate) fn trigger(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_triggered(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until any clone is triggered; for ever if none is. Cancel safe.
    pub(crate) async fn triggered(&self) {
        let _ = self.0.subscribe().wait_for(|is_triggered| *is_triggered).await;
    }
}

/// Returns the current runtime. The clients of brokers panic outside of one.
pub(crate) fn runtime() -> Result<Handle, BoxError> {
    Handle::try_current().map_err(|_| "a broker can only be reached inside a tokio runtime".into())
}

/// Runs `work` for at most `limit`; then the error says which act took too long.
pub(crate) async fn timeout_named<T>(
    limit: Duration,
    act: &str,
    work: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(format!("took longer than {limit:?} to {act}").into()))
}

/// Runs `probe` every `heartbeat`. Returns when a probe fails, or is not answered within one and a
/// half heartbeats.
pub(crate) async fn probe_every<F, T, E>(heartbeat: Duration, mut probe: impl FnMut() -> F)
where
    F: Future<Output = Result<T, E>>,
{
    loop {
        sleep(heartbeat).await;
        if !matches!(timeout(heartbeat.mul_f32(1.5), probe()).await, Ok(Ok(_))) {
            return;
        }
    }
}
