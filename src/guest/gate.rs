//! The gate: the socket at which a guest's init waits, and what is said there
//! (`init/protocol.rs`).
//!
//! Its file lies in a folder that only root enters, and root of the guest, and is mounted into one
//! guest. One connection is accepted, from the process that is expected; then the socket is closed
//! and its file removed, so whatever connects later finds nobody.

use crate::error::{Context, Error, Result};
use crate::init::{self, Description, protocol};
use crate::stdio::ChildIo;
use crate::sys::{pidfd, scm};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};

/// An init that says more than this is no init of ours.
const MAX_SAID: u64 = 16 << 10;

/// A gate that nobody has come to yet.
#[derive(Debug)]
pub struct Gate {
    folder: PathBuf,
    listener: UnixListener,
}

impl Gate {
    /// Makes `folder`, with the socket in it and the place that the init's program is mounted on.
    /// `owner` is who is root in the guest, as the host sees it.
    ///
    /// # Errors
    /// Names the folder.
    pub fn open(folder: &Path, owner: (u32, u32)) -> Result<Self> {
        let doing = || format!("make the gate {}", folder.display());
        DirBuilder::new().mode(0o700).create(folder).context(doing)?;
        let program = folder.join(protocol::PROGRAM);
        File::create_new(&program).context(doing)?;
        // By the folder's fd, or the path could be longer than a socket's may be.
        let opened = File::open(folder).context(doing)?;
        let short = format!("/proc/self/fd/{}/{}", opened.as_raw_fd(), protocol::SOCKET);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).context(doing)?;
        bind(fd.as_raw_fd(), &UnixAddr::new(short.as_str()).context(doing)?).context(doing)?;
        let path = folder.join(protocol::SOCKET);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).context(doing)?;
        for owned in [program.as_path(), path.as_path()] {
            chown(owned, Some(owner.0), Some(owner.1)).context(doing)?;
        }
        if owner != (0, 0) {
            // Its files are the guest's, and the folder is not: other guests may have the same ids,
            // and none is to put anything else in its place.
            chown(folder, None, Some(owner.1)).context(doing)?;
            fs::set_permissions(folder, Permissions::from_mode(0o750)).context(doing)?;
        }
        listen(&fd, Backlog::new(1).context(doing)?).context(doing)?;
        let listener =
            UnixListener::from_std(std::os::unix::net::UnixListener::from(fd)).context(doing)?;
        Ok(Self { folder: folder.to_owned(), listener })
    }

    /// Its folder on the host.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the one connection, if it comes from the process that `check` approves by its pid on
    /// the host, and closes the gate. Waits without a bound: the caller knows what else may come.
    ///
    /// # Errors
    /// `FailedPrecondition` when somebody else has connected.
    pub async fn accept(self, check: impl Fn(i32) -> Result<()>) -> Result<AtGate> {
        let doing = || "the guest's init";
        let (stream, _) = self.listener.accept().await.context(doing)?;
        fs::remove_file(self.folder.join(protocol::SOCKET)).context(doing)?;
        let peer = stream.peer_cred().context(doing)?;
        let pid = peer.pid().filter(|&pid| pid > 0).ok_or_else(|| {
            Error::precondition("whoever came to the gate is in no pid namespace below this one")
        })?;
        let pidfd = pidfd::open(pid).context(doing)?;
        // After the pidfd: from here on the number cannot come to mean another process.
        check(pid)?;
        Ok(AtGate { stream, pid, pidfd })
    }
}

/// An init that waits at the gate.
#[derive(Debug)]
pub struct AtGate {
    stream: UnixStream,
    /// Its pid on the host.
    pub pid: i32,
    pidfd: OwnedFd,
}

impl AtGate {
    /// A fd that holds on to the init.
    ///
    /// # Errors
    /// When there is no more room for fds.
    pub fn pidfd(&self) -> Result<OwnedFd> {
        Ok(self.pidfd.try_clone()?)
    }

    /// The connection, for another process.
    ///
    /// # Errors
    /// None in practice.
    pub fn into_fd(self) -> Result<OwnedFd> {
        Ok(self.stream.into_std()?.into())
    }

