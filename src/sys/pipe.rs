//! What a pipe holds.

use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd};

/// How many bytes stand unread in a pipe or FIFO. Either end may ask.
///
/// # Errors
/// `ENOTTY` where `fd` is nothing that can be asked.
pub fn unread(fd: impl AsFd) -> Result<usize, Errno> {
    let mut bytes: libc::c_int = 0;
    #[expect(unsafe_code, reason = "nix wraps no FIONREAD")]
    // SAFETY: FIONREAD stores one int in `bytes`, which outlives the call; the fd is borrowed.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    Errno::result(result)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}
