//! The socket over which an OCI runtime hands up the master of a container's terminal.

use crate::error::{Context, Error, Result};
use crate::sys::scm;
use nix::errno::Errno;
use nix::sys::stat::lstat;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::net::{UnixListener, UnixStream};

/// A listening socket, for one terminal. Its file goes away with it.
///
/// ```no_run
/// # async fn example() -> nexcage::error::Result<()> {
/// use nexcage::stdio::ConsoleSocket;
/// let socket = ConsoleSocket::bind("/run/nexcage/web-1".as_ref())?;
/// // crun create --console-socket <socket.path()> …
/// let master = socket.receive().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens in `dir`, which is made if need be. Several may share one folder. A socket's path
    /// has at most 107 bytes, of which its name in `dir` takes up to 12.
    ///
    /// # Errors
    /// `FailedPrecondition` where somebody else could get at a socket in `dir`: whoever connects
    /// first is taken to be the runtime. `InvalidArgument` for a path that is too long.
    pub fn bind(dir: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let doing = || format!("listen for a terminal in {dir:?}");
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(Error::from(error).context(doing()));
            }
            _ => {}
        }
        let stat = lstat(dir).context(doing)?;
        let is_ours = stat.st_uid == nix::unistd::geteuid().as_raw();
        if stat.st_mode & libc::S_IFMT != libc::S_IFDIR || stat.st_mode & 0o077 != 0 || !is_ours {
            let text = format!("{dir:?} has to be a folder of ours with mode 0700");
            return Err(Error::precondition(text).context(doing()));
        }
        loop {
            // A file of that name is of a supervisor that was killed.
            let path = dir.join(format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)));
            match UnixListener::bind(&path) {
                Ok(listener) => return Ok(Self { listener, path }),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    return Err(Error::invalid(format!("{}: {error}", doing())));
                }
                Err(error) => return Err(Error::from(error).context(doing())),
            }
        }
    }

    /// Where the runtime connects to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The master that the runtime sends. Waits without a bound: it is the caller who knows
    /// whether the runtime is still at it.
    ///
    /// # Errors
    /// Where what comes is not exactly one terminal.
    pub async fn receive(self) -> Result<OwnedFd> {
        let doing = || "receive a terminal from the runtime";
        let (stream, _) = self.listener.accept().await.context(doing)?;
        let received = message(&stream).await.context(doing)?;
        let wrong = |what: &str| Error::unknown(format!("{}: {what}", doing()));
        let mut fds = received.ok_or_else(|| wrong("it sent nothing"))?.into_iter();
        match (fds.next(), fds.next()) {
            (Some(master), None) => nix::unistd::isatty(&master)
                .ok()
                .filter(|is_terminal| *is_terminal)
                .map(|_| master)
                .ok_or_else(|| wrong("it sent something else")),
            (None, _) => Err(wrong("it sent no file descriptor")),
            (Some(_), Some(_)) => Err(wrong("it sent several file descriptors")),
        }
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // A runtime that is slow finds nothing, which is right.
        drop(fs::remove_file(&self.path));
    }
}

async fn message(stream: &UnixStream) -> Result<Option<Vec<OwnedFd>>, Errno> {
    loop {
        stream.readable().await.map_err(|_| Errno::EIO)?;
        let received = stream.try_io(tokio::io::Interest::READABLE, || Ok(scm::receive(stream)?));
        match received {
            Ok(received) => return Ok(received),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
        }
    }
}
