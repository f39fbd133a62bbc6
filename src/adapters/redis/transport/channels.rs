//! The names of the channels, and the permissions that a user needs on them.
//!
//! | channel | carries | who subscribes |
//! | --- | --- | --- |
//! | `{channel}` | messages | every instance, also those of the TypeScript package |
//! | `{channel}:beacons` | beacons | every instance of this package |
//! | `{channel}:probe:{random}` | the probes of one subscription | that subscription |

use redis::RedisError;

pub(crate) fn beacons(channel: &str) -> String {
    format!("{channel}:beacons")
}

/// Returns a name that no other subscription has.
pub(crate) fn probe(channel: &str) -> String {
    format!("{channel}:probe:{:016x}", fastrand::u64(..))
}

/// Returns the text of an error reply, and the fix if the user is not allowed to use a channel or a
/// command. `channel` is that of the messages.
pub(crate) fn with_fix(channel: &str, reply: &RedisError) -> String {
    if reply.code() != Some("NOPERM") {
        return reply.to_string();
    }
    let rules = format!("&{channel} &{channel}:* +publish +subscribe");
    format!("{reply}; the fix is: ACL SETUSER <user> {rules}")
}
