//! `create` and `run`.
//!
//! Whoever calls `create` or `run -d` (conmon, containerd's shim for runc) waits for the
//! container's process itself: here it is left to be nobody's child, and a watcher stays. `run`
//! without `-d` is itself the container's supervisor until that ends.

use super::args::{Create, Make, Run};
use super::foreground::{Foreground, Terminal};
use super::output::{self, inherited_io};
use super::runtime::{Runtime, absolute, block_on};
use super::watcher::{Handed, Watcher};
use super::{Said, delete};
use crate::backend::{self, Backend, More, Place, ProcessIo};
use crate::bundle::validate;
use crate::config::BackendName;
use crate::container::{GRACE, unless_dead};
use crate::error::{Context, Error, Kind, Result};
use crate::postmortem;
use crate::spec::{self, Spec};
use crate::store::{Lock, ProcessId, Record, Status};
use crate::sys::handle::Process;
use crate::sys::{process, reaper};
use std::path::PathBuf;

/// `nexcage create`
///
/// # Errors
/// What is wrong with the bundle or a flag; what the backend says. Nothing is left then.
pub fn create(mut runtime: Runtime, args: Create) -> Result<Said> {
    let id = args.id.clone();
    let making = Making::new(&mut runtime, &args.id, args.folder, args.make)?;
    making.detached(Then::Nothing).context(|| format!("create container {id}"))?;
    Ok(Said::default())
}

/// `nexcage run`
///
/// # Errors
/// As [`create`], and what the start says.
pub fn run(mut runtime: Runtime, args: Run) -> Result<Said> {
    let doing = || format!("run container {}", args.id);
    let making = Making::new(&mut runtime, &args.id, args.folder, args.make)?;
    if args.detach {
        making.detached(Then::Start).context(doing)?;
        return Ok(Said::default());
    }
    let status = making.in_foreground(args.no_subreaper, args.keep).context(doing)?;
    Ok(Said { status, ..Said::default() })
}

/// What follows a creation.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    Start,
}

/// A container that is about to be made.
pub struct Making {
    place: Place,
    spec: Spec,
    backend: Box<dyn Backend>,
    flags: Make,
    /// What the process gets beside its stdio.
    more: More,
    /// An image to restore it from.
    image: Option<PathBuf>,
}

impl Making {
    /// Reads and checks the bundle, and finds the backend; nothing is made yet.
    ///
    /// # Errors
    /// What is wrong with them; of the bundle all that is.
    pub fn new(
        runtime: &mut Runtime,
        id: &str,
        folder: Option<PathBuf>,
        mut flags: Make,
    ) -> Result<Self> {
        let bundle = folder.or(flags.bundle.take()).unwrap_or_else(|| ".".into());
        let bundle = absolute(&bundle)?;
        for path in [&mut flags.console_socket, &mut flags.pid_file, &mut flags.pidfd_socket] {
            *path = path.take().map(|path| absolute(&path)).transpose()?;
        }
        runtime.config.no_pivot_root |= flags.no_pivot;
        runtime.config.no_new_keyring |= flags.no_new_keyring;
        let place = runtime.place(id, bundle)?;
        // All that is wrong with it, and not only what is met first.
        let spec = spec::load(&place.bundle)
            .map_err(|error| validate::admit(&place.bundle, None).err().unwrap_or(error))?;
        let backend = runtime.open(place.clone(), &spec)?;
        validate::admit(&place.bundle, BackendName::parse(backend.name()).ok())?;
        let more = output::passed_fds(flags.preserve_fds)?;
        Ok(Self { place, spec, backend, flags, more, image: None })
    }

    /// Makes it of an image, with flags for the backend's own command.
    #[must_use]
    pub fn of_image(mut self, image: PathBuf, flags: Vec<String>) -> Self {
        self.image = Some(image);
        self.more.flags = flags;
        self
    }

