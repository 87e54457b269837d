//! One more process in a container. Execs run side by side and independently of the container's
//! task; each has a task of its own from its start to its end.

use super::{
    Container, DRAIN, Ended, GRACE, SETTLE, Snapshot, attach, check_signal, check_terminal,
    console_for, unless_dead, wait_for,
};
use crate::backend::{More, ProcessIo};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::exit::Exit;
use crate::id::ExecId;
use crate::spec;
use crate::stdio::{self, Stdio};
use crate::store::Status;
use crate::sys::handle::Process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::{Notify, oneshot, watch};

/// Where an exec is in its life, with what exists there.
enum State {
    /// Waits for its start, with the JSON of its process.
    Added(Vec<u8>),
    /// The backend is making it.
    Starting,
    /// Its process runs.
    Running(Process),
    /// Its process has ended, or could not be made.
    Stopped(Ended),
}

/// An exec.
pub struct Exec {
    id: ExecId,
    io: stdio::Request,
    state: Mutex<State>,
    stdio: OnceLock<Stdio>,
    stdin_closed: AtomicBool,
    size: Mutex<Option<(u16, u16)>>,
    ended: watch::Sender<Option<Ended>>,
    give_up: Notify,
}

impl Exec {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its stdio, as it was asked for.
    pub fn io(&self) -> &stdio::Request {
        &self.io
    }

    /// Its process, while that runs.
    pub fn process(&self) -> Option<Process> {
        match &*self.state() {
            State::Running(process) => Some(process.clone()),
            State::Added(_) | State::Starting | State::Stopped(_) => None,
        }
    }

    /// Its state now.
    pub fn snapshot(&self) -> Snapshot {
        match &*self.state() {
            State::Added(_) | State::Starting => {
                Snapshot { pid: 0, status: Status::Created, exit: None }
            }
            State::Running(process) => {
                Snapshot { pid: process.pid(), status: Status::Running, exit: None }
            }
            State::Stopped((pid, exit)) => {
                Snapshot { pid: *pid, status: Status::Stopped, exit: Some(*exit) }
            }
        }
    }

    /// Sends it a signal; SIGKILL ends a start that hangs.
    ///
    /// # Errors
    /// As [`Container::kill`].
    pub fn kill(&self, signal: i32) -> Result<()> {
        check_signal(signal)?;
        match &*self.state() {
            State::Running(process) => {
                process.signal(signal).map_err(|_| Error::not_found("process already finished"))
            }
            State::Starting if signal == libc::SIGKILL => {
                self.give_up.notify_one();
                Ok(())
            }
            State::Stopped(_) => Err(Error::not_found("process already finished")),
            State::Added(_) | State::Starting => {
                Err(Error::precondition(format!("exec {} has no process yet", self.id)))
            }
        }
    }

    /// Waits for its end.
    pub async fn wait(&self) -> Ended {
        wait_for(&self.ended).await
    }

    fn size(&self) -> MutexGuard<'_, Option<(u16, u16)>> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets its terminal's size, in characters; before it has one, for when it does.
    ///
    /// # Errors
    /// When it was to have no terminal.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        if self.io.terminal && matches!(&*self.state(), State::Added(_) | State::Starting) {
            *self.size() = Some((width, height));
            return Ok(());
        }
        let stdio = self.stdio.get();
        stdio.ok_or_else(|| Error::precondition("the exec has no terminal"))?.resize(width, height)
    }

    /// Ends its standard input; before it was started, as soon as it is.
    pub fn close_stdin(&self) {
        self.stdin_closed.store(true, Ordering::Relaxed);
        if let Some(stdio) = self.stdio.get() {
            stdio.close_stdin();
        }
    }

    fn stop(&self, ended: Ended) {
        *self.state() = State::Stopped(ended);
        self.ended.send_replace(Some(ended));
    }
}

/// Counts an exec as alive, from before its process is made until its end is published.
struct Live(Arc<Container>);

impl Live {
    fn new(container: Arc<Container>) -> Self {
        container.live_execs.send_modify(|live| *live += 1);
        Self(container)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.live_execs.send_modify(|live| *live -= 1);
    }
}

impl Container {
    /// Adds an exec that waits for its start.
    ///
    /// # Errors
    /// `AlreadyExists`, `FailedPrecondition` unless the container is created or runs,
    /// `InvalidArgument` when `process` is not the JSON of a process.
    pub fn add_exec(&self, id: ExecId, process: Vec<u8>, io: stdio::Request) -> Result<()> {
        check_terminal(spec::parse_process(&process)?, io.terminal)?;
        let mut view = self.view();
        view.allow_exec()?;
        if view.execs.contains_key(&id) {
            return Err(Error::already_exists(format!("exec {id} already exists")));
        }
        let exec = Exec {
            id: id.clone(),
            io,
            state: Mutex::new(State::Added(process)),
            stdio: OnceLock::new(),
            stdin_closed: AtomicBool::new(false),
            size: Mutex::new(None),
            ended: watch::channel(None).0,
            give_up: Notify::new(),
        };
        view.execs.insert(id.clone(), Arc::new(exec));
        // Published under the lock: whoever starts it has to find it first.
        self.publish(&Event::ExecAdded { id: self.place.id.clone(), exec: id });
        Ok(())
    }

