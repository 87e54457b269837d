//! The life of one container, from top to bottom.

use super::{
    CHECKPOINT_END, Command, Container, DRAIN, Ended, GRACE, Op, SETTLE, State, Table, View,
    attach, check_terminal, console_for, unless_dead,
};
use crate::backend::{self, More, Place, ProcessIo};
use crate::bundle::Rootfs;
use crate::config::Config;
use crate::cri::Cri;
use crate::error::{Context, Error, Result};
use crate::event::{Created, Event};
use crate::exit::Exit;
use crate::id::{ContainerId, Namespace};
use crate::postmortem;
use crate::route::{self, Subject};
use crate::shim::publisher::Publisher;
use crate::spec::{self, Spec};
use crate::stdio::{self, ChildIo, Stdio};
use crate::store::{self, Folder, ProcessId, Record, Status};
use crate::sys::cgroup::Cgroup;
use crate::sys::handle::Process;
use crate::sys::mount::Mount;
use crate::sys::oom::OomWatch;
use crate::sys::process;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// How long the init's end waits for the ends of execs that hang in the kernel.
const EXECS_END: Duration = Duration::from_secs(5);

/// What a Create call asks for.
#[derive(Debug)]
pub struct CreateRequest {
    /// The namespace of this supervisor.
    pub namespace: Namespace,
    /// The container's id.
    pub id: ContainerId,
    /// The bundle's absolute path.
    pub bundle: PathBuf,
    /// Mounts of its root, in order.
    pub rootfs: Vec<Mount>,
    /// Stdio of its process.
    pub io: stdio::Request,
    /// An image to restore it from; empty for none.
    pub checkpoint: String,
}

/// What a created container needs for the rest of its life.
#[derive(Default)]
struct Made {
    rootfs: Option<Rootfs>,
    record: Option<Record>,
    /// The container's folder is this one's, and what is in it.
    claimed: bool,
    /// Stdio that waits for a restore, which is done at the start.
    waiting: Option<ChildIo>,
    shares_pid_namespace: bool,
    checkpoint: String,
}

/// Makes a container and its task; returns the pid of its init (0 before a restore) once
/// containerd has been told.
///
/// # Errors
/// `AlreadyExists`; `InvalidArgument` when the bundle or the request is wrong; what the backend
/// says. Nothing is left of a container that could not be made.
pub async fn create(
    request: CreateRequest,
    config: &Config,
    publisher: &Publisher,
    table: &Table,
) -> Result<i32> {
    let id = request.id.clone();
    let doing = || format!("create container {id}");
    if !request.bundle.is_absolute() {
        return Err(Error::invalid(format!("bundle {:?} is not an absolute path", request.bundle)))
            .context(doing);
    }
    let spec = spec::load(&request.bundle).context(doing)?;
    let place = Place {
        folder: Folder::of(&config.state_dir, &request.namespace, &request.id),
        namespace: request.namespace,
        id: request.id,
        bundle: request.bundle,
    };
    check_terminal(spec.terminal, request.io.terminal).context(doing)?;
    Cri::of(&spec.annotations).check_sandbox(&config.state_dir, &place.namespace).context(doing)?;
    let subject = Subject::of(&place.namespace, &place.id, &spec.annotations);
    let decision = route::decide(config, &subject).context(doing)?;
    let (namespace, annotations) = (place.namespace.clone(), subject.annotations);
    log::debug!(container = id.as_str(); "backend {}: {}", decision.backend, decision.reason);
    let backend = backend::open(decision.backend, config, place.clone(), &spec).context(doing)?;
    let (inbox, commands) = mpsc::unbounded_channel();
    let container = Arc::new(Container {
        place,
        io: request.io,
        owner: stdio::Owner { uid: config.io_uid, gid: config.io_gid },
        backend,
        publisher: publisher.clone(),
        view: Mutex::new(View { state: State::Creating, execs: BTreeMap::new(), closing: false }),
        stdio: OnceLock::new(),
        stdin_closed: AtomicBool::new(false),
        cgroup: OnceLock::new(),
        shares_cgroup: AtomicBool::new(false),
        ended: watch::channel(None).0,
        live_execs: watch::channel(0).0,
        give_up: Notify::new(),
        inbox,
    });
    table.insert(container.clone())?;
    let (reply, answer) = oneshot::channel();
    let life =
        Life { container, commands, table: table.clone(), made: Made::default(), deleting: None };
    tokio::spawn(life.live(spec, request.rootfs, request.checkpoint, reply));
    let made = answer.await.map_err(|_| Error::unknown("the container's task is gone"))?;
    // A sandbox that has ended meanwhile is why, whatever a runtime says of its namespaces.
    let why = |error| {
        let sandbox = Cri::of(&annotations).check_sandbox(&config.state_dir, &namespace);
        sandbox.err().unwrap_or(error)
    };
    made.map_err(why).context(doing)
}

