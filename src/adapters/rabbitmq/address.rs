//! Reads the URL of a broker, with the meaning that amqplib (Node.js) gives it.
//!
//! | part | if it is missing |
//! | --- | --- |
//! | user and password | both: `guest`; one of them: empty |
//! | host, port | `localhost`; 5672, with TLS 5671 |
//! | vhost, also an empty one | `/` |
//! | `heartbeat` (seconds) | 5; zero leaves it to the broker |
//! | `channelMax`, `frameMax` (bytes) | zero, which leaves them to the broker |
//! | `locale` | `en_US` |
//! | `connection_timeout` (milliseconds) | the option `connect_timeout` |
//!
//! The client's parser reads the URL, but not the parameters: it ignores those that it does not
//! know, and names none in its errors.

use std::time::Duration;

use lapin::uri::{AMQPScheme, AMQPUri};

use crate::{adapters::limits::MAX_DURATION, error::BuildError};

#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) uri: AMQPUri,
    pub(crate) locale: String,
    pub(crate) connect_timeout: Option<Duration>,
}

impl Address {
    /// # Errors
    ///
    /// No error contains a part of the URL but the name of a parameter: the rest may be a password.
    pub(crate) fn parse(url: &str, must_be_tls: bool) -> Result<Self, BuildError> {
        let invalid = || BuildError::new("url", "is not a valid AMQP URL", AN_ADDRESS);
        let (_, rest) = url.split_once("://").ok_or_else(invalid)?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        BuildError::refuse_if(url.contains('#'), "url", "contains `#`", "write it as %23")?;
        // Without the parameters: an error of the client's parser names none of them.
        let base = url.split('?').next().unwrap_or_default();
        let mut uri: AMQPUri = base.parse().map_err(|_| invalid())?;
        BuildError::refuse_if(
            must_be_tls && uri.scheme != AMQPScheme::AMQPS,
            "url",
            "is without TLS, but tls is required, or names a certificate",
            "begin it with amqps://",
        )?;
        let authority = place.split('/').next().unwrap_or_default();
        let (user_info, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
        match (user.is_empty(), password.is_empty()) {
            (false, true) => uri.authority.userinfo.password = String::new(),
            (true, false) => uri.authority.userinfo.username = String::new(),
            _ => {}
        }
        // The client takes a bracketed address for no host at all, which would be localhost.
        if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            uri.authority.host = address.to_owned();
        }
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        let mut address = Self { uri, locale: "en_US".to_owned(), connect_timeout: None };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            address.set(name, value)?;
        }
        address.uri.query.heartbeat.get_or_insert(5);
        Ok(address)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), BuildError> {
        let query = &mut self.uri.query;
        let is_valid = match name {
            "heartbeat" => assign(&mut query.heartbeat, value, |_| true),
            // A subscription needs four channels at a time.
            "channelMax" | "channel_max" => {
                assign(&mut query.channel_max, value, |max| max == 0 || max >= 8)
            }
            // The client reserves 32 frames each way. The protocol demands 4 KiB.
            "frameMax" | "frame_max" => {
                let is_valid = |max| max == 0 || (4 << 10..=1 << 20).contains(&max);
                assign(&mut query.frame_max, value, is_valid)
            }
            "connection_timeout" => {
                let mut limit = None;
                let is_valid = |limit| limit > 0 && Duration::from_millis(limit) <= MAX_DURATION;
                let is_valid = assign(&mut limit, value, is_valid);
                self.connect_timeout = limit.map(Duration::from_millis);
                is_valid
            }
            "locale" => {
                value.clone_into(&mut self.locale);
                (1..=255).contains(&value.len())
            }
            "auth_mechanism" => {
                query.auth_mechanism = value.parse().ok();
                query.auth_mechanism.is_some()
            }
            _ => {
                let problem = format!("has the parameter `{name}`, which means nothing here");
                return Err(BuildError::new("url", problem, PARAMETERS));
            }
        };
        let problem = format!("has a value of `{name}` that is not valid");
        BuildError::refuse_if(!is_valid, "url", &problem, PARAMETERS)
    }
}

