//! Processes that are nobody's child here: LXC's monitor is the parent of a guest's init.
//!
//! A pidfd holds on to the process, so a signal cannot reach another of its number, and tells when
//! it has ended. How it ended its parent has seen, and tells ([`ExitSource`]). A parent that is
//! gone tells nothing: then the process is this one's to reap, or the kernel is asked.

use super::reaper::Heir;
use super::watch;
use crate::error::{Context, Error, Result};
use crate::exit::Exit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch as channel};

/// How long after the end of a process its status may take to come: its parent has to reap it, or
/// whoever tells of it has to be heard.
const STATUS: Duration = Duration::from_secs(5);

/// How long of that its parent has, before it is ended: one that is stopped or frozen never reaps.
const PARENT: Duration = Duration::from_secs(3);

/// How long the kernel's word waits for the parent's, where one may come, for that is better: of a
/// process that has halted its pid namespace (reboot(2)) the kernel does not tell the signal that
/// wait(2) sees.
const BETTER: Duration = Duration::from_millis(500);

/// Who knows how a process ended, besides whoever reaps it.
pub struct ExitSource {
    /// The parent's word. A sender that is dropped means that there will be none.
    pub told: oneshot::Receiver<Exit>,
    /// The kernel may be asked: [`kernel_tells`] has said so.
    pub kernel: bool,
    /// Ends a parent that does not reap, after which this process does: where it inherits what that
    /// parent leaves.
    pub end_parent: Option<Box<dyn FnOnce() + Send>>,
}

impl ExitSource {
    /// The kernel, where it tells; else nobody.
    pub fn at_hand() -> Self {
        Self { told: oneshot::channel().1, kernel: kernel_tells(), end_parent: None }
    }
}

/// A process that is not a child of this one.
#[derive(Clone, Debug)]
pub struct Foreign {
    pid: i32,
    /// `None` for one that had ended before it could be looked at.
    fd: Option<Arc<OwnedFd>>,
    exit: channel::Receiver<Option<Exit>>,
}

/// pidfd_open(2).
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn open(pid: i32) -> Result<OwnedFd> {
    #[expect(unsafe_code, reason = "pidfd_open(2) has no wrapper")]
    // SAFETY: the call takes numbers, and what it returns is a new fd that nobody else has.
    let fd = unsafe {
        let raw = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        match RawFd::try_from(raw) {
            Ok(raw) if raw >= 0 => OwnedFd::from_raw_fd(raw),
            _ => {
                let errno = nix::errno::Errno::last();
                return if errno == nix::errno::Errno::ESRCH {
                    Err(Error::not_found(format!("process {pid} has ended")))
                } else {
                    Err(Error::from(errno).context(format!("open process {pid}")))
                };
            }
        }
    };
    Ok(fd)
}

/// Whether this kernel tells the exit status of a process that is no child (PIDFD_GET_INFO with
/// PIDFD_INFO_EXIT, Linux 6.15).
pub fn kernel_tells() -> bool {
    let Ok(name) = nix::sys::utsname::uname() else { return false };
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return false;
    };
    (major, minor) >= (6, 15)
        && open(nix::unistd::getpid().as_raw()).is_ok_and(|fd| info(&fd).is_ok())
}

/// struct pidfd_info of linux/pidfd.h, in its first size.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const INFO_EXIT: u64 = 1 << 3;

/// The raw status of a process that has been reaped; `None` before that.
fn info(fd: &OwnedFd) -> Result<Option<i32>> {
    let mut info = Info { mask: INFO_EXIT, ..Info::default() };
    let request = nix::request_code_readwrite!(0xff, 11, size_of::<Info>());
    #[expect(unsafe_code, reason = "ioctl(2)")]
    // SAFETY: the request carries the size of `info`, which is live and writable, and the kernel
    // writes no more than that.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, &raw mut info) };
    if result < 0 {
        return Err(Error::from(nix::errno::Errno::last()).context("ask how a process ended"));
    }
    Ok((info.mask & INFO_EXIT != 0).then_some(info.exit_code))
}

