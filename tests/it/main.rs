//! The behaviour of the cache, one file per theme, in one binary so that it links once.
//!
//! Time is tokio's, paused: nothing here sleeps until something has probably happened.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "that is how a test fails"
)]

mod basics;
mod blocking_offload;
mod bus_fuzz;
mod bus_matrix;
mod bus_offload;
mod bus_session;
mod cache_names;
mod close;
mod coalescing;
mod confirmations;
mod cut_off_from_bus;
mod cut_off_from_l2;
mod drops;
mod events;
mod examples;
mod explain;
mod extreme_options;
mod faults;
mod fences;
mod fleet;
mod flights;
mod foreign_changes;
mod freezes;
mod get_or_set_table;
mod globs;
mod guarantees;
mod idle_brokers;
mod idle_fleet;
mod jetstream_permissions;
mod joining;
mod joining_brokers;
mod key_versions;
mod key_versions_bus;
mod layering;
mod leases;
mod lifetimes;
mod load_ends;
mod loader_errors;
mod local_transport;
mod lock;
mod logs;
mod losses;
mod manager;
mod manager_calls;
mod manager_environment;
mod manager_options;
mod manager_redis;
mod manifest;
mod manual;
mod manual_by_hand;
mod manual_figures;
mod manual_names;
mod manual_permissions;
mod metrics_opentelemetry;
mod metrics_prometheus;
mod model;
mod nats_cluster;
mod nats_floods;
mod nats_publishers;
mod nats_refusals;
mod options;
mod outages;
mod outcome_product;
mod panicking_drops;
mod pending_invalidations;
mod prefix_owners;
mod processes;
mod random_calls;
mod real_threads;
mod receivers;
mod redis_batching;
mod redis_copies;
mod redis_evicted;
mod redis_eviction;
mod redis_faults;
mod redis_patterns;
mod redis_prefix;
mod redis_recovery;
mod redis_refusals;
mod redis_sidecar;
mod redis_store;
mod refused_messages;
mod reply_fuzz;
mod round_trips;
mod runbook;
mod runtimes;
mod sentinels;
mod serialized_reports;
mod shared_instance_ids;
mod spans;
mod support;
mod text_fuzz;
mod transport_rules;
mod transports_jetstream;
mod transports_nats;
mod transports_rabbitmq;
mod transports_rabbitmq_floods;
mod transports_rabbitmq_interop;
mod transports_rabbitmq_limits;
mod transports_rabbitmq_probes;
mod transports_redis;
mod transports_tls;
mod two_levels;
mod wire;
mod wire_fuzz;
mod wire_shapes;
mod write_faults;
mod write_reports;