    /// An init of that pid, which waits at the other end of `connection`.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub fn from_fd(connection: OwnedFd, pid: i32) -> Result<Self> {
        let stream = std::os::unix::net::UnixStream::from(connection);
        Ok(Self { stream: UnixStream::from_std(stream)?, pid, pidfd: pidfd::open(pid)? })
    }

    /// Tells it what to do, hands it its stdio and what its process gets beside that, and waits
    /// until all that precedes the start is done.
    ///
    /// # Errors
    /// What it says went wrong; `Unknown` when it ended.
    pub async fn describe(
        &mut self,
        description: &Description,
        io: &ChildIo,
        more: &[OwnedFd],
    ) -> Result<()> {
        describe(&mut self.stream, description, io, more).await?;
        match read_word(&mut self.stream).await? {
            protocol::READY => Ok(()),
            other => {
                Err(Error::unknown(format!("the guest's init said {other}, not that it is ready")))
            }
        }
    }

    /// Lets it become the container's process.
    ///
    /// # Errors
    /// Why it could not.
    pub async fn go(mut self) -> Result<()> {
        self.stream.write_all(&[protocol::GO]).await.context(|| "release the guest's init")?;
        until_exec(&mut self.stream).await
    }
}

/// Sends a description, stdio, and as many descriptors beside it as the description says.
pub(super) async fn describe(
    stream: &mut UnixStream,
    description: &Description,
    io: &ChildIo,
    more: &[OwnedFd],
) -> Result<()> {
    let doing = || "send the process's description";
    let body = init::encode(description);
    let length = u32::try_from(body.len()).map_err(|_| Error::invalid("it is too large"))?;
    let stdio = [io.stdin.as_fd(), io.stdout.as_fd(), io.stderr.as_fd()];
    send_with(stream, &length.to_le_bytes(), &stdio).await.context(doing)?;
    let mut rest = body.as_slice();
    for some in more.chunks(protocol::MOST_FDS) {
        let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
        let (byte, after) = rest.split_at_checked(1).ok_or_else(|| {
            Error::invalid(format!("{} descriptors are too many to pass on", more.len()))
        })?;
        send_with(stream, byte, &some).await.context(doing)?;
        rest = after;
    }
    stream.write_all(rest).await.context(doing)
}

/// All of `bytes`, with descriptors.
async fn send_with(
    stream: &mut UnixStream,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> std::io::Result<()> {
    let send = || Ok(scm::send(&*stream, bytes, fds)?);
    let sent = stream.async_io(Interest::WRITABLE, send).await?;
    stream.write_all(bytes.get(sent..).unwrap_or_default()).await
}

/// The next word that the init says; what it failed with, where it says that.
pub(super) async fn read_word(stream: &mut UnixStream) -> Result<u8> {
    match stream.read_u8().await {
        Ok(protocol::FAILED) => Err(failure(stream).await),
        Ok(word) => Ok(word),
        Err(_) => Err(Error::unknown("the guest's init ended before it said anything")),
    }
}

/// Waits for the exec, which closes the socket.
pub(super) async fn until_exec(stream: &mut UnixStream) -> Result<()> {
    match stream.read_u8().await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
        // It had not read that it may go.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
            Err(Error::precondition("its init was killed before it became the process"))
        }
        Err(error) => Err(error).context(|| "wait for the process"),
        Ok(protocol::FAILED) => Err(failure(stream).await),
        Ok(word) => Err(Error::unknown(format!("the guest's init said {word} instead of the end"))),
    }
}

/// The errno and the text that follow [`protocol::FAILED`].
async fn failure(stream: &mut UnixStream) -> Error {
    let errno = stream.read_i32_le().await.unwrap_or(0);
    let mut said = Vec::new();
    // What came before the failure to read is better than nothing.
    drop(stream.take(MAX_SAID).read_to_end(&mut said).await);
    let text: String = String::from_utf8_lossy(&said)
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    match errno {
        0 => Error::unknown(text),
        // The text says it in words already.
        errno => Error::new(Error::from(nix::errno::Errno::from_raw(errno)).kind(), text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// Needs root.
    #[tokio::test]
    async fn the_guests_root_has_its_files_and_can_put_nothing_in_their_place() {
        let parent = tempfile::tempdir().unwrap();
        for (name, owner, mode) in [("host", (0, 0), 0o700), ("mapped", (100_000, 200_000), 0o750)]
        {
            let gate = Gate::open(&parent.path().join(name), owner).unwrap();
            let facts = |path: &Path| {
                let facts = fs::symlink_metadata(path).unwrap();
                (facts.uid(), facts.gid(), facts.mode() & 0o777)
            };
            assert_eq!(facts(gate.folder()), (0, owner.1, mode));
            let (uid, gid) = owner;
            assert_eq!(facts(&gate.folder().join(protocol::SOCKET)), (uid, gid, 0o600));
            let program = facts(&gate.folder().join(protocol::PROGRAM));
            assert_eq!((program.0, program.1), owner);
        }
    }
}
