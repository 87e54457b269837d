//! What went wrong, for the supervisor.

use super::sys::{Errno, Result};
use alloc::format;
use alloc::string::String;

/// One sentence, and the error number behind it.
pub struct Failure {
    /// 0 for none.
    pub errno: i32,
    /// What failed, on what, and why.
    pub text: String,
    /// What the process exits with: 127 for a program that is not there, 126 otherwise, as shells.
    pub status: i32,
}

impl Failure {
    /// Without an error number.
    pub fn new(text: String) -> Self {
        Self { errno: 0, text, status: 126 }
    }

    /// With an error number, whose text goes behind `what`.
    pub fn of(what: &str, errno: Errno) -> Self {
        Self { errno: errno.0, text: format!("{what}: {}", errno.text()), status: 126 }
    }
}

/// Says what a system call was for.
pub trait Context<T> {
    /// `what` is made up only if it failed.
    fn context(self, what: impl FnOnce() -> String) -> core::result::Result<T, Failure>;
}

impl<T> Context<T> for Result<T> {
    fn context(self, what: impl FnOnce() -> String) -> core::result::Result<T, Failure> {
        self.map_err(|errno| Failure::of(&what(), errno))
    }
}
