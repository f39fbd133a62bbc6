//! The configuration: a TOML file, environment variables over it, and `REDIS_URL`.

use std::{
    error::Error,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use config::{Config, Environment, File, FileFormat};
use lazy_layers_cache::ManagerOptions;
use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Settings {
    pub(crate) listen: SocketAddr,
    pub(crate) database: PathBuf,
    /// The sections `[cache.redis]`, `[cache.bus]`, `[cache.defaults]` and `[cache.caches.<name>]`.
    pub(crate) cache: ManagerOptions,
}

impl Settings {
    /// Reads the file, and variables such as `SERVICE__LISTEN` over it. Two underscores separate
    /// the names of sections and options, which contain single ones. They stand behind the prefix
    /// too, because Kubernetes sets variables such as `SERVICE_PORT` for a Service of that name.
    pub(crate) fn read(file: &Path) -> Result<Self, Box<dyn Error>> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
        let variables = Environment::with_prefix("SERVICE").prefix_separator("__").separator("__");
        Self::from(&text, variables, std::env::var("REDIS_URL").ok())
    }

    pub(crate) fn from(
        file: &str,
        variables: Environment,
        redis: Option<String>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut sources = Config::builder()
            .add_source(File::from_str(file, FileFormat::Toml))
            .add_source(variables);
        if let Some(url) = redis {
            sources = sources
                .set_override("cache.redis.url", url)?
                .set_default("cache.bus.transport", "redis")?;
        }
        Ok(sources.build()?.try_deserialize()?)
    }
}
