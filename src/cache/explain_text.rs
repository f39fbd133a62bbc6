//! The words of an [`Explanation`], a few lines for an operator.

use std::fmt;

use super::explain::{Explanation, KeyInL1, NextStep, RunningLoad};
use crate::l2::{HeldLock, OutstandingLease};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key {:?}", self.key)?;
        match &self.l1 {
            None => writeln!(f, "L1: the cache has none")?,
            Some(l1) => writeln!(f, "L1: {l1}")?,
        }
        if !self.l1_trusted {
            writeln!(f, "L1 is not trusted: only its latest entries are served")?;
        }
        if self.has_fallback {
            writeln!(f, "L1 has a value to serve if a load fails or is slow")?;
        }
        match &self.l2 {
            None => writeln!(f, "L2: the cache has none")?,
            Some(l2) => writeln!(f, "L2: {l2}")?,
        }
        if let Some(OutstandingLease { is_write, valid_for }) = &self.l2_lease {
            let work = if *is_write { "a set" } else { "a load" };
            writeln!(f, "L2 has the lease of {work}, which an instance began, for {valid_for:?}")?;
        }
        if let Some(HeldLock { owner, valid_for }) = &self.lock {
            let whose = if self.lock_is_own { "this instance" } else { "another instance" };
            writeln!(f, "the lock is held by {whose}, owner {owner:?}, for {valid_for:?}")?;
        }
        for RunningLoad { age, followers } in &self.loads {
            writeln!(f, "a load has run for {age:?}, joined by {followers} callers")?;
        }
        if self.waiting > 0 {
            writeln!(f, "{} callers wait until a load ends", self.waiting)?;
        }
        let step = match self.next {
            NextStep::ServeL1 => "returns the value of L1",
            NextStep::ServeMissing => "returns that the key does not exist",
            NextStep::ServeStale => "returns the stale value of L1: a load failed a moment ago",
            NextStep::JoinLoad => "joins the load that runs",
            NextStep::WaitForNext => "waits until one of the two loads ends",
            NextStep::ServeL2 => "returns the value of L2",
            NextStep::ReadL2 => "reads L2, and loads if it finds neither value nor negative entry",
            NextStep::Load => "loads",
            NextStep::Refuse => "fails: the cache is closed",
        };
        write!(f, "get_or_set now {step}")
    }
}

impl fmt::Display for KeyInL1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_trusted = true;
        match self {
            Self::Absent => write!(f, "no entry")?,
            Self::Fresh { age, fresh_for, stale_for, trusted } => {
                is_trusted = *trusted;
                write!(f, "a value of age {age:?}, fresh for {fresh_for:?}")?;
                if !stale_for.is_zero() {
                    write!(f, ", then stale for {stale_for:?}")?;
                }
            }
            Self::Stale { age, stale_for, paused_for } => {
                write!(f, "a value of age {age:?}, stale for {stale_for:?}")?;
                if let Some(pause) = paused_for {
                    write!(f, "; a load failed, the next may begin in {pause:?}")?;
                }
            }
            Self::Missing { fresh_for, trusted } => {
                is_trusted = *trusted;
                write!(f, "a negative entry, for {fresh_for:?}")?;
            }
        }
        if is_trusted { Ok(()) } else { f.write_str("; not trusted, so not served as it is") }
    }
}
