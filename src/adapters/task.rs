//! Work for the sake of a broker: tasks that end with what they work for, and waiting that ends.

use std::time::Duration;

use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
    time::timeout,
};

use crate::error::BoxError;

/// Stops its task when dropped, wherever that is.
#[derive(Debug)]
pub(crate) struct Task(AbortHandle);

impl Task {
    pub(crate) fn on(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) -> Self {
        let task: JoinHandle<()> = runtime.spawn(work);
        Self(task.abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The runtime that this is called in. Clients of brokers need one and panic without.
pub(crate) fn runtime() -> Result<Handle, BoxError> {
    Handle::try_current().map_err(|_| "a broker can only be reached inside a tokio runtime".into())
}

/// Everything that waits for the broker does so by way of this.
pub(crate) async fn within<T>(
    limit: Duration,
    act: &str,
    work: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(format!("took longer than {limit:?} to {act}").into()))
}
