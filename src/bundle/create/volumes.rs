//! The folders of an image whose data is to outlive a container (config.md, "Volumes"): each is a
//! folder in the bundle's `mounts/`, filled with what the image has there.

use super::draft::Draft;
use super::image::Image;
use super::settings::{Mount, add_mounts, has_mount};
use super::work::Work;
use super::{make_folder, tree};
use crate::config::input::quoted;
use crate::error::{Context, Error, Result};
use crate::sys::inroot::Root;
use serde_json::Value;

/// Makes them, except where something is mounted already.
///
/// # Errors
/// Names the volume.
pub fn make(
    image: &Image,
    draft: &Draft,
    root: &Root,
    config: &mut Value,
    work: &mut Work<'_>,
) -> Result<()> {
    let mut mounts = Vec::new();
    for destination in image.volumes() {
        let doing = || format!("the image's volume {}", quoted(&destination));
        if !destination.starts_with('/') || destination.split('/').any(|word| word == "..") {
            return Err(Error::invalid("not an absolute path")).context(doing);
        }
        if has_mount(config, &destination) {
            continue;
        }
        let name = format!("mounts/volume-{}", mounts.len());
        let folder = draft.folder().join(&name);
        make_folder(&draft.folder().join("mounts"))?;
        make_folder(&folder)?;
        let inside = draft.folder().join("rootfs").join(root.resolve(&destination)?);
        if inside.is_dir() {
            tree::copy(&inside, &folder, work).context(doing)?;
        }
        mounts.push(Mount {
            kind: "bind".to_owned(),
            source: draft.target().join(&name).to_string_lossy().into_owned(),
            destination,
            options: vec!["rbind".to_owned(), "rw".to_owned()],
        });
    }
    if !mounts.is_empty() {
        add_mounts(config, &mounts);
    }
    Ok(())
}
