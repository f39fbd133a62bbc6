//! The look with which a load begins.
//!
//! One script reads the value and plants the token, so that a miss takes no trip more. It costs the
//! server and the client nearly twice what the plain read costs: so where callers are many and
//! nearly all of them find what they look for, they read it plainly, and who finds nothing takes a
//! third trip. A caller who is alone never does: nobody waits for the server then.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{
    Inner, StoredValue, lifetime,
    reads::{Beginning, stored},
};
use crate::{
    error::BoxError,
    l2::store::{Lease, LeaseRequest, LeaseResponse},
};

impl Inner {
    pub(crate) async fn look(
        self: &Arc<Self>,
        key: &str,
        begin: LeaseRequest,
    ) -> Result<LeaseResponse, BoxError> {
        if !begin.refresh && self.lately.are_few() && self.are_many() {
            let found = self.read(self.context.keys.value(key)).await?;
            if let Some(fresh) = found.filter(|it| is_fresh(it, begin)) {
                self.lately.saw(false);
                return Ok(LeaseResponse::Fresh(fresh));
            }
        }
        let (value, epoch) = self.context.keys.value_and_lease(key);
        let begun = self.begin(Beginning { value, epoch, begin }).await?;
        // Who passes a value over says nothing about how many there are.
        if !begin.refresh {
            self.lately.saw(matches!(begun, LeaseResponse::Load { .. }));
        }
        Ok(begun)
    }

    /// Whether this caller will not be alone.
    fn are_many(&self) -> bool {
        !self.context.endpoint.is_cluster() && (self.gets.is_busy() || self.beginnings.is_busy())
    }

    async fn begin(self: &Arc<Self>, what: Beginning) -> Result<LeaseResponse, BoxError> {
        let (value, remaining, token) = self.together(what).await?;
        let value: Option<Vec<u8>> = self.accept(value)?;
        let remaining = self.accept(remaining)?;
        let token: Option<String> = self.accept(token)?;
        let held = value.and_then(|value| stored(value, remaining));
        Ok(match (token, held) {
            (None, Some(fresh)) => LeaseResponse::Fresh(fresh),
            (token, stale) => {
                let lease = token.filter(|token| !token.is_empty()).map(Lease::new);
                LeaseResponse::Load { lease, stale }
            }
        })
    }
}

/// As the script says it.
fn is_fresh(found: &StoredValue, begin: LeaseRequest) -> bool {
    found.ttl.is_none_or(|it| it.as_millis() > u128::from(lifetime(begin.stale_for)))
}

/// The share of looks that found nothing fresh, of the last some dozens. Threads may overwrite each
/// other's: it is no count.
pub(crate) struct Misses(AtomicU32);

const ALL: u32 = 1 << 16;

/// The plain read is worth it while it saves more than its misses waste: they cost as much as
/// three hits save.
const FEW: u32 = ALL / 8;

impl Default for Misses {
    /// Nothing is known yet: as if all had missed.
    fn default() -> Self {
        Self(AtomicU32::new(ALL))
    }
}

impl Misses {
    fn are_few(&self) -> bool {
        self.0.load(Ordering::Relaxed) < FEW
    }

    fn saw(&self, miss: bool) {
        let share = self.0.load(Ordering::Relaxed);
        let now = share - share / 32 + if miss { ALL / 32 } else { 0 };
        self.0.store(now, Ordering::Relaxed);
    }
}
