//! Detects restarts and failovers by the run id of the server, after which data may be old.
//!
//! A server that was restarted, or was promoted from a replica, may have lost deletes that it had
//! confirmed, and hold the deleted values again. Redis gives each of its processes a new run id. If
//! one run id disappears and another appears, everything under the prefix is removed before any of
//! it is served. The run id whose data is known to be good is stored in Redis itself: one instance
//! clears for all instances, and an instance that has just started sees an earlier restart too.
//!
//! A server that evicts keys may evict the stored run id. So each instance stores it again at each
//! check; and where such a server has none for an instance that has just started, it is as if the
//! server had restarted.
//!
//! A server may not offer `INFO` or `ROLE`: they were renamed, a proxy does not know them, or an
//! access rule forbids them. It is used all the same, and a restart of it is not noticed.

use std::{collections::BTreeSet, sync::Arc};

use redis::{RedisResult, Value};

use super::{
    cluster::SlotMap,
    connection::{Connection, Request, decode, info_field},
    endpoint::role::Role,
    eviction::Eviction,
    refusal::{is_command_refusal, is_write_refusal},
    store::context::StoreContext,
};
use crate::error::BoxError;

/// The run ids of one server, or of all masters of a Cluster.
#[derive(Default, Clone)]
pub(crate) struct RunIds {
    /// Run ids whose data may be served.
    trusted: BTreeSet<String>,
    /// Run ids that answered last. Empty if the servers do not offer `INFO`.
    current: BTreeSet<String>,
    /// Run ids that were trusted until others took their place. The latest is the last.
    replaced: Vec<String>,
    /// The current run id had been replaced: it is that of a server to which this process has
    /// returned.
    has_returned: bool,
    /// Ids of the masters of a Cluster when the connection was made.
    masters: Vec<String>,
    /// The Cluster has a master that it had not when the connection was made, or the one before.
    has_new_master: bool,
}

/// Maximum number of run ids that were replaced. A process that has ended does not return, and one
/// address has few servers.
const MAX_REPLACED: usize = 16;

