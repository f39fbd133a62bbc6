//! Reads what Redis keeps of a key beside its value, for `explain`, and changes nothing.

use std::time::Duration;

use redis::{Pipeline, Value};

use super::{
    copy_head::stale_left,
    keyspace::Keys,
    scripts::{COPY_HEAD, EXCLUSIVE},
    send::{RequestSender, error_code},
};
use crate::{
    adapters::redis::connection::Request,
    error::BoxError,
    l2::{HeldLock, Inspection, OutstandingLease},
};

/// The content of the key of a lease that is a negative entry.
const NEGATIVE: &[u8] = b"0";

/// Start of the content of a lock that its owner has released.
const RELEASED: &[u8] = b"=";

/// Maximum bytes that are read of a lease and of the owner of a lock.
const MAX_TEXT: usize = 1_024;

/// Reads the sidecar of a key and the lock of the key `lock`, at the same time.
///
/// Three requests, because the lock is in another slot of a Cluster than the value.
pub(crate) async fn inspect(
    sender: &RequestSender,
    key: &str,
    lock: &str,
) -> Result<Inspection, BoxError> {
    let context = &sender.context;
    let (Keys { lease, copy, .. }, lock) = (context.keys.of(key), context.keys.lock(lock));
    let (lease, copy, lock) = tokio::try_join!(
        read(sender, &lease, MAX_TEXT),
        read(sender, &copy, COPY_HEAD),
        read(sender, &lock, MAX_TEXT),
    )?;
    let mut inspection = Inspection::default();
    if let Some((token, valid_for)) = lease {
        if token == NEGATIVE {
            inspection.missing_for = Some(valid_for);
        } else {
            let is_write = token.starts_with(EXCLUSIVE.as_bytes());
            inspection.lease = Some(OutstandingLease { is_write, valid_for });
        }
    }
    let max = context.options.max_payload_bytes;
    inspection.stale_for = copy.and_then(|(head, left)| stale_left(&head, left, max));
    let lock = lock.filter(|(owner, _)| !owner.starts_with(RELEASED));
    inspection.lock = lock.map(|(owner, valid_for)| {
        let owner = String::from_utf8_lossy(&owner).into_owned();
        HeldLock { owner, valid_for }
    });
    Ok(inspection)
}

/// Reads at most `max` bytes of a text, and the rest of its time. `None`: the name is missing, has
/// no end, or is no text, so that it is none of the cache.
async fn read(
    sender: &RequestSender,
    name: &str,
    max: usize,
) -> Result<Option<(Vec<u8>, Duration)>, BoxError> {
    let mut reads = Pipeline::with_capacity(2);
    reads.cmd("GETRANGE").arg(name).arg(0).arg(max - 1).cmd("PTTL").arg(name);
    let reply = sender.send_with_retry(Request::Pipeline(reads), &mut false).await?;
    let replies = if let Value::Array(replies) = reply { replies } else { Vec::new() };
    let [text, left] = <[Value; 2]>::try_from(replies)
        .map_err(|_| BoxError::from("a reply of Redis is missing"))?;
    let text: Vec<u8> = match sender.decode(text) {
        Err(error) if error_code(&error) == Some("WRONGTYPE") => return Ok(None),
        text => text?,
    };
    let left: i64 = sender.decode(left)?;
    let left = u64::try_from(left).ok().map(Duration::from_millis);
    Ok(left.filter(|_| !text.is_empty()).map(|left| (text, left)))
}
