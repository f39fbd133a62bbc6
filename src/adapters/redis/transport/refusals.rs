//! Finds the messages that the server would refuse again.
//!
//! | the server | what it does | how it is found |
//! | --- | --- | --- |
//! | forbids the channel or the command (ACL) | replies `NOPERM` | the reply |
//! | does not know `PUBLISH` (renamed, a proxy) | replies `ERR unknown command` | the reply |
//! | limits the length of an argument (`proto-max-bulk-len`) | replies, and closes the connection | the reply, unless the end of the connection overtakes it; else as below |
//! | limits the memory of a client (`client-query-buffer-limit`) | closes the connection without a reply | `CONFIG GET`, if the user may; else as below |
//! | limits the memory of all clients (`maxmemory-clients`), or is a proxy with limits | closes the connection without a reply | twice in a row, a connection breaks while a large message is sent |

use parking_lot::Mutex;
use redis::RedisError;

use super::channels;
use crate::{bus::transport::MessageRefused, error::BoxError};

/// The options of the server that limit the size of one message.
pub(crate) const SIZE_LIMITS: [&str; 2] = ["proto-max-bulk-len", "client-query-buffer-limit"];

/// Messages below this length, in bytes, are below every limit that closes connections.
const MIN_LARGE: usize = 64 << 10;

/// What [`Refusals::begin`] returns: how many connections had broken when a publish began.
#[derive(Clone, Copy)]
pub(crate) struct Breaks(u64);

#[derive(Default)]
pub(crate) struct Refusals(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    breaks: u64,
    /// The length of the last message whose connection broke, until one as long is published.
    broken_at: Option<usize>,
}

impl Refusals {
    /// Called before a message is sent over a connection that is open.
    pub(crate) fn begin(&self) -> Breaks {
        Breaks(self.0.lock().breaks)
    }

    /// Turns the error into a [`MessageRefused`] if the server would refuse the message again.
    pub(crate) fn check(
        &self,
        before: Breaks,
        (channel, len): (&str, usize),
        sent: Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        let error = match sent {
            Ok(()) => {
                if len >= MIN_LARGE {
                    self.on_published(len);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        let Some(reply) = error.downcast_ref::<RedisError>() else { return Err(error) };
        if let Some(reason) = refusal(channel, len, reply) {
            return Err(MessageRefused::new(reason).into());
        }
        // mutant unanswered-refusal: if false
        if is_large_and_broken(len, &error) && self.is_second_break(before, len) {
            let reason = format!(
                "the connection broke ({reply}) each time a message of {len} bytes was sent; the \
                 fix is probably a larger client-query-buffer-limit or maxmemory-clients"
            );
            return Err(MessageRefused::new(reason).into());
        }
        Err(error)
    }

    fn on_published(&self, len: usize) {
        self.0.lock().broken_at.take_if(|broken_at| *broken_at <= len);
    }

    /// Returns whether a connection had broken before, while a message was sent that was not longer
    /// than this one. A connection that breaks during several publishes counts once.
    fn is_second_break(&self, Breaks(before): Breaks, len: usize) -> bool {
        let mut inner = self.0.lock();
        if inner.breaks != before {
            return false;
        }
        inner.breaks += 1;
        let is_second = inner.broken_at.is_some_and(|broken_at| broken_at <= len);
        inner.broken_at = Some(inner.broken_at.map_or(len, |broken_at| broken_at.min(len)));
        is_second
    }
}

/// Returns true if a connection broke while a large message was sent.
pub(crate) fn is_large_and_broken(len: usize, error: &BoxError) -> bool {
    let broke =
        |error: &RedisError| error.is_connection_dropped() && !error.is_connection_refusal();
    len >= MIN_LARGE && error.downcast_ref().is_some_and(broke)
}

/// Returns the reason and the fix if the reply says that the server would refuse the message again.
fn refusal(channel: &str, len: usize, reply: &RedisError) -> Option<String> {
    let detail = reply.detail().unwrap_or_default();
    match reply.code()? {
        "NOPERM" => Some(channels::with_fix(channel, reply)),
        "ERR" if detail.starts_with("unknown command") => Some(format!(
            "{reply}; the fix is a server or proxy that offers PUBLISH under this name"
        )),
        "ERR" if is_size_refusal(detail) => {
            Some(format!("{reply}, of {len} bytes; the fix is a larger proto-max-bulk-len"))
        }
        _ => None,
    }
}

/// Returns true for the detail of an error that is about the size of a request: `Protocol error:
/// invalid bulk length` of Redis, `max request size exceeded` of Upstash.
fn is_size_refusal(detail: &str) -> bool {
    detail.starts_with("Protocol error") || detail.starts_with("max request size exceeded")
}

/// Returns true if the server closes the connection after this reply.
pub(crate) fn closes_connection(reply: &RedisError) -> bool {
    reply.detail().is_some_and(is_size_refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> Result<(), BoxError> {
        Err(RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).into())
    }

    /// Publishes once, and returns whether the message was refused.
    fn is_refused(refusals: &Refusals, len: usize, sent: Result<(), BoxError>) -> bool {
        let checked = refusals.check(refusals.begin(), ("c", len), sent);
        checked.is_err_and(|error| error.is::<MessageRefused>())
    }

    #[test]
    fn a_large_message_that_breaks_two_connections_in_a_row_is_refused() {
        let refusals = Refusals::default();
        let [small, large, larger] = [1_000, 100_000, 200_000];
        assert!((0..5).all(|_| !is_refused(&refusals, small, broken())), "not its size");
        assert!(!is_refused(&refusals, large, broken()));
        assert!(!is_refused(&refusals, small, Ok(())), "and no sign that large ones pass");
        assert!(is_refused(&refusals, larger, broken()));
        assert!(is_refused(&refusals, large, broken()));
        assert!(!is_refused(&refusals, large, Ok(())));
        assert!(!is_refused(&refusals, large, broken()), "the first one again");
    }

    #[test]
    fn one_break_during_several_publishes_and_other_errors_refuse_nothing() {
        let refusals = Refusals::default();
        let begun = [refusals.begin(), refusals.begin()];
        for before in begun {
            let checked = refusals.check(before, ("c", 100_000), broken());
            assert!(!checked.unwrap_err().is::<MessageRefused>());
        }
        for error in ["LOADING Redis is loading", "ERR max number of clients reached", "OOM no"] {
            let reply = redis::parse_redis_value(format!("-{error}\r\n").as_bytes()).unwrap();
            let error = reply.extract_error().unwrap_err();
            assert!(!is_refused(&Refusals::default(), 100_000, Err(error.into())));
        }
        assert!(!is_refused(&refusals, 100_000, Err("took longer than 5s to answer".into())));
    }
}