impl RunIds {
    /// Asks the servers for their run ids, and so also proves that they answer: a refusal is an
    /// answer too. Fails if a server is too old, or if a single server is a replica; in a Cluster
    /// the client takes care of that.
    async fn refresh(&mut self, connection: &Connection) -> Result<(), BoxError> {
        let info = redis::cmd("INFO").arg("server").to_owned();
        let replies = match connection.run_everywhere(&info).await {
            Err(error) if is_command_refusal(&error) => Vec::new(),
            replies => replies?,
        };
        replies.iter().try_for_each(|info| check_version(info))?;
        self.observe(replies.iter().filter_map(|it| info_field(it, "run_id")).collect());
        if connection.is_cluster() {
            return Ok(());
        }
        match connection.run(&redis::cmd("ROLE")).await {
            Ok(Role::Replica) => Err("the server is a replica".into()),
            Err(error) if !is_command_refusal(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// As [`refresh`](Self::refresh), on a new connection.
    pub(crate) async fn begin(&mut self, connection: &Connection) -> Result<(), BoxError> {
        self.refresh(connection).await?;
        let masters = SlotMap::master_ids(connection).await?;
        self.has_new_master |= self.is_any_new(&masters);
        self.masters = masters;
        Ok(())
    }

    /// As [`refresh`](Self::refresh), and looks for new masters of a Cluster.
    ///
    /// Then reads the run id that is stored under each verified prefix, because most policies first
    /// evict a key that no client reads, and stores it again if it is missing.
    pub(crate) async fn check(
        &mut self,
        connection: &Connection,
        prefixes: &[Arc<StoreContext>],
    ) -> Result<(), BoxError> {
        self.refresh(connection).await?;
        let masters = SlotMap::master_ids(connection).await?;
        self.has_new_master |= self.is_any_new(&masters);
        let is_known = !connection.is_cluster() && !self.have_changed();
        let Some(current) = self.current.first().filter(|_| is_known) else { return Ok(()) };
        let is_verified = |context: &&Arc<StoreContext>| context.prefix_state.is_verified();
        let verified = prefixes.iter().filter(is_verified).map(|context| &**context);
        let verified: Vec<&StoreContext> = verified.collect();
        let stored = stored_run_ids(connection, &verified).await.unwrap_or_default();
        for (context, stored) in verified.iter().zip(stored) {
            // mutant kept-run-id: if false
            if stored == Value::Nil {
                // The server may take no writes now: the next check tries again.
                let run = context.keys.run();
                let set = redis::cmd("SET").arg(run).arg(current).arg("NX").to_owned();
                let _ = connection.run::<Value>(&set).await;
            }
        }
        Ok(())
    }

    /// Records the run ids that answered. A new node in a growing Cluster is safe, since it cannot
    /// hold data from before: it becomes trusted, so that its later disappearance is noticed.
    fn observe(&mut self, current: BTreeSet<String>) {
        if self.trusted.is_subset(&current) {
            self.trusted.clone_from(&current);
        }
        self.current = current;
    }

    fn is_any_new(&self, masters: &[String]) -> bool {
        masters.iter().any(|id| !self.masters.contains(id))
    }

    /// Returns true if a trusted run id disappeared and another one, or another master of a
    /// Cluster, appeared: its client may not have asked that master yet.
    pub(crate) fn have_changed(&self) -> bool {
        // mutant new-master: s/self.has_new_master ||//
        let is_another_here = self.has_new_master || !self.current.is_subset(&self.trusted);
        is_another_here && !self.trusted.is_subset(&self.current)
    }

    /// Returns true if the connection may send commands to a replica in place of a master that is
    /// away: the client does not notice that the replica was promoted.
    pub(crate) fn have_new_master(&self) -> bool {
        self.has_new_master
    }

    /// Trusts the current run ids, in place of those that they have replaced. Each prefix in use
    /// has to be verified then.
    ///
    /// Changes nothing if run ids are merely missing: a master of a Cluster that is away may come
    /// back, or its replica in its place, without the last deletes.
    pub(crate) fn trust_current(&mut self) {
        let have_changed = self.have_changed();
        self.has_new_master = false;
        // mutant away-master: if false
        if !have_changed {
            return;
        }
        self.has_returned = self.current.iter().any(|id| self.replaced.contains(id));
        self.replaced.retain(|id| !self.current.contains(id));
        self.replaced.extend(self.trusted.difference(&self.current).cloned());
        self.replaced.drain(..self.replaced.len().saturating_sub(MAX_REPLACED));
        self.trusted.clone_from(&self.current);
    }

    /// Judges whether the data under each of these prefixes may be old, in one round trip for all.
    ///
    /// A stored run id that is the current one says that an instance has cleared the prefix on this
    /// server. If this process has used another server meanwhile, the instance may have done so
    /// before, and the data may be old again.
    ///
    /// A Cluster has no single place for the stored run id: there only this process notices.
    pub(super) async fn judge(
        &self,
        connection: &Connection,
        prefixes: &[&StoreContext],
    ) -> Vec<Result<Judgement<'_>, BoxError>> {
        let (false, Some(current)) = (connection.is_cluster(), self.current.first()) else {
            let by_state = |context: &&StoreContext| {
                Ok(Judgement { may_be_old: context.prefix_state.may_be_old(), to_store: None })
            };
            return prefixes.iter().map(by_state).collect();
        };
        let stored = match stored_run_ids(connection, prefixes).await {
            Ok(stored) => stored,
            Err(error) => return prefixes.iter().map(|_| Err(error.clone().into())).collect(),
        };
        let mut judgements = Vec::with_capacity(prefixes.len());
        let mut evicts_any = None;
        for (context, stored) in prefixes.iter().zip(stored) {
            let stored: Option<Vec<u8>> = match decode(stored) {
                Ok(stored) => stored,
                // Another program has replaced it: as if another server had run meanwhile.
                Err(error) if error.code() == Some("WRONGTYPE") => Some(Vec::new()),
                Err(error) => {
                    judgements.push(Err(error.into()));
                    continue;
                }
            };
            let to_store = (stored.as_deref() != Some(current.as_bytes())).then_some(&**current);
            let may_be_old = context.prefix_state.may_be_old();
            if stored.is_none() && !may_be_old && evicts_any.is_none() {
                evicts_any = match Eviction::of(connection).await {
                    Ok(eviction) => Some(eviction.evicts_any()),
                    Err(error) => {
                        judgements.push(Err(error.into()));
                        continue;
                    }
                };
            }
            let may_be_old = match stored {
                // mutant returned-server: s/(may_be_old && self.has_returned)/false/
                Some(_) => to_store.is_some() || (may_be_old && self.has_returned),
                // mutant evicted-run-id: => None => may_be_old,
                None => may_be_old || evicts_any == Some(true),
            };
            judgements.push(Ok(Judgement { may_be_old, to_store }));
        }
        judgements
    }
}

/// Returns the replies to reads of the run ids that are stored under these prefixes, in one round
/// trip: a check takes no longer for many prefixes than for one.
async fn stored_run_ids(
    connection: &Connection,
    prefixes: &[&StoreContext],
) -> RedisResult<Vec<Value>> {
    if prefixes.is_empty() {
        return Ok(Vec::new());
    }
    let mut gets = redis::pipe();
    for context in prefixes {
        gets.cmd("GET").arg(context.keys.run());
    }
    match connection.send(&Request::Pipeline(gets)).await? {
        Value::Array(replies) => Ok(replies),
        other => decode(other),
    }
}

/// Whether the data under a prefix may be old, and the run id to store there once it is not.
pub(super) struct Judgement<'a> {
    pub(super) may_be_old: bool,
    to_store: Option<&'a str>,
}

impl Judgement<'_> {
    /// Stores the run id whose data is now known to be good.
    pub(super) async fn store(
        &self,
        connection: &Connection,
        context: &StoreContext,
    ) -> Result<(), BoxError> {
        let Some(current) = self.to_store else { return Ok(()) };
        let set = redis::cmd("SET").arg(context.keys.run()).arg(current).to_owned();
        match connection.run::<()>(&set).await {
            // A server that takes no writes can still serve reads.
            Err(error) if !is_write_refusal(&error) => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// The oldest version of Redis that is supported.
const OLDEST: (u32, u32) = (6, 2);

/// Refuses a server that is too old, by the text that `INFO` returns. Valkey and other servers
/// report there the version of Redis that they are compatible with. A server that reports no
/// version is accepted.
fn check_version(info: &str) -> Result<(), BoxError> {
    let version = info_field(info, "redis_version").unwrap_or_default();
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => {
            Err(format!("the server is Redis {version}; 6.2 or later is required").into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_older_than_redis_6_2_is_refused_by_name() {
        let info = |version: &str| format!("# Server\r\n{version}\r\nrun_id:a\r\n");
        for version in ["5.0.14", "6.0.16", "4.0.0", "2.8"] {
            let error = check_version(&info(&format!("redis_version:{version}"))).unwrap_err();
            assert!(error.to_string().contains(&format!("Redis {version};")), "{error}");
        }
        for version in ["6.2.0", "7.2.4", "10.0.0", "255.255.255", "6", "unknown", ""] {
            check_version(&info(&format!("redis_version:{version}"))).unwrap();
        }
        check_version(&info("redis_version:7.2.4\r\nvalkey_version:8.0.1")).unwrap();
        check_version("").unwrap();
    }

    fn set(text: &str) -> BTreeSet<String> {
        text.chars().map(String::from).collect()
    }

    #[test]
    fn a_new_run_id_in_place_of_a_trusted_one_is_a_change() {
        for (trusted, current, changed) in [
            ("", "a", false),
            ("a", "a", false),
            ("a", "b", true),
            ("abc", "bc", false),
            ("abc", "bcd", true),
            ("abc", "abcd", false),
            ("a", "", false),
        ] {
            let mut ids = RunIds { trusted: set(trusted), ..RunIds::default() };
            ids.observe(set(current));
            assert_eq!(ids.have_changed(), changed, "{trusted} {current}");
        }
    }

    /// Connects to servers with these run ids. Returns whether the data may be old.
    fn connect(ids: &mut RunIds, current: &str) -> bool {
        ids.observe(set(current));
        let may_be_old = ids.have_changed();
        ids.trust_current();
        may_be_old
    }

    #[test]
    fn a_new_run_id_in_place_of_one_that_was_away_at_a_connection_is_a_change() {
        for (connections, changed) in [
            (["abc", "ac", "adc"], [false, false, true]),
            (["abc", "ac", "abc"], [false, false, false]),
            (["abc", "adc", "adce"], [false, true, false]),
            (["a", "", "b"], [false, false, true]),
        ] {
            let mut ids = RunIds::default();
            let found = connections.map(|current| connect(&mut ids, current));
            assert_eq!(found, changed, "{connections:?}");
        }
    }

    #[test]
    fn a_new_master_in_place_of_one_that_is_away_is_a_change_before_its_run_id_is_known() {
        for (current, has_new_master, changed) in
            [("bc", false, false), ("bc", true, true), ("abc", true, false)]
        {
            let mut ids = RunIds { trusted: set("abc"), has_new_master, ..RunIds::default() };
            assert_eq!(connect(&mut ids, current), changed, "{current} {has_new_master}");
            assert!(!connect(&mut ids, "bcd") || !changed, "the new run id is trusted");
        }
    }

    #[test]
    fn a_server_that_was_replaced_has_returned_until_another_takes_its_place() {
        let mut ids = RunIds::default();
        for (current, has_returned) in
            [("a", false), ("b", false), ("a", true), ("a", true), ("c", false), ("b", true)]
        {
            connect(&mut ids, current);
            assert_eq!(ids.has_returned, has_returned, "{current}");
        }
        for number in 0..100 {
            connect(&mut ids, &char::from(number).to_string());
        }
        assert_eq!(ids.replaced.len(), MAX_REPLACED);
    }

    #[test]
    fn a_node_that_joined_is_missed_later_and_an_absent_one_is_remembered() {
        for (observed, changed) in [
            (["abc", "abcd", "abce"], true),
            (["abc", "ab", "abd"], true),
            (["abc", "ab", "abc"], false),
        ] {
            let mut ids = RunIds::default();
            observed.into_iter().for_each(|current| ids.observe(set(current)));
            assert_eq!(ids.have_changed(), changed, "{observed:?}");
        }
    }
}
