//! Sends commands, pipelines and scripts over one connection, to a server or to a Cluster.

use std::{collections::HashMap, sync::Arc};

use redis::{
    Arg, Cmd, FromRedisValue, Pipeline, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo},
};

use super::{refusal::is_command_refusal, store::scripts::Script};

#[derive(Clone)]
pub(crate) enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
    External(Arc<dyn ExternalConnection>),
}

/// A connection of the application, whose type only the application knows.
pub(crate) trait ExternalConnection: Send + Sync {
    /// Returns a clone for one command: a command needs exclusive access to its connection.
    fn clone_boxed(&self) -> Box<dyn ConnectionLike + Send>;
}

impl<C: ConnectionLike + Clone + Send + Sync + 'static> ExternalConnection for C {
    fn clone_boxed(&self) -> Box<dyn ConnectionLike + Send> {
        Box::new(self.clone())
    }
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
    fn clone_boxed(&self) -> Box<dyn ConnectionLike + Send> {
        match self {
            Self::Server(server) => Box::new(server.clone()),
            Self::Cluster(cluster) => Box::new(cluster.clone()),
            Self::External(external) => external.clone_boxed(),
        }
    }

    /// Sends one command and decodes the reply.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        decode(self.run_raw(command).await?)
    }

    /// Sends one command. An error reply of the server is returned as `Ok`.
    async fn run_raw(&self, command: &Cmd) -> RedisResult<Value> {
        self.clone_boxed().req_packed_command(command).await
    }

    /// Sends a command to one node of a Cluster. Without a Cluster, sends it to the one server.
    pub(crate) async fn run_on<T: FromRedisValue>(
        &self,
        node: Option<&Node>,
        command: &Cmd,
    ) -> RedisResult<T> {
        let Some(Node { host, port }) = node else { return self.run(command).await };
        let to = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
        self.route(RoutingInfo::SingleNode(to), command).await
    }

    /// Sends a command that has no key to any master.
    pub(crate) async fn run_anywhere<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let to = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
        self.route(to, command).await
    }

    /// Sends a command to all masters and returns their replies.
    pub(crate) async fn run_everywhere(&self, command: &Cmd) -> RedisResult<Vec<String>> {
        if !self.is_cluster() {
            return Ok(vec![self.run(command).await?]);
        }
        let to = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let by_node: HashMap<String, String> = self.route(to, command).await?;
        Ok(by_node.into_values().collect())
    }

    async fn route<T: FromRedisValue>(&self, to: RoutingInfo, command: &Cmd) -> RedisResult<T> {
        let Self::Cluster(cluster) = self else { return self.run(command).await };
        decode(cluster.clone().route_command(command.clone(), to).await?)
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

    /// Sends a request and returns the reply. The commands of a pipeline are sent in one round
    /// trip, and in a Cluster all of them must be about one key. Their error replies are returned
    /// among the others, as `Ok`.
    pub(crate) async fn send(&self, request: &Request<'_>) -> RedisResult<Value> {
        match request {
            Request::Command(command) => self.run(command).await,
            Request::Pipeline(pipeline) => {
                let mut connection = self.clone_boxed();
                let replies = connection.req_packed_commands(pipeline, 0, pipeline.len()).await?;
                Ok(Value::Array(replies))
            }
            Request::Script(script, call) => self.run_script(script, call).await,
        }
    }

    /// Like [`send`](Self::send), but uses this clone instead of making another one.
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

    /// Returns false if a node of a Cluster reports that it serves no keys, as while slots have no
    /// master: it answers commands without a key all the same.
    pub(crate) async fn serves_keys(&self) -> bool {
        if !self.is_cluster() {
            return true;
        }
        let info = redis::cmd("CLUSTER").arg("INFO").to_owned();
        match self.run_everywhere(&info).await {
            Ok(replies) => replies.iter().all(|info| !info.contains("cluster_state:fail")),
            Err(error) => is_command_refusal(&error),
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

/// Returns a field of the text that `INFO` returns, without surrounding whitespace.
pub(crate) fn info_field(info: &str, name: &str) -> Option<String> {
    let mut fields = info.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| *field == name).map(|(_, value)| value.trim().to_owned())
}
