//! Mounts without a place: copies of what is mounted on the host, for a guest to put where they go.

use crate::error::{Context, Result};
use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, pipe2};
use std::fs::{self, File};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// A copy of the mount that `source` is in, from `source` on, links followed; with all that is
/// mounted below it if `below` (open_tree(2)). Mounts that are shared stay so: what is mounted in
/// the copy appears in the original, and the other way round.
///
/// # Errors
/// `NotFound` when nothing is there; what the kernel says.
pub fn copy(source: &Path, below: bool) -> Result<OwnedFd> {
    let recursive = if below { libc::AT_RECURSIVE.cast_unsigned() } else { 0 };
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | recursive;
    let opened = source.with_nix_path(|path| {
        #[expect(unsafe_code, reason = "open_tree(2)")]
        // SAFETY: the path outlives the call.
        let result =
            unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
        Errno::result(result)
    });
    let number = opened
        .and_then(|opened| opened)
        .and_then(|number| RawFd::try_from(number).map_err(|_| Errno::EOVERFLOW));
    Ok(super::process::own(number.context(|| "open_tree")?))
}

/// Has the ids of such a mount, and of all below if `below`, mapped as those of `namespace` are: a
/// file that belongs to an id inside of it is seen as that id's outside (mount_setattr(2),
/// MOUNT_ATTR_IDMAP).
///
/// # Errors
/// Where the file system cannot do it, or the mount maps them already.
pub fn map_ids(mount: &OwnedFd, namespace: &OwnedFd, below: bool) -> Result<()> {
    #[expect(unsafe_code, reason = "a C struct")]
    // SAFETY: zeros are a valid mount_attr.
    let mut attributes: libc::mount_attr = unsafe { zeroed() };
    attributes.attr_set = libc::MOUNT_ATTR_IDMAP;
    attributes.userns_fd = u64::from(namespace.as_raw_fd().cast_unsigned());
    let flags = libc::AT_EMPTY_PATH | if below { libc::AT_RECURSIVE } else { 0 };
    #[expect(unsafe_code, reason = "mount_setattr(2)")]
    // SAFETY: path and struct outlive the call, and the struct's length is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map(drop).context(|| "mount_setattr with MOUNT_ATTR_IDMAP")
}

/// A user namespace for its mappings alone, whose last process has ended: ranges as
/// user_namespaces(7) has them, one a line.
///
/// # Errors
/// Names the ranges that the kernel does not take.
pub fn user_namespace(users: &str, groups: &str) -> Result<OwnedFd> {
    let holder = Holder::new().context(|| "make a user namespace")?;
    for (file, ranges) in [("uid_map", users), ("gid_map", groups)] {
        // In one write, as the kernel wants it.
        fs::write(format!("/proc/{}/{file}", holder.pid), ranges)
            .context(|| format!("write {ranges:?} to the {file} of a user namespace"))?;
    }
    let opened = File::open(format!("/proc/{}/ns/user", holder.pid));
    Ok(opened.context(|| "open a user namespace")?.into())
}

/// A process in a user namespace of its own, which does nothing, and ends with this value.
struct Holder {
    pid: Pid,
    /// Should this process be killed, the holder reads the end of its other end, and goes, too.
    _alive: OwnedFd,
}

impl Holder {
    fn new() -> nix::Result<Self> {
        let (wait, alive) = pipe2(OFlag::O_CLOEXEC)?;
        let (from, to) = (wait.as_raw_fd(), alive.as_raw_fd());
        #[expect(unsafe_code, reason = "clone(2), with a new user namespace")]
        // SAFETY: without CLONE_VM the child has a copy of the memory, as after fork(2). Whatever
        // state that is in, the child makes system calls only and does not return. No signal tells
        // of its end, so that nobody but this value waits for it.
        let pid = unsafe {
            let pid = libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER, 0, 0, 0, 0);
            if pid == 0 {
                let mut byte = 0u8;
                libc::close(to);
                libc::read(from, (&raw mut byte).cast(), 1);
                libc::_exit(0);
            }
            pid
        };
        let pid = i32::try_from(Errno::result(pid)?).map_err(|_| Errno::EOVERFLOW)?;
        Ok(Self { pid: Pid::from_raw(pid), _alive: alive })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Its number is nobody else's before it has been waited for.
        kill(self.pid, Signal::SIGKILL).ok();
        waitpid(self.pid, Some(WaitPidFlag::__WALL)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, chown};

    fn owner(mount: &OwnedFd) -> (u32, u32) {
        let facts = fs::metadata(format!("/proc/self/fd/{}/file", mount.as_raw_fd())).unwrap();
        (facts.uid(), facts.gid())
    }

    /// Needs root.
    #[test]
    fn a_copy_has_the_ids_it_is_given_and_the_original_keeps_its_own() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        chown(folder.path().join("file"), Some(5), Some(7)).unwrap();
        let mount = copy(folder.path(), true).unwrap();
        assert_eq!(owner(&mount), (5, 7));
        let namespace = user_namespace("0 1000 10\n", "7 70 1\n20 20 3\n").unwrap();
        map_ids(&mount, &namespace, true).unwrap();
        assert_eq!(owner(&mount), (1005, 70));
        assert_eq!(owner(&copy(folder.path(), false).unwrap()), (5, 7));
        let again = map_ids(&mount, &namespace, false).unwrap_err();
        assert!(again.to_string().contains("MOUNT_ATTR_IDMAP"), "{again}");
    }

    #[test]
    fn ranges_that_the_kernel_does_not_take_are_named() {
        let error = user_namespace("0 1000 10\n0 2000 10\n", "0 0 1\n").unwrap_err();
        assert!(error.to_string().contains("2000 10\\n\" to the uid_map"), "{error}");
        let error = copy(Path::new("/does/not/exist"), false).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::NotFound);
    }
}
