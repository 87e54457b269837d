//! One container: a task that lives its life from top to bottom, and a handle for everybody else.
//!
//! The task alone drives the backend, so the order of what happens is the order of its lines: a
//! start is published before the exit that follows is even looked at. What only reads (state,
//! pids, statistics, waits) and what must not wait (signals) goes around the task, through a
//! view that is locked for the time it takes to copy a few words. A backend's command that hangs
//! therefore holds up nothing but the next command of the same container.

mod exec;
mod life;
mod state;
mod table;

pub use exec::Exec;
pub use life::{CreateRequest, create};
pub use state::{Op, State};
pub use table::{Deleted, Table};

use crate::backend::{Backend, Checkpoint, Place};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::exit::Exit;
use crate::id::ExecId;
use crate::shim::publisher::Publisher;
use crate::stdio::{self, ConsoleSocket, Stdio};
use crate::store::Status;
use crate::sys::cgroup::Cgroup;
use crate::sys::handle::Process;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// How long the news of a process's end waits for what it has written to be read.
const SETTLE: Duration = Duration::from_millis(500);

/// How long output may still come after a process's end before a Delete goes on without it.
/// containerd's CRI plugin gives the whole Delete 10 s, containerd's clean-up 5 s.
const DRAIN: Duration = Duration::from_secs(2);

/// How long a backend's command may go on once the process that it is about has ended.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// How long a checkpoint that ends the container may go on after that end.
pub(crate) const CHECKPOINT_END: Duration = Duration::from_secs(10);

/// How long a runtime may keep a terminal to itself after its command has ended.
const CONSOLE: Duration = Duration::from_secs(2);

/// A process's pid and its end.
pub type Ended = (i32, Exit);

/// What the container's task is asked to do; each is answered, whatever becomes of the caller.
enum Command {
    Start(oneshot::Sender<Result<i32>>),
    Pause(oneshot::Sender<Result<()>>),
    Resume(oneshot::Sender<Result<()>>),
    Update(Vec<u8>, oneshot::Sender<Result<()>>),
    Checkpoint(Checkpoint, oneshot::Sender<Result<()>>),
    Delete(oneshot::Sender<Result<Ended>>),
    /// Everything is gone already: the task ends. Nobody is answered.
    Forget,
}

struct View {
    state: State,
    execs: BTreeMap<ExecId, Arc<Exec>>,
    /// Once the init has ended nothing new may begin, though the state is not "stopped" until
    /// every exec has ended too.
    closing: bool,
}

impl View {
    /// Whether an exec may be added or started now; the process that it would join.
    fn allow_exec(&self) -> Result<Process> {
        if self.closing {
            return Err(Error::precondition("cannot exec in a container whose process has ended"));
        }
        self.state.allow(Op::Exec)?;
        // `allow` has just said that there is one.
        let init = self.state.init().cloned();
        init.ok_or_else(|| Error::precondition("the container has no process"))
    }
}

/// What a State call answers.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// 0 where there is no process.
    pub pid: i32,
    /// Where it is in its life.
    pub status: Status,
    /// How it ended, if it has.
    pub exit: Option<Exit>,
}

/// A container, as the task service sees it.
pub struct Container {
    place: Place,
    io: stdio::Request,
    owner: stdio::Owner,
    backend: Box<dyn Backend>,
    publisher: Publisher,
    view: Mutex<View>,
    stdio: OnceLock<Stdio>,
    stdin_closed: AtomicBool,
    cgroup: OnceLock<Option<Cgroup>>,
    /// The cgroup was there before the container, with processes in it: it is somebody else's.
    shares_cgroup: AtomicBool,
    ended: watch::Sender<Option<Ended>>,
    live_execs: watch::Sender<usize>,
    give_up: Notify,
    inbox: mpsc::UnboundedSender<Command>,
}

