//! The section `[bus]` with the transports `nats` and `jetstream`.

use std::sync::Arc;

use super::{
    error::ConfigError,
    read_beside::read_beside,
    tree::{Section, Tree},
};
use crate::{
    adapters::nats::{
        NatsOptions, NatsTransport,
        jetstream::{JetStreamOptions, JetStreamTransport},
    },
    bus::EventBus,
    manager::options::MakeBus,
};

const BESIDE: [&str; 2] = ["transport", "url"];

pub(super) fn core(section: Section) -> Result<MakeBus, ConfigError> {
    let options: NatsOptions = read_beside(with_url(section)?, &BESIDE)?;
    Ok(Arc::new(move || Ok(EventBus::new(NatsTransport::new(options.clone())?))))
}

pub(super) fn jetstream(section: Section) -> Result<MakeBus, ConfigError> {
    let options: JetStreamOptions = read_beside(with_url(section)?, &BESIDE)?;
    Ok(Arc::new(move || Ok(EventBus::new(JetStreamTransport::new(options.clone())?))))
}

/// Writes `url` as `connection.servers`.
fn with_url(mut section: Section) -> Result<Section, ConfigError> {
    let Some(url) = section.remove("url") else { return Ok(section) };
    let connection = section.entry("connection".to_owned()).or_insert(Tree::Map(Section::new()));
    if let Tree::Map(connection) = connection
        && connection.insert("servers".to_owned(), Tree::List(vec![url])).is_some()
    {
        return Err(ConfigError::other("write one of `url` and `connection.servers`"));
    }
    Ok(section)
}