struct Life {
    container: Arc<Container>,
    commands: mpsc::UnboundedReceiver<Command>,
    table: Table,
    made: Made,
    /// A Delete that came before the end, and waits for it.
    deleting: Option<oneshot::Sender<Result<Ended>>>,
}

impl Life {
    async fn live(
        mut self,
        spec: Spec,
        rootfs: Vec<Mount>,
        checkpoint: String,
        created: oneshot::Sender<Result<i32>>,
    ) {
        let container = self.container.clone();
        let make = make(&container, &mut self.made, spec, &rootfs, checkpoint);
        let result = tokio::select! {
            biased;
            result = make => result,
            () = container.give_up.notified() => {
                Err(Error::precondition("it was killed while it was being created"))
            }
        };
        // What reading the bundle took goes back to the kernel.
        process::trim_heap();
        let init = match result {
            Ok(init) => init,
            Err(error) => {
                let error = self.undo(error).await;
                self.table.forget(&container.place.id);
                self.refuse_all();
                // Whoever waits for the end of a container that never was: this is it.
                container.ended.send_replace(Some((0, Exit::unknown())));
                drop(created.send(Err(error)));
                return;
            }
        };
        let pid = init.as_ref().map_or(0, Process::pid);
        container.set(State::Created(init));
        container.publish(&self.created_event(rootfs, pid));
        drop(created.send(Ok(pid)));

        if let Some(exit) = self.until_end().await {
            self.end(exit).await;
            self.until_deleted().await;
        }
        self.refuse_all();
    }

    fn created_event(&self, rootfs: Vec<Mount>, pid: i32) -> Event {
        let (place, io) = (&self.container.place, &self.container.io);
        Event::Create(Box::new(Created {
            id: place.id.clone(),
            bundle: place.bundle.clone(),
            rootfs,
            stdin: io.stdin.clone(),
            stdout: io.stdout.clone(),
            stderr: io.stderr.clone(),
            terminal: io.terminal,
            checkpoint: self.made.checkpoint.clone(),
            pid,
        }))
    }

    /// Undoes a creation, all of it, whatever of it there was.
    async fn undo(&mut self, error: Error) -> Error {
        if !self.made.claimed {
            // What is there is not this container's.
            return error;
        }
        let container = &self.container;
        let mut errors = vec![error];
        errors.extend(backend::undo(container.backend.as_ref(), self.made.record.as_ref()).await);
        if let Some(stdio) = container.stdio.get() {
            stdio.close().await;
        }
        errors.extend(self.made.rootfs.take().and_then(|rootfs| rootfs.unmount().err()));
        errors.extend(container.place.folder.remove().err());
        Error::list(errors).unwrap_or_else(|| Error::unknown("not created"))
    }

    /// Serves commands until the container's process ends; `None` when it is to be forgotten.
    async fn until_end(&mut self) -> Option<Ended> {
        let container = self.container.clone();
        let mut oom = self.killed_in().as_ref().and_then(watch_oom);
        loop {
            let init = container.view().state.init().cloned();
            let ended = async {
                match &init {
                    Some(init) => (init.pid(), init.exited().await),
                    None => std::future::pending().await,
                }
            };
            let watched = oom.is_some();
            let dying = async {
                match init.as_ref().filter(|_| watched) {
                    Some(init) => init.dying().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    // Nobody asks a container to be deleted that has no process to wait for.
                    Some(Command::Delete(reply)) if init.is_none() => {
                        self.deleting = Some(reply);
                        return Some((0, Exit::unknown()));
                    }
                    Some(Command::Forget) => return None,
                    Some(command) => self.on(command).await,
                    // The container, which this task owns too, holds the other end.
                    None => std::future::pending().await,
                },
                () = dying => {
                    // LXC may remove the cgroup, and the count with it, before the status is known.
                    if let Some(mut oom) = oom.take()
                        && oom.check().await
                    {
                        self.publish_oom();
                    }
                }
                () = next_oom(&mut oom) => self.publish_oom(),
                ended = ended => {
                    // The kernel tells of the kill and of the death in one breath: the reason is
                    // published before the consequence.
                    if let Some(oom) = &mut oom
                        && oom.check().await
                    {
                        self.publish_oom();
                    }
                    return Some(ended);
                }
            }
        }
    }

