//! Where a container is in its life, and what may be done there. Pure: no I/O, no clock.
//!
//! ```text
//!   Creating ──► Created ──► Running ◄──► Paused
//!                   │           │           │
//!                   └───────────┴──► Stopped ◄┘ ──► (deleted: not in the table any more)
//! ```
//!
//! A process and an exit never stand side by side: a container that has an exit has no process,
//! and one that has a process has no exit.

use crate::error::{Error, Result};
use crate::exit::Exit;
use crate::store::Status;
use crate::sys::handle::Process;

/// A container's state, with what exists in it.
#[derive(Clone, Debug)]
pub enum State {
    /// The backend is making it.
    Creating,
    /// Its init waits for the start. `None` before a restore: then the start makes the process.
    Created(Option<Process>),
    /// Its process runs.
    Running(Process),
    /// Its process is frozen.
    Paused(Process),
    /// Its process has ended.
    Stopped {
        /// The pid it had; 0 when it never had one.
        pid: i32,
        /// How it ended.
        exit: Exit,
    },
}

/// What somebody wants to do with a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Start the container's own process.
    Start,
    /// Add or start an exec.
    Exec,
    /// Freeze.
    Pause,
    /// Thaw.
    Resume,
    /// Change limits.
    Update,
    /// Write an image.
    Checkpoint,
}

impl Op {
    fn verb(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Exec => "exec in",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Update => "update",
            Self::Checkpoint => "checkpoint",
        }
    }
}

impl State {
    /// The OCI state's word for it.
    pub fn status(&self) -> Status {
        match self {
            Self::Creating => Status::Creating,
            Self::Created(_) => Status::Created,
            Self::Running(_) => Status::Running,
            Self::Paused(_) => Status::Paused,
            Self::Stopped { .. } => Status::Stopped,
        }
    }

    /// The container's first process, while it has one.
    pub fn init(&self) -> Option<&Process> {
        match self {
            Self::Created(init) => init.as_ref(),
            Self::Running(init) | Self::Paused(init) => Some(init),
            Self::Creating | Self::Stopped { .. } => None,
        }
    }

    /// The pid to report: the process's, or the one it had; 0 when there never was one.
    pub fn pid(&self) -> i32 {
        match self {
            Self::Stopped { pid, .. } => *pid,
            other => other.init().map_or(0, Process::pid),
        }
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        match self {
            Self::Stopped { exit, .. } => Some(*exit),
            Self::Creating | Self::Created(_) | Self::Running(_) | Self::Paused(_) => None,
        }
    }

    /// Whether `op` may be done now.
    ///
    /// # Errors
    /// `FailedPrecondition` that names the state.
    pub fn allow(&self, op: Op) -> Result<()> {
        let allowed = match op {
            Op::Start => matches!(self, Self::Created(_)),
            Op::Exec => matches!(self, Self::Created(Some(_)) | Self::Running(_)),
            Op::Pause => matches!(self, Self::Running(_)),
            // containerd's client pauses first.
            Op::Checkpoint => matches!(self, Self::Running(_) | Self::Paused(_)),
            Op::Resume => matches!(self, Self::Paused(_)),
            Op::Update => self.init().is_some(),
        };
        if allowed {
            return Ok(());
        }
        Err(Error::precondition(format!("cannot {} a container that is {self}", op.verb())))
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self.status() {
            Status::Creating => "being created",
            Status::Created => "created and not started",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}
