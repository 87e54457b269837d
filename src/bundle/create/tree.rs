//! A folder's files, copied: shared with the file system's help where it can, byte for byte
//! otherwise.

use super::inode::{self, Meta};
use super::progress::Bar;
use super::stream;
use super::unpack::DEEPEST;
use super::work::Work;
use crate::config::input::shown;
use crate::error::{Context, Error, Result};
use crate::sys::files;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, copy_file_range, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{Whence, lseek};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How much is copied between two looks at whether to stop.
const PIECE: u64 = 16 << 20;

struct Copy<'w, 'a> {
    work: &'w mut Work<'a>,
    bar: Bar,
    target: PathBuf,
    /// Files with several names that were met: their first place, below the target.
    linked: HashMap<(u64, u64), PathBuf>,
    /// Whether the file system has refused to share extents.
    no_reflink: bool,
    no_copy_range: bool,
}

/// Copies what is in `source` into `target`, a new folder, whose owner and mode become the
/// source's too. Other file systems that are mounted below `source` are left out.
///
/// # Errors
/// Names the file. Half of it is then there.
pub fn copy(source: &Path, target: &Path, work: &mut Work<'_>) -> Result<()> {
    let open = |path: &Path| {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty()).context(|| format!("open {}", path.display()))
    };
    let (from, to) = (open(source)?, open(target)?);
    let meta = meta(&fstat(&from)?, &from)?;
    let mut copy = Copy {
        bar: work.progress.count("copying"),
        work,
        target: target.to_owned(),
        linked: HashMap::new(),
        no_reflink: false,
        no_copy_range: false,
    };
    copy.inside(from, &to, Path::new(""))?;
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(Error::invalid("this is the root of the host"));
    };
    let parent = open(parent)?;
    inode::dress(&parent, name, false, &meta, "/", work)
}

fn meta(stat: &FileStat, fd: impl AsFd) -> Result<Meta> {
    Ok(Meta {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: (stat.st_mtime, stat.st_mtime_nsec),
        xattrs: files::xattrs(fd)?,
    })
}

/// Opens a name in a folder: itself and no link, and nothing that is mounted there.
fn open_in(folder: impl AsFd, name: &OsStr, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV,
    );
    openat2(folder, name, how)
}

impl Copy<'_, '_> {
    fn inside(&mut self, from: OwnedFd, to: &OwnedFd, at: &Path) -> Result<()> {
        if at.components().count() > DEEPEST {
            return Err(Error::invalid(format!(
                "{} lies more than {DEEPEST} folders deep",
                shown(at)
            )));
        }
        let mut folder = Dir::from_fd(from)?;
        let names: Vec<OsString> = folder
            .iter()
            .map(|entry| Ok(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned()))
            .filter(|name| !matches!(name, Ok(name) if name == "." || name == ".."))
            .collect::<nix::Result<_>>()
            .context(|| format!("list /{}", shown(at)))?;
        for name in names {
            self.work.one_more()?;
            let place = at.join(&name);
            self.one(&folder, to, &name, &place).context(|| format!("copy /{}", shown(&place)))?;
        }
        Ok(())
    }

