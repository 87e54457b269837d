//! Paths inside a root file system that somebody else has filled: every link in it is followed as
//! it would be by a process whose root it is, and none leads out (openat2(2), RESOLVE_IN_ROOT).

use crate::error::{Context, Error, Result};
use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fstat, mkdirat};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// More links than this in one path are a loop.
const MOST_LINKS: usize = 40;

/// A root file system.
#[derive(Debug)]
pub struct Root {
    folder: PathBuf,
    fd: OwnedFd,
}

/// What is made at a place that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A folder.
    Folder,
    /// An empty file.
    File,
}

impl Root {
    /// The root file system in `folder`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(folder: &Path) -> Result<Self> {
        let fd = nix::fcntl::open(
            folder,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .context(|| format!("open {}", folder.display()))?;
        Ok(Self { folder: folder.to_owned(), fd })
    }

    /// Opens a path of the root file system.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open_at<P: ?Sized + NixPath>(&self, path: &P, flags: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            // A rename elsewhere in the tree may make the kernel give up a lookup with "..".
            let opened = if path.is_empty() {
                openat2(&self.fd, "/", how)
            } else {
                openat2(&self.fd, path, how)
            };
            match opened {
                Err(Errno::EAGAIN) => {}
                other => return other,
            }
        }
    }

    /// Where a path ends once its links have been followed: relative to the root, without a
    /// leading slash. What is missing of it is taken as it stands.
    ///
    /// # Errors
    /// `InvalidArgument` for links that go round.
    pub fn resolve(&self, path: &str) -> Result<String> {
        self.follow(Path::new(path))?
            .into_os_string()
            .into_string()
            .map_err(|path| Error::invalid(format!("{path:?} is not UTF-8")))
    }

    fn follow(&self, path: &Path) -> Result<PathBuf> {
        let mut done = PathBuf::new();
        let mut todo: Vec<PathBuf> = words(path);
        let mut links = 0;
        while let Some(word) = todo.pop() {
            if word.as_os_str() == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&word);
            let link = self
                .open_parent(&done)
                .ok()
                .and_then(|parent| nix::fcntl::readlinkat(&parent, &word).ok());
            match link {
                Some(target) => {
                    links += 1;
                    if links > MOST_LINKS {
                        let folder = self.folder.display();
                        return Err(Error::invalid(format!(
                            "{} in {folder} leads through more than {MOST_LINKS} links",
                            path.display()
                        )));
                    }
                    let target = PathBuf::from(target);
                    if target.is_absolute() {
                        done = PathBuf::new();
                    }
                    todo.extend(words(&target));
                }
                None => done = next,
            }
        }
        Ok(done)
    }

    fn open_parent(&self, folder: &Path) -> nix::Result<OwnedFd> {
        self.open_at(folder, OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    /// Makes what is missing at `path`, with its folders, mode 0755. What is there stays.
    ///
    /// # Errors
    /// Names the path.
    pub fn make(&self, path: impl AsRef<Path>, missing: Missing) -> Result<()> {
        let path = path.as_ref();
        self.make_all(path, missing)
            .context(|| format!("make {} in {}", path.display(), self.folder.display()))
    }

    fn make_all(&self, path: &Path, missing: Missing) -> nix::Result<()> {
        if self.open_at(path, OFlag::O_PATH).is_ok() {
            return Ok(());
        }
        let resolved = self.follow(path).map_err(|_| Errno::ELOOP)?;
        let mut words = words(&resolved);
        let mut done = PathBuf::new();
        while let Some(word) = words.pop() {
            let parent = self.open_parent(&done)?;
            let made = if words.is_empty() && missing == Missing::File {
                let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                nix::fcntl::openat(&parent, &word, flags, Mode::from_bits_retain(0o644)).map(drop)
            } else {
                mkdirat(&parent, &word, Mode::from_bits_retain(0o755))
            };
            match made {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            done.push(word);
        }
        Ok(())
    }

    /// Opens a new terminal of the devpts that is mounted on the root's /dev/pts: its master and
    /// its slave. Whatever else is there in its place is refused.
    ///
    /// # Errors
    /// `FailedPrecondition` where there is no such devpts.
    pub fn open_terminal(&self) -> Result<(OwnedFd, OwnedFd)> {
        const PTMX: libc::dev_t = libc::makedev(5, 2);
        let doing = || "open a terminal of the container's /dev/pts".to_owned();
        let place =
            self.open_at("dev/pts/ptmx", OFlag::O_PATH | OFlag::O_NOFOLLOW).context(doing)?;
        let stat = fstat(&place).context(doing)?;
        let system = nix::sys::statfs::fstatfs(&place).context(doing)?.filesystem_type();
        if stat.st_rdev != PTMX || system != nix::sys::statfs::FsType(libc::DEVPTS_SUPER_MAGIC) {
            return Err(Error::precondition("it is not a devpts").context(doing()));
        }
        // The node that was looked at is the one that is opened.
        let master = nix::fcntl::open(
            format!("/proc/self/fd/{}", place.as_raw_fd()).as_str(),
            OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .context(doing)?;
        let slave = super::tty::unlock_and_open_peer(&master).context(doing)?;
        Ok((master, slave))
    }
}

/// The root of a process, as it sees it.
///
/// # Errors
/// `NotFound` when it has ended.
pub fn of_process(pid: i32) -> Result<Root> {
    Root::open(Path::new(&format!("/proc/{pid}/root")))
}

/// A path's words from the last to the first.
fn words(path: &Path) -> Vec<PathBuf> {
    let mut words: Vec<PathBuf> = path
        .components()
        .filter_map(|component| match component {
            Component::Normal(word) => Some(word.into()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    words.reverse();
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_and_never_lead_out() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("run")).unwrap();
        fs::create_dir_all(at("var")).unwrap();
        symlink("/run", at("var/run")).unwrap();
        symlink("../../../../../etc", at("up")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        assert_eq!(root.resolve("/var/run/secrets/token").unwrap(), "run/secrets/token");
        assert_eq!(root.resolve("up/passwd").unwrap(), "etc/passwd");
        assert_eq!(root.resolve("/../..//a/./b/../c").unwrap(), "a/c");
        assert_eq!(root.resolve("/").unwrap(), "");
        assert!(root.resolve("loop/x").unwrap_err().to_string().contains("40 links"));
        root.make("/var/run/secrets/token", Missing::File).unwrap();
        assert!(at("run/secrets/token").is_file());
        root.make("up/new", Missing::Folder).unwrap();
        assert!(at("etc/new").is_dir());
        // Once more changes nothing, also where something else is there.
        root.make("/var/run/secrets/token", Missing::Folder).unwrap();
        assert!(at("run/secrets/token").is_file());
        assert!(root.make("loop/x", Missing::File).is_err());
    }

    #[test]
    fn a_terminal_is_taken_from_a_devpts_only() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("dev/pts")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        assert!(root.open_terminal().is_err());
        fs::write(folder.path().join("dev/pts/ptmx"), "").unwrap();
        assert!(root.open_terminal().unwrap_err().to_string().contains("not a devpts"));
        let (master, slave) = Root::open(Path::new("/")).unwrap().open_terminal().unwrap();
        nix::unistd::write(&slave, b"x").unwrap();
        assert_eq!(nix::unistd::read(&master, &mut [0; 8]).unwrap(), 1);
    }
}
