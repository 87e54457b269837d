//! System calls: the only folder with `unsafe`, and the only one that waits for processes.

pub mod ask;
pub mod cgroup;
pub mod command;
pub mod detached;
pub mod files;
pub mod fnmatch;
pub mod handle;
pub mod inroot;
mod loopdev;
pub mod mount;
pub mod namespace;
pub mod oom;
pub mod pidfd;
pub mod pipe;
pub mod process;
pub mod reaper;
pub mod scm;
pub mod tty;
pub mod watch;

use crate::error::{Error, Result};
use crate::exit::Exit;

/// kill(2), for any signal number including the real-time ones, which nix's `Signal` lacks.
fn kill(to: i32, number: i32) -> Result<()> {
    if !(0..=64).contains(&number) {
        return Err(Error::invalid(format!("signal {number} does not exist: use 1 to 64")));
    }
    #[expect(unsafe_code, reason = "kill(2) with a real-time signal")]
    // SAFETY: kill takes two numbers and touches no memory of this process.
    let result = unsafe { libc::kill(to, number) };
    if result == 0 {
        return Ok(());
    }
    match nix::errno::Errno::last() {
        nix::errno::Errno::ESRCH => Err(Error::not_found(format!("process {to} has ended"))),
        errno => Err(Error::from(errno).context(format!("send signal {number} to {to}"))),
    }
}

/// Takes the status of one child that has ended, any one; `None` when there is none.
fn wait_any() -> Option<(i32, Exit)> {
    let mut status = 0;
    // Not nix's waitpid: it takes the status and then fails on a death by a real-time signal,
    // and the status is lost.
    #[expect(unsafe_code, reason = "waitpid(2) for deaths by real-time signals")]
    // SAFETY: `status` is a live integer that waitpid writes to.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    if pid <= 0 {
        return None;
    }
    Some((pid, Exit::of_status(status)))
}

/// Whether a child of that pid, living or a zombie, is there.
fn is_child(pid: i32) -> bool {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    // A zombie killed by a real-time signal makes nix say EINVAL; ECHILD alone means no.
    pid > 0
        && waitid(Id::Pid(nix::unistd::Pid::from_raw(pid)), flags) != Err(nix::errno::Errno::ECHILD)
}
