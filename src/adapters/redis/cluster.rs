//! What must be known of a Cluster beyond single keys: its nodes, and whether slots are on the
//! move.

use redis::{ErrorKind, RedisError, RedisResult};

use super::connection::Connection;

/// A master's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// Who has which slots, and which are being moved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// In order. Empty where there is no Cluster: the one server there is has no name.
    pub(crate) masters: Vec<Node>,
    slots: Vec<String>,
    pub(crate) is_moving: bool,
}

const SLOTS: u32 = 16_384;

impl Layout {
    /// Fails where a slot has no master that is there.
    pub(crate) async fn of(connection: &Connection) -> RedisResult<Self> {
        if !connection.is_cluster() {
            return Ok(Self { masters: Vec::new(), slots: Vec::new(), is_moving: false });
        }
        let first = Self::seen_by(connection, None).await?;
        // Only the two nodes that a slot moves between know that it is on the move.
        let mut is_moving = first.is_moving;
        for master in &first.masters {
            is_moving |= Self::seen_by(connection, Some(master)).await?.is_moving;
        }
        Ok(Self { is_moving, ..first })
    }

    async fn seen_by(connection: &Connection, node: Option<&Node>) -> RedisResult<Self> {
        let nodes = redis::cmd("CLUSTER").arg("NODES").to_owned();
        let text: String = match node {
            Some(node) => connection.run_on(Some(node), &nodes).await?,
            None => connection.run_anywhere(&nodes).await?,
        };
        let (layout, slots) = Self::parse(&text).ok_or_else(|| {
            RedisError::from((ErrorKind::Parse, "the Cluster's nodes cannot be read"))
        })?;
        if slots != SLOTS {
            // What they hold would be passed over, and be there again with its master.
            return Err((ErrorKind::Client, "some slots of the Cluster have no master").into());
        }
        Ok(layout)
    }

    /// `id host:port@bus[,name] flags master ping pong epoch link slots..`, a line a node. Says how
    /// many slots the masters have that are there: to one node a slot has one master at most.
    fn parse(text: &str) -> Option<(Self, u32)> {
        let mut covered = 0u32;
        let (mut masters, mut slots, mut is_moving) = (Vec::new(), Vec::new(), false);
        for line in text.lines() {
            let mut words = line.split(' ');
            let (id, address, flags) = (words.next()?, words.next()?, words.next()?);
            let mut own: Vec<&str> = words.skip(5).collect();
            is_moving |= own.iter().any(|slot| slot.starts_with('['));
            own.retain(|slot| !slot.starts_with('['));
            let is_dead = flags.split(',').any(|flag| matches!(flag, "fail" | "noaddr"));
            if own.is_empty() || is_dead || !flags.contains("master") {
                continue;
            }
            let (host, port) = address.split('@').next()?.rsplit_once(':')?;
            masters.push(Node { host: host.to_owned(), port: port.parse().ok()? });
            for range in &own {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
                if last < first || last >= SLOTS {
                    return None;
                }
                covered = covered.saturating_add(last - first + 1);
            }
            slots.push(format!("{id} {}", own.join(" ")));
        }
        masters.sort();
        slots.sort();
        Some((Self { masters, slots, is_moving }, covered))
    }

    /// The nodes to walk over, one after the other.
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
    fn masters_are_those_with_slots() {
        let (layout, slots) = Layout::parse(NODES).unwrap();
        let node = |port| Node { host: "127.0.0.1".into(), port };
        assert_eq!(layout.masters, [node(7_001), node(7_002), node(7_005), node(7_006)]);
        assert!(layout.is_moving);
        assert_eq!(slots, SLOTS);
        let later = Layout::parse(&NODES.replace(" [93-<-b2]", "")).unwrap().0;
        assert!(!later.is_moving);
        assert_eq!(later.slots, layout.slots);
    }

    #[test]
    fn the_order_in_which_a_node_names_them_is_no_change() {
        let reversed: Vec<&str> = NODES.lines().rev().collect();
        assert_eq!(Layout::parse(&reversed.join("\n")), Layout::parse(NODES));
    }

    #[test]
    fn slots_that_there_cannot_be_are_refused() {
        for slots in
            ["0-16384", "5-4", "0-4294967295", "4294967295", "0-4294967296", "-1", "0-", ""]
        {
            let line = format!("a 127.0.0.1:1@2 master - 0 0 1 connected {slots} 7");
            assert_eq!(Layout::parse(&line), None, "{slots}");
        }
        let often = " 0-16383".repeat(300_000);
        let line = format!("a 127.0.0.1:1@2 master - 0 0 1 connected{often}");
        assert_ne!(Layout::parse(&line).unwrap().1, SLOTS);
    }

    #[test]
    fn no_text_makes_it_panic() {
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
            if let Some((layout, slots)) = Layout::parse(&String::from_utf8_lossy(&text)) {
                assert!(
                    layout.masters.len() <= text.len() && layout.nodes().len() <= text.len() + 1
                );
                read += usize::from(slots == SLOTS);
            }
        }
        assert!((1_000..49_000).contains(&read), "{read}");
    }

    #[test]
    fn the_slots_of_a_master_that_is_not_there_are_missed() {
        for gone in ["master,fail -", "master,noaddr -"] {
            let nodes = NODES.replace("master,fail? -", gone);
            assert_eq!(Layout::parse(&nodes).unwrap().1, 10_924);
        }
    }
}
