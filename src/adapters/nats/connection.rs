//! A connection to NATS, as long as it is the same one.
//!
//! The client reconnects in silence, takes commands while it is not connected, and throws away
//! what it had not written when it does. So a link ends with the first sign of any of that, and
//! whoever holds it is told; the next one is a new connection. Nor does the client confirm: a
//! flush is one of its own buffer. A message to ourselves does, because a server works off what
//! one connection sends in order.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::{Client, Event, Message, Statistics, Subscriber, connection::State};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    adapters::task::{Task, runtime},
    error::BoxError,
};

pub(crate) struct Link {
    /// Gone when the link is over, so that the connection is closed then and not when the next
    /// one is asked for.
    client: Arc<Mutex<Option<Client>>>,
    vitals: Vitals,
    echoes: Arc<Echoes>,
    _watch: Task,
}

/// What goes wrong, as far as it is known.
#[derive(Clone)]
pub(crate) struct Vitals {
    signs: Arc<watch::Sender<Signs>>,
    /// What makes a reconnection visible that nobody told of.
    connection: Option<(Arc<Statistics>, u64)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Signs {
    over: bool,
    /// How many messages the client dropped, of whichever subscription.
    dropped: u64,
}

impl Vitals {
    pub(crate) fn new() -> Self {
        Self { signs: Arc::new(watch::channel(Signs::default()).0), connection: None }
    }

    /// For the client's own callback.
    pub(crate) fn notice(&self, event: &Event) {
        match event {
            Event::Disconnected | Event::Closed | Event::Draining => self.end(),
            Event::SlowConsumer(_) => self.signs.send_modify(|signs| signs.dropped += 1),
            _ => {}
        }
    }

    pub(crate) fn end(&self) {
        self.signs.send_modify(|signs| signs.over = true);
    }

    pub(crate) fn is_over(&self) -> bool {
        let reconnected = self
            .connection
            .as_ref()
            .is_some_and(|(now, then)| now.connects.load(Ordering::Relaxed) != *then);
        reconnected || self.signs.borrow().over
    }

    /// How many messages the client has dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.signs.borrow().dropped
    }

    /// Waits for the end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(crate) async fn ended(&self) {
        let _ = self.signs.subscribe().wait_for(|signs| signs.over).await;
    }

    /// Waits for the end, or for more to be dropped than that.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: what counts is the state, not its change.
    pub(crate) async fn worse_than(&self, dropped: u64) {
        let mut signs = self.signs.subscribe();
        let _ = signs.wait_for(|signs| signs.over || signs.dropped != dropped).await;
    }
}

impl Link {
    /// Takes a client that is connected and shows that it is.
    pub(crate) async fn over(
        client: Client,
        mut vitals: Vitals,
        heartbeat: Duration,
    ) -> Result<Self, BoxError> {
        let statistics = client.statistics();
        let connects = statistics.connects.load(Ordering::Relaxed);
        if client.connection_state() != State::Connected {
            return Err("the client is not connected just now".into());
        }
        vitals.connection = Some((statistics, connects));
        let echoes = Arc::new(Echoes::to(client.new_inbox()));
        let subscriber = client.subscribe(echoes.subject(&"*")).await?;
        let shared = Arc::new(Mutex::new(Some(client.clone())));
        let watch = {
            let (echoes, vitals, shared) =
                (Arc::clone(&echoes), vitals.clone(), Arc::clone(&shared));
            async move {
                watch(&client, subscriber, &echoes, &vitals, heartbeat).await;
                vitals.end();
                echoes.waiting.lock().clear();
                shared.lock().take();
            }
        };
        let watch = Task::on(&runtime()?, watch);
        let link = Self { client: shared, vitals, echoes, _watch: watch };
        link.barrier().await?;
        Ok(link)
    }

    pub(crate) fn client(&self) -> Result<Client, BoxError> {
        self.client.lock().clone().filter(|_| !self.vitals.is_over()).ok_or_else(broken)
    }

    pub(crate) fn vitals(&self) -> &Vitals {
        &self.vitals
    }

    /// Returns when the server has worked off all that was sent before.
    pub(crate) async fn barrier(&self) -> Result<(), BoxError> {
        let client = self.client()?;
        let echo = self.echoes.expect();
        client.publish(echo.subject.clone(), Vec::new().into()).await?;
        drop(client);
        self.arrived(echo).await.map(drop)
    }

    /// Publishes, and waits for whoever answers. The client's own requests would do, but remember
    /// for ever those that nobody answered.
    pub(crate) async fn ask(&self, subject: &str, payload: Vec<u8>) -> Result<Message, BoxError> {
        let client = self.client()?;
        let echo = self.echoes.expect();
        let answer_to = echo.subject.clone();
        client.publish_with_reply(subject.to_owned(), answer_to, payload.into()).await?;
        drop(client);
        self.arrived(echo).await
    }

    async fn arrived(&self, mut echo: Echo<'_>) -> Result<Message, BoxError> {
        let message = (&mut echo.receiver).await.map_err(|_| broken())?;
        // What came by way of a new connection proves nothing about what the old one had to write.
        if self.vitals.is_over() { Err(broken()) } else { Ok(message) }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.vitals.end();
    }
}

fn broken() -> BoxError {
    "the connection to NATS broke".into()
}

/// Asks the server for a sign of life now and then, and ends where there is none.
async fn watch(
    client: &Client,
    mut subscriber: Subscriber,
    echoes: &Echoes,
    vitals: &Vitals,
    heartbeat: Duration,
) {
    let mut asked = false;
    let mut next = Instant::now() + heartbeat;
    loop {
        tokio::select! {
            biased;
            message = subscriber.next() => match message {
                Some(message) => if echoes.came(message) {
                    asked = false;
                    next = Instant::now() + heartbeat;
                },
                None => return,
            },
            () = vitals.worse_than(vitals.dropped()) => {}
            () = sleep_until(next) => {
                if asked {
                    return;
                }
                next = Instant::now() + heartbeat.mul_f32(1.5);
                asked = true;
                // While the client's queue is full nothing is asked, and nothing answers.
                let beat = echoes.subject(&Echoes::HEARTBEAT);
                let asking = client.publish(beat, Vec::new().into());
                let _ = timeout_at(next, asking).await;
            }
        }
        if vitals.is_over() || client.connection_state() != State::Connected {
            return;
        }
    }
}

/// Messages to ourselves that are on their way, and answers that we wait for.
struct Echoes {
    inbox: String,
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Message>>>,
}

impl Echoes {
    const HEARTBEAT: u64 = 0;

    fn to(inbox: String) -> Self {
        Self { inbox, last: AtomicU64::new(Self::HEARTBEAT), waiting: Mutex::default() }
    }

    fn subject(&self, number: &dyn std::fmt::Display) -> String {
        format!("{}.{number}", self.inbox)
    }

    fn expect(&self) -> Echo<'_> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(number, sender);
        Echo { echoes: self, number, subject: self.subject(&number), receiver }
    }

    /// Whether it was a heartbeat that came.
    fn came(&self, message: Message) -> bool {
        let number = message.subject.rsplit('.').next().and_then(|number| number.parse().ok());
        let sender = number.and_then(|number| self.waiting.lock().remove(&number));
        if let Some(sender) = sender {
            let _ = sender.send(message);
        }
        number == Some(Self::HEARTBEAT)
    }
}

struct Echo<'a> {
    echoes: &'a Echoes,
    number: u64,
    subject: String,
    receiver: oneshot::Receiver<Message>,
}

impl Drop for Echo<'_> {
    fn drop(&mut self) {
        self.echoes.waiting.lock().remove(&self.number);
    }
}
