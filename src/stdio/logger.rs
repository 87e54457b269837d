//! A logging program: how it is started, told that its container is there, and got rid of.
//!
//! ```text
//! fd 3  reads the container's stdout          environment: CONTAINER_ID, CONTAINER_NAMESPACE
//! fd 4  reads the container's stderr          and nothing else
//! fd 5  says that it is ready: a byte; in the first version of the contract, or end of file
//! ```
//!
//! The supervisor keeps none of these ends, so that the logger comes to the end of its input when
//! the container ends, and the container sees a broken pipe when the logger does.

use super::uri::Program;
use super::{null, pipe};
use crate::error::{Context, Error, Kind, Result};
use crate::exit::Exit;
use crate::sys::command::Command;
use crate::sys::process::is_exiting;
use crate::sys::reaper::Child;
use crate::sys::watch::watch;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// How long `stop` waits: for the logger to see the end of its input, after SIGTERM, and after
/// SIGKILL. Together below the 5 s that containerd waits for a delete.
const AT_END: Duration = Duration::from_millis(1000);
const AFTER_TERM: Duration = Duration::from_millis(1500);
const AFTER_KILL: Duration = Duration::from_millis(500);

/// How long an exit may take that has begun.
const EXITING: Duration = Duration::from_secs(2);

/// A running logging program. Dropping it kills it.
pub(super) struct Logger {
    child: Child,
    name: String,
}

impl Logger {
    /// Starts `program` on the read ends of the container's output, and waits, at most `patience`,
    /// until it is ready. `written` is the write end that belongs to `stdout`.
    pub(super) async fn start(
        program: &Program,
        (id, namespace): (&str, &str),
        (stdout, stderr): (OwnedFd, OwnedFd),
        written: impl AsFd,
        patience: Duration,
    ) -> Result<Self> {
        let name = format!("logger {:?}", program.path);
        let (ready, says_ready) = nix::unistd::pipe2(OFlag::O_CLOEXEC).context(|| "make a pipe")?;
        let child = Command::new(&program.path)
            .args(program.args.iter())
            .env_clear()
            .env("CONTAINER_ID", id)
            .env("CONTAINER_NAMESPACE", namespace)
            .stdin(null()?)
            .stdout(null()?)
            .stderr(null()?)
            .fd(3, stdout)
            .fd(4, stderr)
            .fd(5, says_ready)
            .spawn()
            .map_err(|error| Error::unavailable(format!("{name}: {error}")))?;
        // From here on it is killed wherever this function ends without it.
        let logger = Self { child, name };
        let ready = watch(ready, Interest::READABLE)?;
        match timeout(patience, spoken(&ready)).await {
            Ok(Ok(true)) => Ok(logger),
            Ok(Ok(false)) => {
                let exit = logger.ended().await;
                // One that has put itself in the background reads the container's output there.
                let is_there =
                    exit.is_none_or(|exit| exit.status == 0 && !pipe::is_unread(written));
                if is_there && !program.must_speak { Ok(logger) } else { Err(logger.failed(exit)) }
            }
            Ok(Err(errno)) => Err(Error::from(errno).context(&logger.name)),
            Err(_) => Err(Error::new(
                Kind::DeadlineExceeded,
                format!("{} did not say within {patience:?} that it is ready", logger.name),
            )),
        }
    }

    /// How it ended, if that is why its end of the ready pipe is closed.
    async fn ended(&self) -> Option<Exit> {
        if !is_exiting(self.child.pid()) {
            return None;
        }
        Some(timeout(EXITING, self.child.exited()).await.unwrap_or_else(|_| Exit::unknown()))
    }

    fn failed(&self, exit: Option<Exit>) -> Error {
        let how = match exit {
            Some(exit) => format!("ended with status {} before it was ready", exit.status),
            None => "closed its ready pipe and did not say that it is ready".to_owned(),
        };
        Error::unavailable(format!("{} {how}", self.name))
    }

    /// Waits for its end, and helps it along: SIGTERM, then SIGKILL.
    pub(super) async fn stop(self) {
        let exited = |bound| timeout(bound, self.child.exited());
        for (bound, signal) in [(AT_END, libc::SIGTERM), (AFTER_TERM, libc::SIGKILL)] {
            if exited(bound).await.is_ok() {
                return;
            }
            self.signal(signal);
        }
        if exited(AFTER_KILL).await.is_err() {
            log::warn!("{} (pid {}) did not end when killed", self.name, self.child.pid());
        }
    }

    fn signal(&self, signal: i32) {
        match self.child.signal(signal) {
            Err(error) if error.kind() != Kind::NotFound => {
                log::warn!("{}: signal {signal}: {error}", self.name);
            }
            _ => {}
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
    }
}

/// Whether a byte came, or the end.
async fn spoken(ready: &AsyncFd<OwnedFd>) -> Result<bool, Errno> {
    let mut byte = [0];
    loop {
        let mut guard = ready.readable().await.map_err(|_| Errno::EBADF)?;
        match nix::unistd::read(ready, &mut byte) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::EAGAIN) => guard.clear_ready(),
            Err(errno) => return Err(errno),
        }
    }
}
