//! Detects restarts and failovers by the run id of the server, and clears data that may be old.
//!
//! A server that was restarted, or was promoted from a replica, may have lost deletes that it had
//! confirmed, and hold the deleted values again. Redis gives each of its processes a new run id. If
//! one run id disappears and another appears, everything under the prefix is removed before any of
//! it is served. The run id whose data is known to be good is stored in Redis itself: one instance
//! clears for all instances, and an instance that has just started sees an earlier restart too.

use std::collections::BTreeSet;

use redis::{ErrorKind, RedisResult};

use super::{
    connection::{Connection, info_field},
    endpoint::role::Role,
    store::{context::StoreContext, options::RestartPolicy, scan::Scanner},
};
use crate::error::BoxError;

/// The run ids of one server, or of all masters of a Cluster.
#[derive(Default)]
pub(crate) struct RunIds {
    /// Run ids whose data may be served.
    trusted: BTreeSet<String>,
    /// Run ids that answered last. Empty if the user may not ask for them.
    current: BTreeSet<String>,
}

impl RunIds {
    /// Asks the servers for their run ids, and so also proves that they answer. Fails if a single
    /// server is a replica; in a Cluster the client takes care of that.
    pub(crate) async fn refresh(&mut self, connection: &Connection) -> RedisResult<()> {
        let info = redis::cmd("INFO").arg("server").to_owned();
        let replies = match connection.run_everywhere(&info).await {
            Err(error) if error.code() == Some("NOPERM") => {
                self.observe(BTreeSet::new());
                return connection.run_anywhere(&redis::cmd("PING")).await;
            }
            replies => replies?,
        };
        self.observe(replies.iter().filter_map(|it| info_field(it, "run_id")).collect());
        if connection.is_cluster() {
            return Ok(());
        }
        match connection.run(&redis::cmd("ROLE")).await {
            Ok(Role::Replica) => Err((ErrorKind::Client, "the server is a replica").into()),
            Err(error) if error.code() != Some("NOPERM") => Err(error),
            _ => Ok(()),
        }
    }

    /// Records the run ids that answered. A new node in a growing Cluster is safe, since it cannot
    /// hold data from before: it becomes trusted, so that its later disappearance is noticed.
    fn observe(&mut self, current: BTreeSet<String>) {
        if self.trusted.is_subset(&current) {
            self.trusted.clone_from(&current);
        }
        self.current = current;
    }

    /// Returns true if a trusted run id disappeared and another one appeared.
    pub(crate) fn have_changed(&self) -> bool {
        !self.trusted.is_subset(&self.current) && !self.current.is_subset(&self.trusted)
    }

    /// Clears the data if it may be old, then trusts the current run ids.
    ///
    /// A Cluster has no single place for the stored run id: there only this process notices.
    pub(crate) async fn verify(
        &mut self,
        connection: &Connection,
        context: &StoreContext,
    ) -> Result<(), BoxError> {
        let mut may_be_old = self.have_changed();
        let mut to_store = None;
        if let (false, Some(current)) = (connection.is_cluster(), self.current.first()) {
            let get = redis::cmd("GET").arg(context.keys.run()).to_owned();
            let stored: Option<String> = connection.run(&get).await?;
            may_be_old = stored.as_ref().map_or(may_be_old, |stored| stored != current);
            to_store = (stored.as_ref() != Some(current)).then_some(current);
        }
        // mutant restart: if false
        if may_be_old && context.options.after_restart == RestartPolicy::Clear {
            Scanner { connection, context }.delete_matching("*").await?;
        }
        if let Some(current) = to_store {
            let set = redis::cmd("SET").arg(context.keys.run()).arg(current).to_owned();
            match connection.run::<()>(&set).await {
                // A server that is out of memory can still serve reads.
                Err(error) if error.code() != Some("OOM") => return Err(error.into()),
                _ => {}
            }
        }
        self.trusted.clone_from(&self.current);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let mut ids = RunIds { trusted: set(trusted), current: set(trusted) };
            ids.observe(set(current));
            assert_eq!(ids.have_changed(), changed, "{trusted} {current}");
        }
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
