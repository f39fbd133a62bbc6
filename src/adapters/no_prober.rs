//! The prober of a transport that sends no probes yet.

use crate::bus::transport::{Prober, TransportFuture};

pub(crate) struct NoProber;

impl Prober for NoProber {
    fn send(&self, _number: u64) -> TransportFuture<'_, ()> {
        Box::pin(async { Err("this transport sends no probes".into()) })
    }
}
