//! Groups of Redis servers: a Cluster whose slots move, a master that Sentinel replaces.

use std::time::Duration;

use redis::{Commands, cmd};

use crate::support::{cluster::Cluster, process::wait_for, sentinel::Sentinel};

#[test]
fn a_moved_slot_is_served_by_its_new_node() {
    let cluster = Cluster::start();
    assert_eq!(cluster.urls().len(), 3);
    // The second of three nodes has the middle third of the slots.
    let key = "{user}:1";
    let slot = cluster.slot_of(key);
    assert_eq!(slot, 5474);
    let (mut old, mut new) = (cluster.node(1).connect(), cluster.node(2).connect());
    let () = old.set(key, "kept").unwrap();
    let refused = new.get::<_, String>(key).unwrap_err();
    assert_eq!(refused.redirect_node().unwrap().1, slot);

    cluster.begin_move(slot, 1, 2);
    assert_eq!(old.get(key), Ok("kept".to_owned()));
    let asked = old.get::<_, String>("{user}:2").unwrap_err();
    assert_eq!(asked.code(), Some("ASK"));
    cluster.finish_move(slot, 1, 2);
    assert_eq!(new.get(key), Ok("kept".to_owned()));
    assert_eq!(old.get::<_, String>(key).unwrap_err().code(), Some("MOVED"));

    cluster.move_slot(slot, 2, 0);
    assert_eq!(cluster.node(0).connect().get(key), Ok("kept".to_owned()));
}

#[test]
fn a_cluster_misses_a_node_that_is_killed() {
    let mut cluster = Cluster::start();
    cluster.kill(1);
    let mut left = cluster.node(0).connect();
    // The first node serves this slot, but a cluster with missing slots serves none.
    wait_for("the other nodes to notice", Duration::from_secs(20), || {
        let refused = left.get::<_, Option<i32>>("b").err()?;
        (refused.code() == Some("CLUSTERDOWN")).then_some(())
    });
    cluster.restart(1);
    assert_eq!(left.get("b"), Ok(None::<i32>));
    let () = cluster.node(1).connect().set("{user}", 1).unwrap();
}

#[test]
fn a_failover_promotes_the_replica() {
    let group = Sentinel::start();
    assert_eq!(group.master_port(), group.first_master().port());
    let mut old = group.first_master().connect();
    let () = old.set("k", 1).unwrap();
    // Waits until the replica has the write of this connection.
    assert_eq!(cmd("WAIT").arg(1).arg(10_000).query(&mut old), Ok(1));
    group.failover();
    assert_eq!(group.master_port(), group.first_replica().port());
    let mut promoted = group.first_replica().connect();
    assert_eq!(promoted.get("k"), Ok(1));
    let () = promoted.set("k", 2).unwrap();
}

#[test]
fn a_dead_master_is_replaced() {
    let mut group = Sentinel::start();
    group.kill_master();
    group.wait_for_promotion();
    let () = group.first_replica().connect().set("k", 1).unwrap();
}
