//! Opening paths of a container without being led astray.

use super::failure::{Context, Failure};
use super::sys::{self, At, Errno, Facts, Fd};
use alloc::format;
use alloc::string::String;

/// Links are followed, but not those of /proc that lead out of the root.
const FOLLOW: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;

/// Opens as a place only (O_PATH); `None` if there is nothing.
pub fn place(root: &Fd, path: &str) -> Result<Option<Fd>, Failure> {
    look_up(root, path, FOLLOW)
}

/// The same of a path that LXC has mounted something at, which has no links in it: one that is
/// there by now was put there to lead astray.
pub fn place_of_mount(root: &Fd, path: &str) -> Result<Option<Fd>, Failure> {
    look_up(root, path, libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS)
}

fn look_up(root: &Fd, path: &str, how: u64) -> Result<Option<Fd>, Failure> {
    match sys::open(At::Folder(root), path, libc::O_PATH, 0, how) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(Failure::of(&format!("open {path}"), error)),
    }
}

/// Opens a folder, and makes it and those above it if they are missing.
pub fn make_folders(root: &Fd, path: &str) -> Result<Fd, Failure> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let open = |path: &str| sys::open(At::Folder(root), path, flags, 0, FOLLOW);
    if let Ok(folder) = open(path) {
        return Ok(folder);
    }
    let what = || format!("make the folder {path}");
    let mut folder = open("/").context(what)?;
    let mut sofar = String::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        sofar = format!("{sofar}/{name}");
        folder = match open(&sofar) {
            Ok(next) => next,
            Err(Errno(libc::ENOENT)) if name != ".." => {
                match sys::make_folder(At::Folder(&folder), name, 0o755) {
                    // A link that leads to nothing is there, and stays what it is.
                    Ok(()) | Err(Errno(libc::EEXIST)) => {}
                    Err(error) => return Err(Failure::of(&what(), error)),
                }
                open(&sofar).context(what)?
            }
            Err(error) => return Err(Failure::of(&what(), error)),
        };
    }
    Ok(folder)
}

/// The folder of a path, made if it is missing, and the last part of it.
pub fn make_parent<'a>(root: &Fd, path: &'a str) -> Result<(Fd, &'a str), Failure> {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some((folder, name)) if !matches!(name, "" | "." | "..") => {
            let folder = if folder.is_empty() { "/" } else { folder };
            Ok((make_folders(root, folder)?, name))
        }
        _ => Err(Failure::new(format!("{path} is not the absolute path of a file"))),
    }
}

/// Whether a path is a file that somebody may run.
pub fn is_program(path: &str) -> sys::Result<()> {
    let facts = sys::facts(&sys::open(At::Here, path, libc::O_PATH, 0, 0)?)?;
    let may_be_run = facts.is(libc::S_IFREG) && facts.mode & 0o111 != 0;
    if may_be_run { Ok(()) } else { Err(Errno(libc::EACCES)) }
}

/// What stands under a name, itself and not what a link of that name leads to; `None` if nothing.
pub fn look(folder: &Fd, name: &str) -> sys::Result<Option<(Fd, Facts)>> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let beneath = libc::RESOLVE_BENEATH;
    match sys::open(At::Folder(folder), name, flags, 0, beneath) {
        Ok(fd) => sys::facts(&fd).map(|facts| Some((fd, facts))),
        Err(Errno(libc::ENOENT)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All of a small regular file. Anything else in its place is an error: a pipe would wait.
pub fn read(path: &str) -> sys::Result<String> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    let fd = sys::open(At::Here, path, flags, 0, libc::RESOLVE_NO_MAGICLINKS)?;
    if !sys::facts(&fd)?.is(libc::S_IFREG) {
        return Err(Errno(libc::EINVAL));
    }
    read_all(&fd)
}

fn read_all(fd: &Fd) -> sys::Result<String> {
    /// Who has more users than fit has no home here.
    const LONGEST: usize = 16 << 20;
    let mut bytes = alloc::vec::Vec::new();
    let mut part = [0; 4096];
    while bytes.len() < LONGEST {
        match sys::read(fd, &mut part)? {
            0 => break,
            length => bytes.extend_from_slice(part.get(..length).unwrap_or_default()),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// /proc, which is the kernel's and no folder made to look like it.
pub struct Proc(Fd);

/// Inode of the root of every procfs.
const PROC_ROOT: u64 = 1;

impl Proc {
    /// The one that is mounted, if it is one.
    pub fn open() -> sys::Result<Self> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let fd = sys::open(At::Here, "/proc", flags, 0, 0)?;
        let real =
            sys::file_system(&fd)? == libc::PROC_SUPER_MAGIC && sys::facts(&fd)?.inode == PROC_ROOT;
        if real { Ok(Self(fd)) } else { Err(Errno(libc::ENOTSUP)) }
    }

    /// Opens a file below it. Something mounted over a part of the way is an error (EXDEV): what
    /// is written to a process's label must not go elsewhere.
    fn file(&self, path: &str, flags: i32) -> sys::Result<Fd> {
        let resolve = libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_BENEATH;
        let fd = sys::open(At::Folder(&self.0), path, flags, 0, resolve)?;
        if sys::file_system(&fd)? == libc::PROC_SUPER_MAGIC {
            Ok(fd)
        } else {
            Err(Errno(libc::ENOTSUP))
        }
    }

    /// Reads a file below it.
    pub fn read(&self, path: &str) -> sys::Result<String> {
        read_all(&self.file(path, libc::O_RDONLY)?)
    }

    /// Writes to a file below it, in one write.
    pub fn write(&self, path: &str, text: &str) -> sys::Result<()> {
        sys::write(&self.file(path, libc::O_WRONLY)?, text.as_bytes())
    }
}

/// Writes to a file of the host, in one write.
pub fn write_on_host(path: &str, text: &str) -> Result<(), Failure> {
    let what = || format!("write \"{text}\" to {path}");
    let fd = sys::open(At::Here, path, libc::O_WRONLY, 0, 0).context(what)?;
    sys::write(&fd, text.as_bytes()).context(what)
}
