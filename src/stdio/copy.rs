//! Moves bytes from one place to the next until the source ends or the sink is gone.
//!
//! Large amounts move as pages, with splice(2). Small ones are copied: a spliced page takes a
//! whole one of a pipe's 16 slots however little is in it, so 16 short lines would fill a FIFO,
//! while written bytes are put together. Nothing is allocated unless a sink is full, and then only
//! what it did not take.

use super::fifo::Fifo;
use super::pipe;
use crate::sys::pipe::unread;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout};

/// From here on pages are moved. The first and the last of them are rarely full.
const LARGE: usize = 32 * 1024;
/// PIPE_BUF: what a FIFO takes whole or not at all.
const CHUNK: usize = 4 * 1024;
/// What is written to a file at once. It stands on the stack for the time of the call.
const BLOCK: usize = 16 * 1024;

/// Where bytes come from.
pub(super) enum Source {
    /// A pipe or FIFO.
    Pipe(Arc<AsyncFd<OwnedFd>>),
    /// A terminal's master, which is written to by somebody else.
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

/// Where bytes go.
pub(super) enum Sink {
    /// Nowhere: read, so that the writer does not stand still.
    Nowhere,
    /// A FIFO of containerd's.
    Fifo(Fifo),
    /// A file.
    File(LogFile),
    /// A pipe that a logging program reads.
    Logger(LoggerPipe),
    /// The pipe that is a container's standard input.
    Stdin(AsyncFd<OwnedFd>),
    /// A terminal's master.
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

/// A file that output is appended to.
pub(super) struct LogFile {
    pub(super) file: File,
    pub(super) label: String,
    /// It has been said that writing fails.
    pub(super) failed: bool,
}

/// The pipe to a logging program.
pub(super) struct LoggerPipe {
    pub(super) pipe: AsyncFd<OwnedFd>,
    pub(super) label: String,
    /// The program is gone; that has been said.
    pub(super) gone: bool,
}

enum Step {
    /// So many bytes.
    Moved(usize),
    /// The source has nothing now.
    Empty,
    /// The source has come to its end.
    End,
    /// The sink is full. These bytes are read, but not written.
    Full(Vec<u8>),
}

impl Source {
    /// What is read.
    pub(super) fn fd(&self) -> &Arc<AsyncFd<OwnedFd>> {
        match self {
            Self::Pipe(fd) | Self::Terminal(fd) => fd,
        }
    }
}

/// Moves everything. Returns when the source ends, or the sink takes no more ever.
pub(super) async fn copy(source: &Source, sink: &mut Sink) {
    let from = source.fd();
    let mut flow = Flow::new();
    loop {
        // A source that always has something would keep every other task waiting.
        consume_budget().await;
        let mut ready = match flow.widened(from.readable()).await {
            Some(Ok(ready)) => ready,
            Some(Err(_)) => return,
            None => {
                flow.narrow(from, sink);
                continue;
            }
        };
        let rest = match step(source, sink, ready.ready().is_read_closed()) {
            Ok(Step::Moved(bytes)) => {
                flow.count(bytes, from, sink);
                continue;
            }
            Ok(Step::Empty) => {
                ready.clear_ready();
                continue;
            }
            Ok(Step::Full(rest)) => rest,
            Ok(Step::End) | Err(_) => return,
        };
        if sink.put(rest).await.is_err() {
            return;
        }
    }
}

/// One move. `closed`: the source has no writer any more, but maybe something to read.
fn step(source: &Source, sink: &mut Sink, closed: bool) -> Result<Step, Errno> {
    let from = match source {
        Source::Terminal(from) => return chunk::<CHUNK>(from, sink),
        Source::Pipe(from) => from,
    };
    match (unread(from)?, &mut *sink) {
        (0, _) if !closed => Ok(Step::Empty),
        (LARGE.., Sink::Fifo(fifo)) => moved(fifo.splice(from)),
        (LARGE.., Sink::Stdin(to)) => moved(pipe::splice(from, to)),
        (_, Sink::File(_)) => chunk::<BLOCK>(from, sink),
        _ => chunk::<CHUNK>(from, sink),
    }
}

fn moved(spliced: Result<usize, Errno>) -> Result<Step, Errno> {
    match spliced {
        Ok(bytes) => Ok(Step::Moved(bytes)),
        // Something was there to be moved, and nobody else reads the source.
        Err(Errno::EAGAIN) => Ok(Step::Full(Vec::new())),
        Err(errno) => Err(errno),
    }
}

/// One read and one write. Not inlined: the buffer shall not stand in the frame of every poll.
#[inline(never)]
fn chunk<const SIZE: usize>(from: &AsyncFd<OwnedFd>, sink: &mut Sink) -> Result<Step, Errno> {
    let mut buffer = [0; SIZE];
    let bytes = match nix::unistd::read(from, &mut buffer) {
        // A terminal that its last process has closed says EIO.
        Ok(0) | Err(Errno::EIO) => return Ok(Step::End),
        Ok(count) => &buffer[..count],
        Err(Errno::EAGAIN) => return Ok(Step::Empty),
        Err(errno) => return Err(errno),
    };
    let taken = match sink.write(bytes) {
        Err(Errno::EAGAIN) => 0,
        result => result?,
    };
    Ok(if taken == bytes.len() { Step::Moved(taken) } else { Step::Full(bytes[taken..].to_vec()) })
}

/// Has the pipes on both sides hold more while much goes through them, which more than doubles how
/// much that is. Only for that long: the kernel adds up what a user's pipes may hold, and past a
/// share it makes the pipes of its unprivileged processes tiny. For user 0 those are containers.
struct Flow {
    since: Instant,
    bytes: usize,
    /// What both held before.
    before: Option<(i32, i32)>,
}

impl Flow {
    /// What goes through in less than `FAST` is worth it.
    const MUCH: usize = 4 << 20;
    const FAST: Duration = Duration::from_millis(20);
    const WIDE: i32 = 1 << 20;
    /// With nothing to do for so long, it is over.
    const IDLE: Duration = Duration::from_secs(1);

