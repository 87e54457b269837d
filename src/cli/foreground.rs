//! A process in the foreground: signals and the terminal are passed on to it until it ends.

use crate::backend::Place;
use crate::error::{Context, Result};
use crate::exit::Exit;
use crate::stdio::ConsoleSocket;
use crate::sys::handle::Process;
use crate::sys::tty;
use nix::sys::termios::{self, SetArg, Termios};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How long the terminal's output may still come after the process's end.
const DRAIN: Duration = Duration::from_secs(2);

/// How long the backend may take to send the terminal.
const CONSOLE: Duration = Duration::from_secs(2);

/// The signals that are this program's own: its children's, its broken pipes, urgent data that it
/// never asks for, and what no program can catch or should.
const OWN: [i32; 9] = [
    libc::SIGCHLD,
    libc::SIGURG,
    libc::SIGPIPE,
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGBUS,
];

/// The signals that have come for the process.
pub struct Foreground {
    signals: mpsc::UnboundedReceiver<i32>,
}

impl Foreground {
    /// Begins to catch signals: those that come before there is a process are sent to it then.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn catch_signals() -> Result<Self> {
        let (send, signals) = mpsc::unbounded_channel();
        // 32 and 33 are the C library's.
        for number in (1..=31).chain(34..=64).filter(|number| !OWN.contains(number)) {
            let mut caught = signal(SignalKind::from_raw(number))
                .context(|| format!("catch signal {number}"))?;
            let send = send.clone();
            tokio::spawn(async move {
                while caught.recv().await.is_some() && send.send(number).is_ok() {}
            });
        }
        Ok(Self { signals })
    }

    /// Passes signals on until the process has ended.
    pub async fn until_end(&mut self, process: &Process, attached: Option<Attached>) -> Exit {
        let exit = loop {
            tokio::select! {
                biased;
                Some(number) = self.signals.recv() => match &attached {
                    Some(attached) if number == libc::SIGWINCH => attached.resize(),
                    // It may have ended in this very moment.
                    _ => drop(process.signal(number)),
                },
                exit = process.exited() => break exit,
            }
        };
        if let Some(attached) = attached {
            attached.drain();
        }
        exit
    }
}

/// A terminal for the process, which the backend will send.
pub struct Terminal(ConsoleSocket);

impl Terminal {
    /// Listens for it.
    ///
    /// # Errors
    /// When there is no folder for the socket.
    pub fn new(place: &Place) -> Result<Self> {
        let namespace = place.folder.path().parent().unwrap_or(Path::new("/"));
        crate::store::create_private(namespace)?;
        ConsoleSocket::bind(&namespace.join(".pty")).map(Self)
    }

    /// Where the backend connects to.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes the terminal, and joins this program's own with it.
    ///
    /// # Errors
    /// When none comes.
    pub async fn attach(self) -> Result<Attached> {
        let master = tokio::time::timeout(CONSOLE, self.0.receive())
            .await
            .map_err(|_| crate::error::Error::deadline("the runtime sent no terminal"))??;
        Attached::new(master)
    }
}

/// A process's terminal, joined with this program's stdio.
pub struct Attached {
    master: OwnedFd,
    /// Puts this program's terminal right again when it goes.
    _raw: Option<Raw>,
    ended: Receiver<()>,
}

impl Attached {
    fn new(master: OwnedFd) -> Result<Self> {
        let raw = Raw::make();
        let (send, ended) = channel();
        let mut from = File::from(master.try_clone()?);
        std::thread::spawn(move || {
            copy(&mut from, &mut io::stdout());
            // Nobody waits where the process has not ended.
            send.send(()).ok();
        });
        let mut to = File::from(master.try_clone()?);
        std::thread::spawn(move || copy(&mut io::stdin(), &mut to));
        let attached = Self { master, _raw: raw, ended };
        attached.resize();
        Ok(attached)
    }

    /// Passes this program's window size on.
    fn resize(&self) {
        if let Ok((width, height)) = tty::size(io::stdin().as_fd()) {
            // The process may have ended.
            tty::resize(&self.master, width, height).ok();
        }
    }

    fn drain(self) {
        // What is late stays unread.
        self.ended.recv_timeout(DRAIN).ok();
    }
}

/// Copies until either side ends; a terminal whose last user is gone reads as an error.
fn copy(from: &mut impl Read, to: &mut impl Write) {
    let mut buffer = [0; 8192];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if to.write_all(bytes).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// This program's terminal in raw mode.
struct Raw(Termios);

impl Raw {
    /// `None` where standard input is no terminal.
    fn make() -> Option<Self> {
        let before = termios::tcgetattr(io::stdin().as_fd()).ok()?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.0).ok();
    }
}
