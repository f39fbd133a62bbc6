//! Reads the slot map of a Cluster: its masters, and whether slots are being moved.

use std::collections::BTreeMap;

use redis::{ErrorKind, RedisResult};

use super::{
    connection::{Connection, Node},
    refusal::is_command_refusal,
};

/// The slots of each master.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SlotMap {
    /// The masters that have slots, sorted. Empty without a Cluster.
    pub(crate) masters: Vec<Node>,
    /// The slots of each master, by its id.
    slots: BTreeMap<String, String>,
    /// True if a slot is being moved from one master to another.
    pub(crate) is_moving: bool,
}

const SLOTS: u32 = 16_384;

impl SlotMap {
    /// Asks the nodes. Fails if a slot has no master that is up: a scan would skip the keys of
    /// that master, and they would be back together with it.
    pub(crate) async fn read(connection: &Connection) -> RedisResult<Self> {
        if !connection.is_cluster() {
            return Ok(Self { masters: Vec::new(), slots: BTreeMap::new(), is_moving: false });
        }
        let nodes = redis::cmd("CLUSTER").arg("NODES").to_owned();
        let first = Self::parse_whole(&connection.run_anywhere::<String>(&nodes).await?)?;
        // Only the two nodes between which a slot is moved know about the move.
        let mut is_moving = first.is_moving;
        for master in &first.masters {
            let text: String = connection.run_on(Some(master), &nodes).await?;
            is_moving |= Self::parse_whole(&text)?.is_moving;
        }
        Ok(Self { is_moving, ..first })
    }

    /// Returns the ids of the masters that are up and have slots, as one node knows them. Empty
    /// without a Cluster, or if the user may not ask.
    pub(crate) async fn master_ids(connection: &Connection) -> RedisResult<Vec<String>> {
        if !connection.is_cluster() {
            return Ok(Vec::new());
        }
        let nodes = redis::cmd("CLUSTER").arg("NODES").to_owned();
        let text: String = match connection.run_anywhere(&nodes).await {
            Err(error) if is_command_refusal(&error) => return Ok(Vec::new()),
            text => text?,
        };
        let slots = Self::parse(&text).map(|(map, _)| map.slots).unwrap_or_default();
        Ok(slots.into_keys().collect())
    }

    fn parse_whole(text: &str) -> RedisResult<Self> {
        match Self::parse(text) {
            Some((map, SLOTS)) => Ok(map),
            Some(_) => Err((ErrorKind::Client, "some slots of the Cluster have no master").into()),
            None => Err((ErrorKind::Parse, "the Cluster's nodes cannot be read").into()),
        }
    }

    /// Parses the reply to `CLUSTER NODES`, which has one line per node:
    /// `id host:port@bus[,name] flags master ping pong epoch link slots..`.
    ///
    /// Also returns how many slots have a master that is up: to one node a slot has one master at
    /// most, so the sum of their slots is 16,384 only if every slot has one.
    fn parse(text: &str) -> Option<(Self, u32)> {
        let mut covered = 0u32;
        let (mut masters, mut slots, mut is_moving) = (Vec::new(), BTreeMap::new(), false);
        for line in text.lines() {
            let mut words = line.split(' ');
            let (id, address, flags) = (words.next()?, words.next()?, words.next()?);
            let mut ranges: Vec<&str> = words.skip(5).collect();
            is_moving |= ranges.iter().any(|slot| slot.starts_with('['));
            ranges.retain(|slot| !slot.starts_with('['));
            let is_down = flags.split(',').any(|flag| matches!(flag, "fail" | "noaddr"));
            if ranges.is_empty() || is_down || !flags.contains("master") {
                continue;
            }
            let (host, port) = address.split('@').next()?.rsplit_once(':')?;
            masters.push(Node { host: host.to_owned(), port: port.parse().ok()? });
            for range in &ranges {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
                if last < first || last >= SLOTS {
                    return None;
                }
                covered = covered.saturating_add(last - first + 1);
            }
            slots.insert(id.to_owned(), ranges.join(" "));
        }
        masters.sort();
        Some((Self { masters, slots, is_moving }, covered))
    }

    /// Returns the nodes to scan, one after the other: each master, or without a Cluster `None`
    /// for the one server.
    pub(crate) fn nodes(&self) -> Vec<Option<&Node>> {
        if self.masters.is_empty() {
            return vec![None];
        }
        self.masters.iter().map(Some).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "\
a1 127.0.0.1:7002@17002 myself,master - 0 0 1 connected 0-5460 [93-<-b2]
b2 127.0.0.1:7001@17001,name master - 0 0 2 connected 5461-10922
c3 ::1:7003@17003 master - 0 0 3 connected
d4 127.0.0.1:7004@17004 slave a1 0 0 1 connected
e5 127.0.0.1:7005@17005 master,fail? - 0 0 3 connected 10923 10925-16383
f6 127.0.0.1:7006@17006 master - 0 0 4 connected 10924
";

    #[test]
    fn only_nodes_with_slots_are_masters() {
        let (map, slots) = SlotMap::parse(NODES).unwrap();
        let node = |port| Node { host: "127.0.0.1".into(), port };
        assert_eq!(map.masters, [node(7_001), node(7_002), node(7_005), node(7_006)]);
        assert!(map.is_moving);
        assert_eq!(slots, SLOTS);
        let later = SlotMap::parse(&NODES.replace(" [93-<-b2]", "")).unwrap().0;
        assert!(!later.is_moving);
        assert_eq!(later.slots, map.slots);
    }

    #[test]
    fn the_order_of_the_lines_does_not_matter() {
        let reversed: Vec<&str> = NODES.lines().rev().collect();
        assert_eq!(SlotMap::parse(&reversed.join("\n")), SlotMap::parse(NODES));
    }

    #[test]
    fn invalid_slot_ranges_are_refused() {
        for slots in
            ["0-16384", "5-4", "0-4294967295", "4294967295", "0-4294967296", "-1", "0-", ""]
        {
            let line = format!("a 127.0.0.1:1@2 master - 0 0 1 connected {slots} 7");
            assert_eq!(SlotMap::parse(&line), None, "{slots}");
        }
        let repeated = " 0-16383".repeat(300_000);
        let line = format!("a 127.0.0.1:1@2 master - 0 0 1 connected{repeated}");
        assert_ne!(SlotMap::parse(&line).unwrap().1, SLOTS);
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut read = 0;
        for _ in 0..50_000 {
            let mut text = NODES.as_bytes().to_vec();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..text.len());
                match random.u8(..5) {
                    0 => text.truncate(at.max(1)),
                    1 => text[at] = random.u8(..),
                    2 => drop(text.splice(at..at, *b"99999999999")),
                    3 => text[at] = random.choice(*b" -:@\n[,0").unwrap(),
                    _ => drop(text.remove(at)),
                }
                if text.is_empty() {
                    break;
                }
            }
            if let Some((map, slots)) = SlotMap::parse(&String::from_utf8_lossy(&text)) {
                assert!(map.masters.len() <= text.len() && map.nodes().len() <= text.len() + 1);
                read += usize::from(slots == SLOTS);
            }
        }
        assert!((1_000..49_000).contains(&read), "{read}");
    }

    #[test]
    fn slots_of_a_master_that_is_down_do_not_count() {
        for down in ["master,fail -", "master,noaddr -"] {
            let nodes = NODES.replace("master,fail? -", down);
            assert_eq!(SlotMap::parse(&nodes).unwrap().1, 10_924);
        }
    }
}
