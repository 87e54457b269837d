//! How a guest's init ended: LXC's monitor, its parent, writes it to a FIFO, if there is one and
//! somebody reads it.
//!
//! The FIFO is what lxc-monitord(8) makes and forwards to `lxc-monitor`. Here the supervisor makes
//! and reads it itself, one for each guest, before the guest can run: no daemon that may be
//! missing stands between, and nobody else takes a message away.

use crate::error::{Context, Result};
use crate::exit::Exit;
use crate::sys::watch;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

/// `struct lxc_msg`: an int for the kind, a name of 256 bytes, an int for the value.
pub const MESSAGE: usize = 4 + 256 + 4;

/// The kind of a message that carries the raw status of wait(2).
const EXIT_CODE: i32 = 2;

/// LXC's folder for what lasts until the host goes down.
const RUN: &str = "/run/lxc";

/// The places of LXC's that belong to one lxcpath: where its FIFO is, and its locks.
fn folders(lxcpath: &Path) -> [PathBuf; 2] {
    let inner = lxcpath.strip_prefix("/").unwrap_or(lxcpath);
    [Path::new(RUN).join(inner), Path::new(RUN).join("lock").join(inner)]
}

/// Removes what LXC has put into its own folder for an lxcpath that is used no more, and the
/// parents that are then empty.
pub fn forget(lxcpath: &Path) {
    for folder in folders(lxcpath) {
        // Where LXC or somebody else still uses it, it stays.
        drop(fs::remove_dir_all(&folder));
        let parents = folder.ancestors().skip(1).take_while(|parent| *parent != Path::new(RUN));
        for parent in parents {
            if fs::remove_dir(parent).is_err() {
                break;
            }
        }
    }
}

/// Listens for the end of the guest of that name. To be called before the guest is started.
///
/// # Errors
/// Names the FIFO.
pub fn listen(lxcpath: &Path, name: &str) -> Result<oneshot::Receiver<Exit>> {
    let [folder, _] = folders(lxcpath);
    let path = folder.join("monitor-fifo");
    let doing = || format!("listen at {}", path.display());
    crate::store::create_private(&folder)?;
    match nix::unistd::mkfifo(&path, Mode::from_bits_retain(0o600)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno).context(doing),
    }
    // For writing, too: LXC opens and closes it for each message, and in between it would be at
    // its end.
    let fd = open(&path, OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())
        .context(doing)?;
    let fifo = watch::watch(fd, Interest::READABLE)?;
    let (mut sender, receiver) = oneshot::channel();
    let name = name.to_owned();
    tokio::spawn(async move {
        tokio::select! {
            exit = hear(&fifo, &name) => if let Some(exit) = exit
                && sender.send(exit).is_err()
            {
                log::debug!("nobody waits for the end of {name} any more");
            },
            () = sender.closed() => {}
        }
    });
    Ok(receiver)
}

async fn hear(fifo: &AsyncFd<OwnedFd>, name: &str) -> Option<Exit> {
    loop {
        let mut message = [0; MESSAGE];
        // A message is written at once, and is smaller than what a pipe keeps together.
        let read = fifo
            .async_io(Interest::READABLE, |fd| Ok(nix::unistd::read(fd, &mut message)?))
            .await
            .ok()?;
        if read == MESSAGE
            && let Some(exit) = exit_in(&message, name)
        {
            return Some(exit);
        }
    }
}

/// How the guest of that name ended, if that is what a message says.
pub fn exit_in(message: &[u8; MESSAGE], name: &str) -> Option<Exit> {
    let (kind, rest) = message.split_first_chunk()?;
    let (named, status) = rest.split_last_chunk()?;
    let named = named.split(|&byte| byte == 0).next()?;
    let meant = i32::from_ne_bytes(*kind) == EXIT_CODE && named == name.as_bytes();
    meant.then(|| Exit::of_status(i32::from_ne_bytes(*status)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn message(kind: i32, name: &str, value: i32) -> Vec<u8> {
        let mut bytes = kind.to_ne_bytes().to_vec();
        bytes.extend_from_slice(name.as_bytes());
        bytes.resize(MESSAGE - 4, 0);
        bytes.extend_from_slice(&value.to_ne_bytes());
        bytes
    }

    #[test]
    fn the_exit_of_the_guest_is_heard_among_other_messages() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let told = listen(folder.path(), "web").unwrap();
            let path = folders(folder.path())[0].join("monitor-fifo");
            for bytes in [
                message(0, "web", 2),
                message(EXIT_CODE, "web-2", 1 << 8),
                message(EXIT_CODE, "web", 9),
            ] {
                fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&bytes).unwrap();
            }
            assert_eq!(told.await.unwrap().status, 137);
            forget(folder.path());
            assert!(!path.exists());
        });
    }
}
