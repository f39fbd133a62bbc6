//! The servers and the network that fail for other tests do fail, and just as they say.

mod brokers;
mod children;
mod network;
mod redis_groups;
mod redis_server;
