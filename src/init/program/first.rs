//! What only the first process does, before the container is "created".

use super::failure::{Context, Failure};
use super::mounts;
use super::paths;
use super::sys::{self, Errno, Fd};
use crate::description::{First, Node, NodeKind, Process};
use crate::protocol;
use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;

/// All of it, in the order of [`First`], with the mounts that have been `given`.
pub fn set_up(first: &First, given: Vec<Fd>, process: &Process) -> Result<(), Failure> {
    let root = sys::root().context(|| "open /".into())?;
    sys::set_umask(0);
    if let Some(name) = &first.domainname {
        sys::set_domain_name(name).context(|| format!("set the domain name {name}"))?;
    }
    let (flags, propagations): (Vec<_>, Vec<_>) =
        first.attributes.iter().partition(|wanted| wanted.has_flags());
    // First, or what is mounted next would appear in mounts that are to be the guest's own.
    for attributes in propagations {
        mounts::set_attributes(&root, attributes)?;
    }
    let given: Vec<_> = given.into_iter().zip(&first.mounts).collect();
    for (mount, point) in &given {
        mounts::put(&root, mount, point)?;
    }
    for node in &first.devices {
        make_device(&root, node)?;
    }
    for (target, path) in &first.links {
        let (folder, name) = paths::make_parent(&root, path)?;
        match sys::make_link(target, &folder, name) {
            // What LXC or the image has put there stays, as it does with runc.
            Ok(()) | Err(Errno(libc::EEXIST)) => {}
            Err(error) => return Err(Failure::of(&format!("make the link {path}"), error)),
        }
    }
    // Now, for the root may be read-only soon.
    drop(paths::make_folders(&root, &process.cwd)?);
    for attributes in flags {
        mounts::set_attributes(&root, attributes)?;
    }
    // Later than the flags of those that they are in, which may mean all below.
    for (mount, point) in &given {
        mounts::set_flags(mount, point)?;
    }
    mounts::mask(&root, &first.masked)?;
    for path in &first.readonly {
        mounts::make_readonly(&root, path)?;
    }
    if first.readonly_root {
        sys::set_attributes(&root, libc::MOUNT_ATTR_RDONLY, 0, 0, false)
            .context(|| "make / read-only".into())?;
    }
    if first.console {
        mounts::set_console(&root)?;
    }
    Ok(())
}

fn make_device(root: &Fd, node: &Node) -> Result<(), Failure> {
    let path = &node.path;
    let what = || format!("make the device {path}");
    let kind = match node.kind {
        NodeKind::Char => libc::S_IFCHR,
        NodeKind::Block => libc::S_IFBLK,
        NodeKind::Fifo => libc::S_IFIFO,
    };
    let device = match node.kind {
        NodeKind::Fifo => 0,
        _ => sys::device(node.major, node.minor),
    };
    let permissions = node.mode & 0o7777;
    let (folder, name) = paths::make_parent(root, path)?;
    if let Some((there, facts)) = paths::look(&folder, name).context(what)? {
        if !facts.is(kind) || facts.device != device {
            return Err(Failure::new(format!("{path} is there already and is not this device")));
        }
        // One that is mounted there is the host's own, whose owner and mode are not ours to
        // change; in a user namespace there can be no other.
        let same =
            facts.mode & 0o7777 == permissions && (facts.uid, facts.gid) == (node.uid, node.gid);
        if same || sys::is_mount(&there).context(what)? {
            return Ok(());
        }
        sys::remove(&folder, name).context(what)?;
    }
    sys::make_node(&folder, name, kind | permissions, device).context(what)?;
    sys::own(&folder, name, node.uid, node.gid)
        .context(|| format!("give {path} to user {} and group {}", node.uid, node.gid))
}

/// Detaches the folder through which this program and its socket came in.
pub fn leave_nothing_of_the_host() -> Result<(), Failure> {
    let path = CString::new(format!("/{}", protocol::FOLDER)).unwrap_or_default();
    sys::detach(&path).context(|| format!("detach {}", path.to_string_lossy()))?;
    // An empty folder on a file system that is read-only by now does no harm.
    sys::remove_folder(&path).ok();
    Ok(())
}
