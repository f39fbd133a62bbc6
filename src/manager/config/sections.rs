//! The sections of a configuration file: which there are, and what each becomes.

use serde::{Deserialize, Deserializer, de::Error as _};

use super::{
    error::{ConfigError, Values},
    nats, rabbitmq, redis,
    tree::{Section, Tree, merge, names},
    tree_reader::{read, read_value},
};
use crate::{
    manager::{
        options::{MakeBus, ManagerOptions},
        shared_options::{SHARED, misplaced},
    },
    options::CacheOptions,
};

const NO_NAME: &str = "a cache has the name of its section, [caches.<name>]";
const AT_THE_TOP: &str = "write it at the top of the file, before the first section";

const SECTIONS: &[&str] = &["instance_id", "redis", "bus", "defaults", "caches"];

impl<'de> Deserialize<'de> for ManagerOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // First the whole file, then what it means: an error of the second step comes behind the
        // parser of the file, which would add the line to it, with its password.
        let tree = Tree::deserialize(deserializer)?;
        let Tree::Map(file) = tree else { return Err(D::Error::custom("expected sections")) };
        read_file(file).map_err(|(error, values)| D::Error::custom(error.text(values)))
    }
}

fn read_file(mut file: Section) -> Result<ManagerOptions, (ConfigError, Values)> {
    let shown = |error: ConfigError| (error, Values::Shown);
    let secret = |error: ConfigError| (error, Values::Secret);
    if let Some(unknown) = file.keys().find(|name| !SECTIONS.contains(&name.as_str())) {
        return Err(shown(ConfigError::unknown_field(unknown, SECTIONS)));
    }
    let instance_id = file.remove("instance_id").map(read_value).transpose();
    let instance_id = instance_id.map_err(|error| shown(error.within("instance_id")))?;
    let redis = section(&mut file, "redis").map_err(secret)?;
    let bus = section(&mut file, "bus").map_err(secret)?;
    let bus = bus.map(|bus| read_bus(bus, redis.as_ref()));
    let bus = bus.transpose().map_err(|error| secret(error.within("bus")))?;
    let redis = redis.map(redis::l2).transpose();
    let redis = redis.map_err(|error| secret(error.within("redis")))?;

    let base = section(&mut file, "defaults").map_err(shown)?.unwrap_or_default();
    for (name, fix) in [("name", NO_NAME), ("instance_id", AT_THE_TOP)] {
        if base.contains_key(name) {
            return Err(shown(ConfigError::other(fix).within(name).within("defaults")));
        }
    }
    let defaults = read(base.clone()).map_err(|error| shown(error.within("defaults")))?;
    let mut options = ManagerOptions { instance_id, redis, bus, ..ManagerOptions::new(defaults) };
    for (name, own) in section(&mut file, "caches").map_err(shown)?.unwrap_or_default() {
        let within = |error: ConfigError| shown(error.within(&name).within("caches"));
        let own = as_section(own).map_err(within)?;
        if own.contains_key("name") {
            return Err(within(ConfigError::other(NO_NAME).within("name")));
        }
        let first = SHARED.iter().map(|(path, _)| *path).find(|path| names(&own, path));
        if let Some(option) = first.filter(|_| options.misplaced.is_none()) {
            options.misplaced = Some(misplaced(option).at(format!("[caches.{name}]")));
        }
        let own: CacheOptions = read(merge(base.clone(), own)).map_err(within)?;
        options.caches.insert(name, own);
    }
    Ok(options)
}

/// Removes a section from the file. One without a value, as YAML has, is none.
fn section(file: &mut Section, name: &str) -> Result<Option<Section>, ConfigError> {
    let tree = file.remove(name).filter(|tree| !matches!(tree, Tree::Null));
    tree.map(as_section).transpose().map_err(|error| error.within(name))
}

fn as_section(tree: Tree) -> Result<Section, ConfigError> {
    match tree {
        Tree::Map(section) => Ok(section),
        Tree::Null => Ok(Section::new()),
        _ => Err(ConfigError::other("expected a section with options")),
    }
}

const TRANSPORTS: &str = "`redis`, `nats`, `jetstream` or `rabbitmq`";

fn read_bus(mut bus: Section, redis: Option<&Section>) -> Result<MakeBus, ConfigError> {
    let transport = match bus.remove("transport") {
        Some(Tree::Text(transport)) => transport,
        Some(_) => {
            return Err(ConfigError::other(format!("expected {TRANSPORTS}")).within("transport"));
        }
        None => {
            return Err(ConfigError::other(format!("`transport` is missing; write {TRANSPORTS}")));
        }
    };
    match transport.as_str() {
        "redis" => redis::bus(bus, redis),
        "nats" => nats::core(bus),
        "jetstream" => nats::jetstream(bus),
        "rabbitmq" => rabbitmq::bus(bus),
        _ => {
            Err(ConfigError::other(format!("unknown value, write {TRANSPORTS}"))
                .within("transport"))
        }
    }
}
