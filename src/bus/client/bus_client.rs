//! The bus client of a cache: its part of the bus session of its instance.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, OnceCell},
};

use super::{
    bus_session::BusSession, member::Member, receiver::Receiver, shared_session::SharedSession,
    trust::Trust,
};
use crate::{
    bus::{protocol::session::Session, wire::namespace::CacheId},
    error::{BuildError, Cause, Error},
    observe::{BusHealth, Observer},
    options::CacheOptions,
    resilience::{
        Elapsed, has_timer, run_until,
        task_tracker::{TaskToken, TaskTracker},
        timeout,
    },
};

/// After this time without a subscription, [`BusClient::ready`] checks that the subscriber runs.
const READY_CHECK_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) struct BusClient {
    pub(super) session: Arc<BusSession>,
    pub(super) member: Arc<Member>,
    pub(super) options: CacheOptions,
    closed: AtomicBool,
    /// Notified by [`close`](Self::close); callers of [`ready`](Self::ready) wait for it.
    closing: Notify,
    /// Has no tasks. Stopped when nothing of the cache is published any more.
    pub(super) ended: TaskTracker,
    /// See [`SharedSession::dropped`].
    dropped: TaskTracker,
    shutdown_once: OnceCell<()>,
    /// The number of invalidations that were lost when the cache left the session, or came later,
    /// until they are reported.
    pub(super) lost: AtomicUsize,
}

/// A place in a session, for a cache that is being built. It is given back if it is dropped.
pub(crate) struct BusPlace {
    session: Arc<BusSession>,
    id: CacheId,
    sends_generations: bool,
    dropped: TaskTracker,
    is_used: bool,
}

impl BusPlace {
    /// `sends_generations`: each message of the cache carries the generation of its key.
    ///
    /// # Errors
    ///
    /// Another cache of the session is in the way.
    pub(crate) fn take(
        session: &SharedSession,
        options: &CacheOptions,
        sends_generations: bool,
    ) -> Result<Self, BuildError> {
        let dropped = session.dropped().clone();
        let (session, id) = session.attach(options, sends_generations)?;
        let place = Self { session, id, sends_generations, dropped, is_used: false };
        // Under no lock: the transport may be the user's.
        if let Some(cache) = &options.name {
            place.session.event_bus.transport().on_used_by(cache);
        }
        Ok(place)
    }
}

impl Drop for BusPlace {
    fn drop(&mut self) {
        // mutant place-kept: if false
        if !self.is_used {
            self.session.give_back(self.id);
        }
    }
}

impl BusClient {
    pub(crate) fn new(
        mut place: BusPlace,
        options: &CacheOptions,
        observer: Arc<Observer>,
        receiver: Weak<dyn Receiver>,
    ) -> Self {
        place.is_used = true;
        let (session, dropped) = (Arc::clone(&place.session), place.dropped.clone());
        let (subscribes, sends_generations) =
            (options.subscribe_to_events, place.sends_generations);
        let member =
            Arc::new(Member::new(place.id, receiver, observer, subscribes, sends_generations));
        session.add_member(Arc::clone(&member));
        Self {
            session,
            member,
            options: options.clone(),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            ended: TaskTracker::default(),
            dropped,
            shutdown_once: OnceCell::new(),
            lost: AtomicUsize::new(0),
        }
    }

    /// Which entries of L1 are trusted. A cache that does not subscribe trusts all.
    pub(crate) fn trust(&self) -> Arc<Trust> {
        match self.member.subscribes {
            true => Arc::clone(&self.session.trust),
            false => Arc::new(Trust::new(None)),
        }
    }

    pub(crate) fn health(&self, is_trusted: bool) -> BusHealth {
        let protocol = self.session.protocol.lock();
        let (waiting, publishing_refused) = (protocol.waiting(self.member.id), protocol.is_stuck());
        drop(protocol);
        BusHealth {
            transport: self.session.event_bus.transport().name(),
            subscribes: self.member.subscribes,
            subscribed: self.member.subscribes && *self.session.subscribed.borrow(),
            trusted: is_trusted,
            publishing_skipped: self.session.breaker.is_open(),
            publishing_refused,
            waiting,
        }
    }

    /// Reports the invalidations that are lost, each once. `l2`: those that have not reached L2.
    pub(crate) fn report_lost(&self, l2: usize) {
        self.member.observer.on_close_lost(l2, self.lost.swap(0, Ordering::SeqCst));
    }

