//! Which server it is: one that was restarted, or was a replica, may have lost deletes that it had
//! confirmed, and be back with what was deleted.
//!
//! Each run of a server has an identity. Where one goes and another comes, everything under the
//! prefix is removed before it is served. The run whose data is known to be good is noted in
//! Redis itself, so that one instance does it for all, and so that an instance that has just
//! started knows of it too.

use std::collections::BTreeSet;

use redis::{ErrorKind, RedisResult, Value};

use super::{
    connection::Connection,
    store::{context::StoreContext, options::RestartPolicy, scan},
};
use crate::error::BoxError;

#[derive(Default)]
pub(crate) struct Runs {
    /// Those whose data may be served.
    vetted: BTreeSet<String>,
    /// Those that answered last. Empty where the server does not tell.
    current: BTreeSet<String>,
}

impl Runs {
    /// Asks the servers, which also shows that they live.
    pub(crate) async fn read(&mut self, connection: &Connection) -> RedisResult<()> {
        let info = redis::cmd("INFO").arg("server").to_owned();
        match connection.run_everywhere(&info).await {
            Ok(answers) => {
                self.seen(answers.iter().filter_map(|info| field(info, "run_id")).collect());
                Self::check_role(connection).await
            }
            // The user may not ask for it.
            Err(error) if error.code() == Some("NOPERM") => {
                self.seen(BTreeSet::new());
                connection.run_anywhere::<()>(&redis::cmd("PING")).await
            }
            Err(error) => Err(error),
        }
    }

    /// One that merely came, into a Cluster that grows, brings nothing back: from now on it is one
    /// of those whose going would tell.
    fn seen(&mut self, current: BTreeSet<String>) {
        if self.vetted.is_subset(&current) {
            self.vetted.clone_from(&current);
        }
        self.current = current;
    }

    /// A replica has what its master had a while ago, deleted or not.
    async fn check_role(connection: &Connection) -> RedisResult<()> {
        if connection.is_cluster() {
            // There the client sees to it.
            return Ok(());
        }
        match connection.run::<Vec<Value>>(&redis::cmd("ROLE")).await {
            Ok(role) if role.first() == Some(&Value::BulkString(b"slave".to_vec())) => {
                Err((ErrorKind::Client, "the server is a replica").into())
            }
            Err(error) if error.code() != Some("NOPERM") => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a server went and another came.
    pub(crate) fn have_changed(&self) -> bool {
        !self.vetted.is_subset(&self.current) && !self.current.is_subset(&self.vetted)
    }

    /// Sees to it that nothing old is served.
    pub(crate) async fn vet(
        &mut self,
        connection: &Connection,
        context: &StoreContext,
    ) -> Result<(), BoxError> {
        let mut may_be_old = self.have_changed();
        let mut to_be_noted = None;
        // In a Cluster there is no one place for the note.
        if let (false, Some(run)) = (connection.is_cluster(), self.current.first()) {
            let get = redis::cmd("GET").arg(context.keys.run()).to_owned();
            let noted: Option<String> = connection.run(&get).await?;
            may_be_old = match noted.as_deref() {
                Some(noted) => noted != run,
                None => may_be_old,
            };
            to_be_noted = (noted.as_ref() != Some(run)).then(|| run.clone());
        }
        // mutant restart: if false
        if may_be_old && context.options.after_restart == RestartPolicy::Clear {
            scan::delete_matching(connection, context, "*").await?;
        }
        if let Some(run) = to_be_noted {
            let note = redis::cmd("SET").arg(context.keys.run()).arg(run).to_owned();
            match connection.run::<()>(&note).await {
                // A full server still serves.
                Err(error) if error.code() != Some("OOM") => return Err(error.into()),
                _ => {}
            }
        }
        self.vetted.clone_from(&self.current);
        Ok(())
    }
}

/// A field of what `INFO` says.
pub(crate) fn field(info: &str, name: &str) -> Option<String> {
    let lines = info.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(field, _)| *field == name).map(|(_, value)| value.trim().to_owned()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> BTreeSet<String> {
        text.chars().map(String::from).collect()
    }

    #[test]
    fn a_server_that_came_for_one_that_went_may_be_old() {
        for (vetted, current, changed) in [
            ("", "a", false),
            ("a", "a", false),
            ("a", "b", true),
            ("abc", "bc", false),
            ("abc", "bcd", true),
            ("abc", "abcd", false),
            ("a", "", false),
        ] {
            let mut runs = Runs { vetted: set(vetted), current: set(vetted) };
            runs.seen(set(current));
            assert_eq!(runs.have_changed(), changed, "{vetted} {current}");
        }
    }

    #[test]
    fn one_that_came_later_is_missed_when_it_goes_and_one_that_was_away_is_not_forgotten() {
        for (seen, changed) in [
            (["abc", "abcd", "abce"], true),
            (["abc", "ab", "abd"], true),
            (["abc", "ab", "abc"], false),
        ] {
            let mut runs = Runs::default();
            seen.into_iter().for_each(|current| runs.seen(set(current)));
            assert_eq!(runs.have_changed(), changed, "{seen:?}");
        }
    }
}
