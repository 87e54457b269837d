//! A process's standard streams: what containerd asked for on one side, and what the container
//! gets on the other.
//!
//! ```text
//!                 the container gets        the supervisor copies to
//! FIFO            the end of a pipe         the FIFO, held open both ways     fifo, copy
//! file://         the end of a pipe         the file, opened for appending    copy
//! binary://       the end of a pipe         nothing: the logger reads it      logger
//! nothing         /dev/null                 nothing
//! a terminal      a pty                     any of the above, from the master console, copy
//! ```
//!
//! What stays true:
//! - The container never holds an end of a FIFO: that would tie its life to containerd's.
//! - What a container writes never makes it wait long for a reader that went away (`fifo`).
//! - A reader sees the end of the output only after all of it.
//! - While nothing is written, nothing is allocated and nothing runs.

mod console;
mod copy;
mod fifo;
mod logger;
mod pipe;
mod uri;

#[cfg(test)]
mod tests;

pub use console::ConsoleSocket;

use crate::error::{Context, Error, Result};
use crate::sys::pipe::unread;
use crate::sys::tty;
use crate::sys::watch::watch;
use copy::{LogFile, LoggerPipe, Sink, Source, copy};
use fifo::Fifo;
use logger::Logger;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch as channel;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uri::{Output, Plan, Stream, Target};

/// What containerd asked for, as it stands in a CreateTaskRequest or ExecProcessRequest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// A FIFO, or empty.
    pub stdin: String,
    /// A FIFO, a URI, or empty.
    pub stdout: String,
    /// A FIFO, a URI, or empty.
    pub stderr: String,
    /// The process gets a terminal; then `stderr` does not matter.
    pub terminal: bool,
}

/// Who owns the pipes that the container gets: runc's io_uid and io_gid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// What the runtime command gets as its fds 0, 1 and 2, and the container after it. `/dev/null`
/// where nothing was asked for, and for all three where there will be a terminal.
#[derive(Debug)]
pub struct ChildIo {
    /// Its fd 0.
    pub stdin: OwnedFd,
    /// Its fd 1.
    pub stdout: OwnedFd,
    /// Its fd 2.
    pub stderr: OwnedFd,
}

/// The supervisor's side. Dropping it ends all copying, closes everything, and kills the logger.
pub struct Stdio {
    /// Every task that copies output holds a receiver until it has handed on all of it, so that
    /// the channel is closed when the last has. `true` makes them stop early.
    stop: channel::Sender<bool>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tasks: Vec<JoinHandle<()>>,
    outputs: Vec<OutputEnds>,
    logger: Option<Logger>,
    /// Holds off the end of stdin while its clients come and go.
    stdin_writer: Option<OwnedFd>,
    terminal: Terminal,
}

/// Where output comes from, and the FIFO that it goes to, as long as they are open.
struct OutputEnds {
    source: Weak<AsyncFd<OwnedFd>>,
    fifo: Weak<AsyncFd<OwnedFd>>,
}

impl OutputEnds {
    /// Whether everything that was written has been read.
    fn is_settled(&self) -> bool {
        [&self.source, &self.fifo].into_iter().all(|end| {
            end.upgrade().is_none_or(|end| unread(&*end).map_or(true, |bytes| bytes == 0))
        })
    }
}

#[derive(Default)]
enum Terminal {
    /// None was asked for, or it is closed.
    #[default]
    None,
    /// Its master has yet to come.
    Awaited {
        stdin: Option<AsyncFd<OwnedFd>>,
        output: Sink,
    },
    Attached(Arc<AsyncFd<OwnedFd>>),
}

/// The waits that tests cut short.
#[derive(Clone, Copy)]
struct Bounds {
    /// How long a full FIFO is waited for before it is asked whether anybody reads it.
    reader: Duration,
    /// How long a logger may take to be ready. nerdctl's looks up its container first.
    logger: Duration,
}

impl Bounds {
    const DEFAULT: Self = Self { reader: Duration::from_secs(1), logger: Duration::from_secs(10) };
}

impl Stdio {
    /// Opens what was asked for, starts the logger if there is one, and begins to copy. `id` and
    /// `namespace` are the container's.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no FIFO or no known scheme; `Unavailable` and
    /// `DeadlineExceeded` where the logger fails or is not ready in time.
    pub async fn open(
        request: &Request,
        owner: Owner,
        id: &str,
        namespace: &str,
    ) -> Result<(Self, ChildIo)> {
        Self::open_within(Bounds::DEFAULT, request, owner, id, namespace).await
    }

