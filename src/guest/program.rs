//! `nexcage-init` where a guest can be given it: a private copy that nobody can write.
//!
//! The program is a host file that runs inside a container for a while, and a process there may
//! open it again for writing through `/proc/<pid>/exe` (CVE-2019-5736). So what is mounted into
//! guests, and run for execs, is never the installed file: it is a copy on a file system of its
//! own that is read-only as a whole, by whatever way it is reached.

use crate::error::{Context, Error, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The program's file name.
const NAME: &str = "nexcage-init";

/// Where packages put it, if it is not beside the program that looks for it.
const INSTALLED: &str = "/usr/libexec/nexcage/nexcage-init";

/// Larger than this it is not the program.
const MAX: u64 = 16 << 20;

/// The copy, made if it is missing. It lasts until the host goes down; each version of the
/// program has one.
///
/// # Errors
/// `Unavailable` when the program is not installed; names what else went wrong.
pub fn private_copy(configured: Option<&Path>, state_dir: &Path) -> Result<PathBuf> {
    let installed = find(configured)?;
    let doing = || format!("make a private copy of {}", installed.display());
    let mut file = File::open(&installed).context(doing)?;
    let stat = file.metadata().context(doing)?;
    if stat.len() > MAX || !stat.is_file() {
        return Err(Error::invalid(format!("{} is no program", installed.display())));
    }
    let folder = state_dir.join(".init").join(format!(
        "{}-{}.{:09}",
        stat.len(),
        stat.mtime(),
        stat.mtime_nsec()
    ));
    let mut text = Vec::new();
    file.read_to_end(&mut text).context(doing)?;
    let copy = folder.join(NAME);
    // Compared as a whole each time: it is about to run as root.
    if is_sealed(&folder) && fs::read(&copy).is_ok_and(|found| found == text) {
        return Ok(copy);
    }
    make(&folder, &copy, &text).context(doing)?;
    Ok(copy)
}

/// Where the program is installed.
///
/// # Errors
/// `Unavailable`, with where it was looked for.
pub fn find(configured: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = configured {
        return path.is_file().then(|| path.to_owned()).ok_or_else(|| {
            Error::unavailable(format!("init_path names {}, which is not there", path.display()))
        });
    }
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(NAME)));
    let places = beside.into_iter().chain([PathBuf::from(INSTALLED)]);
    places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Error::unavailable(format!(
            "{NAME} is neither beside this program nor at {INSTALLED}: install it, or set \
             init_path"
        ))
    })
}

/// Whether a folder is a tmpfs of its own that is read-only as a whole. Asked of the file system,
/// not of the path: in another mount namespace the folder may be an ordinary one.
fn is_sealed(folder: &Path) -> bool {
    let is_tmpfs = statfs(folder).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC);
    // Where /run itself is a tmpfs, that one can be written.
    is_tmpfs && statvfs(folder).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY))
}

fn make(folder: &Path, copy: &Path, text: &[u8]) -> Result<()> {
    crate::store::create_private(folder)?;
    let parent = folder.parent().unwrap_or(folder);
    // Several supervisors may come here at once; the second finds it made.
    let _lock = Flock::lock(File::open(parent)?, FlockArg::LockExclusive)
        .map_err(|(_, errno)| Error::from(errno))
        .context(|| format!("lock {}", parent.display()))?;
    if is_sealed(folder) {
        if fs::read(copy).is_ok_and(|found| found == text) {
            return Ok(());
        }
        // Half of one, or another of the same size and time.
        nix::mount::umount2(folder, nix::mount::MntFlags::MNT_DETACH)?;
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("mode=0755,size={}", text.len() + (64 << 10));
    mount(Some(NAME), folder, Some("tmpfs"), flags, Some(options.as_str()))
        .context(|| format!("mount a tmpfs on {}", folder.display()))?;
    fill(folder, copy, text).map_err(|error| {
        match nix::mount::umount2(folder, nix::mount::MntFlags::MNT_DETACH) {
            Ok(()) => error,
            Err(second) => error.context(format!("(and then: {second})")),
        }
    })
}

fn fill(folder: &Path, copy: &Path, text: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o555).open(copy)?;
    file.write_all(text).context(|| format!("write {}", copy.display()))?;
    drop(file);
    let seal = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, folder, None::<&str>, seal, None::<&str>)
        .context(|| format!("make {} read-only", folder.display()))
}
