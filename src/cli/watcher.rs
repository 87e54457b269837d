//! The watcher: a process that stays with a container whose maker has ended, and writes down how
//! the container ended.
//!
//! Whoever calls an OCI runtime reaps the container's process, so the watcher is not its parent:
//! it holds a pidfd, and asks the kernel. It is forked before anything is made, has no runtime, no
//! fd of the caller's and no thread, and does nothing but wait. Until the container is made it
//! also stands by for a maker that is killed half way, and cleans up after it. Where a backend
//! needs something kept open between create and start (a guest's gate), the watcher has it, and
//! hands it to `start`.

use super::runtime::block_on;
use crate::backend::Place;
use crate::error::{Context, Error, Result};
use crate::exit::Exit;
use crate::postmortem;
use crate::store::{ExitRecord, ProcessId, Status};
use crate::sys::process::{self, Fork};
use crate::sys::{pidfd, scm};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

/// The socket at which `start` gets what was kept for it.
const START: &str = "start";

/// A watcher that waits to be told whom to watch. Dropped before that, it cleans up: its maker has
/// died.
pub struct Watcher {
    socket: UnixStream,
    /// The watcher's process.
    pub id: ProcessId,
}

impl Watcher {
    /// Forks one. To be called before there is a second thread or a runtime.
    ///
    /// # Errors
    /// When the kernel has no room for one more process.
    pub fn fork(place: &Place) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context(|| "make a socket pair")?;
        match process::fork()? {
            Fork::Parent(pid) => {
                let id = ProcessId::of(pid).ok_or_else(|| Error::unknown("the watcher died"))?;
                Ok(Self { socket: ours, id })
            }
            Fork::Child => {
                // Its number means something else in a moment.
                std::mem::forget(ours);
                let result = watch(theirs.into(), place);
                std::process::exit(i32::from(result.is_err()))
            }
        }
    }

    /// Tells it whose end to wait for, and leaves it alone. `kept` is for the start.
    ///
    /// # Errors
    /// When the watcher is gone.
    pub fn tell(self, place: &Place, init: &OwnedFd, kept: Option<OwnedFd>) -> Result<()> {
        let listener = kept.as_ref().map(|_| listen(place)).transpose()?;
        let mut fds = vec![init.as_fd()];
        fds.extend(kept.as_ref().map(AsFd::as_fd));
        fds.extend(listener.as_ref().map(AsFd::as_fd));
        scm::send(&self.socket, b"w", &fds).map(drop).context(|| "tell the watcher")
    }

    /// Lets it end: there is nothing to watch, and nothing left of it.
    pub fn dismiss(self) {
        // One that is gone needs no word.
        scm::send(&self.socket, b"q", &[]).ok();
    }
}

/// Binds or connects by the folder's fd, or the path could be longer than a socket's may be.
fn at_socket<T>(place: &Place, act: impl FnOnce(&str) -> std::io::Result<T>) -> Result<T> {
    let doing = || format!("the socket {START} in {}", place.folder.path().display());
    let folder = File::open(place.folder.path()).context(doing)?;
    act(&format!("/proc/self/fd/{}/{START}", folder.as_raw_fd())).context(doing)
}

fn listen(place: &Place) -> Result<UnixListener> {
    at_socket(place, |path| UnixListener::bind(path))
}

/// What the watcher of a created container keeps for its start; `None` where nothing was kept.
///
/// # Errors
/// `FailedPrecondition` when the watcher is gone, and with it what it kept.
pub fn kept_for_start(place: &Place) -> Result<Option<OwnedFd>> {
    let path = place.folder.path().join(START);
    if !path.exists() {
        return Ok(None);
    }
    let lost = |_| {
        Error::precondition(
            "its watcher is gone, and with it the way to its init: delete it and create it again",
        )
    };
    let socket = at_socket(place, |path| UnixStream::connect(path)).map_err(lost)?;
    let received = scm::receive(&socket).context(|| "the watcher")?;
    drop(fs::remove_file(&path));
    let kept = received.and_then(|fds| fds.into_iter().next());
    kept.map(Some).ok_or_else(|| lost(Error::unknown("")))
}

/// The watcher itself.
fn watch(socket: OwnedFd, place: &Place) -> Result<()> {
    process::detach()?;
    std::env::set_current_dir("/").context(|| "enter /")?;
    let socket = process::close_all_but(socket)?;
    // For ps(1); a kernel that does not take it is no reason to stop.
    drop(fs::write("/proc/self/comm", "nexcage-watch"));
    let Some(fds) = scm::receive(&socket).context(|| "the watcher's maker")? else {
        return clean_up(place);
    };
    drop(socket);
    let mut fds = fds.into_iter();
    let Some(init) = fds.next() else { return Ok(()) };
    let for_start = fds.next().zip(fds.next().map(UnixListener::from));
    serve_start(&init, for_start);
    let exit = pidfd::wait_blocking(&init);
    record_exit(place, exit)
}

/// Hands what was kept to whoever starts the container, if the container does not end before.
fn serve_start(init: &OwnedFd, for_start: Option<(OwnedFd, UnixListener)>) {
    let Some((kept, listener)) = for_start else { return };
    loop {
        let mut polled = [
            PollFd::new(init.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        if polled[0].any().unwrap_or(true) {
            return;
        }
        // The folder is root's alone. Whoever hangs up before it has the fd may come again.
        if let Ok((stream, _)) = listener.accept()
            && scm::send(&stream, b"s", &[kept.as_fd()]).is_ok()
        {
            return;
        }
    }
}

fn record_exit(place: &Place, exit: Option<Exit>) -> Result<()> {
    let _lock = place.folder.lock()?;
    let mut record = place.folder.load()?;
    let own = std::process::id().cast_signed();
    if record.own.supervisor.is_none_or(|supervisor| supervisor.pid != own) {
        // Another container of that name.
        return Ok(());
    }
    record.status = Status::Stopped;
    record.pid = None;
    record.own.exit = Some(match exit {
        Some(exit) => exit.into(),
        None => ExitRecord { unknown: true, ..Exit::unknown().into() },
    });
    place.folder.save(&record)
}

/// The maker was killed half way.
fn clean_up(place: &Place) -> Result<()> {
    let Ok(_lock) = place.folder.lock() else { return Ok(()) };
    let own = std::process::id().cast_signed();
    let record = place.folder.load()?;
    if record.own.supervisor.is_none_or(|supervisor| supervisor.pid != own) {
        return Ok(());
    }
    block_on(async { postmortem::clean(place).await.map(drop) })
}
