//! One connection, of whatever kind, and how commands go over it.

use std::{collections::HashMap, sync::Arc};

use redis::{
    Arg, Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo},
};

use super::endpoint::Given;
use super::{cluster::Node, store::scripts::Script};

#[derive(Clone)]
pub(crate) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
    /// The user's own.
    Given(Arc<dyn Given>),
}

/// What can be said again on another connection.
pub(crate) enum Request<'a> {
    Command(Cmd),
    Pipeline(Pipeline),
    /// A script, and its call by its hash.
    Script(&'a Script, Cmd),
}

impl Connection {
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        read(self.run_raw(command).await?)
    }

    /// An error in the answer is an answer.
    async fn run_raw(&self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::One(one) => one.clone().req_packed_command(command).await,
            Self::Cluster(cluster) => cluster.clone().req_packed_command(command).await,
            Self::Given(given) => given.another().req_packed_command(command).await,
        }
    }

    /// Commands in one round trip; in a Cluster about one key. An error among the answers is an
    /// answer.
    async fn run_all(&self, pipeline: &Pipeline) -> RedisResult<Value> {
        let count = pipeline.len();
        let answers = match self {
            Self::One(one) => one.clone().req_packed_commands(pipeline, 0, count).await?,
            Self::Cluster(cluster) => {
                cluster.clone().req_packed_commands(pipeline, 0, count).await?
            }
            Self::Given(given) => given.another().req_packed_commands(pipeline, 0, count).await?,
        };
        Ok(Value::Array(answers))
    }

    /// Runs a command on one node of a Cluster; elsewhere there is only one.
    pub(crate) async fn run_on<T: FromRedisValue>(
        &self,
        node: Option<&Node>,
        command: &Cmd,
    ) -> RedisResult<T> {
        match (self, node) {
            (Self::Cluster(cluster), Some(Node { host, port })) => {
                let to = SingleNodeRoutingInfo::ByAddress { host: host.clone(), port: *port };
                let to = RoutingInfo::SingleNode(to);
                read(cluster.clone().route_command(command.clone(), to).await?)
            }
            _ => self.run(command).await,
        }
    }

    /// Runs a command about no key on any node.
    pub(crate) async fn run_anywhere<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Cluster(cluster) => {
                let to = RoutingInfo::SingleNode(SingleNodeRoutingInfo::RandomPrimary);
                read(cluster.clone().route_command(command.clone(), to).await?)
            }
            _ => self.run(command).await,
        }
    }

    /// The answers of all masters.
    pub(crate) async fn run_everywhere(&self, command: &Cmd) -> RedisResult<Vec<String>> {
        match self {
            Self::Cluster(cluster) => {
                let to = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let answer = cluster.clone().route_command(command.clone(), to).await?;
                let by_node: HashMap<String, String> = read(answer)?;
                Ok(by_node.into_values().collect())
            }
            _ => Ok(vec![self.run(command).await?]),
        }
    }

    /// Runs a script that the server mostly knows already.
    async fn run_script(&self, script: &Script, call: &Cmd) -> RedisResult<Value> {
        // One among the answers is for who asked for that.
        let answer = match self.run_raw(call).await {
            Ok(error @ Value::ServerError(_)) => error.extract_error(),
            answer => answer,
        };
        match answer {
            // After a restart, a promotion, a flush of its scripts.
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
            answer => answer,
        }
    }

    pub(crate) async fn ask(&self, request: &Request<'_>) -> RedisResult<Value> {
        match request {
            Request::Command(command) => self.run(command).await,
            Request::Pipeline(pipeline) => self.run_all(pipeline).await,
            Request::Script(script, call) => self.run_script(script, call).await,
        }
    }

    /// The same by the last user of this clone, which saves the one that commands need otherwise.
    pub(crate) async fn ask_only(self, request: &Request<'_>) -> RedisResult<Value> {
        match (self, request) {
            (Self::One(mut one), Request::Command(command)) => {
                read(one.req_packed_command(command).await?)
            }
            (Self::One(mut one), Request::Pipeline(pipeline)) => {
                let answers = one.req_packed_commands(pipeline, 0, pipeline.len()).await?;
                Ok(Value::Array(answers))
            }
            // Boxed, as all that is rare here: calls are short of room, not of time for that.
            (connection, request) => Box::pin(connection.ask(request)).await,
        }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

pub(crate) fn read<T: FromRedisValue>(answer: Value) -> RedisResult<T> {
    Ok(T::from_redis_value(answer.extract_error()?)?)
}

/// What an error says about the connection that it came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It may be broken.
    Broken,
    /// It leads to a server that is not, or not yet, what it should be.
    Unfit,
}

pub(crate) fn doubt(error: &RedisError) -> Option<Doubt> {
    if matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "LOADING")) {
        return Some(Doubt::Unfit);
    }
    (error.is_connection_dropped() || error.is_io_error()).then_some(Doubt::Broken)
}
