//! How a verb ends: one exit code for each kind of ending, and an error that says what to do.

use std::fmt;
use std::process::ExitCode;

/// The exit codes of `cargo xtask`. They are part of the interface: scripts rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It worked.
    Ok = 0,
    /// It failed in a way that has no code of its own.
    Failed = 1,
    /// The command line made no sense, or a file or an address given there is no such thing.
    Usage = 2,
    /// A program is missing and was not installed; the command that installs it was printed.
    MissingProgram = 3,
    /// The machine answered, and said no.
    Refused = 4,
    /// The machine did not answer in time.
    NoAnswer = 5,
    /// Building failed, or what was built breaks the image's rules.
    Build = 6,
    /// The machine replaced its image and went back to the one before.
    WentBack = 7,
}

impl Exit {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::MissingProgram,
        Self::Refused,
        Self::NoAnswer,
        Self::Build,
        Self::WentBack,
    ];

    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What it means, in a few words (for `--help`).
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "it worked",
            Self::Failed => "failed (`test`: the test runner's own code)",
            Self::Usage => "the command line, or a file or address on it, makes no sense",
            Self::MissingProgram => "a program is missing and was not installed",
            Self::Refused => "the machine refused",
            Self::NoAnswer => "the machine did not answer in time",
            Self::Build => "building failed, or what was built breaks the image's rules",
            Self::WentBack => "the machine went back to the image before",
        }
    }

    /// The table that ends `--help`.
    pub fn help() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Self::ALL {
            text.push_str(&format!("  {}  {}\n", exit.code(), exit.meaning()));
        }
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error that a person can act on: what happened (and what it means), and what to do about it.
#[derive(Debug)]
pub struct Failure {
    /// The code to end with.
    pub exit: Exit,
    /// What happened and what it means.
    pub what: String,
    /// What to do. May be empty.
    pub hint: String,
}

impl Failure {
    /// An error without a hint yet.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            hint: String::new(),
        }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// The code that `error` ends with: that of the first [`Failure`] in its chain.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    error
        .chain()
        .find_map(|e| e.downcast_ref::<Failure>())
        .map_or(Exit::Failed, |f| f.exit)
}

/// Writes `error` to standard error: what happened, the causes, what to do.
pub fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
    if let Some(failure) = error.chain().find_map(|e| e.downcast_ref::<Failure>())
        && !failure.hint.is_empty()
    {
        for (i, line) in failure.hint.lines().enumerate() {
            eprintln!("{}{line}", if i == 0 { " hint: " } else { "       " });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn codes_are_distinct_and_documented() {
        let help = Exit::help();
        for (i, exit) in Exit::ALL.iter().enumerate() {
            assert_eq!(usize::from(exit.code()), i);
            assert!(help.contains(&format!("{}  {}", exit.code(), exit.meaning())));
        }
    }

    #[test]
    fn a_failure_keeps_its_code_below_context() {
        let error = Err::<(), _>(Failure::new(Exit::NoAnswer, "silence").hint("look"))
            .context("asking")
            .expect_err("an error");
        assert_eq!(exit_of(&error), Exit::NoAnswer);
        assert_eq!(exit_of(&anyhow::anyhow!("plain")), Exit::Failed);
    }
}
