//! With the feature `tracing`: log lines of the transport.

pub(crate) fn warn_of_waiting_messages(queue: &str, waiting: u32) {
    tracing::warn!(
        target: "lazy_layers_cache",
        part = "event_bus",
        queue,
        waiting,
        "many messages have waited in the queue while its instance was absent, and are processed \
         now; bound such queues at the broker: rabbitmqctl set_policy caches '<their names>' \
         --apply-to queues '{{\"expires\":86400000,\"max-length-bytes\":1073741824}}'",
    );
}
