//! The one place that waits for children.
//!
//! A supervisor is a subreaper: besides the commands it spawns, the first process of every
//! container and every exec become its children when the runtime command that made them ends.
//! One loop over waitpid(2) takes every status, so none can be taken by the wrong hands, and a
//! pid in this table cannot be reused: a signal is sent while the table is locked, and a pid
//! leaves the table in the same critical section in which it is reaped.

use super::handle::Process;
use super::pidfd::{self, ExitSource, Foreign};
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(Default)]
struct Table {
    /// Children somebody knows, not yet reaped.
    known: BTreeMap<i32, watch::Sender<Option<Exit>>>,
    /// Statuses of children that nobody knew, kept while a [`Hold`] lives: the first process of
    /// a container may end before its pid file has been read.
    unclaimed: BTreeMap<i32, Exit>,
    holds: usize,
    /// Others' children, which become this process's if their parents end before them.
    heirs: BTreeMap<i32, watch::Sender<Option<Exit>>>,
}

static TABLE: Mutex<Table> = Mutex::new(Table {
    known: BTreeMap::new(),
    unclaimed: BTreeMap::new(),
    holds: 0,
    heirs: BTreeMap::new(),
});

/// Processes that runtime commands leave behind are somebody else's to reap.
static LEFT_TO_OTHERS: AtomicBool = AtomicBool::new(false);

/// Leaves the processes of containers to whoever called this program: it takes care of the
/// commands it spawns alone, and holds on to the others by pidfd. To be called before any of them
/// is made, in a process that is no subreaper.
pub fn leave_to_others() {
    LEFT_TO_OTHERS.store(true, Ordering::Relaxed);
}

/// Whether [`leave_to_others`] has been called.
pub fn leaves_to_others() -> bool {
    LEFT_TO_OTHERS.load(Ordering::Relaxed)
}

fn table() -> MutexGuard<'static, Table> {
    // Nothing in a critical section here can panic half way.
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child of this process: a command it spawned, a container's init, or an exec.
#[derive(Clone, Debug)]
pub struct Child {
    pid: i32,
    exit: watch::Receiver<Option<Exit>>,
}

impl Child {
    /// The pid, in this process's pid namespace. It may be somebody else's once the child has
    /// been reaped: send signals with [`Child::signal`].
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Sends a signal, any of 0 to 64.
    ///
    /// # Errors
    /// `NotFound` once it has been reaped, `InvalidArgument` for a number that is no signal.
    pub fn signal(&self, number: i32) -> Result<()> {
        self.send(number, self.pid)
    }

    /// Sends a signal to its process group, which it must lead.
    ///
    /// # Errors
    /// As [`Child::signal`].
    pub fn signal_group(&self, number: i32) -> Result<()> {
        self.send(number, -self.pid)
    }

    fn send(&self, number: i32, to: i32) -> Result<()> {
        let table = table();
        if !table.known.contains_key(&self.pid) {
            return Err(Error::not_found(format!("process {} has ended", self.pid)));
        }
        super::kill(to, number)
    }

    /// Waits for its end; returns at once if it has ended, as often as asked.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(seen) => seen.unwrap_or_else(Exit::unknown),
            // The sender lives in the table until it has sent; this cannot be reached.
            Err(_) => Exit::unknown(),
        }
    }
}

/// Takes the child that `spawn` makes under the reaper's care. Nothing is reaped meanwhile, on any
/// thread: the status of a child that ends at once would be taken for a stranger's.
///
/// # Errors
/// What `spawn` says.
pub(super) fn adopt(spawn: impl FnOnce() -> std::io::Result<i32>) -> std::io::Result<Child> {
    let mut table = table();
    let pid = spawn()?;
    let (sender, exit) = watch::channel(None);
    table.known.insert(pid, sender);
    Ok(Child { pid, exit })
}

/// While one lives, the statuses of unknown children are kept.
pub struct Hold(());

/// Begins to keep the statuses of unknown children; to be taken before a runtime command runs
/// that leaves a process behind.
pub fn hold() -> Hold {
    table().holds += 1;
    Hold(())
}

