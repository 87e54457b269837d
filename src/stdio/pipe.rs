//! Pipes, and the calls on them that never block.

use super::Owner;
use crate::error::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Gid, Uid, fchown, pipe2};
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// A pipe, read end first, that a container of `owner` may open again through `/proc/self/fd`.
pub(super) fn pair(owner: Owner) -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).context(|| "make a pipe")?;
    if (owner.uid, owner.gid) != (0, 0) {
        fchown(&read, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))
            .context(|| format!("give a pipe to {}:{}", owner.uid, owner.gid))?;
    }
    Ok((read, write))
}

/// Moves pages, as many as there are room for. EAGAIN: `from` is empty or `to` is full.
pub(super) fn splice(from: impl AsFd, to: impl AsFd) -> Result<usize, Errno> {
    const ALL: usize = 1 << 20;
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    nix::fcntl::splice(from, None, to, None, ALL, flags)
}

/// Whether no read end of the pipe that `write` belongs to is open.
pub(super) fn is_unread(write: impl AsFd) -> bool {
    state(write, PollFlags::empty()).contains(PollFlags::POLLERR)
}

/// Until a write makes progress, or fails for good.
pub(super) async fn writable(fd: &AsyncFd<OwnedFd>) -> Result<(), Errno> {
    loop {
        let mut ready = fd.writable().await.map_err(|_| Errno::EBADF)?;
        // What tokio remembers may be older than the EAGAIN that brought us here.
        if is_writable(fd) {
            return Ok(());
        }
        ready.clear_ready();
    }
}

/// Whether a write makes progress, or fails for good.
pub(super) fn is_writable(fd: impl AsFd) -> bool {
    !state(fd, PollFlags::POLLOUT).is_empty()
}

fn state(fd: impl AsFd, events: PollFlags) -> PollFlags {
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => fds[0].revents().unwrap_or(PollFlags::empty()),
        Err(_) => PollFlags::empty(),
    }
}
