//! Work that takes a processor for long, off the threads that run tasks: on the runtime's threads
//! for blocking work, no more of it at a time than there are processors.

use std::{
    sync::{Arc, LazyLock},
    thread,
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

/// One bound for all caches of the process: what is scarce, processors and room for payloads, is
/// the process's too. Who finds no place waits as a task of its own, and holds no thread: places are
/// given in turn, and a caller may not be polled any more when its turn has come.
static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Arc::new(Semaphore::new(processors))
});

/// Does the work elsewhere; here where there is no runtime, and so no task to hold up. `None` if it
/// panicked, or the runtime is shutting down.
///
/// Dropped before it has begun, it never begins. What has begun goes on to its end, and keeps its
/// place for as long.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let Ok(runtime) = Handle::try_current() else { return Some(work()) };
    if let Ok(place) = Arc::clone(&PLACES).try_acquire_owned() {
        return in_place(&runtime, place, work).await;
    }
    let threads = runtime.clone();
    let mut task = Work(runtime.spawn(async move {
        let place = Arc::clone(&PLACES).acquire_owned().await.ok()?;
        in_place(&threads, place, work).await
    }));
    (&mut task.0).await.ok().flatten()
}

async fn in_place<T: Send + 'static>(
    runtime: &Handle,
    place: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let mut work = Work(runtime.spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    }));
    (&mut work.0).await.ok()
}

struct Work<T>(JoinHandle<T>);

impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
