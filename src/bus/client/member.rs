//! A cache as its bus session sees it.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use super::{publish_report::ReductionReport, receiver::Receiver};
use crate::{
    bus::{protocol::session::CacheReport, wire::namespace::CacheId},
    observe::Observer,
};

pub(crate) struct Member {
    pub(super) id: CacheId,
    /// The cache; dead once its last handle and its last task are dropped.
    pub(super) receiver: Weak<dyn Receiver>,
    pub(super) observer: Arc<Observer>,
    pub(super) subscribes: bool,
    /// Whether its messages carry the generation of their key.
    pub(super) sends_generations: bool,
    /// What peers do not get as it was meant for them.
    pub(super) report: ReductionReport,
    /// The outbox position below which every message was published.
    acked: AtomicU64,
    /// Notified when `acked` rises.
    ///
    /// Alternatives considered: `tokio::sync::watch`, which wakes its waiters in random order, so
    /// that a simulation could not be repeated.
    pub(super) acked_changed: Notify,
}

impl Member {
    pub(super) fn new(
        id: CacheId,
        receiver: Weak<dyn Receiver>,
        observer: Arc<Observer>,
        subscribes: bool,
        sends_generations: bool,
    ) -> Self {
        Self {
            id,
            receiver,
            observer,
            subscribes,
            sends_generations,
            report: ReductionReport::default(),
            acked: AtomicU64::new(0),
            acked_changed: Notify::new(),
        }
    }

    pub(super) fn is_published(&self, position: u64) -> bool {
        self.acked.load(Ordering::SeqCst) > position
    }

    /// Reports what the outbox has reduced, and notifies the callers that wait for it.
    pub(super) fn on_report(&self, now: u64, report: &CacheReport) {
        self.report.reduced(&self.observer, now, &report.reductions);
        self.raise_acked(report.acked);
    }

    pub(super) fn raise_acked(&self, acked: u64) {
        if self.acked.fetch_max(acked, Ordering::SeqCst) < acked {
            self.acked_changed.notify_waiters();
        }
    }

    pub(super) fn revoke_loads(&self) {
        if let Some(receiver) = self.receiver.upgrade() {
            receiver.revoke_loads();
        }
    }
}
