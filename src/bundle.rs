//! A bundle: making one, what is wrong with one, and its root file system (the snapshot's mounts,
//! and their undoing).

pub mod create;
pub mod validate;

use crate::error::{Context, Error, Result};
use crate::sys::mount::{Mount, unmount};
use std::fs;
use std::path::{Path, PathBuf};

/// The root file system that containerd's mounts make in a bundle. It stays mounted when this is
/// dropped: a container outlives every value; call [`Rootfs::unmount`].
#[derive(Clone, Debug)]
pub struct Rootfs {
    folder: PathBuf,
}

impl Rootfs {
    /// Puts `mounts`, in their order, on the bundle's `rootfs` folder. `None` where there are no
    /// mounts and config.json alone says where the root is.
    ///
    /// # Errors
    /// `InvalidArgument` when the folder is a link or a file; whatever the kernel says of a
    /// mount. Mounts that were made before the failure are undone.
    pub fn mount(bundle: &Path, mounts: &[Mount]) -> Result<Option<Self>> {
        if mounts.is_empty() {
            return Ok(None);
        }
        let folder = bundle.join("rootfs");
        match fs::symlink_metadata(&folder) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                return Err(Error::invalid(format!(
                    "{} is not a folder: containerd's mounts go on it, and a link could lead \
                     them anywhere",
                    folder.display()
                )));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                fs::create_dir(&folder).context(|| format!("make {}", folder.display()))?;
            }
            Err(error) => return Err(error).context(|| format!("look at {}", folder.display())),
        }
        let rootfs = Self { folder };
        for mount in mounts {
            if let Err(error) = mount.mount(&rootfs.folder) {
                return Err(match rootfs.unmount() {
                    Ok(()) => error,
                    Err(second) => error.context(format!("(and then: {second})")),
                });
            }
        }
        Ok(Some(rootfs))
    }

    /// The folder the mounts are on.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes everything off again; mounts below the folder go with it, because their places are in
    /// a tree that the container may have changed. May be called again.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn unmount(&self) -> Result<()> {
        unmount(&self.folder)
    }
}
