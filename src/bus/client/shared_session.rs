//! The place where the caches of an instance find their bus session.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;

use super::{bus_session::BusSession, session_options::SessionOptions};
use crate::{
    bus::{event_bus::EventBus, protocol::session::AttachRefused, wire::namespace::CacheId},
    error::BuildError,
    options::CacheOptions,
    resilience::task_tracker::TaskTracker,
    time::Clock,
};

/// A bus, and the session on it that several caches share. The session ends with its last cache;
/// the next cache then begins another.
pub(crate) struct SharedSession {
    event_bus: EventBus,
    options: SessionOptions,
    clock: Option<Arc<dyn Clock>>,
    current: Mutex<Arc<BusSession>>,
    dropped: TaskTracker,
}

impl SharedSession {
    /// Does not connect. All the caches have this clock; `None` is that of the system.
    pub(crate) fn new(
        event_bus: EventBus,
        options: SessionOptions,
        clock: Option<Arc<dyn Clock>>,
    ) -> Self {
        let session = BusSession::new(event_bus.clone(), options.clone(), clock.clone());
        let current = Mutex::new(Arc::new(session));
        Self { event_bus, options, clock, current, dropped: TaskTracker::default() }
    }

    pub(crate) fn clock(&self) -> Option<Arc<dyn Clock>> {
        self.clock.clone()
    }

    /// The tasks that publish the last messages of caches which were dropped.
    pub(crate) fn dropped(&self) -> &TaskTracker {
        &self.dropped
    }

    /// Adds a cache to the session.
    ///
    /// # Errors
    ///
    /// Another cache of the session is in the way.
    pub(super) fn attach(
        &self,
        options: &CacheOptions,
        sends_generations: bool,
    ) -> Result<(Arc<BusSession>, CacheId), BuildError> {
        let (session, attached) = self.attach_to_current(options, sends_generations);
        let id = attached.map_err(|refused| build_error(options, refused))?;
        Ok((session, id))
    }

    fn attach_to_current(
        &self,
        options: &CacheOptions,
        sends_generations: bool,
    ) -> (Arc<BusSession>, Result<CacheId, AttachRefused>) {
        let mut current = self.current.lock();
        loop {
            if let Some(attached) = current.attach(options, sends_generations) {
                return (Arc::clone(&current), attached);
            }
            let (bus, clock) = (self.event_bus.clone(), self.clock.clone());
            *current = Arc::new(BusSession::new(bus, self.options.clone(), clock));
        }
    }
}

impl fmt::Debug for SharedSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.event_bus.fmt(f)
    }
}

fn build_error(options: &CacheOptions, refused: AttachRefused) -> BuildError {
    let name = options.name.as_deref().unwrap_or_default();
    match refused {
        AttachRefused::NameTaken => BuildError::new(
            "name",
            format!("({name:?}) is that of another cache with this manager"),
            "use that cache, or choose another name; if that cache is closing, wait until its \
             close() has returned",
        ),
        AttachRefused::UnnamedTaken => BuildError::new(
            "event_bus.accept_unnamed",
            "is set, as it is for another cache with this manager".to_owned(),
            "set it for one of them only: messages without a namespace do not say for which \
             cache they are",
        ),
        AttachRefused::TooMany => BuildError::new(
            "name",
            format!("({name:?}) is that of the 1,025th cache with this manager"),
            "use a second manager",
        ),
    }
}
