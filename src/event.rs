//! What containerd is told of a container's life (containerd's api/events/task.proto).

use crate::exit::Exit;
use crate::id::{ContainerId, ExecId};
use crate::sys::mount::Mount;
use std::path::PathBuf;

/// One event; each is published once, in the order in which things happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// `/tasks/create`
    Create(Box<Created>),
    /// `/tasks/start`
    Start {
        /// Whose.
        id: ContainerId,
        /// Its first process.
        pid: i32,
    },
    /// `/tasks/exec-added`
    ExecAdded {
        /// Whose.
        id: ContainerId,
        /// Which exec.
        exec: ExecId,
    },
    /// `/tasks/exec-started`
    ExecStarted {
        /// Whose.
        id: ContainerId,
        /// Which exec.
        exec: ExecId,
        /// Its process.
        pid: i32,
    },
    /// `/tasks/exit`
    Exit {
        /// Whose.
        id: ContainerId,
        /// Which exec; `None` for the container's first process.
        exec: Option<ExecId>,
        /// The process.
        pid: i32,
        /// How it ended.
        exit: Exit,
    },
    /// `/tasks/oom`
    Oom {
        /// Whose.
        id: ContainerId,
    },
    /// `/tasks/paused`
    Paused {
        /// Whose.
        id: ContainerId,
    },
    /// `/tasks/resumed`
    Resumed {
        /// Whose.
        id: ContainerId,
    },
    /// `/tasks/checkpointed`
    Checkpointed {
        /// Whose.
        id: ContainerId,
        /// The image's folder.
        image: PathBuf,
    },
    /// `/tasks/delete`
    Delete {
        /// Whose.
        id: ContainerId,
        /// The first process it had.
        pid: i32,
        /// How that ended.
        exit: Exit,
    },
}

impl Event {
    /// Whose it is.
    pub fn container(&self) -> &ContainerId {
        match self {
            Self::Create(created) => &created.id,
            Self::Start { id, .. }
            | Self::ExecAdded { id, .. }
            | Self::ExecStarted { id, .. }
            | Self::Exit { id, .. }
            | Self::Oom { id }
            | Self::Paused { id }
            | Self::Resumed { id }
            | Self::Checkpointed { id, .. }
            | Self::Delete { id, .. } => id,
        }
    }
}

/// What a create event carries.
#[derive(Clone, Debug)]
pub struct Created {
    /// Whose.
    pub id: ContainerId,
    /// Its bundle.
    pub bundle: PathBuf,
    /// The mounts of its root.
    pub rootfs: Vec<Mount>,
    /// Paths or URIs of its stdio, as they were given.
    pub stdin: String,
    /// As above.
    pub stdout: String,
    /// As above.
    pub stderr: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// The checkpoint it is to be restored from; empty for none.
    pub checkpoint: String,
    /// Its first process; 0 before a restore.
    pub pid: i32,
}
