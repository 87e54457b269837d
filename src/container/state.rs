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
    /// Whether it may be done to a container whose status is `status` and that has a process
    /// unless it is stopped.
    ///
    /// # Errors
    /// `FailedPrecondition` that names the status.
    pub fn allowed_when(self, status: Status) -> Result<()> {
        use Status::{Created, Paused, Running};
        let allowed = match self {
            Self::Start => status == Created,
            Self::Exec => matches!(status, Created | Running),
            Self::Pause => status == Running,
            // containerd's client pauses first.
            Self::Checkpoint => matches!(status, Running | Paused),
            Self::Resume => status == Paused,
            Self::Update => matches!(status, Created | Running | Paused),
        };
        if allowed { Ok(()) } else { Err(self.refused(status)) }
    }

    fn refused(self, status: Status) -> Error {
        let (verb, status) = (self.verb(), shown(status));
        Error::precondition(format!("cannot {verb} a container that is {status}"))
    }

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
        // Before a restore there is nothing yet to join or to change.
        if matches!((self, op), (Self::Created(None), Op::Exec | Op::Update)) {
            return Err(op.refused(Status::Created));
        }
        op.allowed_when(self.status())
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(shown(self.status()))
    }
}

fn shown(status: Status) -> &'static str {
    match status {
        Status::Creating => "being created",
        Status::Created => "created and not started",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Stopped => "stopped",
    }
}
