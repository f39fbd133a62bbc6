//! Errors of a configuration file: the path of the section, the problem, the nearest name.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use crate::{error::BuildError, manager::nearest::nearest};

/// An error of one section. Its text has no value of the file unless [`Self::text`] is told that
/// the section holds no secrets.
#[derive(Debug)]
pub(super) struct ConfigError {
    /// The names from the inner group to the outer section.
    pub(super) path: Vec<String>,
    pub(super) problem: Problem,
}

#[derive(Debug)]
pub(super) enum Problem {
    UnknownName { name: String, known: Vec<&'static str> },
    UnknownVariant { known: &'static [&'static str] },
    Wrong { found: String, kind: &'static str, expected: String },
    Other(String),
}

/// Whether the values of a section may be shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    Shown,
    /// They may be passwords, or URLs with passwords.
    Secret,
}

impl ConfigError {
    pub(super) fn other(problem: impl Into<String>) -> Self {
        Self { path: Vec::new(), problem: Problem::Other(problem.into()) }
    }

    /// The error is that of the option, group or section `name` inside of the one around it.
    pub(super) fn within(mut self, name: &str) -> Self {
        self.path.push(name.to_owned());
        self
    }

    pub(super) fn text(&self, values: Values) -> String {
        let path: Vec<&str> = self.path.iter().rev().map(String::as_str).collect();
        let path = path.join(".");
        match &self.problem {
            Problem::UnknownName { name, known } => {
                let place = if path.is_empty() { String::new() } else { format!("[{path}]: ") };
                let kind = if path.is_empty() { "section" } else { "option" };
                match nearest(name, known.iter().copied()) {
                    Some(near) => {
                        format!("{place}unknown {kind} `{name}`, did you mean `{near}`?")
                    }
                    None => format!("{place}unknown {kind} `{name}`; known are {}", list(known)),
                }
            }
            Problem::UnknownVariant { known } => {
                format!("{path}: unknown value, write one of {}", list(known))
            }
            Problem::Wrong { found, kind, expected } => {
                // mutant secret-shown: s/values == Values::Shown/true/
                let found = if values == Values::Shown { found } else { *kind };
                format!("{path}: found {found}, expected {expected}")
            }
            Problem::Other(problem) if path.is_empty() => problem.clone(),
            Problem::Other(problem) => format!("{path}: {problem}"),
        }
    }

    fn wrong(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let kind = match found {
            Unexpected::Bool(_) => "a bool",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Str(_) | Unexpected::Char(_) => "a text",
            Unexpected::Seq => "a list",
            Unexpected::Map => "a group of options",
            Unexpected::Unit | Unexpected::Option => "nothing",
            _ => "another value",
        };
        let found = match found {
            Unexpected::Seq | Unexpected::Map | Unexpected::Unit | Unexpected::Option => {
                kind.to_owned()
            }
            found => found.to_string(),
        };
        let expected = match expected.to_string() {
            duration if duration == "a duration" => r#"a duration such as "30s""#.to_owned(),
            expected => expected,
        };
        Self { path: Vec::new(), problem: Problem::Wrong { found, kind, expected } }
    }
}

fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(problem: T) -> Self {
        Self::other(problem.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::wrong(found, expected)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::wrong(found, expected)
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        let problem = Problem::UnknownName { name: name.to_owned(), known: known.to_vec() };
        Self { path: Vec::new(), problem }
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self { path: Vec::new(), problem: Problem::UnknownVariant { known } }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Values::Secret))
    }
}

impl std::error::Error for ConfigError {}

impl From<BuildError> for ConfigError {
    fn from(error: BuildError) -> Self {
        Self::other(error.to_string())
    }
}