    /// Where the kernel counts that it killed something for want of memory: version 1 of the
    /// controller does so where the process is, which may be below the limit that it hit; version 2
    /// there and in all above, of which LXC leaves the one with the limits.
    fn killed_in(&self) -> Option<Cgroup> {
        let limits = self.container.cgroup();
        if limits.is_some_and(|cgroup| cgroup.legacy("memory").is_none()) {
            return limits.cloned();
        }
        let pid = self.container.snapshot().pid;
        let own = Some(pid).filter(|&pid| pid != 0).and_then(|pid| Cgroup::of(pid).ok().flatten());
        own.or_else(|| limits.cloned())
    }

    fn publish_oom(&self) {
        self.container.publish(&Event::Oom { id: self.container.place.id.clone() });
    }

    /// The process has ended: everything else in the container ends, then the end is told.
    async fn end(&mut self, (pid, exit): Ended) {
        let container = self.container.clone();
        container.view().closing = true;
        if self.made.shares_pid_namespace {
            // The kernel ends the others only where the init had a pid namespace of its own.
            if let Some(Err(error)) =
                container.own_cgroup().map(|cgroup| cgroup.kill_all(libc::SIGKILL))
            {
                log::error!(container = container.place.id.as_str();
                    "kill what is left in the container: {error}");
            }
        }
        let mut live = container.live_execs.subscribe();
        if tokio::time::timeout(EXECS_END, live.wait_for(|live| *live == 0)).await.is_err() {
            log::error!(container = container.place.id.as_str();
                "execs have not ended {} s after the container's process", EXECS_END.as_secs());
        }
        for exec in container.view().execs.values() {
            exec.give_up_waiting();
        }
        if let Some(stdio) = container.stdio.get() {
            stdio.settle(SETTLE).await;
        }
        self.save(Status::Stopped, |record| record.note_exit(exit));
        container.set(State::Stopped { pid, exit });
        if pid != 0 {
            let id = container.place.id.clone();
            container.publish(&Event::Exit { id, exec: None, pid, exit });
        }
        container.ended.send_replace(Some((pid, exit)));
    }

    /// Serves commands until a Delete succeeds.
    async fn until_deleted(&mut self) {
        loop {
            let command = match self.deleting.take() {
                Some(reply) => Some(Command::Delete(reply)),
                None => self.commands.recv().await,
            };
            match command {
                Some(Command::Delete(reply)) => match self.delete().await {
                    Ok(ended) => {
                        drop(reply.send(Ok(ended)));
                        return;
                    }
                    Err(error) => drop(reply.send(Err(error))),
                },
                Some(Command::Forget) | None => return,
                Some(command) => self.on(command).await,
            }
        }
    }

    /// Nothing more will be done: whoever still waits is told that the container is gone.
    fn refuse_all(&mut self) {
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
    }

    async fn on(&mut self, command: Command) {
        // The callers may have given up waiting; what they asked for is done all the same.
        match command {
            Command::Start(reply) => {
                let result = self.start().await;
                drop(reply.send(self.said("start", result)));
                // From here on it is idle, as a rule, until the end.
                process::trim_program();
            }
            Command::Pause(reply) => {
                let result = self.pause().await;
                drop(reply.send(self.said("pause", result)));
            }
            Command::Resume(reply) => {
                let result = self.resume().await;
                drop(reply.send(self.said("resume", result)));
            }
            Command::Update(resources, reply) => {
                let result = self.update(&resources).await;
                drop(reply.send(self.said("update", result)));
            }
            Command::Checkpoint(checkpoint, reply) => {
                let result = self.checkpoint(&checkpoint).await;
                drop(reply.send(self.said("checkpoint", result)));
            }
            Command::Delete(reply) => self.delete_early(reply),
            // Both loops take it before it comes here.
            Command::Forget => {}
        }
    }

    fn said<T>(&self, verb: &str, result: Result<T>) -> Result<T> {
        result.context(|| format!("{verb} container {}", self.container.place.id))
    }

    /// The process this command is about, if the state allows the command.
    fn allowed(&self, op: Op) -> Result<Option<Process>> {
        let view = self.container.view();
        view.state.allow(op)?;
        Ok(view.state.init().cloned())
    }

