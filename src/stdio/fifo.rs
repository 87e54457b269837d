//! A FIFO that containerd made: how it is opened, and what happens when nobody reads it.
//!
//! The supervisor holds both ends of an output FIFO. Its own read end keeps writes from failing
//! while containerd is away; what is written meanwhile waits in the FIFO. Once that is full:
//!
//! ```text
//!            full for `patience`,          a write fits again:
//!            nobody else reads             the loss is logged
//! attended ─────────────────────► orphaned ─────────────────────► attended
//!    ▲ │ full, somebody reads:        ▲ │ still full: thrown away, counted
//!    └─┘ wait, the container waits    └─┘
//! ```
//!
//! So a container never stands still for much longer than `patience` because containerd went away,
//! and a slow reader loses nothing.

use super::pipe;
use super::uri::Stream;
use crate::error::{Context, Error, Result};
use crate::sys::pipe::unread;
use crate::sys::watch::watch;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout};

/// Both ends of the FIFO at `path`, read end first. Neither blocks, and nothing is waited for.
pub(super) fn open_both(stream: Stream, path: &Path) -> Result<(OwnedFd, OwnedFd)> {
    let doing = || format!("open {stream} {path:?}");
    // O_PATH first: to open a device in earnest can have effects.
    let found = match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(found) => found,
        Err(errno) => {
            let text = format!("{}: {}", doing(), errno.desc());
            return Err(match errno {
                Errno::ENOENT
                | Errno::ENOTDIR
                | Errno::ELOOP
                | Errno::EINVAL
                | Errno::ENAMETOOLONG => Error::invalid(text),
                _ => Error::unknown(text),
            });
        }
    };
    let mode = fstat(&found).context(doing)?.st_mode;
    if SFlag::from_bits_truncate(mode) & SFlag::S_IFMT != SFlag::S_IFIFO {
        return Err(Error::invalid(format!("{stream} {path:?} is not a FIFO")));
    }
    // In this order: a write end of a FIFO that nobody reads would be ENXIO.
    let read = another(&found, OFlag::O_RDONLY).context(doing)?;
    let write = another(&found, OFlag::O_WRONLY).context(doing)?;
    Ok((read, write))
}

/// One more end of the FIFO that `fd` is of, even if its name is gone.
fn another(fd: &impl AsFd, access: OFlag) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    open(path.as_str(), access | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())
}

/// What one slot of a pipe holds, at least.
const PAGE: usize = 4096;

/// EPIPE, possible only where our read end could not be opened again, is no more final than a full
/// FIFO is: somebody may come and read.
fn full(errno: Errno) -> Errno {
    if errno == Errno::EPIPE { Errno::EAGAIN } else { errno }
}

/// Where one stream of output goes.
pub(super) struct Fifo {
    write: Arc<AsyncFd<OwnedFd>>,
    /// Keeps writes from EPIPE. `None` only where it could not be opened again.
    read: Option<OwnedFd>,
    /// Orphaned: `/dev/null`, which takes what finds no room.
    nowhere: Option<OwnedFd>,
    lost: u64,
    /// How much of the last page is used, where it has been written and not yet read.
    filled: usize,
    label: String,
    patience: Duration,
}

impl Fifo {
    pub(super) fn open(
        stream: Stream,
        path: &Path,
        label: String,
        patience: Duration,
    ) -> Result<Self> {
        let (read, write) = open_both(stream, path)?;
        let write = Arc::new(watch(write, Interest::WRITABLE)?);
        Ok(Self { write, read: Some(read), nowhere: None, lost: 0, filled: 0, label, patience })
    }

