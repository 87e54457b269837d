//! What the caller of a verb that makes a process hands in, and gets out of it.

use crate::backend::More;
use crate::error::{Context, Error, Result};
use crate::stdio::ChildIo;
use crate::sys::{pidfd, process, scm};
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The first fd that is not standard (sd_listen_fds(3), SD_LISTEN_FDS_START).
const FIRST: i32 = 3;

/// This program's own stdio, for the process.
///
/// # Errors
/// When there is no more room for fds.
pub fn inherited_io() -> Result<ChildIo> {
    Ok(ChildIo {
        stdin: std::io::stdin().as_fd().try_clone_to_owned()?,
        stdout: std::io::stdout().as_fd().try_clone_to_owned()?,
        stderr: std::io::stderr().as_fd().try_clone_to_owned()?,
    })
}

/// What the process is to get beyond its stdio: the fds of LISTEN_FDS, if they are meant for this
/// program, and `preserve` more.
///
/// # Errors
/// `InvalidArgument` when one of them is not open.
pub fn passed_fds(preserve: u32) -> Result<More> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let for_this = number("LISTEN_PID").is_none_or(|pid| pid == std::process::id());
    let listen = number("LISTEN_FDS").filter(|_| for_this).unwrap_or(0);
    let count = listen.checked_add(preserve).and_then(|count| i32::try_from(count).ok());
    let count = count
        .filter(|&count| count < 1 << 16)
        .ok_or_else(|| Error::invalid("--preserve-fds: more than a process can have open"))?;
    // The duplicates lie beyond, or one would pass for the next that is asked for.
    let beyond = FIRST + count;
    let fds: Result<_> =
        (FIRST..beyond).map(|number| process::inherited_fd(number, beyond)).collect();
    let listen = usize::try_from(listen).unwrap_or(usize::MAX);
    Ok(More { fds: fds?, listen, flags: Vec::new() })
}

/// Tells of a process whoever asked for that.
///
/// # Errors
/// Names the socket or the file.
pub fn tell_pid(pid: i32, pidfd_socket: Option<&Path>, pid_file: Option<&Path>) -> Result<()> {
    if let Some(socket) = pidfd_socket {
        send_pidfd(socket, &pidfd::open(pid)?)?;
    }
    pid_file.map_or(Ok(()), |file| write_pid(file, pid))
}

/// Writes a pid so that no reader ever sees half of one.
fn write_pid(file: &Path, pid: i32) -> Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let new = file.with_file_name(name);
    fs::File::create(&new)
        .and_then(|mut out| write!(out, "{pid}"))
        .and_then(|()| fs::rename(&new, file))
        .inspect_err(|_| drop(fs::remove_file(&new)))
        .context(|| format!("write the pid file {}", file.display()))
}

/// Sends a pidfd to whoever listens at `socket`.
fn send_pidfd(socket: &Path, pidfd: &OwnedFd) -> Result<()> {
    let doing = || format!("send the pidfd to {}", socket.display());
    let stream = UnixStream::connect(socket).context(doing)?;
    scm::send(&stream, b"pidfd", &[pidfd.as_fd()]).map(drop).context(doing)
}
