//! The names of the channels, and what a user must be allowed on them.
//!
//! | channel | carries | who subscribes |
//! | --- | --- | --- |
//! | `{channel}` | messages | every instance, also those of the TypeScript package |
//! | `{channel}:beacons` | beacons | every instance of this package |
//! | `{channel}:probe:{random}` | the probes of one subscription | that subscription |

use redis::RedisError;

use crate::error::BoxError;

pub(crate) fn beacons(channel: &str) -> String {
    format!("{channel}:beacons")
}

/// Returns a name that no other subscription has.
pub(crate) fn probe(channel: &str) -> String {
    format!("{channel}:probe:{:016x}", fastrand::u64(..))
}

/// Adds the fix to an error reply if the user is not allowed to use a channel or a command.
pub(crate) fn with_fix(channel: &str, error: RedisError) -> BoxError {
    if error.code() != Some("NOPERM") {
        return error.into();
    }
    let rules = format!("&{channel} &{channel}:* +publish +subscribe");
    format!("{error}; the fix is: ACL SETUSER <user> {rules}").into()
}
