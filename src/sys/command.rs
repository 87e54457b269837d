//! Starting programs.

use super::reaper::{self, Child};
use crate::error::{Context, Result};
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Variables that belong to this process's own start and would mislead what it starts: a runtime
/// that finds NOTIFY_SOCKET, for example, reports a container's readiness to containerd's own
/// service manager.
const NOT_INHERITED: [&str; 7] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "MAX_SHIM_VERSION",
];

/// A program to start, in a process group of its own. It gets /dev/null where no standard fd is
/// given, and no other fd of this process.
pub struct Command {
    program: PathBuf,
    inner: std::process::Command,
    fds: Vec<(OwnedFd, RawFd)>,
}

impl Command {
    /// The program's path; one without a slash is looked up in PATH.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let program = program.into();
        let mut inner = std::process::Command::new(&program);
        inner.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        for name in NOT_INHERITED {
            inner.env_remove(name);
        }
        #[expect(unsafe_code, reason = "code between fork and exec")]
        // SAFETY: it reads a static and makes one system call; nothing allocates.
        unsafe {
            inner.pre_exec(super::process::restore_open_files);
        }
        Self { program, inner, fds: Vec::new() }
    }

    /// The program's path as it was given.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.inner.arg(arg);
        self
    }

    /// The name it is told it was called by; its path unless this is set.
    #[must_use]
    pub fn arg0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.inner.arg0(name);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.inner.args(args);
        self
    }

    /// Passes none of this process's environment on.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.inner.env_clear();
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// The folder that it works in; this process's own unless this is set.
    #[must_use]
    pub fn folder(mut self, path: &Path) -> Self {
        self.inner.current_dir(path);
        self
    }

    /// Its standard input.
    #[must_use]
    pub fn stdin(mut self, fd: OwnedFd) -> Self {
        self.inner.stdin(fd);
        self
    }

    /// Its standard output.
    #[must_use]
    pub fn stdout(mut self, fd: OwnedFd) -> Self {
        self.inner.stdout(fd);
        self
    }

    /// Its standard error.
    #[must_use]
    pub fn stderr(mut self, fd: OwnedFd) -> Self {
        self.inner.stderr(fd);
        self
    }

    /// Gives it `fd` under the number `at`, 3 or above.
    #[must_use]
    pub fn fd(mut self, at: RawFd, fd: OwnedFd) -> Self {
        self.fds.push((fd, at));
        self
    }

    /// Has the kernel kill it when this process dies, so that a supervisor killed in the middle
    /// of a runtime command leaves no command behind.
    #[must_use]
    pub fn die_with_parent(mut self) -> Self {
        let parent = nix::unistd::getpid();
        #[expect(unsafe_code, reason = "code between fork and exec")]
        // SAFETY: prctl and getppid are async-signal-safe, and nothing here allocates.
        unsafe {
            self.inner.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                // The parent may have died before the line above: then no signal will come.
                if nix::unistd::getppid() != parent {
                    return Err(nix::errno::Errno::ESRCH.into());
                }
                Ok(())
            });
        }
        self
    }

    /// Gives it a network namespace of its own, with nothing in it.
    #[must_use]
    pub fn without_network(mut self) -> Self {
        #[expect(unsafe_code, reason = "code between fork and exec")]
        // SAFETY: unshare is async-signal-safe, and nothing here allocates.
        unsafe {
            self.inner.pre_exec(|| Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?));
        }
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started: no such file, not executable, no memory.
    pub fn spawn(mut self) -> Result<Child> {
        if !self.fds.is_empty() {
            // Sources out of the way of the targets first, or one dup2 could overwrite the
            // source of the next.
            let clear_of = self.fds.iter().map(|(_, at)| at + 1).max().unwrap_or(0);
            let mut moved = Vec::with_capacity(self.fds.len());
            for (fd, at) in self.fds.drain(..) {
                let above = nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(clear_of);
                let raw = nix::fcntl::fcntl(&fd, above).context(|| "duplicate an fd")?;
                moved.push((super::process::own(raw), at));
            }
            #[expect(unsafe_code, reason = "code between fork and exec")]
            // SAFETY: dup2 is async-signal-safe, nothing here allocates, and `moved` is alive in
            // the child, which has a copy of this process's fds.
            unsafe {
                self.inner.pre_exec(move || {
                    for (fd, at) in &moved {
                        if libc::dup2(fd.as_raw_fd(), *at) < 0 {
                            return Err(std::io::Error::last_os_error());
                        }
                    }
                    Ok(())
                });
            }
        }
        reaper::adopt(|| self.inner.spawn().map(|child| child.id().cast_signed()))
            .context(|| format!("start {}", self.program.display()))
    }
}