    /// Takes `bytes`, at most PIPE_BUF of them, or the first of them, or none: EAGAIN.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.is_orphaned() {
            self.lost += bytes.len() as u64;
            return Ok(bytes.len());
        }
        // The kernel adds to the last page only what fits there whole, so a page is filled first.
        let (fits, rest) = bytes.split_at(bytes.len().min(PAGE - self.filled));
        let mut taken = 0;
        for part in [fits, rest] {
            match nix::unistd::write(&*self.write, part) {
                Ok(count) => taken += count,
                Err(Errno::EAGAIN) if taken > 0 => break,
                Err(errno) => return Err(full(errno)),
            }
        }
        self.filled = (self.filled + taken) % PAGE;
        Ok(taken)
    }

    /// Takes pages of `from`, which is not empty, or nothing: EAGAIN.
    pub(super) fn splice(&mut self, from: impl AsFd) -> Result<usize, Errno> {
        if self.is_orphaned()
            && let Some(nowhere) = &self.nowhere
        {
            let moved = pipe::splice(from, nowhere)?;
            self.lost += moved as u64;
            return Ok(moved);
        }
        let moved = pipe::splice(from, &*self.write).map_err(full)?;
        self.filled = 0;
        Ok(moved)
    }

    /// Whether nobody reads and there is no room. Once there is, it is over.
    fn is_orphaned(&mut self) -> bool {
        if self.nowhere.is_some()
            && pipe::is_writable(&*self.write)
            && !pipe::is_unread(&*self.write)
        {
            self.nowhere = None;
            self.report();
        }
        self.nowhere.is_some()
    }

    fn report(&mut self) {
        if self.lost > 0 {
            log::warn!("{}: nobody read it, {} bytes were thrown away", self.label, self.lost);
            self.lost = 0;
        }
    }

    /// The FIFO itself.
    pub(super) fn pipe(&self) -> &Arc<AsyncFd<OwnedFd>> {
        &self.write
    }

    /// After EAGAIN: until there is room, or there is nobody to wait for.
    pub(super) async fn room(&mut self) -> Result<(), Errno> {
        loop {
            if let Ok(done) = timeout(self.patience, pipe::writable(&self.write)).await {
                // An unread FIFO is writable in name only; that is possible only without an end
                // of our own.
                if !pipe::is_unread(&*self.write) {
                    return done;
                }
            }
            if self.is_read() {
                continue;
            }
            match open("/dev/null", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(nowhere) => {
                    self.nowhere = Some(nowhere);
                    return Ok(());
                }
                Err(errno) => {
                    log::warn!("{}: open /dev/null: {errno}", self.label);
                    sleep(self.patience).await;
                }
            }
        }
    }

    /// Whether anybody else has the FIFO open for reading. The kernel tells only whether anybody
    /// at all has, so ours goes away for a moment. What is in the FIFO stays, as we hold it open
    /// for writing.
    fn is_read(&mut self) -> bool {
        self.read = None;
        let is_read = !pipe::is_unread(&*self.write);
        match another(&*self.write, OFlag::O_RDONLY) {
            Ok(end) => self.read = Some(end),
            Err(errno) => log::warn!("{}: open the FIFO for reading: {errno}", self.label),
        }
        is_read
    }

    /// After the last byte: closes the FIFO once it is empty, so that its reader comes to the end.
    /// A reader that takes its time finds the rest in the closed FIFO; where there is no reader,
    /// and something to read, one is waited for.
    pub(super) async fn finish(mut self) {
        const AT_FIRST: Duration = Duration::from_millis(1);
        const OFTEN: Duration = Duration::from_millis(10);
        const SELDOM: Duration = Duration::from_secs(1);
        self.report();
        // The write end alone keeps what is in the FIFO.
        self.read = None;
        // No event tells that a reader came, nor that a FIFO that was not full became empty.
        let mut pause = AT_FIRST;
        let mut since = Instant::now();
        while unread(&*self.write).is_ok_and(|bytes| bytes > 0) {
            let longest = if pipe::is_unread(&*self.write) {
                since = Instant::now();
                SELDOM
            } else if since.elapsed() < self.patience {
                OFTEN
            } else {
                return;
            };
            sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        self.report();
    }
}
