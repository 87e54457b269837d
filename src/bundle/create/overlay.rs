//! A root that is a folder's files seen through a layer of its own (overlayfs): nothing is copied,
//! and what the container writes is in the bundle.

use crate::error::{Context, Error, Result};
use crate::sys::mount::Mount;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder in the bundle that takes what is written, and what the kernel needs beside it.
const FOLDER: &str = "overlay";

fn upper(bundle: &Path) -> PathBuf {
    bundle.join(FOLDER).join("upper")
}

fn work(bundle: &Path) -> PathBuf {
    bundle.join(FOLDER).join("work")
}

/// Looks whether a folder can be the lower layer.
///
/// # Errors
/// `InvalidArgument`
pub fn check(lower: &Path) -> Result<()> {
    let refuse = |problem: &str| {
        Err(Error::invalid(format!("--overlay: {} {problem}", crate::config::input::shown(lower))))
    };
    if !lower.is_dir() {
        return refuse("is not a folder: archives and images are unpacked without --overlay");
    }
    if super::layout::is_one(lower) {
        return refuse("is an OCI image layout, which is unpacked without --overlay");
    }
    Ok(())
}

/// Makes the layer's folders. The upper one gets the lower's owner and mode, for it is what the
/// container sees as its root.
///
/// # Errors
/// What the kernel says.
pub fn prepare(bundle: &Path, lower: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    super::make_folder(&upper(bundle))?;
    super::make_folder(&work(bundle))?;
    let found = fs::metadata(lower)?;
    let upper = upper(bundle);
    std::os::unix::fs::chown(&upper, Some(found.uid()), Some(found.gid()))?;
    Ok(fs::set_permissions(&upper, found.permissions())?)
}

/// Mounts it on the bundle's root.
///
/// # Errors
/// `InvalidArgument` for paths that overlayfs's options cannot have; what the kernel says.
pub fn mount(lower: &Path, bundle: &Path) -> Result<()> {
    let text = |path: &Path| match path.to_str() {
        Some(text) if !text.contains([',', ':', '\\']) => Ok(text.to_owned()),
        _ => Err(Error::invalid(format!(
            "--overlay: {} has a comma, a colon or a backslash in it, which separate overlayfs's \
             options",
            path.display()
        ))),
    };
    let mount = Mount {
        kind: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options: vec![
            format!("lowerdir={}", text(lower)?),
            format!("upperdir={}", text(&upper(bundle))?),
            format!("workdir={}", text(&work(bundle))?),
        ],
    };
    mount.mount(&bundle.join("rootfs")).context(|| "--overlay")
}

/// How it is undone.
pub fn note(lower: &Path, bundle: &Path) -> String {
    format!(
        "the root is {} under a layer in the bundle, mounted until the next boot; to undo it: \
         umount {}/rootfs",
        lower.display(),
        bundle.display()
    )
}