    /// Restores it, and leaves a watcher behind.
    ///
    /// # Errors
    /// As [`create`].
    pub fn restore_detached(self) -> Result<()> {
        self.detached(Then::Nothing)
    }

    fn detached(mut self, then: Then) -> Result<()> {
        match (self.spec.terminal, &self.flags.console_socket) {
            (true, None) => {
                return Err(Error::invalid(
                    "cannot allocate tty if it will detach without setting console socket: give \
                     --console-socket, or set process.terminal to false",
                ));
            }
            (false, Some(_)) => {
                return Err(Error::invalid(
                    "cannot use console socket if it will not allocate a tty: leave out \
                     --console-socket, or set process.terminal to true",
                ));
            }
            _ => {}
        }
        let watcher = Watcher::fork(&self.place)?;
        reaper::leave_to_others();
        let supervisor = watcher.id;
        block_on(async {
            let console = self.flags.console_socket.take();
            let (mut made, lock) = match self.make(supervisor, console).await {
                Ok(made) => made,
                Err(error) => {
                    watcher.dismiss();
                    return Err(error);
                }
            };
            // The watcher is told before the start: a process may end at once.
            let told = match made.hand_over(then) {
                Ok(handed) => watcher.tell(&made.making.place, handed),
                Err(error) => {
                    watcher.dismiss();
                    Err(error)
                }
            };
            drop(lock);
            let done = match (told, then) {
                (Ok(()), Then::Start) => made.start().await,
                (done, _) => done,
            };
            match done {
                Ok(()) => Ok(()),
                Err(error) => Err(made.undo(error).await),
            }
        })
    }

    /// Restores it, and waits for its end; returns the status to end with.
    ///
    /// # Errors
    /// As [`create`].
    pub fn restore_in_foreground(self, no_subreaper: bool) -> Result<u8> {
        self.in_foreground(no_subreaper, false)
    }

    fn in_foreground(mut self, no_subreaper: bool, keep: bool) -> Result<u8> {
        let supervisor = ProcessId::of(nix::unistd::getpid().as_raw());
        let supervisor = supervisor.ok_or_else(|| Error::unknown("this process is not there"))?;
        if no_subreaper {
            reaper::leave_to_others();
        } else {
            process::become_subreaper()?;
        }
        let given = self.flags.console_socket.take();
        if given.is_some() && !self.spec.terminal {
            return Err(Error::invalid("--console-socket is for a process with a terminal"));
        }
        block_on(async {
            let mut foreground = Foreground::catch_signals()?;
            let own_terminal = self.spec.terminal && given.is_none();
            let terminal = own_terminal.then(|| Terminal::new(&self.place)).transpose()?;
            let console = terminal.as_ref().map(|terminal| terminal.path().to_owned()).or(given);
            let (mut made, lock) = self.make(supervisor, console).await?;
            drop(lock);
            // Nobody takes over from this process, and what nobody reads holds its sender up.
            drop(made.making.backend.teller());
            let started = async {
                let attached = match terminal {
                    Some(terminal) => Some(terminal.attach().await?),
                    None => None,
                };
                made.start().await?;
                Ok(attached)
            };
            let attached = match started.await {
                Ok(attached) => attached,
                Err(error) => return Err(made.undo(error).await),
            };
            let exit = foreground.until_end(&made.init, attached).await;
            let recorded = made.change(|record| record.note_exit(exit));
            match recorded {
                // Whoever ended it has removed it: a deletion by force, a checkpoint.
                Err(error) if error.kind() == Kind::NotFound => {}
                recorded => {
                    recorded?;
                    if !keep {
                        delete::remove(&made.making.place).await?;
                    }
                }
            }
            Ok(u8::try_from(exit.status).unwrap_or(u8::MAX))
        })
    }

