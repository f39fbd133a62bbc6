//! A store that forwards to another, and records which leases loads get and how their publications
//! are answered.

use std::sync::Arc;

use lazy_layers_cache::{
    Codec, Lease, LeaseRequest, LeaseResponse, Publication, Store, StoreFuture, WireCodec,
    testing::ForwardStore,
};

use crate::{faulty_store::parts, recorder::Recorder};

pub(crate) struct RecordingStore<S> {
    store: Arc<S>,
    by: usize,
    recorder: Recorder,
}

impl<S> RecordingStore<S> {
    pub(crate) fn new(store: S, by: usize, recorder: &Recorder) -> Self {
        Self { store: Arc::new(store), by, recorder: recorder.clone() }
    }
}

impl<S: Store> ForwardStore for RecordingStore<S> {
    fn inner(&self) -> Arc<dyn Store> {
        Arc::<S>::clone(&self.store)
    }

    fn get_or_lease<'a>(
        &'a self,
        key: &'a str,
        begin: LeaseRequest,
    ) -> StoreFuture<'a, LeaseResponse> {
        Box::pin(async move {
            let number = self.recorder.key_of(key).ok_or("a key of nobody")?;
            self.recorder.leased(self.by, number, None);
            let begun = self.store.get_or_lease(key, begin).await?;
            let lease = match &begun {
                LeaseResponse::Load { lease, .. } => lease.clone(),
                _ => None,
            };
            self.recorder.leased(self.by, number, lease);
            Ok(begun)
        })
    }

    fn publish<'a>(
        &'a self,
        key: &'a str,
        lease: &'a Lease,
        result: Publication,
    ) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let Publication::Value { value, .. } = &result else {
                let published = self.store.publish(key, lease, result).await?;
                let number = self.recorder.key_of(key).ok_or("a key of nobody")?;
                self.recorder.removal_answered(self.by, number, lease, published);
                return Ok(published);
            };
            let (_, write) = parts(WireCodec::new().decode(value)?);
            let published = self.store.publish(key, lease, result).await?;
            self.recorder.publish_answered(write, published);
            Ok(published)
        })
    }

    fn delete_all<'a>(&'a self, keys: &'a [String]) -> StoreFuture<'a, ()> {
        self.store.delete_all(keys)
    }
}
