//! A Redis Cluster of three masters, whose slots a test can move while clients use them.

use std::time::Duration;

use redis::{Connection, RedisResult, cmd};

use super::{
    process::{free_port, wait_for},
    proxy::Proxy,
    redis::RedisServer,
};

const PATIENCE: Duration = Duration::from_secs(20);
const SLOTS: u16 = 16_384;

pub(crate) struct Cluster {
    nodes: Vec<RedisServer>,
}

impl Cluster {
    /// Starts three masters with a third of the slots each, in order. Returns once all of them
    /// agree.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts nodes with more arguments, as [`RedisServer::start_with`].
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        Self::of([(); 3].map(|()| node(arguments)))
    }

    /// Starts nodes behind proxies, to which all nodes refer clients.
    pub(crate) fn start_behind_proxies() -> (Self, [Proxy; 3]) {
        let mut nodes = [(); 3].map(|()| node(&[]));
        let proxies = nodes.each_mut().map(|(node, _)| {
            let proxy = Proxy::to(node.port());
            // Before version 7 a node that runs cannot announce another port.
            node.restart_with(&["--cluster-announce-port", &proxy.port().to_string()]);
            proxy
        });
        let cluster = Self::of(nodes);
        for node in &cluster.nodes {
            let mut redis = node.connect();
            wait_for("all nodes know the proxies", PATIENCE, || {
                let nodes: String = cmd("CLUSTER").arg("NODES").query(&mut redis).unwrap();
                let knows = |proxy: &Proxy| nodes.contains(&format!("127.0.0.1:{}@", proxy.port()));
                proxies.iter().all(knows).then_some(())
            });
        }
        (cluster, proxies)
    }

    /// Makes a Cluster of nodes, each with the port of its cluster bus.
    fn of(nodes: [(RedisServer, u16); 3]) -> Self {
        let (nodes, bus_ports): (Vec<_>, Vec<_>) = nodes.into_iter().unzip();
        let cluster = Self { nodes };
        let share = SLOTS / 3 + 1;
        for (index, node) in cluster.nodes.iter().enumerate() {
            let first = index as u16 * share;
            let last = (first + share).min(SLOTS) - 1;
            let mut redis = node.connect();
            let slots: Vec<u16> = (first..=last).collect();
            cmd("CLUSTER").arg("ADDSLOTS").arg(slots).exec(&mut redis).unwrap();
            cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(index + 1).exec(&mut redis).unwrap();
        }
        // After all nodes have their epochs: a node that knows others accepts none.
        for node in &cluster.nodes {
            let mut redis = node.connect();
            for (other, bus) in cluster.nodes.iter().zip(&bus_ports) {
                let meet = ["MEET", "127.0.0.1", &other.port().to_string(), &bus.to_string()];
                cmd("CLUSTER").arg(&meet).exec(&mut redis).unwrap();
            }
        }
        cluster.wait_until_agreed();
        cluster
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    pub(crate) fn node(&self, index: usize) -> &RedisServer {
        &self.nodes[index]
    }

    /// Kills a node. Its slots have no master then, and after about a second all nodes refuse to
    /// serve.
    pub(crate) fn kill(&mut self, index: usize) {
        self.nodes[index].kill();
    }

    /// Restarts a node with its slots but without its keys. Returns once all nodes serve again.
    pub(crate) fn restart(&mut self, index: usize) {
        self.nodes[index].restart();
        self.wait_until_agreed();
    }

    /// Adds a replica of a node, as the last node. It waits for [`promote`](Self::promote) when its
    /// master is down. Returns once it has the keys of its master and all nodes know it.
    pub(crate) fn add_replica(&mut self, of: usize) {
        let (replica, bus) = node(&["--cluster-replica-no-failover", "yes"]);
        let mut redis = replica.connect();
        let meet = ["MEET", "127.0.0.1", &replica.port().to_string(), &bus.to_string()];
        let master = id_of(&mut self.nodes[of].connect());
        cmd("CLUSTER").arg(&meet).exec(&mut self.nodes[of].connect()).unwrap();
        self.nodes.push(replica);
        self.wait_until_agreed();
        cmd("CLUSTER").arg("REPLICATE").arg(master).exec(&mut redis).unwrap();
        wait_for("replication", PATIENCE, || {
            let info = self.nodes.last().map(|replica| replica.info("replication"));
            info.is_some_and(|it| it.contains("master_link_status:up")).then_some(())
        });
    }

    /// Makes a replica the master of its slots, whose master is down.
    pub(crate) fn promote(&self, replica: usize) {
        let mut redis = self.nodes[replica].connect();
        cmd("CLUSTER").arg("FAILOVER").arg("TAKEOVER").exec(&mut redis).unwrap();
    }

    /// Returns the slot of a key.
    pub(crate) fn slot_of(&self, key: &str) -> u16 {
        cmd("CLUSTER").arg("KEYSLOT").arg(key).query(&mut self.nodes[0].connect()).unwrap()
    }

    /// Moves a slot and its keys to another node while the Cluster continues to serve.
    pub(crate) fn move_slot(&self, slot: u16, from: usize, to: usize) {
        self.begin_move(slot, from, to);
        self.finish_move(slot, from, to);
    }

    /// Begins to move a slot: the old node redirects requests for keys that it does not have to
    /// the new node (`ASK`). No key has moved yet.
    pub(crate) fn begin_move(&self, slot: u16, from: usize, to: usize) {
        let (mut source, mut target) = (self.nodes[from].connect(), self.nodes[to].connect());
        set_slot(&mut target, slot, "IMPORTING", &id_of(&mut source)).unwrap();
        set_slot(&mut source, slot, "MIGRATING", &id_of(&mut target)).unwrap();
    }

    /// Moves the keys of a slot whose move has begun, and tells all nodes its new owner.
    pub(crate) fn finish_move(&self, slot: u16, from: usize, to: usize) {
        let (mut source, mut target) = (self.nodes[from].connect(), self.nodes[to].connect());
        loop {
            let keys: Vec<Vec<u8>> =
                cmd("CLUSTER").arg("GETKEYSINSLOT").arg(slot).arg(100).query(&mut source).unwrap();
            if keys.is_empty() {
                break;
            }
            let mut migrate = cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(self.nodes[to].port()).arg("").arg(0).arg(5_000);
            migrate.arg("KEYS").arg(keys).exec(&mut source).unwrap();
        }
        // The new owner first, so that the slot has an owner at all times.
        let new = id_of(&mut target);
        set_slot(&mut target, slot, "NODE", &new).unwrap();
        set_slot(&mut source, slot, "NODE", &new).unwrap();
        for (index, node) in self.nodes.iter().enumerate() {
            if index != from && index != to {
                set_slot(&mut node.connect(), slot, "NODE", &new).unwrap();
            }
        }
    }

    /// Waits until all nodes know each other and the owner of each slot.
    fn wait_until_agreed(&self) {
        let all = format!("cluster_known_nodes:{}", self.nodes.len());
        for node in &self.nodes {
            let mut redis = node.connect();
            wait_for("the cluster", PATIENCE, || {
                let info: String = cmd("CLUSTER").arg("INFO").query(&mut redis).unwrap();
                let says = |line: &str| info.lines().any(|said| said == line);
                (says("cluster_state:ok") && says(&all)).then_some(())
            });
        }
    }
}

/// Starts a node that knows no other yet. Returns it and the port of its cluster bus.
fn node(more: &[&str]) -> (RedisServer, u16) {
    let quick = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
    let arguments = [&quick, &["--cluster-announce-ip", "127.0.0.1"][..], more].concat();
    // Before version 7 the port of the bus is fixed.
    if RedisServer::major_version() < 7 {
        let node = RedisServer::start_with(&arguments);
        let bus = node.port() + 10_000;
        return (node, bus);
    }
    let bus = free_port();
    let port = bus.to_string();
    let arguments = [&arguments[..], &["--cluster-port", &port]].concat();
    (RedisServer::start_with(&arguments), bus)
}

fn id_of(redis: &mut Connection) -> String {
    cmd("CLUSTER").arg("MYID").query(redis).unwrap()
}

fn set_slot(redis: &mut Connection, slot: u16, state: &str, node: &str) -> RedisResult<()> {
    cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(state).arg(node).exec(redis)
}