impl Foreign {
    /// Watches the process of `pid`, on which `fd` holds. To be called in a tokio runtime.
    ///
    /// # Errors
    /// When the fd cannot be watched.
    pub fn watch(pid: i32, fd: OwnedFd, mut source: ExitSource) -> Result<Self> {
        let (sender, exit) = channel::channel(None);
        let watched = watch::watch(fd.try_clone()?, Interest::READABLE)?;
        let process = Self { pid, fd: Some(Arc::new(fd)), exit };
        let heir = Heir::expect(pid);
        tokio::spawn(async move {
            // A pidfd is readable from the process's end on, and for ever.
            drop(watched.readable().await);
            let end_parent = source.end_parent.take();
            let learning = tokio::time::timeout(STATUS, status(&watched, source, heir));
            let mut learning = std::pin::pin!(learning);
            let learnt = match tokio::time::timeout(PARENT, &mut learning).await {
                Ok(learnt) => learnt,
                Err(_) => {
                    if let Some(end_parent) = end_parent {
                        log::warn!(
                            "process {pid} has ended, and its parent does not reap: ending that"
                        );
                        end_parent();
                    }
                    learning.await
                }
            };
            let exit = learnt.ok().flatten();
            let exit = exit.unwrap_or_else(|| {
                log::error!("process {pid} has ended, and how is not known: reporting 255");
                Exit::unknown()
            });
            // Nobody may be listening any more.
            sender.send_replace(Some(exit));
        });
        Ok(process)
    }

    /// A process that has ended, and nobody saw how.
    pub fn gone(pid: i32) -> Self {
        Self { pid, fd: None, exit: channel::channel(Some(Exit::unknown())).1 }
    }

    /// The fd that holds on to it, unless it was gone from the beginning.
    pub fn fd(&self) -> Option<&OwnedFd> {
        self.fd.as_deref()
    }

    /// Its pid, in this process's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Sends a signal, any of 0 to 64.
    ///
    /// # Errors
    /// `NotFound` once it has ended, `InvalidArgument` for a number that is no signal.
    pub fn signal(&self, number: i32) -> Result<()> {
        let ended = || Error::not_found(format!("process {} has ended", self.pid));
        let fd = self.fd.as_ref().ok_or_else(ended)?;
        signal(fd, number).map_err(|error| match error {
            nix::errno::Errno::ESRCH => ended(),
            nix::errno::Errno::EINVAL => {
                Error::invalid(format!("signal {number} does not exist: use 1 to 64"))
            }
            errno => Error::from(errno).context(format!("send signal {number} to {}", self.pid)),
        })
    }

    /// Waits until it is dead, whether or not its parent has looked.
    ///
    /// # Errors
    /// When the fd cannot be watched.
    pub async fn dying(&self) -> Result<()> {
        match &self.fd {
            Some(fd) => ended(fd.try_clone()?).await,
            None => Ok(()),
        }
    }

    /// Waits for its end; returns at once if it has ended, as often as asked.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(seen) => seen.unwrap_or_else(Exit::unknown),
            // The runtime is ending, and with it the task that would have sent it.
            Err(_) => Exit::unknown(),
        }
    }
}

/// pidfd_send_signal(2).
///
/// # Errors
/// `ESRCH` once it has ended.
pub fn signal(fd: &OwnedFd, number: i32) -> nix::Result<()> {
    #[expect(unsafe_code, reason = "pidfd_send_signal(2) has no wrapper")]
    // SAFETY: the call takes numbers and a null pointer that it does not follow.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd.as_raw_fd(),
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    nix::errno::Errno::result(result).map(drop)
}

/// Waits for the end of the process that `fd` holds on to, its status aside.
///
/// # Errors
/// When the fd cannot be watched.
pub async fn ended(fd: OwnedFd) -> Result<()> {
    let watched = watch::watch(fd, Interest::READABLE)?;
    watched.readable().await.map(drop).context(|| "wait for a process")
}

