//! An archive's entries as files below a root, and none elsewhere.
//!
//! Folders on the way to an entry are looked up as a process would whose root it is
//! ([`Root`]), at the time of the entry: links lead around inside, whatever an earlier entry has
//! put in a folder's place. The last name is never followed. What cannot be had is an error, and
//! the caller throws away the whole root.

use super::archive::{Archive, Entry, Kind};
use super::inode::{self, Meta};
use super::stream;
use super::work::Work;
use crate::config::input::shown;
use crate::error::{Context, Error, Result};
use crate::sys::inroot::{Missing, Root};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

/// Folders in folders: more than any image has, and few enough to be removed again.
pub const DEEPEST: usize = 256;

/// Whether an archive is a whole root or one of several layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum As {
    /// Every name means itself.
    Root,
    /// `.wh.` names remove what lower layers have (image-spec, layer.md, "Whiteouts").
    Layer,
}

/// A folder that entries are put in.
struct Parent {
    fd: OwnedFd,
    /// Without links; the name by which entries are remembered.
    path: PathBuf,
}

struct Unpack<'w, 'a> {
    root: Root,
    folder: PathBuf,
    how: As,
    work: &'w mut Work<'a>,
    /// The last folder, by its name in the archive: the next entry mostly goes there too.
    last: Option<(PathBuf, Rc<Parent>)>,
    /// What this layer has made, which its whiteouts leave alone.
    made: HashSet<PathBuf>,
    /// Folders' times, set at the end: each new entry changes its folder's.
    times: Vec<(PathBuf, (i64, i64))>,
    piece: Vec<u8>,
}

/// Unpacks an archive into `folder`.
///
/// # Errors
/// `InvalidArgument` for paths that climb out and other tricks, naming the entry; what the kernel
/// says. Half of it is then there.
pub fn unpack<R: Read>(
    archive: &mut Archive<R>,
    folder: &Path,
    how: As,
    work: &mut Work<'_>,
) -> Result<()> {
    let folder = folder.canonicalize().context(|| format!("look at {}", folder.display()))?;
    let mut unpack = Unpack {
        root: Root::open(&folder)?,
        folder,
        how,
        work,
        last: None,
        made: HashSet::new(),
        times: Vec::new(),
        piece: stream::piece(),
    };
    while let Some(entry) = archive.next_entry()? {
        unpack.work.one_more()?;
        unpack.put(&entry, archive).context(|| shown(Path::new(&entry.path)))?;
    }
    for (path, time) in unpack.times.into_iter().rev() {
        // It may have been replaced or removed by a later entry.
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
            && fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir())
        {
            let parent = File::open(parent)?;
            inode::set_time(&parent, name, time)?;
        }
    }
    Ok(())
}

/// A path's words: without a leading slash, which is the root's own.
fn words(path: &OsStr) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    let mut depth = 0;
    for component in Path::new(path).components() {
        match component {
            Component::Normal(word) => {
                clean.push(word);
                depth += 1;
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                return Err(Error::invalid("its path has .. in it, and may lead out of the root"));
            }
        }
    }
    if depth > DEEPEST { Err(too_deep()) } else { Ok(clean) }
}

fn too_deep() -> Error {
    Error::invalid(format!("it lies more than {DEEPEST} folders deep"))
}

