//! The lock of a key in the store.

use std::time::Duration;

use super::{
    Asker, L2,
    guarded::{Blame, Failure},
};

/// What became of an attempt to take a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locked {
    Yes,
    ByAnother,
    /// Taken or not: without the store nobody can tell.
    NoAnswer,
    /// The store was not asked.
    NotAsked,
}

impl Locked {
    fn of(answer: &Result<bool, Failure>) -> Self {
        match answer {
            Ok(true) => Self::Yes,
            Ok(false) => Self::ByAnother,
            Err(Failure::Failed(_)) => Self::NoAnswer,
            Err(Failure::Skipped) => Self::NotAsked,
        }
    }
}

impl<V: Send + Sync + 'static> L2<V> {
    /// Again by the same owner, it is kept.
    pub(crate) async fn lock(&self, asker: Asker<'_>, owner: &str, ttl: Duration) -> Locked {
        if !self.serves(asker) {
            return Locked::NotAsked;
        }
        let lock = || self.store.lock(asker.key, owner, ttl);
        Locked::of(&self.guarded(asker, self.write_limit, lock).await)
    }

    /// [`ByAnother`](Locked::ByAnother) also where it is nobody's any more.
    pub(crate) async fn extend(&self, asker: Asker<'_>, owner: &str, ttl: Duration) -> Locked {
        // Of no call that anybody waits for, and tried again: the breaker need not hear of it.
        let extend = || self.store.extend(asker.key, owner, ttl);
        Locked::of(&self.called(asker, self.write_limit, Blame::Nothing, extend).await)
    }

    pub(crate) async fn unlock(&self, asker: Asker<'_>, owner: &str) {
        // What does not get through ends with the lock's time.
        let unlock = || self.store.unlock(asker.key, owner);
        let _ = self.called(asker, self.write_limit, Blame::Nothing, unlock).await;
    }
}
