//! Tasks and time limits of the connections to brokers.

use std::time::Duration;

use tokio::{runtime::Handle, task::AbortHandle, time::timeout};

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
