//! The servers and the network that fail for other tests do fail, and just as they say.

mod network;
mod redis_server;
