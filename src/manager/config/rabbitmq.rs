//! The section `[bus]` with the transport `rabbitmq`.

use std::sync::Arc;

use super::{error::ConfigError, read_beside::read_beside, tree::Section};
use crate::{
    adapters::rabbitmq::{RabbitMqOptions, RabbitMqTransport},
    bus::EventBus,
    manager::options::MakeBus,
};

pub(super) fn bus(section: Section) -> Result<MakeBus, ConfigError> {
    let options: RabbitMqOptions = read_beside(section, &["transport"])?;
    Ok(Arc::new(move || Ok(EventBus::new(RabbitMqTransport::new(options.clone())?))))
}
