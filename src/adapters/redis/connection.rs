//! Sends commands, pipelines and scripts over one connection, to a server or to a Cluster.

use std::{collections::HashMap, sync::Arc};

use redis::{
    Arg, Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo},
};

use super::{endpoint::external::ExternalConnection, store::scripts::Script};

#[derive(Clone)]
pub(crate) enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
    External(Arc<dyn ExternalConnection>),
}

/// The address of one node of a Cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// A request that can be sent again on another connection.
pub(crate) enum Request<'a> {
    Command(Cmd),
    Pipeline(Pipeline),
    /// A script, and the `EVALSHA` that calls it.
    Script(&'a Script, Cmd),
}

impl Connection {
    /// Sends one command and decodes the reply.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        decode(self.run_raw(command).await?)
    }

    /// Sends one command. An error reply of the server is returned as `Ok`.
    async fn run_raw(&self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Server(server) => server.clone().req_packed_command(command).await,
            Self::Cluster(cluster) => cluster.clone().req_packed_command(command).await,
            Self::External(external) => external.clone_boxed().req_packed_command(command).await,
        }
    }

    /// Sends commands in one round trip; in a Cluster all of them must be about one key. Error
    /// replies of the server are returned among the others, as `Ok`.
    async fn run_all(&self, pipeline: &Pipeline) -> RedisResult<Value> {
        let count = pipeline.len();
        let replies = match self {
            Self::Server(server) => server.clone().req_packed_commands(pipeline, 0, count).await?,
            Self::Cluster(cluster) => {
                cluster.clone().req_packed_commands(pipeline, 0, count).await?
            }
            Self::External(external) => {
                external.clone_boxed().req_packed_commands(pipeline, 0, count).await?
            }
        };
        Ok(Value::Array(replies))
    }

    /// Sends a command to one node of a Cluster. Without a Cluster, sends it to the one server.
    pub(crate) async fn run_on<T: FromRedisValue>(
        &self,
        node: Option<&Node>,
        command: &Cmd,
    ) -> RedisResult<T> {
        let Some(Node { host, port }) = node else { return self.run(command).await };
        self.route(SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port }, command)
            .await
    }

    /// Sends a command that has no key to any master.
    pub(crate) async fn run_anywhere<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        self.route(SingleNodeRoutingInfo::RandomPrimary, command).await
    }

    async fn route<T: FromRedisValue>(
        &self,
        to: SingleNodeRoutingInfo,
        command: &Cmd,
    ) -> RedisResult<T> {
        let Self::Cluster(cluster) = self else { return self.run(command).await };
        let to = RoutingInfo::SingleNode(to);
        decode(cluster.clone().route_command(command.clone(), to).await?)
    }

    /// Sends a command to all masters and returns their replies.
    pub(crate) async fn run_everywhere(&self, command: &Cmd) -> RedisResult<Vec<String>> {
        let Self::Cluster(cluster) = self else { return Ok(vec![self.run(command).await?]) };
        let to = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let reply = cluster.clone().route_command(command.clone(), to).await?;
        let by_node: HashMap<String, String> = decode(reply)?;
        Ok(by_node.into_values().collect())
    }

    /// Calls a script by its hash, and sends its source if the server does not have it: after a
    /// restart, a failover or a `SCRIPT FLUSH`.
    async fn run_script(&self, script: &Script, call: &Cmd) -> RedisResult<Value> {
        // Only an error of the whole script: the caller handles errors among several replies.
        let reply = match self.run_raw(call).await {
            Ok(error @ Value::ServerError(_)) => error.extract_error(),
            reply => reply,
        };
        match reply {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                let mut eval = redis::cmd("EVAL");
                eval.arg(script.source);
                for arg in call.args_iter().skip(2) {
                    if let Arg::Simple(arg) = arg {
                        eval.arg(arg);
                    }
                }
                self.run_raw(&eval).await
            }
            reply => reply,
        }
    }

    /// Sends a request and returns the reply, in which single values may be error replies.
    pub(crate) async fn send(&self, request: &Request<'_>) -> RedisResult<Value> {
        match request {
            Request::Command(command) => self.run(command).await,
            Request::Pipeline(pipeline) => self.run_all(pipeline).await,
            Request::Script(script, call) => self.run_script(script, call).await,
        }
    }

    /// Like [`send`](Self::send), but consumes this clone, which saves the clone that a command
    /// needs otherwise.
    pub(crate) async fn send_owned(self, request: &Request<'_>) -> RedisResult<Value> {
        match (self, request) {
            (Self::Server(mut server), Request::Command(command)) => {
                decode(server.req_packed_command(command).await?)
            }
            (Self::Server(mut server), Request::Pipeline(pipeline)) => {
                let replies = server.req_packed_commands(pipeline, 0, pipeline.len()).await?;
                Ok(Value::Array(replies))
            }
            // Boxed, as all rare paths here: it keeps the futures of callers small.
            (connection, request) => Box::pin(connection.send(request)).await,
        }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

/// Decodes a reply. An error reply of the server becomes an error.
pub(crate) fn decode<T: FromRedisValue>(reply: Value) -> RedisResult<T> {
    Ok(T::from_redis_value(reply.extract_error()?)?)
}

/// A reason to check or to replace the connection that returned an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection may be broken.
    Disconnected,
    /// The server is a replica, lost its master, or still loads its data.
    NotWritable,
}

/// Returns the fault that an error shows. `None` if the error shows nothing about the connection.
pub(crate) fn classify(error: &RedisError) -> Option<Fault> {
    if matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "LOADING")) {
        return Some(Fault::NotWritable);
    }
    (error.is_connection_dropped() || error.is_io_error()).then_some(Fault::Disconnected)
}
