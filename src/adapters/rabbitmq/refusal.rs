//! Tells a message that the broker would refuse again from any other failure of a publish.

use lapin::{Error, ErrorKind};

use crate::{bus::transport::MessageRefused, error::BoxError};

/// The codes with which the broker closes a channel because of a message.
const CONTENT_TOO_LARGE: u16 = 311;
const ACCESS_REFUSED: u16 = 403;
const PRECONDITION_FAILED: u16 = 406;

/// The error of a publish of `len` bytes to `exchange`.
pub(crate) fn publish_error(error: Error, exchange: &str, len: usize) -> BoxError {
    let ErrorKind::ProtocolError(refusal) = error.kind() else { return error.into() };
    let text = refusal.get_message().as_str();
    let fix = match refusal.get_id() {
        ACCESS_REFUSED => {
            let exchange = if exchange.is_empty() { "amq.default" } else { exchange };
            format!("give the user the permission to write to {exchange}")
        }
        CONTENT_TOO_LARGE | PRECONDITION_FAILED if is_about(text, len) => {
            "raise max_message_size at the broker if larger messages are intended".to_owned()
        }
        _ => return error.into(),
    };
    MessageRefused::new(format!("{text}; {fix}")).into()
}

/// The error of a message that a queue has refused.
pub(crate) fn rejected() -> BoxError {
    let reason = "a queue is full or not available, and rejects messages; its policy `overflow` or \
                  the length of the queue must allow more";
    MessageRefused::new(reason).into()
}

/// Whether the broker has closed the channel because of a message of this length: all messages that
/// are in flight on the channel fail with the same error, which names the length of one of them.
fn is_about(text: &str, len: usize) -> bool {
    let mut numbers = text.split(|digit: char| !digit.is_ascii_digit());
    !text.contains("message size") || numbers.any(|number| number.parse() == Ok(len))
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPSoftError};

    use super::*;

    #[test]
    fn the_error_of_a_closed_channel_is_a_refusal_only_of_the_message_that_caused_it() {
        let text = "message size 70000 is larger than configured max size 65536";
        let is_refused = |code, len| {
            let code = AMQPSoftError::from_id(code).unwrap();
            let error = AMQPError::new(code.into(), text.into());
            publish_error(ErrorKind::ProtocolError(error).into(), "cache", len)
                .is::<MessageRefused>()
        };
        assert!(is_refused(406, 70_000));
        assert!(!is_refused(406, 10));
        assert!(is_refused(403, 10));
        assert!(!is_refused(404, 70_000));
    }
}
