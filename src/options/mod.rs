//! The options of a cache: defaults, limits, and which of them wins.

mod bus;
#[cfg(feature = "serde")]
pub(crate) mod byte_size;
mod cache;
mod call;
mod check;
mod loading;
mod name;
mod option_group;
mod resilience;
mod tiers;

pub use self::{
    bus::{EventBusOptions, EventDedupe},
    cache::CacheOptions,
    loading::{Coalescing, DistributedLock, NegativeCache, Timeouts},
    resilience::{CircuitBreaker, FailSafe},
    tiers::{L1Options, L2Options, L2Timeouts},
};
pub(crate) use self::{
    call::{CallOptions, Lifetimes},
    option_group::option_group,
};
