//! Mounts, described as containerd's snapshotters describe them: a type, a source, and options
//! in the words of fstab(5).

use super::loopdev::LoopDevice;
use crate::error::{Context, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// A page: the kernel takes no more option text than this from mount(2).
const MAX_DATA: usize = 4096;

/// One mount of a snapshot (containerd's types.Mount).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `overlay`, `bind`, `ext4`, …
    pub kind: String,
    /// What is mounted: a path, a device, or a word for file systems without either.
    pub source: String,
    /// Where, below the root file system's folder; empty for the folder itself.
    pub target: String,
    /// Options, one each.
    pub options: Vec<String>,
}

/// A mount's options, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    set: u64,
    clear: u64,
    propagation: u64,
    on_loop: bool,
    data: Vec<String>,
}

/// fstab's words: what each sets, and what it clears.
fn flag(word: &str) -> Option<(MsFlags, bool)> {
    Some(match word {
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "bind" => (MsFlags::MS_BIND, true),
        "rbind" => (MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "remount" => (MsFlags::MS_REMOUNT, true),
        "mand" => (MsFlags::MS_MANDLOCK, true),
        "nomand" => (MsFlags::MS_MANDLOCK, false),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "atime" => (MsFlags::MS_NOATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "diratime" => (MsFlags::MS_NODIRATIME, false),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "norelatime" => (MsFlags::MS_RELATIME, false),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "nostrictatime" => (MsFlags::MS_STRICTATIME, false),
        "defaults" => (MsFlags::empty(), true),
        _ => return None,
    })
}

fn propagation(word: &str) -> Option<MsFlags> {
    Some(match word {
        "private" => MsFlags::MS_PRIVATE,
        "rprivate" => MsFlags::MS_PRIVATE.union(MsFlags::MS_REC),
        "shared" => MsFlags::MS_SHARED,
        "rshared" => MsFlags::MS_SHARED.union(MsFlags::MS_REC),
        "slave" => MsFlags::MS_SLAVE,
        "rslave" => MsFlags::MS_SLAVE.union(MsFlags::MS_REC),
        "unbindable" => MsFlags::MS_UNBINDABLE,
        "runbindable" => MsFlags::MS_UNBINDABLE.union(MsFlags::MS_REC),
        _ => return None,
    })
}

/// Takes options apart: flags of mount(2), propagation, and the rest as the file system's data.
///
/// # Errors
/// `Unimplemented` for id mapping.
fn parse(options: &[String]) -> Result<Options> {
    let mut parsed = Options::default();
    for option in options {
        let word = option.as_str();
        if let Some((flags, set)) = flag(word) {
            let bits = flags.bits();
            if set {
                parsed.set |= bits;
                parsed.clear &= !bits;
            } else {
                parsed.set &= !bits;
                parsed.clear |= bits;
            }
        } else if let Some(flags) = propagation(word) {
            parsed.propagation |= flags.bits();
        } else if word == "loop" {
            parsed.on_loop = true;
        } else if word.starts_with("uidmap=") || word.starts_with("gidmap=") {
            return Err(Error::unimplemented(format!(
                "the mount option {word} is not supported: use a snapshotter that shifts \
                 ownership itself (overlayfs without the remap-ids capability)"
            )));
        } else if !word.is_empty() && !word.starts_with("X-containerd.") {
            parsed.data.push(option.clone());
        }
    }
    Ok(parsed)
}

impl Mount {
    /// Mounts it on `root`, or below it where it has a target.
    ///
    /// # Errors
    /// Names the type, the source, the place and what the kernel said.
    pub fn mount(&self, root: &Path) -> Result<()> {
        let doing =
            || format!("mount {} {} on {}{}", self.kind, self.source, root.display(), self.target);
        if self.kind.starts_with("fuse") {
            return Err(Error::unimplemented(
                "mounts of FUSE need a program of their own, which is not run: use the snapshotter \
                 overlayfs",
            ))
            .context(doing);
        }
        if self.target.is_empty() {
            return self.mount_at(root).context(doing);
        }
        let target = self.target_below(root).context(doing)?;
        self.mount_at(Path::new(&format!("/proc/self/fd/{}", target.as_raw_fd()))).context(doing)
    }

    /// Opens where it goes, below `root` as a process in the container would find it: a link in
    /// the image leads nowhere else.
    fn target_below(&self, root: &Path) -> Result<OwnedFd> {
        let open_root = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(root, open_root, Mode::empty())?;
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        Ok(openat2(&root, self.target.as_str(), how)?)
    }

    fn mount_at(&self, place: &Path) -> Result<()> {
        let parsed = parse(&self.options)?;
        let set = MsFlags::from_bits_truncate(parsed.set);
        let is_bind = set.contains(MsFlags::MS_BIND) || self.kind == "bind";
        let set = if is_bind { set | MsFlags::MS_BIND } else { set };
        let first = if is_bind { set & (MsFlags::MS_BIND | MsFlags::MS_REC) } else { set };
        let data = parsed.data.join(",");
        if parsed.on_loop {
            let read_only = set.contains(MsFlags::MS_RDONLY);
            let device = LoopDevice::bind(Path::new(&self.source), read_only)?;
            let source = device.path().to_string_lossy().into_owned();
            Self { source, ..self.clone() }.call(place, first, &data)?;
        } else if data.len() < MAX_DATA {
            self.call(place, first, &data)?;
        } else {
            self.mount_from_common_folder(place, first, &parsed.data)?;
        }
        // The kernel ignores every flag of a bind mount but the recursion: a second call sets
        // them.
        let rest = set.difference(MsFlags::MS_BIND | MsFlags::MS_REC);
        if is_bind && !rest.is_empty() {
            self.call(place, rest | MsFlags::MS_BIND | MsFlags::MS_REMOUNT, "")
                .inspect_err(|_| drop(unmount(place)))?;
        }
        if parsed.propagation != 0 {
            let flags = MsFlags::from_bits_truncate(parsed.propagation);
            mount(None::<&str>, place, None::<&str>, flags, None::<&str>)
                .inspect_err(|_| drop(unmount(place)))?;
        }
        Ok(())
    }

    fn call(&self, place: &Path, flags: MsFlags, data: &str) -> Result<()> {
        let data = (!data.is_empty()).then_some(data);
        Ok(mount(Some(self.source.as_str()), place, Some(self.kind.as_str()), flags, data)?)
    }

    /// An image of many layers has more option text than mount(2) takes: the layers are then
    /// named relative to the folder they share, from inside that folder. The working directory
    /// belongs to the whole process, which has one thread, and is put back before anything else
    /// runs.
    fn mount_from_common_folder(
        &self,
        place: &Path,
        flags: MsFlags,
        data: &[String],
    ) -> Result<()> {
        let too_long = || Error::invalid("the options are longer than a page (4096 bytes)");
        let (folder, data) = shorten(data).ok_or_else(too_long)?;
        if data.len() >= MAX_DATA {
            return Err(too_long());
        }
        let back = nix::dir::Dir::open(
            ".",
            nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )?;
        nix::unistd::chdir(Path::new(&folder)).context(|| format!("enter {folder}"))?;
        let mounted = self.call(place, flags, &data);
        nix::unistd::fchdir(&back)?;
        mounted
    }
}

/// Overlay options with every layer named relative to the folder all `lowerdir` layers share.
fn shorten(data: &[String]) -> Option<(String, String)> {
    let layers: Vec<&str> =
        data.iter().find_map(|option| option.strip_prefix("lowerdir="))?.split(':').collect();
    let first = layers.first()?;
    let mut end = first.len();
    for layer in &layers {
        end = first.bytes().zip(layer.bytes()).take(end).take_while(|(a, b)| a == b).count();
    }
    let end = first.get(..end)?.rfind('/')?;
    let folder = if end == 0 { "/" } else { first.get(..end)? };
    let relative: Option<Vec<&str>> = layers.iter().map(|layer| layer.get(end + 1..)).collect();
    let lower = format!("lowerdir={}", relative?.join(":"));
    let options: Vec<&str> = data
        .iter()
        .map(|option| if option.starts_with("lowerdir=") { lower.as_str() } else { option })
        .collect();
    Some((folder.to_owned(), options.join(",")))
}

/// Takes every mount off `place`, however many lie on each other; a busy one is detached, so
/// that it goes with its last user. No mount there is success, and so is no such place.
///
/// # Errors
/// When the kernel refuses for any other reason.
pub fn unmount(place: &Path) -> Result<()> {
    // Bounded, for a place that somebody keeps mounting on.
    for _ in 0..64 {
        let nofollow = MntFlags::UMOUNT_NOFOLLOW;
        let result = match umount2(place, nofollow) {
            Err(Errno::EBUSY) => umount2(place, nofollow | MntFlags::MNT_DETACH),
            other => other,
        };
        match result {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => {
                return Err(Error::from(errno).context(format!("unmount {}", place.display())));
            }
        }
    }
    Err(Error::unknown(format!("{} is mounted again and again", place.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(options: &[&str]) -> Vec<String> {
        options.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn the_later_of_two_contrary_options_counts() {
        let parsed = parse(&words(&["ro", "nosuid", "rw", "lowerdir=/a:/b", "index=off"])).unwrap();
        assert_eq!(parsed.set, MsFlags::MS_NOSUID.bits());
        assert_eq!(parsed.data, ["lowerdir=/a:/b", "index=off"]);
    }

    #[test]
    fn options_that_need_unsupported_work_are_refused_by_name() {
        for word in ["uidmap=0:1000:10", "gidmap=0:1000:10"] {
            let error = parse(&words(&[word])).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Unimplemented);
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn many_layers_are_named_from_the_folder_they_share() {
        let data = words(&["workdir=/s/9/work", "lowerdir=/s/snap/12/fs:/s/snap/1/fs", "x=1"]);
        let (folder, options) = shorten(&data).unwrap();
        assert_eq!(folder, "/s/snap");
        assert_eq!(options, "workdir=/s/9/work,lowerdir=12/fs:1/fs,x=1");
        let (folder, options) = shorten(&words(&["lowerdir=/a:/b"])).unwrap();
        assert_eq!((folder.as_str(), options.as_str()), ("/", "lowerdir=a:b"));
    }

    /// Needs root.
    #[test]
    fn a_target_is_found_as_the_container_would_find_it() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        for made in [root.join("etc/app"), outside.join("app"), folder.path().join("source")] {
            std::fs::create_dir_all(made).unwrap();
        }
        std::fs::write(folder.path().join("source/file"), "").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        let mount = |target: &str| Mount {
            kind: "bind".into(),
            source: folder.path().join("source").to_string_lossy().into_owned(),
            target: target.into(),
            options: words(&["bind"]),
        };
        mount("/etc/app").mount(&root).unwrap();
        assert!(root.join("etc/app/file").exists());
        unmount(&root.join("etc/app")).unwrap();
        // Out of the root there is nothing: neither by a link nor by dots.
        mount("link/app").mount(&root).unwrap_err();
        mount("../outside/app").mount(&root).unwrap_err();
        assert!(!outside.join("app/file").exists());
    }

    /// Needs root, mkfs.ext4 and a loop device.
    #[test]
    fn a_file_with_a_file_system_is_mounted_and_its_device_is_freed_by_the_unmount() {
        let folder = tempfile::tempdir().unwrap();
        let (image, root) = (folder.path().join("image"), folder.path().join("root"));
        std::fs::File::create(&image).unwrap().set_len(4 << 20).unwrap();
        std::fs::create_dir(&root).unwrap();
        let _no_reaper = crate::sys::reaper::tests::no_reaper();
        let mkfs = std::process::Command::new("mkfs.ext4").arg("-q").arg(&image).status().unwrap();
        assert!(mkfs.success());
        let mount = |options| Mount {
            kind: "ext4".into(),
            source: image.to_string_lossy().into_owned(),
            target: String::new(),
            options: words(options),
        };
        mount(&["loop"]).mount(&root).unwrap();
        std::fs::write(root.join("file"), "kept").unwrap();
        unmount(&root).unwrap();
        assert!(!root.join("file").exists());
        mount(&["loop", "ro"]).mount(&root).unwrap();
        assert_eq!(std::fs::read_to_string(root.join("file")).unwrap(), "kept");
        assert!(std::fs::write(root.join("file"), "changed").is_err());
        unmount(&root).unwrap();
        let bound = std::fs::read_dir("/sys/block").unwrap().filter_map(|entry| {
            std::fs::read_to_string(entry.unwrap().path().join("loop/backing_file")).ok()
        });
        let image = image.to_string_lossy().into_owned();
        assert!(bound.into_iter().all(|file| file.trim() != image));
    }
}
