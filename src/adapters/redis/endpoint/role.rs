//! Reads the role of a server: a replica has the data its master had a moment ago, deletes missing,
//! and forwards no message to the subscribers of its master.

use redis::{FromRedisValue, ParsingError, Value};

pub(crate) enum Role {
    Master,
    Replica,
    /// A sentinel, or a role that Redis does not document.
    Other,
}

impl FromRedisValue for Role {
    /// Decodes the reply to `ROLE`, an array that begins with the role.
    fn from_redis_value(reply: Value) -> Result<Self, ParsingError> {
        let parts = Vec::<Value>::from_redis_value(reply)?;
        Ok(match parts.first() {
            Some(Value::BulkString(role)) if role == b"master" => Self::Master,
            Some(Value::BulkString(role)) if role == b"slave" => Self::Replica,
            _ => Self::Other,
        })
    }
}