impl Container {
    fn view(&self) -> MutexGuard<'_, View> {
        // A panic while it was held would have ended the program.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        self.view().state = state;
    }

    fn publish(&self, event: &Event) {
        self.publisher.publish(event);
    }

    /// Where it is on disk.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The stdio of its first process, as it was asked for.
    pub fn io(&self) -> &stdio::Request {
        &self.io
    }

    /// Its state now.
    pub fn snapshot(&self) -> Snapshot {
        let view = self.view();
        Snapshot { pid: view.state.pid(), status: view.state.status(), exit: view.state.exit() }
    }

    /// The exec of that id.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn exec(&self, exec: &ExecId) -> Result<Arc<Exec>> {
        let found = self.view().execs.get(exec).cloned();
        found.ok_or_else(|| {
            Error::not_found(format!("container {} has no exec {exec}", self.place.id))
        })
    }

    /// Every process in it: what its cgroup lists, and those known here, with the exec's id
    /// where it is one. Never empty while it lives, whatever its cgroup says; and one that has
    /// stopped still names the process it had. A containerd that comes back takes a container
    /// without pids for a leftover and removes it, and with it the exit status that nobody has
    /// asked for yet.
    pub fn pids(&self) -> Vec<(i32, Option<ExecId>)> {
        let mut pids = BTreeMap::new();
        if let Some(cgroup) = self.cgroup() {
            pids.extend(cgroup.pids().into_iter().map(|pid| (pid, None)));
        }
        let view = self.view();
        pids.extend(Some(view.state.pid()).filter(|&pid| pid != 0).map(|pid| (pid, None)));
        for (id, exec) in &view.execs {
            pids.extend(exec.process().map(|process| (process.pid(), Some(id.clone()))));
        }
        pids.into_iter().collect()
    }

    /// Its cgroup, if it has one of its own.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.get().and_then(Option::as_ref)
    }

    /// Its cgroup, if nobody else's processes are in it: the one to kill and to remove.
    fn own_cgroup(&self) -> Option<&Cgroup> {
        self.cgroup().filter(|_| !self.shares_cgroup.load(Ordering::Relaxed))
    }

    /// Sends a signal to its first process, or with `all` to every process in it. Needs no
    /// backend, so it works while the backend hangs; SIGKILL ends a creation that hangs.
    ///
    /// # Errors
    /// `NotFound` when it has ended, `FailedPrecondition` when it has no process yet,
    /// `InvalidArgument` for a signal that does not exist.
    pub fn kill(&self, signal: i32, all: bool) -> Result<()> {
        check_signal(signal)?;
        let state = self.view().state.clone();
        let init = match &state {
            State::Creating | State::Created(None) if signal == libc::SIGKILL => {
                self.give_up.notify_one();
                return Ok(());
            }
            State::Created(Some(init)) | State::Running(init) | State::Paused(init) => init,
            State::Stopped { .. } => {
                return Err(Error::not_found("process already finished"));
            }
            State::Creating | State::Created(None) => {
                return Err(Error::precondition(format!(
                    "no process yet: the container is {state}"
                )));
            }
        };
        match self.own_cgroup() {
            Some(cgroup) if all => drop(cgroup.kill_all(signal)?),
            _ if all => self.signal_known(signal),
            _ => init.signal(signal).map_err(|_| Error::not_found("process already finished"))?,
        }
        if signal == libc::SIGKILL {
            self.let_die();
        }
        Ok(())
    }

    /// Lets what has been sent SIGKILL die, whoever has frozen it.
    fn let_die(&self) {
        if let Some(cgroup) = self.cgroup()
            && let Err(error) = cgroup.let_die()
        {
            log::warn!(container = self.place.id.as_str(); "thaw for SIGKILL: {error}");
        }
    }

    /// Signals the processes that are known without a cgroup: the first one and the execs.
    fn signal_known(&self, signal: i32) {
        let view = self.view();
        let init = view.state.init().cloned().into_iter();
        for process in init.chain(view.execs.values().filter_map(|exec| exec.process())) {
            // Gone meanwhile is what the signal wanted.
            drop(process.signal(signal));
        }
    }

    /// Waits for the end of its first process.
    pub async fn wait(&self) -> Ended {
        wait_for(&self.ended).await
    }

    /// Lets its first process begin; returns the pid.
    ///
    /// # Errors
    /// `FailedPrecondition` unless it is created; what the backend says.
    pub async fn start(&self) -> Result<i32> {
        self.ask(Command::Start).await
    }

    /// Freezes it.
    ///
    /// # Errors
    /// `FailedPrecondition` unless it runs; what the backend says.
    pub async fn pause(&self) -> Result<()> {
        self.ask(Command::Pause).await
    }

    /// Thaws it.
    ///
    /// # Errors
    /// `FailedPrecondition` unless it is paused; what the backend says.
    pub async fn resume(&self) -> Result<()> {
        self.ask(Command::Resume).await
    }

    /// Changes its limits to runtime-spec's `linux.resources` in JSON.
    ///
    /// # Errors
    /// `FailedPrecondition` when it has no process; what the backend says.
    pub async fn update(&self, resources: Vec<u8>) -> Result<()> {
        self.ask(|reply| Command::Update(resources, reply)).await
    }

    /// Writes it to an image.
    ///
    /// # Errors
    /// `FailedPrecondition` unless it runs; what the backend says.
    pub async fn checkpoint(&self, checkpoint: Checkpoint) -> Result<()> {
        self.ask(|reply| Command::Checkpoint(checkpoint, reply)).await
    }

    /// Removes it and all that was made for it. One that is created and not started is killed
    /// first; a creation under way is given up.
    ///
    /// # Errors
    /// `FailedPrecondition` while it runs; what would not go, and then it can be asked again.
    pub async fn delete(&self) -> Result<Ended> {
        if matches!(self.view().state, State::Creating | State::Created(None)) {
            self.give_up.notify_one();
        }
        self.ask(Command::Delete).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::not_found(format!("container {} is gone", self.place.id));
        self.inbox.send(command(reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// The supervisor's side of a process's stdio.
    fn stdio(&self) -> Result<&Stdio> {
        self.stdio.get().ok_or_else(|| Error::precondition("it has no stdio yet"))
    }

    /// Sets its terminal's size, in characters.
    ///
    /// # Errors
    /// When it has no terminal.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        self.stdio()?.resize(width, height)
    }

    /// Ends its standard input; before there is one, as soon as there is.
    pub fn close_stdin(&self) {
        self.stdin_closed.store(true, Ordering::Relaxed);
        if let Some(stdio) = self.stdio.get() {
            stdio.close_stdin();
        }
    }

    /// Has the task let go of a container that was cleaned up from outside.
    pub fn forget(&self) {
        // A task that is gone has let go already.
        drop(self.inbox.send(Command::Forget));
    }
}

/// The socket for a terminal, where one is wanted. It lies in the container's folder, or beside
/// the containers where that would make its path longer than a socket's may be.
fn console_for(io: &stdio::Request, place: &Place) -> Result<Option<ConsoleSocket>> {
    const LONGEST: usize = 90;
    if !io.terminal {
        return Ok(None);
    }
    let own = place.folder.path();
    let beside = || own.ancestors().nth(2).unwrap_or(own).join(".pty");
    let folder = if own.as_os_str().len() <= LONGEST { own.to_owned() } else { beside() };
    ConsoleSocket::bind(&folder).map(Some)
}

/// Takes the terminal that the runtime has sent, where one was asked for.
async fn attach(stdio: &Stdio, console: Option<ConsoleSocket>) -> Result<()> {
    let Some(console) = console else { return Ok(()) };
    let master = tokio::time::timeout(CONSOLE, console.receive())
        .await
        .map_err(|_| Error::deadline("the runtime sent no terminal"))??;
    stdio.attach_console(master)
}

/// The process's description and the request must agree, or the runtime waits for a socket that
/// it was not given, or the supervisor for a terminal that nobody sends.
fn check_terminal(described: bool, requested: bool) -> Result<()> {
    if described == requested {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "process.terminal is {described}, and a terminal is {}asked for: make them agree",
        if requested { "" } else { "not " }
    )))
}

fn check_signal(signal: i32) -> Result<()> {
    if (1..=64).contains(&signal) {
        return Ok(());
    }
    Err(Error::invalid(format!("signal {signal} does not exist: use 1 to 64")))
}

async fn wait_for(ended: &watch::Sender<Option<Ended>>) -> Ended {
    let mut ended = ended.subscribe();
    let seen = ended.wait_for(Option::is_some).await.ok().and_then(|seen| *seen);
    // The sender is borrowed by this very call: it cannot be gone.
    seen.unwrap_or_else(|| (0, Exit::unknown()))
}

/// Waits for a backend's command that is about `process`; when that ends and the command does
/// not within `grace`, the command is given up.
pub(crate) async fn unless_dead<T>(
    process: &Process,
    grace: Duration,
    command: impl Future<Output = Result<T>>,
) -> Result<T> {
    let dead = async {
        process.exited().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        biased;
        result = command => result,
        () = dead => Err(Error::precondition(
            "the container's process ended and the runtime's command did not: it was given up",
        )),
    }
}