/// Returns whether the text is a valid number.
fn assign<T: std::str::FromStr + Copy>(
    target: &mut Option<T>,
    text: &str,
    is_valid: impl FnOnce(T) -> bool,
) -> bool {
    *target = text.parse().ok();
    target.is_some_and(is_valid)
}

pub(crate) const AN_ADDRESS: &str =
    "write amqp://user:password@host:5672/vhost, nothing or %2f for the vhost `/`";
const PARAMETERS: &str = "use heartbeat (seconds), channelMax (8 or more), frameMax (4096 to \
                          1048576), locale, connection_timeout (milliseconds, 365 days at most) or \
                          auth_mechanism; certificates are in the option tls";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_means_what_amqplib_takes_it_for() {
        for (url, user, password, host, port, vhost) in [
            ("amqp://guest:guest@host:5672/", "guest", "guest", "host", 5672, "/"),
            ("amqp://host", "guest", "guest", "host", 5672, "/"),
            ("amqps://host/%2F", "guest", "guest", "host", 5671, "/"),
            ("amqp://user:p%40ss@host/shop", "user", "p@ss", "host", 5672, "shop"),
            ("amqp://user@host/%2fshop%2f", "user", "", "host", 5672, "/shop/"),
            ("amqp://:secret@host:1/a/b", "", "secret", "host", 1, "a/b"),
            ("amqp://:@host", "guest", "guest", "host", 5672, "/"),
            ("amqp://[::1]:7/", "guest", "guest", "::1", 7, "/"),
            ("amqp://u:p@[fe80::1]/?heartbeat=1", "u", "p", "fe80::1", 5672, "/"),
            ("amqp://127.0.0.1?locale=en_US", "guest", "guest", "127.0.0.1", 5672, "/"),
        ] {
            let uri = Address::parse(url, false).unwrap().uri;
            let AMQPUri { authority, vhost: read, .. } = uri;
            assert_eq!((authority.userinfo.username.as_str(), url), (user, url));
            assert_eq!((authority.userinfo.password.as_str(), url), (password, url));
            assert_eq!((authority.host.as_str(), authority.port, url), (host, port, url));
            assert_eq!((read.as_str(), url), (vhost, url));
        }
    }

    #[test]
    fn each_parameter_is_used_or_refused_by_name() {
        let parse = |query: &str| Address::parse(&format!("amqp://u:hunter2@host/?{query}"), false);
        let address =
            parse("heartbeat=7&channelMax=64&frameMax=8192&locale=de&connection_timeout=9");
        let Address { uri, locale, connect_timeout } = address.unwrap();
        assert_eq!(uri.query.heartbeat, Some(7));
        assert_eq!((uri.query.channel_max, uri.query.frame_max), (Some(64), Some(8192)));
        assert_eq!((locale.as_str(), connect_timeout), ("de", Some(Duration::from_millis(9))));
        assert_eq!(parse("frame_max=0").unwrap().uri.query.heartbeat, Some(5));
        for (query, name) in [
            ("heartbeat=soon", "heartbeat"),
            ("heartbeat", "heartbeat"),
            ("frameMax=4294967295", "frameMax"),
            ("frameMax=100", "frameMax"),
            ("channelMax=1", "channelMax"),
            ("connection_timeout=0", "connection_timeout"),
            ("locale=", "locale"),
            ("cacertfile=x.pem", "cacertfile"),
            ("heartbeat=1&maxFrameSize=7", "maxFrameSize"),
        ] {
            let error = parse(query).unwrap_err().to_string();
            assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
        }
        for url in ["amqp:host/vhost", "amqp://host/#x", "amqp://host/%2f#", "http://host/", "host"]
        {
            assert!(Address::parse(url, false).is_err(), "{url}");
        }
    }
}