    /// Starts an exec; returns the pid.
    ///
    /// # Errors
    /// `FailedPrecondition` when it was started before, or unless the container is created or
    /// runs; what the backend says.
    pub async fn start_exec(self: &Arc<Self>, id: &ExecId) -> Result<i32> {
        let exec = self.exec(id)?;
        let (process, init, live) = {
            let view = self.view();
            let init = view.allow_exec()?;
            let mut state = exec.state();
            let State::Added(process) = &mut *state else {
                return Err(Error::precondition(format!("exec {id} was started before")));
            };
            let process = std::mem::take(process);
            *state = State::Starting;
            (process, init, Live::new(self.clone()))
        };
        let (reply, answer) = oneshot::channel();
        // A task of its own: the exec goes on when the caller gives up waiting.
        tokio::spawn(run(live, exec, process, init, reply));
        answer.await.map_err(|_| Error::unknown("the exec's task is gone"))?
    }

    /// Forgets an exec that has ended, or was never started.
    ///
    /// # Errors
    /// `FailedPrecondition` while it runs.
    pub async fn delete_exec(&self, id: &ExecId) -> Result<Ended> {
        let exec = self.exec(id)?;
        let ended = match &*exec.state() {
            State::Stopped(ended) => *ended,
            State::Added(_) => (0, Exit::exited(0)),
            State::Starting | State::Running(_) => {
                return Err(Error::precondition(format!("cannot delete exec {id}: it is running")));
            }
        };
        exec.give_up_waiting();
        exec.close_stdio().await;
        // Another call may have removed it meanwhile, and the id be in use again.
        let mut view = self.view();
        if view.execs.get(id).is_some_and(|now| Arc::ptr_eq(now, &exec)) {
            view.execs.remove(id);
        }
        Ok(ended)
    }
}

impl Exec {
    /// One that was not started by now never will be: whoever waits for it is told.
    pub(super) fn give_up_waiting(&self) {
        let waiting = matches!(&*self.state(), State::Added(_));
        if waiting {
            self.stop((0, Exit::unknown()));
        }
    }

    /// Waits a little for the last of the output, and closes everything.
    pub(super) async fn close_stdio(&self) {
        if let Some(stdio) = self.stdio.get() {
            stdio.drain(DRAIN).await;
            stdio.close().await;
        }
    }
}

/// From the start of an exec to its end.
async fn run(
    live: Live,
    exec: Arc<Exec>,
    process: Vec<u8>,
    init: Process,
    reply: oneshot::Sender<Result<i32>>,
) {
    let container = &live.0;
    let made = tokio::select! {
        biased;
        made = unless_dead(&init, GRACE, make(container, &exec, &process)) => made,
        () = exec.give_up.notified() => Err(Error::precondition("it was killed while it started")),
    };
    let child = match made {
        Ok(child) => child,
        Err(error) => {
            exec.stop((0, Exit::unknown()));
            if let Some(stdio) = exec.stdio.get() {
                stdio.close().await;
            }
            // The caller may have given up waiting.
            drop(reply.send(Err(
                error.context(format!("exec {} in container {}", exec.id, container.place.id)),
            )));
            return;
        }
    };
    let pid = child.pid();
    *exec.state() = State::Running(child.clone());
    let (id, exec_id) = (container.place.id.clone(), exec.id.clone());
    container.publish(&Event::ExecStarted { id: id.clone(), exec: exec_id.clone(), pid });
    drop(reply.send(Ok(pid)));
    let exit = child.exited().await;
    if let Some(stdio) = exec.stdio.get() {
        stdio.settle(SETTLE).await;
    }
    exec.stop((pid, exit));
    container.publish(&Event::Exit { id, exec: Some(exec_id), pid, exit });
}

async fn make(container: &Container, exec: &Exec, process: &[u8]) -> Result<Process> {
    let place = &container.place;
    let (stdio, child) =
        Stdio::open(&exec.io, container.owner, place.id.as_str(), place.namespace.as_str()).await?;
    let stdio = exec.stdio.get_or_init(|| stdio);
    if exec.stdin_closed.load(Ordering::Relaxed) {
        stdio.close_stdin();
    }
    let console = console_for(&exec.io, place)?;
    let console_socket = console.as_ref().map(|socket| socket.path().to_owned());
    let process = container
        .backend
        .exec(&exec.id, process, ProcessIo { child, console_socket, more: More::default() })
        .await?;
    let process = KillOnDrop(Some(process));
    attach(stdio, console).await?;
    if let Some((width, height)) = *exec.size() {
        stdio.resize(width, height)?;
    }
    process.keep().ok_or_else(|| Error::unknown("the exec's process is gone"))
}

/// A process that nobody would know of if what follows its making failed.
struct KillOnDrop(Option<Process>);

impl KillOnDrop {
    fn keep(mut self) -> Option<Process> {
        self.0.take()
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            // Ended meanwhile is what the signal wanted.
            drop(process.signal(libc::SIGKILL));
        }
    }
}
