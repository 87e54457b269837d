//! A terminal for a guest's process.

use crate::error::{Context, Result};
use crate::stdio::ChildIo;
use crate::sys::{inroot, scm};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Opens a terminal of the guest whose first process has that pid; its slave is the process's
/// stdio. The master is not for the guest.
///
/// # Errors
/// Where the guest has no devpts.
pub fn open(init: i32) -> Result<(OwnedFd, ChildIo)> {
    let (master, slave) = inroot::of_process(init)?.open_terminal()?;
    let io = ChildIo { stdin: slave.try_clone()?, stdout: slave.try_clone()?, stderr: slave };
    Ok((master, io))
}

/// Hands the master to whoever listens at the console socket, as runc and crun do.
///
/// # Errors
/// Names the socket.
pub async fn hand_over(master: &OwnedFd, socket: &Path) -> Result<()> {
    let doing = || format!("send the terminal to {}", socket.display());
    let stream = UnixStream::connect(socket).await.context(doing)?;
    let sent = stream
        .async_io(Interest::WRITABLE, || Ok(scm::send(&stream, b"/dev/ptmx", &[master.as_fd()])?))
        .await;
    sent.map(drop).context(doing)
}
