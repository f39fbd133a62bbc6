//! What a read gives, and how it came by it.

use std::{sync::Arc, time::Duration};

use crate::{entry::Entry, error::Error, load::IntoLoaded, observe::StaleReason};

/// What a call gave, and how it came by it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome<T> {
    /// What awaiting the request itself would have given.
    pub value: T,
    /// Where it came from.
    pub source: Source,
    /// How long ago it was loaded or set, as far as this instance knows: zero for what was loaded
    /// now or found in the shared level.
    pub age: Duration,
    /// Why a copy was served instead of the result of a load; `None` if none was.
    pub stale: Option<StaleReason>,
}

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The memory of this instance.
    L1,
    /// The level that instances share.
    L2,
    /// This call's own loader.
    Loader,
    /// The loader of another call that was running already.
    Joined,
}

/// An [`Outcome`] before it is known what the caller's loader can say.
pub(super) struct Found<V> {
    pub(super) value: Option<Arc<V>>,
    pub(super) source: Source,
    pub(super) age: Duration,
    pub(super) stale: Option<StaleReason>,
    pub(super) key: Arc<str>,
    /// See [`Arrival::refused`](super::flights::Arrival).
    pub(super) refused: bool,
}

impl<V> Found<V> {
    pub(super) fn in_l1(
        key: Arc<str>,
        entry: Entry<V>,
        now: u64,
        stale: Option<StaleReason>,
    ) -> Self {
        let age = entry.age(now);
        Self {
            value: Some(entry.into_value()),
            source: Source::L1,
            age,
            stale,
            key,
            refused: false,
        }
    }

    pub(super) fn arrived(key: Arc<str>, value: Option<Arc<V>>, source: Source) -> Self {
        Self { value, source, age: Duration::ZERO, stale: None, key, refused: false }
    }

    pub(super) fn into_output<L: IntoLoaded<V>>(self) -> Result<L::Output, Error> {
        L::output(self.value).ok_or_else(|| Error::absent(&self.key))
    }

    pub(super) fn into_outcome<L: IntoLoaded<V>>(self) -> Result<Outcome<L::Output>, Error> {
        let Self { source, age, stale, .. } = self;
        Ok(Outcome { value: self.into_output::<L>()?, source, age, stale })
    }
}
