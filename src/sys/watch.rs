//! File descriptors that tasks wait for.

use crate::error::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the current tokio runtime wait for `fd`, and makes calls on it say EAGAIN. That goes for
/// every descriptor of the same open file, but not for the other end of a pipe.
///
/// # Errors
/// Where there is nothing to wait for, as with an ordinary file.
pub fn watch(fd: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>> {
    let flags = fcntl(&fd, FcntlArg::F_GETFL).context(|| "read a descriptor's flags")?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&fd, FcntlArg::F_SETFL(flags)).context(|| "make a descriptor non-blocking")?;
    #[expect(unsafe_code, reason = "tokio trusts the type with the descriptor's life")]
    // SAFETY: an OwnedFd always gives the same number, which is open until it is dropped, and
    // AsyncFd deregisters before it drops it.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    watched.map_err(|error| std::io::Error::from(error).into())
}
