//! Reads the role of a server: a replica has the data its master had a moment ago, deletes missing,
//! and forwards no message to the subscribers of its master.

use redis::{FromRedisValue, ParsingError, Value, aio::ConnectionLike};

use crate::error::BoxError;

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

/// Refuses a replica. Returns whether the server tells its role: the user may not be allowed to ask
/// it, or the server may not know the question.
pub(crate) async fn refuse_replica(connection: &mut impl ConnectionLike) -> Result<bool, BoxError> {
    let role = redis::cmd("ROLE").query_async(connection).await;
    match role.map(Role::from_redis_value) {
        Ok(Ok(Role::Replica)) => Err("the server is a replica".into()),
        Ok(_) => Ok(true),
        Err(error) if error.code().is_some() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
