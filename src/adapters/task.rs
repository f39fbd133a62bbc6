//! The runtime and the time limits of the connections to brokers.

use std::time::Duration;

use tokio::{runtime::Handle, time::timeout};

use crate::error::BoxError;

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
