//! What the verbs of the cache ask of its bus client, if it has one.

use std::{sync::Arc, time::Duration};

use super::state::CacheState;
use crate::{
    bus::{Change, PendingBroadcast},
    codec::catch_panic::catch_codec_panic,
    error::Error,
};

impl<V: Send + Sync + 'static> CacheState<V> {
    /// Starts the tasks of the bus client, unless they run. To be called by each verb that leaves
    /// L1.
    pub(super) fn ensure_bus_tasks(self: &Arc<Self>) {
        if let Some(bus) = &self.bus {
            bus.client.ensure_tasks(self);
        }
    }

    pub(super) async fn ready(self: &Arc<Self>) -> Result<(), Error> {
        self.check_open()?;
        if let Some(bus) = &self.bus {
            bus.client.ready(self).await?;
        }
        self.check_open()
    }

    /// To be called before a key is deleted or `set` in L1.
    pub(super) fn begin_broadcast<'a>(
        self: &'a Arc<Self>,
        key: &'a str,
    ) -> PendingBroadcast<'a, Self> {
        match &self.bus {
            Some(bus) => bus.client.begin_invalidation(self, key, false),
            None => PendingBroadcast::without_bus(),
        }
    }

    /// To be called before the keys that match a glob are deleted in L1.
    pub(super) fn begin_pattern_broadcast<'a>(
        self: &'a Arc<Self>,
        glob: &'a str,
    ) -> PendingBroadcast<'a, Self> {
        match &self.bus {
            Some(bus) => bus.client.begin_invalidation(self, glob, true),
            None => PendingBroadcast::without_bus(),
        }
    }

    /// Returns the message of a value that is `set`; `None` if peers get a delete instead.
    pub(super) fn set_message(&self, key: &Arc<str>, value: &V, ttl: Duration) -> Option<Change> {
        let bus = self.bus.as_ref()?;
        let encode = || catch_codec_panic(|| bus.codec.encode_plain(value)).ok();
        bus.client.set_message(self, key, ttl, encode)
    }

    /// Returns what a loaded value has to carry to be broadcast; `None` if it will not be. To be
    /// called before the right to write the value is checked.
    pub(super) fn causal_context(&self) -> Option<Arc<[u8]>> {
        self.bus.as_ref()?.client.causal_context(self.now())
    }

    /// Broadcasts a value that was loaded and written to L1.
    pub(super) fn broadcast_value(
        self: &Arc<Self>,
        key: &Arc<str>,
        value: &V,
        ttl: Duration,
        context: Option<Arc<[u8]>>,
    ) {
        let Some(bus) = &self.bus else { return };
        let encode = || catch_codec_panic(|| bus.codec.encode_plain(value)).ok();
        bus.client.broadcast_value(self, key, ttl, context, encode);
    }

    /// Broadcasts a delete again, because it reached L2 only now, and peers may have read the old
    /// value there since they applied the first message.
    pub(super) fn broadcast_again(self: &Arc<Self>, name: Arc<str>, is_pattern: bool) {
        if let Some(bus) = &self.bus {
            bus.client.enqueue(self, Change::invalidation(name, is_pattern));
        }
    }
}
