//! Mounts, by descriptor: a path could be made to lead elsewhere meanwhile.

use super::{At, Fd, Result, check, check_int};
use core::ffi::{CStr, c_int, c_uint};
use core::mem::{size_of, zeroed};
use core::ptr::null;

/// open_tree(2): a detached copy of the mount that `of` is in, from `of` on; with all that is
/// mounted below it if `recursive`.
pub fn copy_mount(of: &Fd, recursive: bool) -> Result<Fd> {
    copy_mount_of_number(of.number(), recursive)
}

/// [`copy_mount`] of what standard input is.
pub fn copy_mount_of_number(of: c_int, recursive: bool) -> Result<Fd> {
    let mut flags =
        libc::AT_EMPTY_PATH.cast_unsigned() | libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    #[expect(unsafe_code, reason = "open_tree(2)")]
    // SAFETY: the path is a constant.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, of, c"".as_ptr(), flags) };
    Fd::new(result)
}

/// move_mount(2): a detached mount gets its place.
pub fn attach(mount: &Fd, target: &Fd) -> Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    let empty = c"".as_ptr();
    #[expect(unsafe_code, reason = "move_mount(2)")]
    // SAFETY: both paths are constants.
    let result = unsafe {
        libc::syscall(libc::SYS_move_mount, mount.number(), empty, target.number(), empty, flags)
    };
    check(result).map(drop)
}

/// mount_setattr(2) on the mount whose root `mount` is.
pub fn set_attributes(
    mount: &Fd,
    set: u64,
    clear: u64,
    propagation: u64,
    recursive: bool,
) -> Result<()> {
    #[expect(unsafe_code, reason = "a C struct")]
    // SAFETY: zeros are a valid mount_attr.
    let mut attributes: libc::mount_attr = unsafe { zeroed() };
    attributes.attr_set = set;
    attributes.attr_clr = clear;
    attributes.propagation = propagation;
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    #[expect(unsafe_code, reason = "mount_setattr(2)")]
    // SAFETY: the struct outlives the call, and its length is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.number(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}

/// A file system of its own, detached; each option is a name and its value, or a flag without.
pub fn new_file_system(kind: &CStr, options: &[(&CStr, Option<&CStr>)]) -> Result<Fd> {
    #[expect(unsafe_code, reason = "fsopen(2)")]
    // SAFETY: the name outlives the call.
    let context =
        Fd::new(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) })?;
    for (name, value) in options {
        let command = match value {
            Some(_) => libc::FSCONFIG_SET_STRING,
            None => libc::FSCONFIG_SET_FLAG,
        };
        let value = value.map_or(null(), CStr::as_ptr);
        configure(&context, command as c_uint, name.as_ptr(), value)?;
    }
    configure(&context, libc::FSCONFIG_CMD_CREATE as c_uint, null(), null())?;
    #[expect(unsafe_code, reason = "fsmount(2)")]
    // SAFETY: it takes numbers.
    let mount = unsafe {
        let attributes =
            (libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC) as c_uint;
        let flags = libc::FSMOUNT_CLOEXEC;
        libc::syscall(libc::SYS_fsmount, context.number(), flags, attributes)
    };
    Fd::new(mount)
}

fn configure(
    context: &Fd,
    command: c_uint,
    name: *const libc::c_char,
    value: *const libc::c_char,
) -> Result<()> {
    #[expect(unsafe_code, reason = "fsconfig(2)")]
    // SAFETY: name and value are null or strings that outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_fsconfig, context.number(), command, name, value, 0) };
    check(result).map(drop)
}

/// umount2(2): gone from its place at once.
pub fn detach(path: &CStr) -> Result<()> {
    #[expect(unsafe_code, reason = "umount2(2)")]
    // SAFETY: the path outlives the call.
    let result = unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
    check_int(result).map(drop)
}

/// setdomainname(2).
pub fn set_domain_name(name: &str) -> Result<()> {
    #[expect(unsafe_code, reason = "setdomainname(2)")]
    // SAFETY: the length is given.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    check_int(result).map(drop)
}

/// The root folder, as something to begin at only.
pub fn root() -> Result<Fd> {
    super::open(At::Here, "/", libc::O_PATH | libc::O_DIRECTORY, 0, 0)
}
