//! Files, folders and links with all they have beside their bytes.

use super::work::Work;
use crate::error::{Context, Error, Result};
use crate::sys::files;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, makedev, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// What an inode has beside its bytes.
#[derive(Clone, Debug, Default)]
pub struct Meta {
    /// Permissions, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was changed: seconds since 1970 and nanoseconds.
    pub modified: (i64, i64),
    /// Extended attributes.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

/// The devices that every container has; what else a device node leads to is the host's.
const HARMLESS: [(u32, u32); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];

/// Makes a new file to write to; nothing may be there.
///
/// # Errors
/// What the kernel says.
pub fn new_file(parent: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    openat(parent, name, flags | OFlag::O_CLOEXEC, Mode::S_IRUSR | Mode::S_IWUSR)
}

/// Makes a device's node, if it is one that a container may have.
///
/// # Errors
/// `InvalidArgument` that says how to allow others.
pub fn new_device(
    parent: impl AsFd,
    name: &OsStr,
    kind: SFlag,
    (major, minor): (u32, u32),
    work: &Work<'_>,
) -> Result<()> {
    let harmless = kind == SFlag::S_IFCHR && HARMLESS.contains(&(major, minor));
    if !harmless && !work.devices {
        let kind = if kind == SFlag::S_IFCHR { "character" } else { "block" };
        return Err(Error::invalid(format!(
            "it is the {kind} device {major}:{minor}, which may be the host's: --devices allows \
             devices in the root"
        )));
    }
    let device = makedev(major.into(), minor.into());
    Ok(mknodat(parent, name, kind, Mode::empty(), device)?)
}

/// Gives an inode its owner, mode, attributes and time. The owner comes first, for a change of it
/// takes away set-uid and capabilities.
///
/// # Errors
/// What the kernel says, and attributes that would change what the host does.
pub fn dress(
    parent: impl AsFd,
    name: &OsStr,
    is_link: bool,
    meta: &Meta,
    shown: &str,
    work: &mut Work<'_>,
) -> Result<()> {
    let parent = parent.as_fd();
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    fchownat(parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).context(|| {
        let hint = if nix::unistd::geteuid().is_root() { "" } else { " (this needs root)" };
        format!("give it to {}:{}{hint}", meta.uid, meta.gid)
    })?;
    if !is_link {
        let mode = Mode::from_bits_retain(meta.mode);
        // It was made a moment ago as something that is no link, in a folder of root's alone.
        fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink)
            .context(|| format!("change its mode to {:o}", meta.mode))?;
    }
    if !meta.xattrs.is_empty() {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(parent, name, flags, Mode::empty())?;
        for (key, value) in &meta.xattrs {
            set_xattr(&fd, key, value, shown, work)?;
        }
    }
    set_time(parent, name, meta.modified)
}

/// Sets when an inode was changed.
///
/// # Errors
/// What the kernel says.
pub fn set_time(parent: impl AsFd, name: &OsStr, (seconds, nanos): (i64, i64)) -> Result<()> {
    let time = TimeSpec::new(seconds, nanos);
    utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)
        .context(|| "set its time of change")
}

fn set_xattr(
    fd: &OwnedFd,
    key: &OsStr,
    value: &[u8],
    shown: &str,
    work: &mut Work<'_>,
) -> Result<()> {
    let bytes = key.as_bytes();
    // Labels are the host's policy; what overlayfs trusts would make it look elsewhere.
    let wanted = bytes == b"security.capability"
        || bytes == b"system.posix_acl_access"
        || bytes == b"system.posix_acl_default"
        || (bytes.starts_with(b"user.") && !bytes.starts_with(b"user.overlay."));
    let name = key.to_string_lossy();
    if !wanted {
        let name: String = name.chars().take(64).flat_map(char::escape_debug).collect();
        work.note(format!("left out the attribute {name}"), shown);
        return Ok(());
    }
    match files::set_xattr(fd, key, value) {
        Err(Errno::EOPNOTSUPP | Errno::EPERM) if bytes.starts_with(b"user.") => {
            work.note("left out user attributes, which this cannot have", shown);
            Ok(())
        }
        other => other.context(|| format!("set the attribute {}", name.escape_debug())),
    }
}
