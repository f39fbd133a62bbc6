//! The sections `[redis]` and `[bus]` with the transport `redis`.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, de::DeserializeOwned};

use super::{
    error::ConfigError, read_beside::read_beside, redis_tls, tree::Section, tree_reader::read,
};
use crate::{
    adapters::redis::{
        endpoint::tls::TlsMaterial,
        store::{RedisOptions, RedisStore},
        transport::{RedisTransport, RedisTransportOptions},
    },
    bus::EventBus,
    error::BuildError,
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
    tls: TlsFiles,
}

/// PEM files for `rediss://` addresses, under the names that the other transports have for them.
#[derive(Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
struct TlsFiles {
    ca_file: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
}

const ADDRESS: [&str; 5] = ["url", "cluster", "sentinel", "master", "tls"];
const BESIDE: [&str; 6] = ["transport", "url", "cluster", "sentinel", "master", "tls"];

#[derive(Clone)]
struct Place {
    server: Server,
    tls: TlsFiles,
}

#[derive(Clone)]
enum Server {
    Single(String),
    Cluster(Vec<String>),
    Sentinel(Vec<String>, String),
}

pub(super) fn l2(section: Section) -> Result<MakeL2, ConfigError> {
    let (place, options) = split::<RedisOptions>(section, &ADDRESS)?;
    let place = place.ok_or_else(|| ConfigError::other(ONE_ADDRESS))?;
    Ok(Arc::new(move || {
        let mut builder = match place.server.clone() {
            Server::Single(url) => RedisStore::at(url),
            Server::Cluster(urls) => RedisStore::cluster(urls),
            Server::Sentinel(urls, master) => RedisStore::sentinel(urls, master),
        };
        builder.tls = place.tls.material()?;
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
        let mut builder = match place.server.clone() {
            Server::Single(url) => RedisTransport::at(url),
            Server::Cluster(urls) => RedisTransport::cluster(urls),
            Server::Sentinel(urls, master) => RedisTransport::sentinel(urls, master),
        };
        builder.tls = place.tls.material()?;
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
    let Address { url, cluster, sentinel, master, tls } = read(named)?;
    let server = match (url, cluster, sentinel, master) {
        (None, None, None, None) if tls == TlsFiles::default() => return Ok(None),
        (Some(url), None, None, None) => Server::Single(url),
        (None, Some(urls), None, None) => Server::Cluster(urls),
        (None, None, Some(urls), Some(master)) => Server::Sentinel(urls, master),
        _ => return Err(ConfigError::other(ONE_ADDRESS)),
    };
    if tls != TlsFiles::default() && !server.uses_tls() {
        return Err(ConfigError::other(TLS_WITHOUT_EFFECT).within("tls"));
    }
    Ok(Some(Place { server, tls }))
}

const TLS_WITHOUT_EFFECT: &str = "no address of this section begins with `rediss://` or \
                                  `valkeys://`, so these files would not be used";

impl Server {
    fn uses_tls(&self) -> bool {
        let is_tls = |url: &String| {
            redis::parse_redis_url(url)
                .is_some_and(|url| matches!(url.scheme(), "rediss" | "valkeys"))
        };
        match self {
            Self::Single(url) => is_tls(url),
            Self::Cluster(urls) => urls.iter().any(is_tls),
            Self::Sentinel(urls, master) => is_tls(master) || urls.iter().any(is_tls),
        }
    }
}

impl TlsFiles {
    /// Reads the files.
    fn material(&self) -> Result<TlsMaterial, BuildError> {
        let Self { ca_file, client_cert, client_key } = self;
        let client = match (client_cert, client_key) {
            (Some(certificate), Some(key)) => Some((&**certificate, &**key)),
            (None, None) => None,
            _ => {
                return Err(BuildError::new(
                    "tls",
                    "has only one of client_cert and client_key",
                    "set both or neither",
                ));
            }
        };
        if ca_file.is_none() && client.is_none() {
            return Ok(TlsMaterial::default());
        }
        redis_tls::read(ca_file.as_deref(), client)
    }
}