    async fn start(&mut self) -> Result<i32> {
        let init = match self.allowed(Op::Start)? {
            Some(init) => {
                unless_dead(&init, GRACE, self.container.backend.start()).await?;
                init
            }
            None => {
                let container = self.container.clone();
                tokio::select! {
                    biased;
                    restored = self.restore() => restored?,
                    () = container.give_up.notified() => {
                        return Err(Error::precondition("it was killed while it was restored"));
                    }
                }
            }
        };
        let pid = init.pid();
        self.container.set(State::Running(init));
        self.save(Status::Running, |_| ());
        self.container.publish(&Event::Start { id: self.container.place.id.clone(), pid });
        Ok(pid)
    }

    async fn restore(&mut self) -> Result<Process> {
        let container = self.container.clone();
        let child = self.made.waiting.take().ok_or_else(|| {
            Error::precondition("its restore has failed before: delete it and create it again")
        })?;
        let console = console_for(&container.io, &container.place)?;
        let console_socket = console.as_ref().map(|socket| socket.path().to_owned());
        let image = PathBuf::from(&self.made.checkpoint);
        let io = ProcessIo { child, console_socket, more: More::default() };
        let init = container.backend.restore(&image, io).await?;
        if let Some(stdio) = container.stdio.get() {
            attach(stdio, console).await?;
        }
        container.cgroup.get_or_init(|| Cgroup::of(init.pid()).ok().flatten());
        self.save(Status::Created, |record| note_init(record, &container, &init));
        Ok(init)
    }

    async fn pause(&mut self) -> Result<()> {
        let Some(init) = self.allowed(Op::Pause)? else { return Ok(()) };
        unless_dead(&init, GRACE, self.container.backend.pause()).await?;
        self.container.set(State::Paused(init));
        self.save(Status::Paused, |_| ());
        self.container.publish(&Event::Paused { id: self.container.place.id.clone() });
        Ok(())
    }

    async fn resume(&mut self) -> Result<()> {
        let Some(init) = self.allowed(Op::Resume)? else { return Ok(()) };
        unless_dead(&init, GRACE, self.container.backend.resume()).await?;
        self.container.set(State::Running(init));
        self.save(Status::Running, |_| ());
        self.container.publish(&Event::Resumed { id: self.container.place.id.clone() });
        Ok(())
    }

    async fn update(&self, resources: &[u8]) -> Result<()> {
        spec::parse_resources(resources)?;
        let Some(init) = self.allowed(Op::Update)? else { return Ok(()) };
        unless_dead(&init, GRACE, self.container.backend.update(resources)).await
    }

    async fn checkpoint(&self, checkpoint: &backend::Checkpoint) -> Result<()> {
        let Some(init) = self.allowed(Op::Checkpoint)? else { return Ok(()) };
        let grace = if checkpoint.exit { CHECKPOINT_END } else { GRACE };
        unless_dead(&init, grace, self.container.backend.checkpoint(checkpoint)).await?;
        let (id, image) = (self.container.place.id.clone(), checkpoint.image.clone());
        self.container.publish(&Event::Checkpointed { id, image });
        Ok(())
    }

    /// A Delete before the end: one that was never started is killed, and the answer waits for
    /// its end.
    fn delete_early(&mut self, reply: oneshot::Sender<Result<Ended>>) {
        let state = self.container.view().state.clone();
        match state {
            State::Created(Some(init)) => {
                // Ended meanwhile is what the signal wanted.
                drop(init.signal(libc::SIGKILL));
                self.container.let_die();
                self.deleting = Some(reply);
            }
            state => drop(reply.send(Err(Error::precondition(format!(
                "cannot delete container {}: it is {state}; kill it first",
                self.container.place.id
            ))))),
        }
    }

    async fn delete(&mut self) -> Result<Ended> {
        let container = self.container.clone();
        let id = &container.place.id;
        let doing = || format!("delete container {id}");
        // The ends of pipes that a restore would have used.
        self.made.waiting = None;
        close_all_stdio(&container).await;
        // What a restore left half-made runs, and goes only by force.
        let never_ran = container.snapshot().pid == 0;
        backend::delete_bounded(container.backend.as_ref(), never_ran).await.context(doing)?;
        let mut errors = Vec::new();
        if let Some(cgroup) = container.own_cgroup() {
            errors.extend(cgroup.remove().err());
        }
        if let Some(rootfs) = self.made.rootfs.clone() {
            // The kernel writes an overlay's files back first, which may take seconds.
            let unmounted = tokio::task::spawn_blocking(move || rootfs.unmount()).await;
            errors.extend(
                unmounted.map_err(|error| Error::unknown(error.to_string())).flatten().err(),
            );
        }
        errors.extend(container.place.folder.remove().err());
        if let Some(error) = Error::list(errors) {
            return Err(error).context(doing);
        }
        let (pid, exit) = container.wait().await;
        container.publish(&Event::Delete { id: id.clone(), pid, exit });
        self.table.remove(id, (pid, exit));
        Ok((pid, exit))
    }

