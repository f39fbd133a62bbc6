//! Checks the options and derives the exchange, the queue and the kind of messages from them.

use std::time::Duration;

use lapin::ExchangeKind;

use super::{
    address::{AN_ADDRESS, Address},
    options::{RabbitMqExchangeType, RabbitMqOptions},
};
use crate::{adapters::limits::check_durations, error::BuildError};

/// The checked options, with all defaults resolved.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    pub(crate) exchange: String,
    /// The exchange of the beacons: of the same kind, so that caches that share an exchange by
    /// their routing keys do not receive each other's beacons.
    pub(crate) beacons: String,
    pub(crate) kind: ExchangeKind,
    pub(crate) durable: bool,
    pub(crate) persistent: bool,
    /// `None` if the broker chooses the name.
    pub(crate) queue: Option<String>,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    /// Milliseconds without a consumer after which the broker deletes the queue. `None` if a policy
    /// of the broker says so, or nothing.
    pub(crate) expires: Option<u32>,
    pub(crate) routing_key: String,
    pub(crate) max_bytes: usize,
}

impl Topology {
    /// The name of the queue, if it and its messages outlive a disconnect of the instance.
    pub(crate) fn durable_queue(&self) -> Option<&str> {
        let queue = self.queue.as_deref()?;
        (self.durable && self.persistent && !self.exclusive && !self.auto_delete).then_some(queue)
    }
}

impl RabbitMqOptions {
    pub(crate) fn check_url(&self) -> Result<Address, BuildError> {
        let missing = || BuildError::new("url", "is missing", AN_ADDRESS);
        Address::parse(self.url.as_deref().ok_or_else(missing)?, self.tls.is_required())
    }

    pub(crate) fn check(&self) -> Result<Topology, BuildError> {
        self.tls.check("tls")?;
        self.check_durable_mode()?;
        self.check_names()?;
        let expires = Duration::from_secs(60)..=Duration::from_secs(49 * 86_400);
        BuildError::refuse_if(
            self.queue_expires.is_some_and(|after| !expires.contains(&after)),
            "queue_expires",
            "is not from 1 minute to 49 days",
            "write how long an instance may be disconnected, for example 24 h",
        )?;
        check_durations(
            ("connect_timeout", self.connect_timeout),
            ("confirm_timeout", self.confirm_timeout),
            ("heartbeat", self.heartbeat),
        )?;
        BuildError::refuse_if(
            self.prefetch == 0,
            "prefetch",
            "is 0, which means no bound",
            "write how many messages are delivered ahead, for example 100",
        )?;
        BuildError::refuse_if(
            self.queue_max_bytes < MIN_QUEUE_BYTES,
            "queue_max_bytes",
            "is less than 64 KiB, which a single message may have",
            "write how many bytes of messages may wait in memory, for example 32 MiB (33554432)",
        )?;
        let mode = self.durable_invalidation_mode;
        let durable = self.durable.unwrap_or(mode);
        Ok(Topology {
            exchange: self.exchange.clone(),
            beacons: format!("{}{BEACONS}", self.exchange),
            kind: match self.exchange_type {
                RabbitMqExchangeType::Fanout => ExchangeKind::Fanout,
                RabbitMqExchangeType::Topic => ExchangeKind::Topic,
                RabbitMqExchangeType::Direct => ExchangeKind::Direct,
            },
            durable,
            persistent: self.persistent.unwrap_or(durable),
            queue: self.queue_name.clone(),
            exclusive: self.exclusive_queue.unwrap_or(!mode),
            auto_delete: self.auto_delete_queue.unwrap_or(!mode),
            expires: self
                .queue_expires
                .map(|after| after.as_millis().try_into().unwrap_or(u32::MAX)),
            routing_key: self.routing_key.clone(),
            max_bytes: self.queue_max_bytes,
        })
    }

    fn check_durable_mode(&self) -> Result<(), BuildError> {
        if !self.durable_invalidation_mode {
            return Ok(());
        }
        BuildError::refuse_if(
            self.queue_name.is_none(),
            "queue_name",
            "is missing, and durable_invalidation_mode needs one: a queue with a name of the \
             broker's choice could not be found again",
            "write a name that no other instance has, for example the instance's id and \"-cache\"",
        )?;
        let against = "contradicts durable_invalidation_mode, which would then lose messages";
        for (option, wrong) in [
            ("durable", self.durable == Some(false)),
            ("persistent", self.persistent == Some(false)),
            ("exclusive_queue", self.exclusive_queue == Some(true)),
            ("auto_delete_queue", self.auto_delete_queue == Some(true)),
        ] {
            BuildError::refuse_if(wrong, option, against, "leave out this option or the mode")?;
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), BuildError> {
        BuildError::refuse_if(
            !(1..=255 - BEACONS.len()).contains(&self.exchange.len()),
            "exchange",
            "is not 1 to 247 bytes long",
            "write the same on every instance, for example cache.invalidations",
        )?;
        BuildError::refuse_if(
            self.queue_name.as_ref().is_some_and(|name| {
                // Leaves room for the suffix of the companion exchange, see `subscribe.rs`.
                !(1..=250).contains(&name.len()) || name.starts_with("amq.")
            }),
            "queue_name",
            "is not 1 to 250 bytes long, or begins with `amq.`",
            "write the instance's id, or leave it out",
        )?;
        BuildError::refuse_if(
            self.exchange_type != RabbitMqExchangeType::Fanout && self.routing_key.is_empty(),
            "routing_key",
            "is empty, and exchange_type needs it",
            "write one, the same on every instance of this cache",
        )?;
        BuildError::refuse_if(
            self.exchange_type == RabbitMqExchangeType::Topic
                && self.routing_key.split('.').any(|word| matches!(word, "*" | "#")),
            "routing_key",
            "is a pattern, and messages are published under it too",
            "write words separated by dots, without `*` and `#`",
        )?;
        BuildError::refuse_if(
            self.routing_key.len() > 255,
            "routing_key",
            "is longer than 255 bytes",
            "write a shorter one",
        )
    }
}

const MIN_QUEUE_BYTES: usize = 64 << 10;
/// The suffix of the exchange of the beacons.
const BEACONS: &str = ".beacons";