    fn new() -> Self {
        Self { since: Instant::now(), bytes: 0, before: None }
    }

    fn count(&mut self, bytes: usize, from: &AsyncFd<OwnedFd>, sink: &Sink) {
        self.bytes += bytes;
        if self.bytes < Self::MUCH {
            return;
        }
        let fast = self.since.elapsed() < Self::FAST;
        *self = Self { before: self.before, ..Self::new() };
        if let (true, None, Some(to)) = (fast, self.before, sink.pipe()) {
            // It is no matter where that is not allowed.
            let widen = |fd: &AsyncFd<OwnedFd>| {
                let before = fcntl(fd, FcntlArg::F_GETPIPE_SZ).unwrap_or(Self::WIDE);
                if before < Self::WIDE {
                    fcntl(fd, FcntlArg::F_SETPIPE_SZ(Self::WIDE)).ok();
                }
                before
            };
            self.before = Some((widen(from), widen(to)));
        }
    }

    /// `None` when it is time to narrow.
    async fn widened<T>(&self, next: impl Future<Output = T>) -> Option<T> {
        match self.before {
            None => Some(next.await),
            Some(_) => timeout(Self::IDLE, next).await.ok(),
        }
    }

    fn narrow(&mut self, from: &AsyncFd<OwnedFd>, sink: &Sink) {
        let narrow = |fd, size| fcntl(fd, FcntlArg::F_SETPIPE_SZ(size)).is_ok();
        if let (Some((before, to_before)), Some(to)) = (self.before, sink.pipe()) {
            // EBUSY: the FIFO still holds more than that.
            if narrow(from, before) && narrow(to, to_before) {
                self.before = None;
            }
        }
    }
}

impl Sink {
    /// The pipe that this is.
    fn pipe(&self) -> Option<&AsyncFd<OwnedFd>> {
        match self {
            Self::Fifo(fifo) => Some(fifo.pipe()),
            Self::Stdin(to) => Some(to),
            Self::Nowhere | Self::File(_) | Self::Logger(_) | Self::Terminal(_) => None,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Nowhere => Ok(bytes.len()),
            Self::Fifo(fifo) => fifo.write(bytes),
            Self::File(log) => {
                match log.file.write_all(bytes) {
                    Ok(()) => log.failed = false,
                    Err(error) if !log.failed => {
                        log.failed = true;
                        log::warn!("{}: {error}; output is thrown away", log.label);
                    }
                    Err(_) => {}
                }
                Ok(bytes.len())
            }
            Self::Logger(logger) => match nix::unistd::write(&logger.pipe, bytes) {
                Err(Errno::EPIPE) => {
                    if !logger.gone {
                        logger.gone = true;
                        log::warn!("{}: the logger is gone; output is thrown away", logger.label);
                    }
                    Ok(bytes.len())
                }
                result => result,
            },
            Self::Stdin(to) => nix::unistd::write(to, bytes),
            Self::Terminal(to) => nix::unistd::write(&**to, bytes),
        }
    }

    async fn room(&mut self) -> Result<(), Errno> {
        match self {
            Self::Nowhere | Self::File(_) => Ok(()),
            Self::Fifo(fifo) => fifo.room().await,
            Self::Logger(logger) => pipe::writable(&logger.pipe).await,
            Self::Stdin(to) => pipe::writable(to).await,
            Self::Terminal(to) => pipe::writable(to).await,
        }
    }

    /// Waits until the sink takes something again, and writes what was left over.
    async fn put(&mut self, mut rest: Vec<u8>) -> Result<(), Errno> {
        loop {
            self.room().await?;
            if rest.is_empty() {
                return Ok(());
            }
            match self.write(&rest) {
                Ok(taken) if taken == rest.len() => return Ok(()),
                Ok(taken) => drop(rest.drain(..taken)),
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// The FIFO that this is.
    pub(super) fn fifo(&self) -> Option<&Arc<AsyncFd<OwnedFd>>> {
        match self {
            Self::Fifo(fifo) => Some(fifo.pipe()),
            _ => None,
        }
    }

    /// After the last byte.
    pub(super) async fn finish(self) {
        if let Self::Fifo(fifo) = self {
            fifo.finish().await;
        }
    }
}
