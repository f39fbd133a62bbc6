//! A master, its replica, and a sentinel that promotes the replica when the master is down.

use std::{collections::HashMap, time::Duration};

use redis::{Connection, cmd};
use tempfile::TempDir;

use super::{
    process::{Process, free_port, own_dir, wait_for},
    redis::{RedisServer, field, program},
};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Sentinel {
    master: RedisServer,
    replica: RedisServer,
    _process: Process,
    port: u16,
    _dir: TempDir,
}

impl Sentinel {
    /// The name by which clients ask for the master.
    pub(crate) const MASTER: &str = "main";

    /// Starts all three. Returns once the replica follows and the sentinel knows it.
    pub(crate) fn start() -> Self {
        let prompt = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        let master = RedisServer::start_with(&prompt);
        let follow = ["--replicaof", "127.0.0.1", &master.port().to_string()];
        let replica = RedisServer::start_with(&[&prompt[..], &follow[..]].concat());
        wait_for("replication", PATIENCE, || in_step(&replica).then_some(()));

        let (dir, port) = (own_dir(), free_port());
        let config = dir.path().join("sentinel.conf");
        let (name, master_port, home) = (Self::MASTER, master.port(), dir.path().display());
        let text = format!(
            "bind 127.0.0.1\nport {port}\ndir {home}\n\
             sentinel monitor {name} 127.0.0.1 {master_port} 1\n\
             sentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 5000\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = program();
        let process = Process::start(command.arg(config).arg("--sentinel"), "redis-server");
        let sentinel = Self { master, replica, _process: process, port, _dir: dir };
        wait_for("the sentinel", PATIENCE, || sentinel.knows_the_replica().then_some(()));
        sentinel
    }

    /// Returns the URL of the sentinel.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(crate) fn first_master(&self) -> &RedisServer {
        &self.master
    }

    pub(crate) fn first_replica(&self) -> &RedisServer {
        &self.replica
    }

    /// Returns the port of the server that the sentinel names as the master.
    pub(crate) fn master_port(&self) -> u16 {
        let name = Self::MASTER;
        let address: (String, u16) = cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(name)
            .query(&mut self.ask())
            .unwrap();
        address.1
    }

    /// Promotes the replica although the master is up. Returns once it is promoted; the old master
    /// follows it then, or soon afterwards.
    pub(crate) fn failover(&self) {
        cmd("SENTINEL").arg("FAILOVER").arg(Self::MASTER).exec(&mut self.ask()).unwrap();
        self.wait_for_promotion();
    }

    /// Kills the master. The sentinel has yet to notice.
    pub(crate) fn kill_master(&mut self) {
        self.master.kill();
    }

    /// Waits until the replica is the master and the sentinel names it.
    pub(crate) fn wait_for_promotion(&self) {
        wait_for("a promotion", PATIENCE, || {
            let promoted = field(&self.replica.info("replication"), "role") == Some("master");
            (promoted && self.master_port() == self.replica.port()).then_some(())
        });
    }

    /// Returns true if the sentinel would promote the replica.
    fn knows_the_replica(&self) -> bool {
        let Ok(mut redis) = self.try_ask() else { return false };
        let replicas: Vec<HashMap<String, String>> =
            cmd("SENTINEL").arg("REPLICAS").arg(Self::MASTER).query(&mut redis).unwrap();
        replicas
            .iter()
            .any(|replica| replica["flags"] == "slave" && replica["master-link-status"] == "ok")
    }

    fn ask(&self) -> Connection {
        self.try_ask().expect("the sentinel answers")
    }

    fn try_ask(&self) -> redis::RedisResult<Connection> {
        redis::Client::open(self.url())?.get_connection_with_timeout(PATIENCE)
    }
}

fn in_step(replica: &RedisServer) -> bool {
    field(&replica.info("replication"), "master_link_status") == Some("up")
}
