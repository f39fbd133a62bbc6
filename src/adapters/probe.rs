//! Asks a broker at intervals whether it still answers.

use std::time::Duration;

use tokio::time::{sleep, timeout};

/// Runs `probe` every `heartbeat`. Returns when a probe fails, or is not answered within one and a
/// half heartbeats.
pub(crate) async fn probe_every<F, T, E>(heartbeat: Duration, mut probe: impl FnMut() -> F)
where
    F: Future<Output = Result<T, E>>,
{
    loop {
        sleep(heartbeat).await;
        if !matches!(timeout(heartbeat.mul_f32(1.5), probe()).await, Ok(Ok(_))) {
            return;
        }
    }
}