impl Hold {
    /// The process of that pid, which a runtime command has left to this process, or to somebody
    /// else where that was asked for.
    ///
    /// # Errors
    /// `Unknown` when there neither is nor was such a child: the pid is made up.
    pub fn claim(&self, pid: i32) -> Result<Process> {
        if !leaves_to_others() {
            return self.claim_child(pid).map(Process::Child);
        }
        match pidfd::open(pid) {
            Ok(fd) => Foreign::watch(pid, fd, ExitSource::at_hand()).map(Process::Foreign),
            // It was quick, and so was whoever reaped it.
            Err(error) if error.kind() == Kind::NotFound => {
                Ok(Process::Foreign(Foreign::gone(pid)))
            }
            Err(error) => Err(error),
        }
    }

    fn claim_child(&self, pid: i32) -> Result<Child> {
        let mut table = table();
        if let Some(known) = table.known.get(&pid) {
            return Ok(Child { pid, exit: known.subscribe() });
        }
        // A child that is there now is the one that is meant, even where an earlier stranger of
        // the same number was reaped meanwhile.
        if super::is_child(pid) {
            let (sender, exit) = watch::channel(None);
            table.known.insert(pid, sender);
            return Ok(Child { pid, exit });
        }
        match table.unclaimed.remove(&pid) {
            Some(exit) => Ok(Child { pid, exit: watch::channel(Some(exit)).1 }),
            None => Err(Error::unknown(format!(
                "process {pid} is no child of this supervisor: the runtime named a wrong pid"
            ))),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut table = table();
        table.holds -= 1;
        if table.holds == 0 {
            table.unclaimed.clear();
        }
    }
}

/// A process whose parent is a descendant of this one: a subreaper inherits it when that parent
/// ends first.
pub(super) struct Heir {
    pid: i32,
    exit: watch::Receiver<Option<Exit>>,
}

impl Heir {
    /// Keeps the status of that process, which must be alive, should it be this one's to reap.
    pub(super) fn expect(pid: i32) -> Self {
        let (sender, exit) = watch::channel(None);
        table().heirs.insert(pid, sender);
        Self { pid, exit }
    }

    /// Its status, once this process has reaped it; never, if somebody else has.
    pub(super) async fn reaped(&mut self) -> Exit {
        match self.exit.wait_for(Option::is_some).await.map(|seen| *seen) {
            Ok(Some(exit)) => exit,
            _ => std::future::pending().await,
        }
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        table().heirs.remove(&self.pid);
    }
}

/// Starts the reaping on the current tokio runtime.
///
/// # Errors
/// When the signal handler cannot be installed.
pub fn start() -> Result<()> {
    let mut children = signal(SignalKind::child())?;
    tokio::spawn(async move {
        loop {
            reap();
            if children.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

fn reap() {
    let mut table = table();
    while let Some((pid, exit)) = super::wait_any() {
        if let Some(sender) = table.known.remove(&pid) {
            // Nobody may be listening any more.
            sender.send_replace(Some(exit));
        } else if let Some(heir) = table.heirs.get(&pid) {
            heir.send_replace(Some(exit));
        } else if table.holds > 0 {
            table.unclaimed.insert(pid, exit);
        }
    }
}

/// Tests share a process, and a reaper in it takes every child: those that wait for a child of
/// their own hold this for reading, those that start a reaper for writing.
#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

    static CHILDREN: RwLock<()> = RwLock::new(());

    pub(crate) struct Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>);

    pub(crate) struct NoReaper(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>);

    /// Starts the reaper on the current runtime, for as long as the answer lives.
    pub(crate) fn start_alone() -> Alone {
        let alone = Alone(CHILDREN.write().unwrap_or_else(PoisonError::into_inner));
        super::start().unwrap();
        alone
    }

    /// No test reaps while the answer lives.
    pub(crate) fn no_reaper() -> NoReaper {
        NoReaper(CHILDREN.read().unwrap_or_else(PoisonError::into_inner))
    }
}
