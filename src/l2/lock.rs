//! The lock of a key in the store.

use std::time::Duration;

use super::{
    CallContext, L2,
    guarded::{Blame, Failure},
};

/// What became of an attempt to take a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockAttempt {
    Acquired,
    HeldElsewhere,
    /// Taken or not: without the store nobody can tell.
    Unknown,
    /// The store was not asked.
    Skipped,
}

impl LockAttempt {
    fn of(answer: &Result<bool, Failure>) -> Self {
        match answer {
            Ok(true) => Self::Acquired,
            Ok(false) => Self::HeldElsewhere,
            Err(Failure::Failed(_)) => Self::Unknown,
            Err(Failure::Skipped) => Self::Skipped,
        }
    }
}

impl<V: Send + Sync + 'static> L2<V> {
    /// Again by the same owner, it is kept.
    pub(crate) async fn lock(
        &self,
        context: CallContext<'_>,
        owner: &str,
        ttl: Duration,
    ) -> LockAttempt {
        if !self.serves(context) {
            return LockAttempt::Skipped;
        }
        let lock = || self.store.lock(context.key, owner, ttl);
        LockAttempt::of(&self.guarded(context, self.write_limit, lock).await)
    }

    /// [`ByAnother`](LockAttempt::HeldElsewhere) also where it is nobody's any more.
    pub(crate) async fn extend(
        &self,
        context: CallContext<'_>,
        owner: &str,
        ttl: Duration,
    ) -> LockAttempt {
        // Of no call that anybody waits for, and tried again: the breaker need not hear of it.
        let extend = || self.store.extend(context.key, owner, ttl);
        LockAttempt::of(&self.called(context, self.write_limit, Blame::Nothing, extend).await)
    }

    pub(crate) async fn unlock(&self, context: CallContext<'_>, owner: &str) {
        // What does not get through ends with the lock's time.
        let unlock = || self.store.unlock(context.key, owner);
        let _ = self.called(context, self.write_limit, Blame::Nothing, unlock).await;
    }
}
