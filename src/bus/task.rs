//! A task that ends with what it works for.

use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
};

use crate::error::BoxError;

/// Stops its task when dropped, wherever that is.
#[derive(Debug)]
pub(super) struct Task(AbortHandle);

impl Task {
    pub(super) fn on(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) -> Self {
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
pub(super) fn runtime() -> Result<Handle, BoxError> {
    Handle::try_current().map_err(|_| "a broker can only be reached inside a tokio runtime".into())
}