    /// Writes the record. A container goes on where that fails (a full /run): what containerd
    /// is told does not depend on it, and the log says so.
    fn save(&mut self, status: Status, change: impl FnOnce(&mut Record)) {
        let Some(record) = &mut self.made.record else { return };
        record.status = status;
        change(record);
        if let Err(error) = self.container.place.folder.save(record) {
            log::error!(container = self.container.place.id.as_str(); "{error}");
        }
    }
}

/// Everything up to "created", in order; `made` has what has to be undone at each point.
async fn make(
    container: &Container,
    made: &mut Made,
    spec: Spec,
    mounts: &[Mount],
    checkpoint: String,
) -> Result<Option<Process>> {
    let place = &container.place;
    postmortem::claim(place, |record| record.own.supervisor.is_some_and(ProcessId::is_alive))
        .await?;
    made.claimed = true;
    store::note_in(&place.bundle, &place.folder)?;
    made.rootfs = Rootfs::mount(&place.bundle, mounts)?;
    let root = spec.rootfs(&place.bundle);
    if !root.is_dir() {
        return Err(Error::invalid(format!(
            "the root file system {} is not a folder: config.json names it in root.path",
            root.display()
        )));
    }
    made.shares_pid_namespace = spec.shares_pid_namespace();
    let mounted = made.rootfs.as_ref().map(Rootfs::folder);
    let record = backend::new_record(place, container.backend.as_ref(), spec, mounted);
    let record = made.record.insert(record);
    container.shares_cgroup.store(backend::disown_cgroup(record)?, Ordering::Relaxed);
    place.folder.save(record)?;
    let (stdio, child) =
        Stdio::open(&container.io, container.owner, place.id.as_str(), place.namespace.as_str())
            .await?;
    let stdio = container.stdio.get_or_init(|| stdio);
    if container.stdin_closed.load(Ordering::Relaxed) {
        stdio.close_stdin();
    }
    if !checkpoint.is_empty() {
        made.checkpoint = checkpoint;
        made.waiting = Some(child);
        record.status = Status::Created;
        place.folder.save(record)?;
        return Ok(None);
    }
    let console = console_for(&container.io, place)?;
    let console_socket = console.as_ref().map(|socket| socket.path().to_owned());
    let init = container
        .backend
        .create(ProcessIo { child, console_socket, more: More::default() })
        .await?;
    attach(stdio, console).await?;
    container.cgroup.get_or_init(|| backend::cgroup_of(container.backend.as_ref(), init.pid()));
    record.status = Status::Created;
    note_init(record, container, &init);
    place.folder.save(record)?;
    Ok(Some(init))
}

fn note_init(record: &mut Record, container: &Container, init: &Process) {
    record.note_init(init.pid(), container.own_cgroup().cloned());
    container.backend.record(&mut record.own);
}

/// Closes the stdio of the container and of its execs, all at once: each may take its time.
async fn close_all_stdio(container: &Arc<Container>) {
    let mut closing = tokio::task::JoinSet::new();
    let execs: Vec<_> = container.view().execs.values().cloned().collect();
    for exec in execs {
        closing.spawn(async move { exec.close_stdio().await });
    }
    let container = container.clone();
    closing.spawn(async move {
        if let Some(stdio) = container.stdio.get() {
            stdio.drain(DRAIN).await;
            stdio.close().await;
        }
    });
    closing.join_all().await;
}

fn watch_oom(cgroup: &Cgroup) -> Option<OomWatch> {
    OomWatch::new(cgroup).unwrap_or_else(|error| {
        log::warn!("no watch for out-of-memory kills: {error}");
        None
    })
}

/// The next kill; never ends where there is nothing to watch.
async fn next_oom(watch: &mut Option<OomWatch>) {
    if let Some(oom) = watch {
        if oom.next().await {
            return;
        }
        *watch = None;
    }
    std::future::pending().await
}
