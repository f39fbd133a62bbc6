//! Runs CPU-heavy work on tokio's blocking threads, at most one piece per processor at a time, so
//! that it does not hold up the threads that run tasks.

use std::{
    sync::{Arc, LazyLock},
    thread,
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

use super::drop_guard::DropGuard;

/// One limit for all caches of the process, because processors and memory for payloads belong to
/// the process too. A caller without a permit waits in a task of its own and holds no thread: the
/// semaphore is fair, and the caller may no longer be polled when its turn comes.
static PERMITS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Arc::new(Semaphore::new(processors))
});

/// Runs `work` on a blocking thread and returns its result; `None` if it panicked or the runtime
/// shuts down. Outside of a runtime it runs `work` in place, because there is no task to hold up.
///
/// If the caller drops the future before `work` starts, `work` never starts. Once started, `work`
/// runs to its end and keeps its permit until then.
pub(crate) async fn spawn_blocking_bounded<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let Ok(runtime) = Handle::try_current() else { return Some(work()) };
    if let Ok(permit) = Arc::clone(&PERMITS).try_acquire_owned() {
        return run_blocking(&runtime, permit, work).await;
    }
    let threads = runtime.clone();
    let task = runtime.spawn(async move {
        let permit = Arc::clone(&PERMITS).acquire_owned().await.ok()?;
        run_blocking(&threads, permit, work).await
    });
    abort_on_drop(task).await.flatten()
}

async fn run_blocking<T: Send + 'static>(
    runtime: &Handle,
    permit: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let task = runtime.spawn_blocking(move || {
        let result = work();
        drop(permit);
        result
    });
    abort_on_drop(task).await
}

async fn abort_on_drop<T>(task: JoinHandle<T>) -> Option<T> {
    let handle = task.abort_handle();
    let _abort = DropGuard::new(|| handle.abort());
    task.await.ok()
}
