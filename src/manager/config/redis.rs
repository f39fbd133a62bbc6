//! The sections `[redis]` and `[bus]` with the transport `redis`.

use std::sync::Arc;

use serde::{Deserialize, de::DeserializeOwned};

use super::{error::ConfigError, read_beside::read_beside, tree::Section, tree_reader::read};
use crate::{
    adapters::redis::{
        store::{RedisOptions, RedisStore},
        transport::{RedisTransport, RedisTransportOptions},
    },
    bus::EventBus,
    manager::{
        options::{MakeBus, MakeL2},
        redis::store_of,
    },
};

/// Where a Redis is. Exactly one of the first three is set.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Address {
    url: Option<String>,
    cluster: Option<Vec<String>>,
    sentinel: Option<Vec<String>>,
    /// The URL of the master, with `sentinel`.
    master: Option<String>,
}

const ADDRESS: [&str; 4] = ["url", "cluster", "sentinel", "master"];
const BESIDE: [&str; 5] = ["transport", "url", "cluster", "sentinel", "master"];

#[derive(Clone)]
enum Place {
    Server(String),
    Cluster(Vec<String>),
    Sentinel(Vec<String>, String),
}

pub(super) fn l2(section: Section) -> Result<MakeL2, ConfigError> {
    let (place, options) = split::<RedisOptions>(section, &ADDRESS)?;
    let place = place.ok_or_else(|| ConfigError::other(ONE_ADDRESS))?;
    Ok(Arc::new(move || {
        let builder = match place.clone() {
            Place::Server(url) => RedisStore::at(url),
            Place::Cluster(urls) => RedisStore::cluster(urls),
            Place::Sentinel(urls, master) => RedisStore::sentinel(urls, master),
        };
        Ok(store_of(builder.options(options.clone()).build()?))
    }))
}

/// `redis`: the section `[redis]`, whose address the bus has if it names none.
pub(super) fn bus(section: Section, redis: Option<&Section>) -> Result<MakeBus, ConfigError> {
    let (place, options) = split::<RedisTransportOptions>(section, &BESIDE)?;
    let of_l2 = redis.map(|redis| place_of(&mut redis.clone())).transpose();
    let place = match place {
        Some(place) => place,
        // An error of the other section is reported as one of that section.
        None => of_l2.ok().flatten().flatten().ok_or_else(|| {
            ConfigError::other("neither this section nor [redis] says where Redis is: add `url`")
        })?,
    };
    Ok(Arc::new(move || {
        let builder = match place.clone() {
            Place::Server(url) => RedisTransport::at(url),
            Place::Cluster(urls) => RedisTransport::cluster(urls),
            Place::Sentinel(urls, master) => RedisTransport::sentinel(urls, master),
        };
        Ok(EventBus::new(builder.options(options.clone()).build()?))
    }))
}

const ONE_ADDRESS: &str = "write one of `url`, `cluster`, or `sentinel` with `master`";

/// Splits a section into the address, if it has one, and the options.
fn split<T: DeserializeOwned>(
    mut section: Section,
    more: &[&'static str],
) -> Result<(Option<Place>, T), ConfigError> {
    let place = place_of(&mut section)?;
    Ok((place, read_beside(section, more)?))
}

fn place_of(section: &mut Section) -> Result<Option<Place>, ConfigError> {
    let named = ADDRESS.iter().filter_map(|name| section.remove_entry(*name)).collect();
    let Address { url, cluster, sentinel, master } = read(named)?;
    Ok(Some(match (url, cluster, sentinel, master) {
        (None, None, None, None) => return Ok(None),
        (Some(url), None, None, None) => Place::Server(url),
        (None, Some(urls), None, None) => Place::Cluster(urls),
        (None, None, Some(urls), Some(master)) => Place::Sentinel(urls, master),
        _ => return Err(ConfigError::other(ONE_ADDRESS)),
    }))
}