    /// Everything up to "created"; nobody else changes the container as long as the lock is held.
    async fn make(
        mut self,
        supervisor: ProcessId,
        console: Option<PathBuf>,
    ) -> Result<(Made, Lock)> {
        let root = self.spec.rootfs(&self.place.bundle);
        if !root.is_dir() {
            return Err(Error::invalid(format!(
                "the root file system {} is not a folder: config.json names it in root.path",
                root.display()
            )));
        }
        // One that exists is somebody's, unless its maker died while it made it.
        postmortem::claim(&self.place, |record| {
            record.status != Status::Creating
                || record.own.supervisor.is_some_and(ProcessId::is_alive)
        })
        .await?;
        let lock = self.place.folder.lock()?;
        let mut record =
            backend::new_record(&self.place, self.backend.as_ref(), self.spec.clone(), None);
        record.own.by_command = true;
        record.own.supervisor = Some(supervisor);
        record.own.maker = ProcessId::of(nix::unistd::getpid().as_raw());
        let more = std::mem::take(&mut self.more);
        let made = async {
            let shares_cgroup = backend::disown_cgroup(&mut record)?;
            self.place.folder.save(&record)?;
            let io = ProcessIo { child: inherited_io()?, console_socket: console, more };
            let init = match &self.image {
                Some(image) => self.backend.restore(image, io).await?,
                None => self.backend.create(io).await?,
            };
            let cgroup = backend::cgroup_of(self.backend.as_ref(), init.pid());
            record.status = if self.image.is_some() { Status::Running } else { Status::Created };
            record.own.maker = None;
            record.note_init(init.pid(), cgroup.filter(|_| !shares_cgroup));
            self.backend.record(&mut record.own);
            self.place.folder.save(&record)?;
            let Make { pidfd_socket, pid_file, .. } = &self.flags;
            output::tell_pid(init.pid(), pidfd_socket.as_deref(), pid_file.as_deref())?;
            Ok(init)
        };
        match made.await {
            Ok(init) => Ok((Made { making: self, record, init }, lock)),
            Err(error) => {
                drop(lock);
                Err(self.undo(&record, error).await)
            }
        }
    }

    /// Leaves nothing of it.
    async fn undo(&self, record: &Record, error: Error) -> Error {
        // The watcher, for one, waits until there is nothing left to write to.
        let lock = self.place.folder.lock();
        let mut errors = vec![error];
        errors.extend(backend::undo(self.backend.as_ref(), Some(record)).await);
        errors.extend(self.place.folder.remove().err());
        if let Some(file) = &self.flags.pid_file {
            // One that was never written is not there.
            drop(std::fs::remove_file(file));
        }
        drop(lock);
        Error::list(errors).unwrap_or_else(|| Error::unknown("not created"))
    }
}

/// A container that has been made.
struct Made {
    making: Making,
    record: Record,
    init: Process,
}

impl Made {
    /// What a watcher needs of it.
    fn hand_over(&self, then: Then) -> Result<Handed> {
        let Process::Foreign(init) = &self.init else {
            return Err(Error::unknown("the container's process is a child of this one"));
        };
        let fd = init.fd().ok_or_else(|| Error::unknown("its process has ended"))?;
        let backend = &self.making.backend;
        let gate = if then == Then::Start { None } else { backend.hand_over() };
        Ok(Handed { init: fd.try_clone()?, told: backend.teller(), gate })
    }

    fn change(&mut self, change: impl FnOnce(&mut Record)) -> Result<()> {
        let _lock = self.making.place.folder.lock()?;
        // Others may have paused it meanwhile.
        self.record = self.making.place.folder.load()?;
        change(&mut self.record);
        self.making.place.folder.save(&self.record)
    }

    async fn start(&mut self) -> Result<()> {
        if self.making.image.is_some() {
            // It runs already.
            return Ok(());
        }
        unless_dead(&self.init, GRACE, self.making.backend.start()).await?;
        self.change(|record| record.status = Status::Running)
    }

    async fn undo(self, error: Error) -> Error {
        // Gone is what the signal wants.
        drop(self.init.signal(libc::SIGKILL));
        self.making.undo(&self.record, error).await
    }
}