    async fn open_within(
        bounds: Bounds,
        request: &Request,
        owner: Owner,
        id: &str,
        namespace: &str,
    ) -> Result<(Self, ChildIo)> {
        let plan = Plan::parse(request)?;
        let stdio = Self { stop: channel::Sender::new(false), inner: Mutex::default() };
        let stdin = plan.stdin.map(|path| stdio.open_stdin(&path)).transpose()?;
        let sink = |stream, target| open_sink(stream, target, id, bounds);
        if request.terminal {
            let output = match plan.output {
                Output::Each { stdout, .. } => sink(Stream::Stdout, stdout.as_ref())?,
                Output::Logger(program) => {
                    let (reads, writes) = pipe::pair(owner)?;
                    // A terminal has no stderr; the logger finds that at its end.
                    let (no_stderr, _) = pipe::pair(owner)?;
                    let ends = (reads, no_stderr);
                    let logger =
                        Logger::start(&program, (id, namespace), ends, &writes, bounds.logger);
                    stdio.lock().logger = Some(logger.await?);
                    let pipe = watch(writes, Interest::WRITABLE)?;
                    Sink::Logger(LoggerPipe { pipe, label: label(Stream::Stdout, id), gone: false })
                }
            };
            stdio.lock().terminal = Terminal::Awaited { stdin, output };
            return Ok((stdio, ChildIo { stdin: null()?, stdout: null()?, stderr: null()? }));
        }
        let (stdout, stderr) = match plan.output {
            Output::Each { stdout: out, stderr: err } => {
                let stdout = match &out {
                    Some(_) => stdio.pipe_to(sink(Stream::Stdout, out.as_ref())?, owner)?,
                    None => null()?,
                };
                let stderr = match &err {
                    // One pipe, so that the order of what is written stays.
                    Some(_) if err == out => stdout.try_clone()?,
                    Some(_) => stdio.pipe_to(sink(Stream::Stderr, err.as_ref())?, owner)?,
                    None => null()?,
                };
                (stdout, stderr)
            }
            Output::Logger(program) => {
                let (out_reads, stdout) = pipe::pair(owner)?;
                let (err_reads, stderr) = pipe::pair(owner)?;
                let ends = (out_reads, err_reads);
                let logger = Logger::start(&program, (id, namespace), ends, &stdout, bounds.logger);
                stdio.lock().logger = Some(logger.await?);
                (stdout, stderr)
            }
        };
        let stdin = match stdin {
            Some(fifo) => {
                let (reads, writes) = pipe::pair(owner)?;
                stdio.copy_stdin(fifo, Sink::Stdin(watch(writes, Interest::WRITABLE)?));
                reads
            }
            None => null()?,
        };
        Ok((stdio, ChildIo { stdin, stdout, stderr }))
    }

    /// Takes the terminal's master, and begins to copy from and to it.
    ///
    /// # Errors
    /// `FailedPrecondition` where no terminal was asked for, or one is attached already.
    pub fn attach_console(&self, master: OwnedFd) -> Result<()> {
        let master = Arc::new(watch(master, Interest::READABLE | Interest::WRITABLE)?);
        let attached = Terminal::Attached(Arc::clone(&master));
        let mut inner = self.lock();
        let (stdin, output) = match std::mem::take(&mut inner.terminal) {
            Terminal::Awaited { stdin, output } => (stdin, output),
            other => {
                inner.terminal = other;
                return Err(Error::precondition("no terminal is waited for"));
            }
        };
        inner.terminal = attached;
        drop(inner);
        self.copy_output(Source::Terminal(Arc::clone(&master)), output);
        if let Some(fifo) = stdin {
            self.copy_stdin(fifo, Sink::Terminal(master));
        }
        Ok(())
    }

    /// Lets the process come to the end of its stdin, once everything is read that was written to
    /// the FIFO and its last client is gone.
    pub fn close_stdin(&self) {
        self.lock().stdin_writer = None;
    }