    /// Starts the tasks of the session, unless they run. To be called by each call of the cache
    /// that leaves L1. Does nothing outside a runtime, or after [`close`](Self::close).
    pub(crate) fn ensure_tasks(&self) {
        if !self.closed.load(Ordering::Acquire) {
            self.session.ensure_tasks();
        }
    }

    /// Waits until the first probe of a subscription is back; returns at once if the cache does not
    /// subscribe, or was closed.
    ///
    /// # Errors
    ///
    /// There is no runtime with a timer, so that the session cannot subscribe.
    pub(crate) async fn ready(&self) -> Result<(), Error> {
        self.ensure_tasks();
        if !self.member.subscribes {
            return Ok(());
        }
        let mut subscribed = self.session.subscribed.subscribe();
        if !has_timer() {
            return Err(Error::without_key(Cause::NoRuntime));
        }
        loop {
            // Created before the check, so that no close after the check is missed.
            let closing = self.closing.notified();
            if self.closed.load(Ordering::Acquire) {
                return Ok(());
            }
            let begun = subscribed.wait_for(|subscribed| *subscribed);
            match timeout(Some(READY_CHECK_INTERVAL), run_until(begun, closing)).await {
                // The runtime of the subscriber may have been shut down.
                Err(Elapsed) => self.ensure_tasks(),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Starts no more tasks, and wakes the callers of [`ready`](Self::ready).
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.notify_waiters();
    }

    /// Another cache of the session may have the name of this one from now on.
    pub(crate) fn release_name(&self) {
        self.session.protocol.lock().release_name(self.member.id);
    }

    /// Publishes the outbox and the rebroadcasts of the cache within `limit`, and leaves the
    /// session. The last cache of the session says goodbye, by a beacon that promises no further
    /// message, and stops the tasks. A second call waits for the same end.
    pub(crate) async fn shutdown(&self, limit: Duration) {
        let shutdown = || async {
            let (now, id) = (self.session.now(), self.member.id);
            self.session.protocol.lock().push_rebroadcasts_of(now, id);
            self.session.work.notify_one();
            let drained = self.wait_published(|session| session.waiting(id) == 0);
            let _ = timeout(Some(limit), self.session.publish_until(drained)).await;
            self.ended.stop();
            let lost = self.session.leave(&self.member);
            match lost {
                // This cache may have published in the place of the publisher.
                Some(_) => self.session.ensure_tasks(),
                None => self.session.say_goodbye().await,
            }
            self.on_left(lost);
        };
        self.shutdown_once.get_or_init(shutdown).await;
    }

    /// Leaves the session at once, and loses the messages that were not published. Returns the
    /// tasks of the session if the cache was its last one.
    pub(crate) fn end(&self) -> Option<TaskTracker> {
        self.ended.stop();
        let lost = self.session.leave(&self.member);
        if lost.is_none() {
            self.session.take_use();
        }
        self.on_left(lost);
        self.session.stopped_tasks()
    }

    /// `None`: the cache is the last one of the session.
    fn on_left(&self, lost: Option<usize>) {
        let lost = lost.unwrap_or_else(|| self.session.detach(&self.member));
        self.lost.fetch_add(lost, Ordering::SeqCst);
    }

    /// The runtime for the last messages of a cache that is dropped: that of the caller, else that
    /// of the tasks. `None` if there is none, no task has ever started, or the cache was shut down.
    pub(crate) fn last_runtime(&self) -> Option<Handle> {
        self.session.last_runtime().filter(|_| !self.shutdown_once.initialized())
    }

    /// Counts a task that publishes the last messages of a cache which was dropped.
    pub(crate) fn drop_token(&self) -> TaskToken {
        self.dropped.token()
    }

    /// Whether the cache was shut down, so that nothing of it is published any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_stopped()
    }

    /// Whether the silence of an idle peer is noticed.
    pub(crate) fn notices_silent_peers(&self) -> bool {
        self.session.protocol.lock().notices_silent_peers()
    }

    /// Waits until enough of the outbox was published.
    pub(super) async fn wait_published(&self, is_enough: impl Fn(&Session) -> bool) {
        loop {
            // Created before the check, so that no notification after the check is missed.
            let changed = self.member.acked_changed.notified();
            if is_enough(&self.session.protocol.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// Whether the change at this position was published, and all changes before it.
    pub(super) fn is_published(&self, position: u64) -> bool {
        let protocol = self.session.protocol.lock();
        protocol.is_published(self.member.id, position) || self.member.is_published(position)
    }
}
