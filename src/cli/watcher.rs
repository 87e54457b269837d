//! The watcher: a process that stays with a container whose maker has ended, and writes down how
//! the container ended.
//!
//! Whoever calls an OCI runtime reaps the container's process, and a guest of Proxmox VE is
//! systemd's, so the watcher is not its parent: it holds a pidfd, hears who the backend says is
//! told how it ends, and asks the kernel. It is forked before anything is made, has no fd of the
//! caller's, and does nothing but wait. Until the container is made it also stands by for a maker
//! that is killed half way, and cleans up after it. Where a backend needs something kept open
//! between create and start (a guest's gate), the watcher has it, and hands it to `start`.

use super::runtime::block_on;
use crate::backend::{self, Place};
use crate::error::{Context, Error, Result};
use crate::exit::Exit;
use crate::postmortem;
use crate::store::{ProcessId, Record};
use crate::sys::handle::Process;
use crate::sys::pidfd::{ExitSource, Foreign};
use crate::sys::process::{self, Fork};
use crate::sys::scm;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use tokio::io::Interest;

/// The socket at which `start` gets what was kept for it.
const START: &str = "start";

/// What a watcher is told: one of these for each descriptor that comes along.
const INIT: u8 = b'i';
const TOLD: u8 = b't';
const GATE: u8 = b'g';
const LISTENER: u8 = b'l';

/// What it answers.
const WATCHING: &[u8] = b"w";

/// That there is nothing to watch.
const NOTHING: &[u8] = b"q";

/// What a watcher gets of a container that has been created.
pub struct Handed {
    /// A pidfd of its first process.
    pub init: OwnedFd,
    /// Where it will be told how that ends ([`Backend::teller`](crate::backend::Backend::teller)).
    pub told: Option<OwnedFd>,
    /// What has to stay open until the start
    /// ([`Backend::hand_over`](crate::backend::Backend::hand_over)).
    pub gate: Option<OwnedFd>,
}

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

    /// Tells it whose end to wait for, and leaves it alone once it waits. Nobody may change the
    /// container meanwhile.
    ///
    /// # Errors
    /// When the watcher is gone.
    pub fn tell(self, place: &Place, handed: Handed) -> Result<()> {
        let listener = handed.gate.as_ref().map(|_| listen(place)).transpose()?.map(OwnedFd::from);
        let Handed { init, told, gate } = handed;
        let all = [(INIT, Some(init)), (TOLD, told), (GATE, gate), (LISTENER, listener)];
        let all: Vec<_> = all.into_iter().filter_map(|(name, fd)| Some((name, fd?))).collect();
        let names: Vec<u8> = all.iter().map(|(name, _)| *name).collect();
        let fds: Vec<_> = all.iter().map(|(_, fd)| fd.as_fd()).collect();
        scm::send(&self.socket, &names, &fds).context(|| "tell the watcher")?;
        let answer = scm::receive(&self.socket).context(|| "hear the watcher")?;
        answer.map(drop).ok_or_else(|| Error::unknown("the watcher died"))
    }

    /// Lets it end: there is nothing to watch, and nothing left of it.
    pub fn dismiss(self) {
        // One that is gone needs no word.
        scm::send(&self.socket, NOTHING, &[]).ok();
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
    let said = scm::receive_whole(&socket).context(|| "the watcher's maker")?;
    let Some(scm::Message { text, fds }) = said else { return clean_up(place) };
    let mut fds: BTreeMap<u8, OwnedFd> = text.into_iter().zip(fds).collect();
    let Some(init) = fds.remove(&INIT) else { return Ok(()) };
    let for_start = fds.remove(&GATE).zip(fds.remove(&LISTENER).map(UnixListener::from));
    block_on(async {
        let init = Process::Foreign(held(place, init, fds.remove(&TOLD))?);
        // A maker that is gone needs no answer.
        scm::send(&socket, WATCHING, &[]).ok();
        drop(socket);
        tokio::select! {
            biased;
            _ = init.exited() => {}
            // One that is lost is told so when it comes.
            _ = serve_start(for_start) => {}
        }
        record_exit(place, init.exited().await)
    })
}

/// The container's first process, with all that is known of how it will have ended.
fn held(place: &Place, init: OwnedFd, told: Option<OwnedFd>) -> Result<Foreign> {
    let record = place.folder.load()?;
    let pid = record.own.init.map(|init| init.pid);
    let pid = pid.ok_or_else(|| Error::unknown("the record names no process"))?;
    let source = backend::reopen(&record, place.clone()).and_then(|backend| backend.watch(told));
    // One that cannot be told has ended all the same.
    Foreign::watch(pid, init, source.unwrap_or_else(|_| ExitSource::at_hand()))
}

/// Hands what was kept to whoever starts the container; never ends where nothing was kept.
async fn serve_start(for_start: Option<(OwnedFd, UnixListener)>) -> Result<()> {
    let Some((gate, listener)) = for_start else { return std::future::pending().await };
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    loop {
        // The folder is root's alone. Whoever hangs up before it has the fd may come again.
        let (stream, _) = listener.accept().await?;
        let send = || Ok(scm::send(&stream, b"s", &[gate.as_fd()])?);
        if stream.async_io(Interest::WRITABLE, send).await.is_ok() {
            return Ok(());
        }
    }
}

fn record_exit(place: &Place, exit: Exit) -> Result<()> {
    let _lock = place.folder.lock()?;
    let mut record = place.folder.load()?;
    if !is_watched_here(&record) {
        return Ok(());
    }
    record.note_exit(exit);
    place.folder.save(&record)
}

/// Whether the record is not that of another container of the same name.
fn is_watched_here(record: &Record) -> bool {
    let own = std::process::id().cast_signed();
    record.own.supervisor.is_some_and(|supervisor| supervisor.pid == own)
}

/// The maker was killed half way.
fn clean_up(place: &Place) -> Result<()> {
    let Ok(_lock) = place.folder.lock() else { return Ok(()) };
    if !is_watched_here(&place.folder.load()?) {
        return Ok(());
    }
    block_on(async { postmortem::clean(place).await.map(drop) })
}
