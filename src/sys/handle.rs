//! A container's process, or an exec's, whoever its parent is.

use super::pidfd::Foreign;
use super::reaper::Child;
use crate::error::Result;
use crate::exit::Exit;

/// A process that can be signalled and waited for.
#[derive(Clone, Debug)]
pub enum Process {
    /// A child of this supervisor: crun and runc leave their containers' processes to it, and so
    /// does an exec in an LXC guest.
    Child(Child),
    /// A child of somebody else: the init of an LXC guest is its monitor's.
    Foreign(Foreign),
}

impl Process {
    /// The pid, in this process's pid namespace. It may be somebody else's once the process has
    /// been reaped: send signals with [`Process::signal`].
    pub fn pid(&self) -> i32 {
        match self {
            Self::Child(child) => child.pid(),
            Self::Foreign(foreign) => foreign.pid(),
        }
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        match self {
            Self::Child(child) => child.exit(),
            Self::Foreign(foreign) => foreign.exit(),
        }
    }

    /// Sends a signal, any of 0 to 64.
    ///
    /// # Errors
    /// `NotFound` once it has ended, `InvalidArgument` for a number that is no signal.
    pub fn signal(&self, number: i32) -> Result<()> {
        match self {
            Self::Child(child) => child.signal(number),
            Self::Foreign(foreign) => foreign.signal(number),
        }
    }

    /// Waits until it is dead, which may be before its status is known and before its parent begins
    /// to put away what was around it. Never for a child, of which both are known at once.
    pub async fn dying(&self) {
        if let Self::Foreign(foreign) = self
            && foreign.dying().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Waits for its end; returns at once if it has ended, as often as asked.
    pub async fn exited(&self) -> Exit {
        match self {
            Self::Child(child) => child.exited().await,
            Self::Foreign(foreign) => foreign.exited().await,
        }
    }
}