impl Unpack<'_, '_> {
    fn put<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<()> {
        let path = words(&entry.path)?;
        let meta = Meta {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            modified: entry.modified,
            xattrs: entry.xattrs.clone(),
        };
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return self.put_root(entry, &meta);
        };
        if self.how == As::Layer && name.as_bytes().starts_with(b".wh.") {
            // Nothing is made for what takes something away.
            return match self.open(parent) {
                Ok(parent) => self.whiteout(&parent, name),
                Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
                Err(errno) => Err(errno.into()),
            };
        }
        let parent = self.parent(parent)?;
        self.put_in(&parent, name, entry, &meta, archive)?;
        self.made.insert(parent.path.join(name));
        Ok(())
    }

    /// An entry for the root itself.
    fn put_root(&mut self, entry: &Entry, meta: &Meta) -> Result<()> {
        if entry.kind != Kind::Folder {
            return Err(Error::invalid("it would take the place of the root itself"));
        }
        let folder = self.folder.clone();
        let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
            return Err(Error::invalid("this is the root of the host"));
        };
        let parent = File::open(parent)?;
        inode::dress(&parent, name, false, meta, "/", self.work)?;
        self.times.push((folder.clone(), meta.modified));
        Ok(())
    }

    fn open(&self, path: &Path) -> nix::Result<Parent> {
        let fd = self.root.open_at(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let path = PathBuf::from(nix::fcntl::readlink(link.as_str())?);
        Ok(Parent { fd, path })
    }

    /// The folder of that path, made if it is missing.
    fn parent(&mut self, path: &Path) -> Result<Rc<Parent>> {
        if let Some((last, parent)) = &self.last
            && last == path
        {
            return Ok(parent.clone());
        }
        let parent = match self.open(path) {
            Err(Errno::ENOENT) => {
                self.root.make(path, Missing::Folder)?;
                self.open(path)
            }
            other => other,
        }
        .context(|| format!("open its folder {}", shown(path)))?;
        let below = parent
            .path
            .strip_prefix(&self.folder)
            .map_err(|_| Error::unknown(format!("{} has left the root", parent.path.display())))?;
        if below.components().count() > DEEPEST {
            return Err(too_deep());
        }
        let parent = Rc::new(parent);
        self.last = Some((path.to_owned(), parent.clone()));
        Ok(parent)
    }

    fn put_in<R: Read>(
        &mut self,
        parent: &Parent,
        name: &OsStr,
        entry: &Entry,
        meta: &Meta,
        archive: &mut Archive<R>,
    ) -> Result<()> {
        let there = match fstatat(&parent.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Some(SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT),
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno.into()),
        };
        let keeps = there == Some(SFlag::S_IFDIR) && entry.kind == Kind::Folder;
        // Found before its own name goes: a file that is linked to itself stays what it is.
        let target = match &entry.kind {
            Kind::HardLink(target) => Some(self.hard_link_target(target)?),
            _ => None,
        };
        if let Some((folder, old)) = &target
            && (folder.path.join(old)) == parent.path.join(name)
        {
            return Ok(());
        }
        if there.is_some() && !keeps {
            self.remove(&parent.path.join(name))?;
        }
        let mut is_link = false;
        match &entry.kind {
            Kind::Folder => {
                if !keeps {
                    mkdirat(&parent.fd, name, Mode::S_IRWXU)?;
                }
                self.times.push((parent.path.join(name), meta.modified));
            }
            Kind::File => {
                let mut file = File::from(inode::new_file(&parent.fd, name)?);
                self.pour(archive, &mut file)?;
            }
            Kind::Link(target) => {
                nix::unistd::symlinkat(target.as_os_str(), &parent.fd, name)
                    .context(|| format!("link it to {}", shown(Path::new(target))))?;
                is_link = true;
            }
            Kind::HardLink(_) => {
                let Some((folder, old)) = target else { return Ok(()) };
                // The file has its owner and mode from its first name.
                return nix::unistd::linkat(
                    &folder.fd,
                    old.as_os_str(),
                    &parent.fd,
                    name,
                    AtFlags::empty(),
                )
                .context(|| "give the file one more name");
            }
            Kind::Fifo => nix::unistd::mkfifoat(&parent.fd, name, Mode::S_IRUSR)?,
            Kind::Character(major, minor) => {
                let device = (*major, *minor);
                inode::new_device(&parent.fd, name, SFlag::S_IFCHR, device, self.work)?;
            }
            Kind::Block(major, minor) => {
                let device = (*major, *minor);
                inode::new_device(&parent.fd, name, SFlag::S_IFBLK, device, self.work)?;
            }
        }
        let shown = shown(Path::new(&entry.path));
        inode::dress(&parent.fd, name, is_link, meta, &shown, self.work)
    }

    /// Where the file is that gets one more name: in the root, as everything.
    fn hard_link_target(&self, target: &OsStr) -> Result<(Parent, OsString)> {
        let path = words(target).context(|| "its target")?;
        let shown = || format!("find {}, of which it is to be one more name", shown(&path));
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return Err(Error::invalid("it is to be one more name of a folder"));
        };
        let parent = self.open(parent).context(shown)?;
        let found = fstatat(&parent.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).context(shown)?;
        if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
            return Err(Error::invalid("it is to be one more name of a folder"));
        }
        Ok((parent, name.to_owned()))
    }

    fn pour<R: Read>(&mut self, archive: &mut Archive<R>, file: &mut File) -> Result<()> {
        loop {
            let size = archive.read(&mut self.piece)?;
            if size == 0 {
                return Ok(());
            }
            file.write_all(self.piece.get(..size).unwrap_or_default())?;
        }
    }

    /// Removes what is at a path without links.
    fn remove(&mut self, path: &Path) -> Result<()> {
        self.last = None;
        let removed = match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path),
            _ => fs::remove_file(path),
        };
        removed.context(|| "remove what an earlier entry has put there")
    }

    fn whiteout(&mut self, parent: &Parent, name: &OsStr) -> Result<()> {
        const OPAQUE: &[u8] = b".wh..wh..opq";
        let name = name.as_bytes();
        if name == OPAQUE {
            return self.clear_inside(&parent.path);
        }
        if name.starts_with(b".wh..wh.") {
            // aufs kept its own books under these names.
            return Ok(());
        }
        match name.strip_prefix(b".wh.") {
            Some(b"" | b"." | b"..") | None => {
                Err(Error::invalid("it would remove a folder that it stands in"))
            }
            Some(gone) => self.clear(&parent.path.join(OsStr::from_bytes(gone))),
        }
    }

    /// Removes what lower layers have inside a folder.
    fn clear_inside(&mut self, folder: &Path) -> Result<()> {
        self.last = None;
        for entry in fs::read_dir(folder)? {
            self.clear(&entry?.path())?;
        }
        Ok(())
    }

    /// Removes what lower layers have at a path without links.
    fn clear(&mut self, path: &Path) -> Result<()> {
        self.work.stop.check()?;
        let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
        if !found.is_dir() {
            return if self.made.contains(path) { Ok(()) } else { Ok(fs::remove_file(path)?) };
        }
        self.clear_inside(path)?;
        if self.made.contains(path) {
            return Ok(());
        }
        match fs::remove_dir(path) {
            Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
                Err(error.into())
            }
            // Something of this layer is in there.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
