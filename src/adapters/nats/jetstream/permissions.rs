//! Whether the user may request messages from the consumer and acknowledge them.
//!
//! The client waits for no answer to either, and the server denies a message without permission in
//! an error that belongs to no request. Without acknowledgements the server would deliver the same
//! messages again and again, and after some hundred of them no others. So a subscription begins
//! with a trial of both, to which the server answers.

use std::time::Duration;

use async_nats::StatusCode;
use tokio::try_join;

use crate::{
    adapters::{
        nats::{
            connection::Connection,
            denials::{Denials, is_publish_below},
        },
        task::timeout_named,
    },
    error::BoxError,
};

/// The subjects to which a subscription publishes without an answer.
const REQUESTS: &str = "$JS.API.CONSUMER.MSG.NEXT.";
const ACKS: &str = "$JS.ACK.";
/// The sequence number of the trial acknowledgement. No message has it.
const NO_MESSAGE: u64 = 1 << 52;

/// Asks the server for an answer on the subjects of this consumer.
pub(crate) async fn check_permissions(
    connection: &Connection,
    (stream, consumer): (&str, &str),
    limit: Duration,
) -> Result<(), BoxError> {
    // "In progress", of a message that was not delivered: the server only answers.
    let ack = format!("{ACKS}{stream}.{consumer}.1.{NO_MESSAGE}.{NO_MESSAGE}.0.0");
    let ack = timeout_named(limit, "answer a trial acknowledgement", async {
        answered(connection, &ack, b"+WPI").await
    });
    // Truncated JSON: the server answers with an error, and delivers nothing.
    let request = format!("{REQUESTS}{stream}.{consumer}");
    let request = timeout_named(limit, "answer a trial request for messages", async {
        answered(connection, &request, b"{").await
    });
    let trials = async { try_join!(ack, request) };
    trials.await.map(drop).map_err(|error| {
        format!("{error}; the user needs the permissions that JetStreamTransport lists").into()
    })
}

async fn answered(connection: &Connection, subject: &str, payload: &[u8]) -> Result<(), BoxError> {
    let answer = connection.request(subject, payload.to_vec()).await?;
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(format!("nobody receives {subject}").into());
    }
    Ok(())
}

/// Whether the server has denied one of the subjects, after denial number `after`.
pub(crate) fn are_denied(denials: &Denials, after: u64) -> bool {
    let is_ours = |text: &str| [REQUESTS, ACKS].iter().any(|it| is_publish_below(text, it));
    denials.count() > after && denials.find(after, is_ours).is_some()
}
