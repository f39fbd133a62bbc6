//! The servers and the proxy that other tests use to inject faults behave as documented.

mod brokers;
mod children;
mod network;
mod redis_groups;
mod redis_server;
