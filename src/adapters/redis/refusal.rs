//! Classifies error replies of Redis: the server takes no writes now, or does not offer a command.

use redis::RedisError;

use crate::error::BoxError;

/// Codes of a server that takes no writes now, but can be read: it is full, too few replicas
/// follow it, or it cannot save its data.
const WRITE_REFUSALS: [&str; 3] = ["OOM", "NOREPLICAS", "MISCONF"];

/// Returns true if the server takes no writes now, but can be read.
///
/// About a write in a script, Redis 6.2 has the code in the text: `ERR Error running script (..):
/// @user_script:1: -OOM command not allowed ..`, or `@user_script: 1: -OOM ..` if the script
/// returns the error itself.
pub(crate) fn is_write_refusal(error: &RedisError) -> bool {
    let is_refusal = |code: &str| WRITE_REFUSALS.contains(&code);
    let mut words = error.detail().unwrap_or_default().split(' ');
    error.code().is_some_and(is_refusal)
        || words.any(|word| word.strip_prefix('-').is_some_and(is_refusal))
}

/// Returns true if the server does not offer the command to this user: the command was renamed, a
/// proxy does not know it, or an access rule forbids it.
pub(crate) fn is_command_refusal(error: &RedisError) -> bool {
    // Envoy writes "unsupported command".
    matches!(error.code(), Some("NOPERM" | "ERR" | "unsupported"))
}

/// Returns true if an error of a request about several keys may concern one of them only: a key
/// that the user may not access, or a key of another type. (Redis before version 7 reports any
/// error in a script as `ERR`.) Other errors are those of the server.
pub(crate) fn may_concern_one_key(error: &BoxError) -> bool {
    error.downcast_ref::<RedisError>().is_some_and(|error| {
        matches!(error.code(), Some("NOPERM" | "WRONGTYPE" | "ERR")) && !is_write_refusal(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> RedisError {
        let reply = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        reply.extract_error().unwrap_err()
    }

    #[test]
    fn a_write_refusal_is_recognised_by_its_code_or_by_the_code_in_its_text() {
        for (line, expected) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", true),
            ("NOREPLICAS Not enough good replicas to write.", true),
            ("MISCONF Redis is configured to save RDB snapshots, but it can't persist.", true),
            (
                "ERR Error running script (call to f_5): @user_script:1: @user_script: 1: -OOM \
                 command not allowed when used memory > 'maxmemory'.",
                true,
            ),
            ("@user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.", true),
            ("@user_script: 1: -NOREPLICAS Not enough good replicas to write.", true),
            ("@user_script: 1: -MISCONF Redis is configured to save RDB snapshots.", true),
            ("ERR unknown command 'OOM', with args beginning with: ", false),
            ("ERR syntax error", false),
            ("READONLY You can't write against a read only replica.", false),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", false),
        ] {
            assert_eq!(is_write_refusal(&error(line)), expected, "{line}");
        }
    }

    #[test]
    fn a_command_may_be_unknown_or_forbidden() {
        for (line, expected) in [
            ("ERR unknown command 'INFO', with args beginning with: 'server' ", true),
            ("ERR unknown command `INFO`, with args beginning with: `server`, ", true),
            ("unsupported command 'info'", true),
            ("NOPERM User app has no permissions to run the 'info' command", true),
            ("LOADING Redis is loading the dataset in memory", false),
            ("NOAUTH Authentication required.", false),
        ] {
            assert_eq!(is_command_refusal(&error(line)), expected, "{line}");
        }
    }
}
