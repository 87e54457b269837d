//! One more process in a guest: `nexcage-init exec` on the host joins the guest's cgroups and
//! namespaces and becomes the process.
//!
//! Not lxc-attach or `pct exec`: those have neither user nor capabilities nor terminal of an OCI
//! process, leak the caller's environment, and live on beside the process, which does not hear
//! their signals. Here the process is the supervisor's own child once the helper between them has
//! ended, as with crun.

use super::gate;
use crate::error::{Context, Error, Result};
use crate::init::{Description, protocol};
use crate::stdio::ChildIo;
use crate::sys::command::Command;
use crate::sys::handle::Process;
use crate::sys::reaper;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Makes the process that `description` describes, with stdio and more descriptors; `program` is
/// the private copy of the init.
///
/// # Errors
/// What the init says: the command is not there, the user has no right to the folder, ….
pub async fn exec(
    program: &Path,
    description: &Description,
    io: &ChildIo,
    more: &[OwnedFd],
) -> Result<Process> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, flags).context(|| "socketpair")?;
    // The helper reads it as any program reads.
    nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()))?;
    let mut stream = UnixStream::from_std(std::os::unix::net::UnixStream::from(ours))?;
    let hold = reaper::hold();
    let helper = Command::new(program).arg("exec").env_clear().fd(3, theirs);
    let mut helper = Kill(Some(Process::Child(helper.spawn()?)));
    gate::describe(&mut stream, description, io, more).await?;
    match gate::read_word(&mut stream).await? {
        protocol::PID => {}
        other => return Err(Error::unknown(format!("the exec's init said {other}, not its pid"))),
    }
    let pid = stream.read_i32_le().await.context(|| "read the exec's pid")?;
    // The helper has nothing left to do but to end, which makes its child this supervisor's.
    if let Some(helper) = helper.0.take() {
        helper.exited().await;
    }
    let mut child = Kill(Some(hold.claim(pid)?));
    stream.write_all(&[protocol::GO]).await.context(|| "release the exec's process")?;
    gate::until_exec(&mut stream).await?;
    child.0.take().ok_or_else(|| Error::unknown("the exec's process is gone"))
}

/// A process that is killed unless it is taken out.
struct Kill(Option<Process>);

impl Drop for Kill {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            // Ended meanwhile is what the signal wanted.
            drop(child.signal(libc::SIGKILL));
        }
    }
}