    fn one(&mut self, from: &Dir, to: &OwnedFd, name: &OsStr, place: &Path) -> Result<()> {
        let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let located = match open_in(from, name, OFlag::O_PATH) {
            Err(Errno::EXDEV) => {
                self.work.note("left out what is mounted there", &shown(place));
                return self.in_place_of_a_mount(&stat, to, name, place);
            }
            other => other?,
        };
        let stat = fstat(&located)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFDIR && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.linked.get(&inode) {
                return Ok(fs::hard_link(self.target.join(first), self.target.join(place))?);
            }
            self.linked.insert(inode, place.to_owned());
        }
        let meta = meta(&stat, &located)?;
        match kind {
            SFlag::S_IFDIR => {
                mkdirat(to, name, Mode::S_IRWXU)?;
                let to = open_in(to, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                let from = open_in(from, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
                self.inside(from, &to, place)?;
            }
            SFlag::S_IFREG => {
                // Without waiting: it may have become a FIFO since.
                let from = open_in(from, name, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
                let mut to = File::from(inode::new_file(to, name)?);
                self.bytes(&mut File::from(from), &mut to)?;
            }
            SFlag::S_IFLNK => {
                let target = nix::fcntl::readlinkat(from, name)?;
                nix::unistd::symlinkat(target.as_os_str(), to, name)?;
            }
            SFlag::S_IFIFO => nix::unistd::mkfifoat(to, name, Mode::S_IRUSR)?,
            SFlag::S_IFCHR | SFlag::S_IFBLK => {
                let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
                let device = (
                    number(u64::from(libc::major(stat.st_rdev))),
                    number(u64::from(libc::minor(stat.st_rdev))),
                );
                inode::new_device(to, name, kind, device, self.work)?;
            }
            _ => {
                self.work.note("left out a socket", &shown(place));
                return Ok(());
            }
        }
        inode::dress(to, name, kind == SFlag::S_IFLNK, &meta, &shown(place), self.work)
    }

    fn in_place_of_a_mount(
        &mut self,
        stat: &FileStat,
        to: &OwnedFd,
        name: &OsStr,
        place: &Path,
    ) -> Result<()> {
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
            mkdirat(to, name, Mode::S_IRWXU)?;
        } else {
            inode::new_file(to, name)?;
        }
        let modified = (stat.st_mtime, stat.st_mtime_nsec);
        let mode = stat.st_mode & 0o777;
        let meta = Meta { mode, uid: stat.st_uid, gid: stat.st_gid, modified, xattrs: Vec::new() };
        inode::dress(to, name, false, &meta, &shown(place), self.work)
    }

    fn bytes(&mut self, from: &mut File, to: &mut File) -> Result<()> {
        if !self.no_reflink {
            match files::reflink(&*from, &*to) {
                Ok(()) => {
                    self.bar.add(from.metadata()?.len());
                    return Ok(());
                }
                // The next file will fare no better.
                Err(Errno::EOPNOTSUPP | Errno::EXDEV | Errno::ENOTTY | Errno::ENOSYS) => {
                    self.no_reflink = true;
                }
                Err(Errno::EINVAL | Errno::EPERM) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let length = from.metadata()?.len();
        let mut at = 0;
        // Holes stay holes.
        while let Some((begin, end)) = data_after(from, at, length)? {
            self.range(from, to, begin, end)?;
            at = end;
        }
        Ok(to.set_len(length)?)
    }

    fn range(&mut self, from: &mut File, to: &mut File, begin: u64, end: u64) -> Result<()> {
        from.seek(SeekFrom::Start(begin))?;
        to.seek(SeekFrom::Start(begin))?;
        let mut left = end - begin;
        while left > 0 && !self.no_copy_range {
            self.work.stop.check()?;
            let most = usize::try_from(left.min(PIECE)).unwrap_or(usize::MAX);
            match copy_file_range(&*from, None, &*to, None, most) {
                // It has become shorter, or is of a kind that says so of itself.
                Ok(0) => break,
                Ok(size) => {
                    left = left.saturating_sub(size as u64);
                    self.bar.add(size as u64);
                }
                Err(Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                    self.no_copy_range = true;
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        let mut piece = if left > 0 { stream::piece() } else { Vec::new() };
        let mut rest = from.take(left);
        loop {
            self.work.stop.check()?;
            let size = rest.read(&mut piece)?;
            if size == 0 {
                return Ok(());
            }
            to.write_all(piece.get(..size).unwrap_or_default())?;
            self.bar.add(size as u64);
        }
    }
}

/// The next stretch of a file that is no hole.
fn data_after(file: &File, at: u64, length: u64) -> Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let position = |at: u64| i64::try_from(at).map_err(|_| Errno::EFBIG);
    match lseek(file, position(at)?, Whence::SeekData) {
        Err(Errno::ENXIO) => Ok(None),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => Ok(Some((at, length))),
        Err(errno) => Err(errno.into()),
        Ok(begin) => {
            let end = lseek(file, begin, Whence::SeekHole)?;
            Ok(Some((begin.cast_unsigned(), end.cast_unsigned().min(length))))
        }
    }
}
