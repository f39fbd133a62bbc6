//! A subscription by way of a durable consumer.

use std::{pin::Pin, sync::Arc, time::Duration};

use async_nats::jetstream::{
    Message,
    consumer::pull,
    stream::{Info, Stream},
};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout},
};

use super::cursor::{Cursor, Seen};
use crate::{
    adapters::nats::Link,
    bus::transport::{Delivery, MessageStream},
};

pub(crate) struct JetStreamEvents {
    link: Arc<Link>,
    /// Gone with the first failure: both keep the connection open.
    source: Option<(pull::Stream, Stream)>,
    cursor: Arc<Mutex<Option<Cursor>>>,
    seen: Seen,
    /// Brought, and not yet known to be dealt with.
    unacked: Option<(u64, Message)>,
    /// Comes after the gap that was told first.
    held_back: Option<(u64, Message)>,
    look: Interval,
    limit: Duration,
    runtime: Handle,
}

impl JetStreamEvents {
    pub(crate) fn new(
        link: Arc<Link>,
        stream: Stream,
        messages: pull::Stream,
        cursor: Arc<Mutex<Option<Cursor>>>,
        seen: Seen,
        (look, limit): (Duration, Duration),
        runtime: Handle,
    ) -> Self {
        let mut look = interval_at(Instant::now() + look, look);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            link,
            source: Some((messages, stream)),
            cursor,
            seen,
            unacked: None,
            held_back: None,
            look,
            limit,
            runtime,
        }
    }

    async fn next_or_none(&mut self) -> Option<Delivery> {
        self.source.as_ref()?;
        self.confirm().await?;
        if let Some(held_back) = self.held_back.take() {
            return Some(self.bring(held_back));
        }
        loop {
            let (messages, stream) = self.source.as_mut()?;
            let vitals = self.link.vitals();
            tokio::select! {
                biased;
                () = vitals.ended() => return None,
                // An error ends it, although the client would try again: what to do is decided
                // above, and costs one subscribe.
                message = messages.next() => {
                    let message = message?.ok()?;
                    let sequence = message.info().ok()?.stream_sequence;
                    if self.seen.skips_to(sequence) {
                        self.held_back = Some((sequence, message));
                        return Some(self.gap());
                    }
                    return Some(self.bring((sequence, message)));
                }
                _ = self.look.tick() => {
                    let info = tokio::select! {
                        biased;
                        () = vitals.ended() => return None,
                        info = timeout(self.limit, stream.get_info()) => info.ok()?.ok()?,
                    };
                    if self.shows_a_gap(&info)? {
                        return Some(self.gap());
                    }
                }
            }
        }
    }

    /// What was brought last was dealt with, now that more is asked for.
    async fn confirm(&mut self) -> Option<()> {
        if let Some(cursor) = &mut *self.cursor.lock() {
            cursor.whole = true;
            if let Some((sequence, _)) = &self.unacked {
                cursor.dealt = cursor.dealt.max(*sequence);
            }
        }
        if let Some((_, message)) = &self.unacked {
            timeout(self.limit, message.ack()).await.ok()?.ok()?;
        }
        self.unacked = None;
        Some(())
    }

    fn bring(&mut self, (sequence, message): (u64, Message)) -> Delivery {
        let event = message.payload.to_vec();
        self.unacked = Some((sequence, message));
        Delivery::Message(event)
    }

    fn gap(&mut self) -> Delivery {
        if let Some(cursor) = &mut *self.cursor.lock() {
            cursor.whole = false;
        }
        Delivery::Gap
    }

    /// The client says goodbye by spawning a task, and panics where it is dropped outside of a
    /// runtime.
    fn close(&mut self) {
        let _inside = self.runtime.enter();
        self.source = None;
        self.unacked = None;
        self.held_back = None;
    }

    /// `None` if it is another stream by now.
    fn shows_a_gap(&mut self, info: &Info) -> Option<bool> {
        let same = self.cursor.lock().is_some_and(|cursor| cursor.stream == info.created);
        same.then(|| self.seen.lags_behind(&info.state))
    }
}

impl MessageStream for JetStreamEvents {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Delivery> + Send + '_>> {
        Box::pin(async {
            let next = self.next_or_none().await;
            if next.is_none() {
                self.close();
            }
            next.unwrap_or(Delivery::Closed)
        })
    }
}

impl Drop for JetStreamEvents {
    fn drop(&mut self) {
        self.close();
    }
}