/// The status of a process that has ended, from the best of those that know it.
async fn status(watched: &AsyncFd<OwnedFd>, source: ExitSource, mut heir: Heir) -> Option<Exit> {
    let ExitSource { mut told, kernel, .. } = source;
    let others = async {
        let mut kernels = std::pin::pin!(reaped(watched, kernel));
        tokio::select! {
            biased;
            exit = &mut told => match exit {
                Ok(exit) => Some(exit),
                Err(_) if kernel => Some(kernels.await),
                // It may be about to be reaped here.
                Err(_) => {
                    tokio::time::sleep(BETTER).await;
                    None
                }
            },
            exit = &mut kernels => match tokio::time::timeout(BETTER, told).await {
                Ok(Ok(better)) => Some(better),
                _ => Some(exit),
            },
        }
    };
    tokio::select! {
        biased;
        exit = heir.reaped() => Some(exit),
        exit = others => exit,
    }
}

/// What the kernel tells, as soon as whoever is the parent has reaped: a pidfd then hangs up, on
/// every kernel that tells. Never, where it does not.
async fn reaped(watched: &AsyncFd<OwnedFd>, tells: bool) -> Exit {
    while tells && let Ok(mut ready) = watched.readable().await {
        if !ready.ready().is_read_closed() {
            ready.clear_ready();
            continue;
        }
        match info(watched.get_ref()) {
            Ok(Some(status)) => return Exit::of_status(status),
            Ok(None) => log::error!("the kernel does not tell how a process ended"),
            Err(error) => log::error!("{error}"),
        }
        break;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::command::Command;
    use crate::sys::reaper::tests::start_alone;

    /// What is learnt of a script's end.
    fn status_of(script: &str, told: Option<u32>, kernel: bool) -> u32 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _alone = start_alone();
            let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let fd = open(child.pid()).unwrap();
            let (sender, receiver) = oneshot::channel();
            let source = ExitSource { told: receiver, kernel, end_parent: None };
            let foreign = Foreign::watch(child.pid(), fd, source).unwrap();
            match told {
                Some(status) => sender.send(Exit::exited(status.cast_signed())).unwrap(),
                None => drop(sender),
            }
            let exit = foreign.exited().await;
            child.exited().await;
            assert_eq!(foreign.signal(9).unwrap_err().kind(), crate::error::Kind::NotFound);
            exit.status
        })
    }

    #[test]
    fn the_kernel_tells_how_a_stranger_ended() {
        if !kernel_tells() {
            // The path that such a kernel takes has tests of its own.
            return;
        }
        assert_eq!(status_of("exit 7", None, true), 7);
        assert_eq!(status_of("kill -9 $$", None, true), 137);
    }

    #[test]
    fn the_kernels_word_does_not_wait_for_a_better_one_that_cannot_come() {
        if !kernel_tells() {
            return;
        }
        let once = || {
            let begun = std::time::Instant::now();
            assert_eq!(status_of("exit 3", None, true), 3);
            begun.elapsed()
        };
        // Of a busy machine the quickest counts.
        assert!((0..5).map(|_| once()).min() < Some(BETTER));
    }

    #[test]
    fn what_is_told_is_believed_and_silence_is_an_unknown_status() {
        assert_eq!(status_of("true", Some(9), false), 9);
        assert_eq!(status_of("true", Some(9), kernel_tells()), 9);
        assert_eq!(status_of("true", None, false), 255);
    }

    #[test]
    fn of_a_process_that_is_inherited_the_status_is_known() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _alone = start_alone();
            // A child that the reaper was not told of, as one is whose parent has ended.
            let child = std::process::Command::new("/bin/sh")
                .args(["-c", "read -r line; exit 7"])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            let (told, kernel) = (oneshot::channel().1, false);
            let source = ExitSource { told, kernel, end_parent: None };
            let foreign = Foreign::watch(pid, open(pid).unwrap(), source).unwrap();
            drop(child);
            assert_eq!(foreign.exited().await.status, 7);
        });
    }
}
