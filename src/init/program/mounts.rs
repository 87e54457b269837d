//! Mounts that have been given, masked and read-only paths, attributes, and the console.

use super::failure::{Context, Failure};
use super::paths;
use super::sys::{self, At, Fd};
use crate::description::{Attributes, MountPoint};
use alloc::format;
use alloc::string::String;

/// Gives a mount of the supervisor's its place, and has what is mounted in it appear where it is
/// to.
pub fn put(root: &Fd, mount: &Fd, point: &MountPoint) -> Result<(), Failure> {
    let MountPoint { path, folder, attributes } = point;
    let target = match paths::place(root, path)? {
        Some(target) => target,
        None if *folder => paths::make_folders(root, path)?,
        None => {
            let (parent, name) = paths::make_parent(root, path)?;
            new_file(&parent, name, 0o644).context(|| format!("make the file {path}"))?
        }
    };
    sys::attach(mount, &target).context(|| format!("mount what is to be at {path}"))?;
    // Now, for in a shared mount it has become a shared one.
    let mut propagations = attributes.iter().filter(|wanted| !wanted.has_flags());
    propagations.try_for_each(|wanted| apply(mount, wanted))
}

/// Sets the flags of such a mount.
pub fn set_flags(mount: &Fd, point: &MountPoint) -> Result<(), Failure> {
    let mut flags = point.attributes.iter().filter(|wanted| wanted.has_flags());
    flags.try_for_each(|wanted| apply(mount, wanted))
}

/// A file where nothing is.
fn new_file(folder: &Fd, name: &str, mode: u32) -> sys::Result<Fd> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
    sys::open(At::Folder(folder), name, flags, mode, libc::RESOLVE_BENEATH)
}

/// What LXC's mount options cannot say.
pub fn set_attributes(root: &Fd, wanted: &Attributes) -> Result<(), Failure> {
    let path = &wanted.path;
    let Some(mount) = paths::place_of_mount(root, path)? else {
        return Err(Failure::new(format!("{path} is not there to set attributes of its mount")));
    };
    apply(&mount, wanted)
}

fn apply(mount: &Fd, wanted: &Attributes) -> Result<(), Failure> {
    let path = &wanted.path;
    sys::set_attributes(mount, wanted.set, wanted.clear, wanted.propagation, wanted.recursive)
        .context(|| {
            format!(
                "set the attributes of the mount at {path} (set {:#x}, clear {:#x}, propagation \
                 {:#x})",
                wanted.set, wanted.clear, wanted.propagation
            )
        })
}

/// Puts nothing over each path: an empty folder over a folder, /dev/null over a file. What is not
/// there is passed over.
pub fn mask(root: &Fd, paths: &[String]) -> Result<(), Failure> {
    // One empty file system for all folders; a copy can be made of it once it has a place.
    let mut empty: Option<Fd> = None;
    for path in paths {
        let what = || format!("mask {path}");
        let Some(target) = paths::place(root, path)? else { continue };
        if sys::facts(&target).context(what)?.is(libc::S_IFDIR) {
            let mount = match &empty {
                None => sys::new_file_system(
                    c"tmpfs",
                    &[(c"mode", Some(c"755")), (c"nr_inodes", Some(c"1")), (c"ro", None)],
                ),
                Some(first) => sys::copy_mount(first, false),
            };
            let mount = mount.context(what)?;
            sys::attach(&mount, &target).context(what)?;
            empty.get_or_insert(mount);
        } else {
            let mount = null_device(root).and_then(|null| sys::copy_mount(&null, false));
            sys::attach(&mount.context(what)?, &target).context(what)?;
        }
    }
    Ok(())
}

/// /dev/null, which is that device and nothing that an image has put in its place: it is mounted
/// over files, and would be in many places then.
fn null_device(root: &Fd) -> sys::Result<Fd> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS;
    let null = sys::open(At::Folder(root), "/dev/null", flags, 0, resolve)?;
    let facts = sys::facts(&null)?;
    if facts.is(libc::S_IFCHR) && facts.device == sys::device(1, 3) {
        Ok(null)
    } else {
        Err(sys::Errno(libc::ENODEV))
    }
}

/// Mounts a path over itself, read-only. What is not there is passed over.
pub fn make_readonly(root: &Fd, path: &str) -> Result<(), Failure> {
    let what = || format!("make {path} read-only");
    let Some(target) = paths::place(root, path)? else { return Ok(()) };
    let mount = sys::copy_mount(&target, true).context(what)?;
    sys::set_attributes(&mount, libc::MOUNT_ATTR_RDONLY, 0, 0, false).context(what)?;
    sys::attach(&mount, &target).context(what)
}

/// Standard input, a terminal of the guest's own devpts, becomes /dev/console too.
pub fn set_console(root: &Fd) -> Result<(), Failure> {
    let what = || String::from("make the terminal /dev/console");
    let folder = paths::make_folders(root, "/dev")?;
    let target = match paths::look(&folder, "console").context(what)? {
        Some((_, facts)) if facts.is(libc::S_IFLNK) => {
            return Err(Failure::new(
                "/dev/console is a symbolic link, where the terminal is to be".into(),
            ));
        }
        Some((target, _)) => target,
        None => new_file(&folder, "console", 0o620).context(what)?,
    };
    let terminal = sys::copy_mount_of_number(libc::STDIN_FILENO, false).context(|| {
        "make a mount of the terminal; only one of the guest's own /dev/pts can be /dev/console"
            .into()
    })?;
    sys::attach(&terminal, &target).context(what)
}