    /// Tells the terminal its size, in characters.
    ///
    /// # Errors
    /// `FailedPrecondition` where there is no terminal.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        match &self.lock().terminal {
            Terminal::Attached(master) => {
                tty::resize(&**master, width, height).context(|| "resize the terminal")
            }
            Terminal::Awaited { .. } | Terminal::None => {
                Err(Error::precondition("the process has no terminal"))
            }
        }
    }

    /// To be called when the process has ended, and before anybody is told. Waits, at most `bound`,
    /// until what it has written is read. containerd's clients (ctr, nerdctl) close their ends of
    /// the FIFOs as soon as they hear of the end, and lose what is still on its way.
    pub async fn settle(&self, bound: Duration) {
        const OFTEN: Duration = Duration::from_millis(10);
        let settled = async {
            let mut pause = Duration::from_millis(1);
            loop {
                // Whoever copies has its turn first: it may hold what the FIFO had no room for.
                tokio::task::yield_now().await;
                if self.lock().outputs.iter().all(OutputEnds::is_settled) {
                    return;
                }
                sleep(pause).await;
                pause = OFTEN.min(pause * 2);
            }
        };
        // What is not read by then may never be.
        drop(timeout(bound, settled).await);
    }

    /// To be called when the process has ended. Waits, at most `bound`, until all of its output has
    /// been handed on, and then stops copying: what it left running may hold the pipe for ever.
    ///
    /// A FIFO that nobody reads stays open after that, until it is read or [`Stdio::close`] is
    /// called: containerd may be about to come back.
    pub async fn drain(&self, bound: Duration) {
        if timeout(bound, self.stop.closed()).await.is_err() {
            self.stop.send_replace(true);
            self.stop.closed().await;
        }
    }

    /// Closes everything, and stops the logger, which takes at most 3 s. May be called again.
    pub async fn close(&self) {
        let Inner { tasks, outputs: _, logger, stdin_writer, terminal } =
            std::mem::take(&mut *self.lock());
        drop((stdin_writer, terminal));
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            // What it holds is closed when it is gone, which is why it is waited for.
            drop(task.await);
        }
        if let Some(logger) = logger {
            logger.stop().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that holds the lock can leave a half-done change behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_stdin(&self, path: &Path) -> Result<AsyncFd<OwnedFd>> {
        let (read, write) = fifo::open_both(Stream::Stdin, path)?;
        let read = watch(read, Interest::READABLE)?;
        self.lock().stdin_writer = Some(write);
        Ok(read)
    }

    /// The write end of a new pipe, the other end of which is copied to `sink`.
    fn pipe_to(&self, sink: Sink, owner: Owner) -> Result<OwnedFd> {
        let (reads, writes) = pipe::pair(owner)?;
        self.copy_output(Source::Pipe(Arc::new(watch(reads, Interest::READABLE)?)), sink);
        Ok(writes)
    }

    fn copy_output(&self, source: Source, mut sink: Sink) {
        let mut stop = self.stop.subscribe();
        let ends = OutputEnds {
            source: Arc::downgrade(source.fd()),
            fifo: sink.fifo().map(Arc::downgrade).unwrap_or_default(),
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = copy(&source, &mut sink) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
            drop((source, stop));
            sink.finish().await;
        });
        let mut inner = self.lock();
        inner.tasks.push(task);
        inner.outputs.push(ends);
    }

    fn copy_stdin(&self, fifo: AsyncFd<OwnedFd>, mut sink: Sink) {
        let source = Source::Pipe(Arc::new(fifo));
        let task = tokio::spawn(async move { copy(&source, &mut sink).await });
        self.lock().tasks.push(task);
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        for task in &self.lock().tasks {
            task.abort();
        }
    }
}

fn label(stream: Stream, id: &str) -> String {
    format!("{stream} of {id}")
}

fn null() -> Result<OwnedFd> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).context(|| "open /dev/null")
}

fn open_sink(stream: Stream, target: Option<&Target>, id: &str, bounds: Bounds) -> Result<Sink> {
    let label = label(stream, id);
    Ok(match target {
        None => Sink::Nowhere,
        Some(Target::Fifo(path)) => Sink::Fifo(Fifo::open(stream, path, label, bounds.reader)?),
        Some(Target::File(path)) => {
            Sink::File(LogFile { file: open_log(stream, path)?, label, failed: false })
        }
    })
}

fn open_log(stream: Stream, path: &PathBuf) -> Result<File> {
    let doing = || format!("open {stream} {path:?}");
    if let Some(dir) = path.parent() {
        // Not by the error's own kind: a file in the way would be "already exists".
        let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
        made.map_err(|error| Error::invalid(format!("{}: {error}", doing())))?;
    }
    // O_NONBLOCK: a FIFO of that name would have us wait for its reader.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(flags)
        .open(path)
        .context(doing)?;
    let kind = file.metadata().context(doing)?.file_type();
    if !kind.is_file() && !kind.is_char_device() {
        return Err(Error::invalid(format!("{stream} {path:?} is not a file")));
    }
    Ok(file)
}
