//! What is wrong with a configuration, where, and how bad it is.

use std::fmt;

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The server does not start.
    Error,
    /// The server starts and says so; with `--strict` it does not start.
    Warning,
}

/// A place in a file, both from one; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in it.
    pub column: usize,
}

/// One thing that is wrong. Its message never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// The file as it was named, if the problem is about one.
    pub file: Option<String>,
    /// Where in the file, when it is in one.
    pub at: Option<Position>,
    /// The key, as `shard.ring_depth`; empty when no single key is meant.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    /// An error about `key`.
    #[must_use]
    pub fn error(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, file: None, at: None, key: key.into(), message: message.into() }
    }

    /// A warning about `key`.
    #[must_use]
    pub fn warning(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(key, message) }
    }

    /// The same at a place.
    #[must_use]
    pub fn at(mut self, position: Option<Position>) -> Self {
        self.at = position;
        self
    }

    /// The same in a file.
    #[must_use]
    pub fn in_file(mut self, name: &str) -> Self {
        self.file = Some(name.to_owned());
        self
    }
}

/// As compilers write it: `sluicegate.toml:3:1: error: shard.ring_dept: there is no such key; …`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            if let Some(Position { line, column }) = self.at {
                write!(f, "{line}:{column}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
        })?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// How many problems are shown; a file that is wrong throughout needs no longer list.
const SHOWN_MAX: usize = 25;

/// The configuration was refused: at least one error (or, in strict mode, warning).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong, in the order of the file.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().take(SHOWN_MAX).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        if self.problems.len() > SHOWN_MAX {
            write!(f, "\n… and {} more", self.problems.len() - SHOWN_MAX)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}
