//! How a process ended.

use std::time::SystemTime;

/// The end of a process: the only place that knows 128+n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 0 to 255: the process's own status, or 128 and the signal's number.
    pub status: u32,
    /// When it was seen.
    pub at: SystemTime,
    /// The status is the process's own, and does not stand for one that nobody knows.
    pub known: bool,
}

impl Exit {
    /// The status that stands for "ended, and nobody saw how".
    pub const UNKNOWN: u32 = 255;

    /// A process that called exit(2).
    pub fn exited(code: i32) -> Self {
        Self { status: u32::from(code as u8), at: SystemTime::now(), known: true }
    }

    /// A process that a signal ended.
    pub fn signaled(signal: i32) -> Self {
        Self { status: 128 + u32::from(signal as u8), at: SystemTime::now(), known: true }
    }

    /// A process of which wait(2) gave that status.
    pub fn of_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::signaled(libc::WTERMSIG(status))
        } else {
            Self::exited(libc::WEXITSTATUS(status))
        }
    }

    /// A process whose end nobody saw.
    pub fn unknown() -> Self {
        Self { status: Self::UNKNOWN, at: SystemTime::now(), known: false }
    }
}
