//! What a terminal is told.

use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Sets a terminal's size in characters; the foreground process group gets SIGWINCH.
///
/// # Errors
/// `ENOTTY` where `fd` is no terminal.
pub fn resize(fd: impl AsFd, width: u16, height: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    #[expect(unsafe_code, reason = "nix wraps no TIOCSWINSZ")]
    // SAFETY: TIOCSWINSZ only reads the struct, which outlives the call; the fd is borrowed.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    Errno::result(result).map(drop)
}

/// A terminal's size in characters: width and height.
///
/// # Errors
/// `ENOTTY` where `fd` is no terminal.
pub fn size(fd: impl AsFd) -> Result<(u16, u16), Errno> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    #[expect(unsafe_code, reason = "nix wraps no TIOCGWINSZ")]
    // SAFETY: TIOCGWINSZ stores one struct in `size`, which outlives the call; the fd is borrowed.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    Errno::result(result).map(|_| (size.ws_col, size.ws_row))
}

/// Opens the slave of a new terminal by its master, so that no path is involved that somebody
/// could have put something else at (ioctl_tty(2), TIOCGPTPEER).
///
/// # Errors
/// `ENOTTY` where `master` is no terminal's master.
pub fn unlock_and_open_peer(master: impl AsFd) -> Result<OwnedFd, Errno> {
    let raw = master.as_fd().as_raw_fd();
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let locked: libc::c_int = 0;
    #[expect(unsafe_code, reason = "nix wraps neither TIOCSPTLCK nor TIOCGPTPEER")]
    // SAFETY: the first only reads the integer, which outlives the call; the second takes a number
    // and returns a new fd, which is owned the moment it is known to be one.
    unsafe {
        Errno::result(libc::ioctl(raw, libc::TIOCSPTLCK, &raw const locked))?;
        Errno::result(libc::ioctl(raw, libc::TIOCGPTPEER, flags))
            .map(|slave| OwnedFd::from_raw_fd(slave))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_the_size_it_was_given() {
        let pty = nix::pty::openpty(None, None).unwrap();
        resize(&pty.master, 132, 43).unwrap();
        assert_eq!(size(&pty.slave), Ok((132, 43)));
        let (no_terminal, _) = nix::unistd::pipe().unwrap();
        assert_eq!(resize(&no_terminal, 80, 25), Err(Errno::ENOTTY));
    }
}
