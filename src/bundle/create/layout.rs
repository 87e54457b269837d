//! An OCI image layout (image-spec, image-layout.md): finding one image in it, and its layers as a
//! root.

use super::archive::Archive;
use super::image::Image;
use super::stream::{Digest, Measured, Plain};
use super::unpack::{As, unpack};
use super::work::Work;
use crate::config::input::quoted;
use crate::error::{Context, Error, Result};
use crate::sys::inroot::Root;
use nix::fcntl::OFlag;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// The largest index, manifest or configuration that is read, in bytes.
const MOST_JSON: u64 = 8 << 20;

/// Indexes in indexes: there is one, in practice.
const DEEPEST: usize = 4;

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What an image is for: os, architecture and variant, as Go names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// linux
    #[serde(default)]
    pub os: String,
    /// amd64, arm64, …
    #[serde(default)]
    pub architecture: String,
    /// v7, v8, …; empty where there is none.
    #[serde(default)]
    pub variant: String,
}

impl Platform {
    /// This host's.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "x86" => ("386", ""),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        let (os, architecture) = ("linux".to_owned(), architecture.to_owned());
        Self { os, architecture, variant: variant.to_owned() }
    }

    /// Takes `os/architecture[/variant]`.
    ///
    /// # Errors
    /// `InvalidArgument`
    pub fn parse(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match words[..] {
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => ("", "", ""),
        };
        if os.is_empty() || architecture.is_empty() {
            return Err(Error::invalid(format!(
                "platform {}: wanted linux/amd64, linux/arm/v7 or the like",
                quoted(text)
            )));
        }
        let (os, architecture, variant) = (os.into(), architecture.into(), variant.into());
        Ok(Self { os, architecture, variant })
    }

    /// Whether an image that says `other` of itself is one for this. What it leaves open fits.
    fn fits(&self, other: &Self) -> bool {
        let same = |one: &str, other: &str| one.is_empty() || other.is_empty() || one == other;
        same(&self.os, &other.os)
            && same(&self.architecture, &other.architecture)
            && same(&self.variant, &other.variant)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(out, "/{}", self.variant) }
    }
}

/// Which image of a layout is wanted.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Its name in the index (org.opencontainers.image.ref.name), or its digest.
    pub reference: Option<String>,
    /// What it is for; this host unless given.
    pub platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// Whether a folder is a layout, and not a root file system.
pub fn is_one(folder: &Path) -> bool {
    let file = |name: &str| folder.join(name).symlink_metadata().is_ok_and(|found| found.is_file());
    file("oci-layout") && file("index.json")
}

/// Unpacks the chosen image of the layout in `folder` into `target`, an empty folder; gives its
/// configuration.
///
/// # Errors
/// `InvalidArgument` for a layout that is wrong or damaged, and for a choice that is not one.
pub fn unpack_image(
    folder: &Path,
    choice: &Choice,
    target: &Path,
    work: &mut Work<'_>,
) -> Result<Image> {
    let layout = Layout { root: Root::open(folder)? };
    let marker: Marker = json(&layout.small("oci-layout", None)?).context(|| "oci-layout")?;
    if !marker.image_layout_version.starts_with("1.") {
        let version = quoted(&marker.image_layout_version);
        return Err(Error::unimplemented(format!("version {version} of image layouts: 1.0.0 is")));
    }
    let chosen = layout.choose(choice, work)?;
    let manifest: Manifest = layout.read(&chosen, "manifest", work)?;
    if !matches!(
        manifest.config.media_type.as_str(),
        "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
    ) {
        return Err(Error::invalid(format!(
            "{} is an artifact of type {} and not a container's image",
            chosen.digest,
            quoted(&manifest.config.media_type)
        )));
    }
    let image: Image = layout.read(&manifest.config, "configuration", work)?;
    let wanted = choice.platform.clone().unwrap_or_else(Platform::host);
    if !wanted.fits(&image.platform) {
        return Err(Error::invalid(format!(
            "the image is for {}, and {wanted} is wanted: --platform {} takes it all the same",
            image.platform, image.platform
        )));
    }
    let diff_ids = &image.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(Error::invalid(format!(
            "the image has {} layers, and its configuration names {}",
            manifest.layers.len(),
            diff_ids.len()
        )));
    }
    let count = manifest.layers.len();
    for (at, (layer, diff_id)) in manifest.layers.iter().zip(diff_ids).enumerate() {
        let what = format!("layer {}/{count}", at + 1);
        layout
            .layer(layer, diff_id, target, &what, work)
            .context(|| format!("{what} ({})", quoted(&layer.digest)))?;
    }
    Ok(image)
}

fn json<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| Error::invalid(quoted(&error.to_string())))
}

struct Layout {
    root: Root,
}

impl Layout {
    fn open(&self, path: &str, size: Option<u64>) -> Result<File> {
        let fd = self
            .root
            .open_at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)
            .context(|| format!("open {path} of the layout"))?;
        let file = File::from(fd);
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(Error::invalid(format!("{path} of the layout is not a regular file")));
        }
        match size {
            Some(size) if size != found.len() => Err(Error::invalid(format!(
                "{path} of the layout has {} bytes, and should have {size}: it is damaged",
                found.len()
            ))),
            _ => Ok(file),
        }
    }

    fn small(&self, path: &str, size: Option<u64>) -> Result<Vec<u8>> {
        let file = self.open(path, size)?;
        if file.metadata()?.len() > MOST_JSON {
            return Err(Error::invalid(format!("{path} of the layout is larger than 8 MiB")));
        }
        let mut text = Vec::new();
        file.take(MOST_JSON).read_to_end(&mut text)?;
        Ok(text)
    }

    /// Reads what a descriptor describes, and checks that it is that.
    fn read<T: DeserializeOwned>(
        &self,
        descriptor: &Descriptor,
        what: &str,
        work: &Work<'_>,
    ) -> Result<T> {
        let read = || {
            let digest = Digest::parse(&descriptor.digest)?;
            let text = self.small(&digest.path(), Some(descriptor.size))?;
            let all = Measured::new(text.as_slice(), u64::MAX, String::new(), work.stop);
            all.expecting(Some(digest)).finish()?;
            json(&text)
        };
        read().context(|| format!("{what} {}", quoted(&descriptor.digest)))
    }

    fn choose(&self, choice: &Choice, work: &Work<'_>) -> Result<Descriptor> {
        let index: Index = json(&self.small("index.json", None)?).context(|| "index.json")?;
        let name = |descriptor: &Descriptor| {
            descriptor.annotations.as_ref().and_then(|all| all.get(REF_NAME)).cloned()
        };
        let mut names: Vec<String> = index.manifests.iter().filter_map(name).collect();
        names.sort_unstable();
        let named: Vec<&Descriptor> = index
            .manifests
            .iter()
            .filter(|found| match &choice.reference {
                None => true,
                Some(wanted) => name(found).as_ref() == Some(wanted) || found.digest == *wanted,
            })
            .collect();
        let listed = match names.len() {
            0 => "none of its images has a name".to_owned(),
            _ => format!("there is {}", quoted(&names.join(", "))),
        };
        if let (Some(reference), true) = (&choice.reference, named.is_empty()) {
            return Err(Error::not_found(format!(
                "the layout has no image {}: {listed}",
                quoted(reference)
            )));
        }
        let mut found = Vec::new();
        for descriptor in named {
            self.expand(descriptor, DEEPEST, &mut found, work)?;
        }
        // The same image under two names is one.
        found.sort_by(|one, other| one.digest.cmp(&other.digest));
        found.dedup_by(|one, other| one.digest == other.digest);
        let wanted = choice.platform.clone().unwrap_or_else(Platform::host);
        let fitting: Vec<Descriptor> = found
            .iter()
            .filter(|found| found.platform.as_ref().is_none_or(|its| wanted.fits(its)))
            .cloned()
            .collect();
        let platforms = || {
            let all: Vec<String> = found
                .iter()
                .filter_map(|found| found.platform.as_ref().map(ToString::to_string))
                .collect();
            quoted(&all.join(", "))
        };
        match &fitting[..] {
            [one] => Ok(one.clone()),
            [] if found.is_empty() => Err(Error::invalid("the layout has no image")),
            [] => Err(Error::not_found(format!(
                "the layout has no image for {wanted}, but for {}: --platform chooses one",
                platforms()
            ))),
            _ => Err(Error::invalid(format!(
                "the layout has several images: choose by --ref or --platform; {listed}"
            ))),
        }
    }

    /// The manifests that a descriptor stands for.
    fn expand(
        &self,
        descriptor: &Descriptor,
        depth: usize,
        found: &mut Vec<Descriptor>,
        work: &Work<'_>,
    ) -> Result<()> {
        match descriptor.media_type.as_str() {
            "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => {
                // buildkit's provenance stands among the images, for no platform.
                let nowhere = |its: &Platform| its.os == "unknown" && its.architecture == "unknown";
                if !descriptor.platform.as_ref().is_some_and(nowhere) {
                    found.push(descriptor.clone());
                }
                Ok(())
            }
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                let Some(depth) = depth.checked_sub(1) else {
                    return Err(Error::invalid(format!("there are {DEEPEST} indexes in indexes")));
                };
                let index: Index = self.read(descriptor, "index", work)?;
                index.manifests.iter().try_for_each(|one| self.expand(one, depth, found, work))
            }
            // image-spec: what is not known is passed over.
            _ => Ok(()),
        }
    }

    fn layer(
        &self,
        layer: &Descriptor,
        diff_id: &str,
        target: &Path,
        what: &str,
        work: &mut Work<'_>,
    ) -> Result<()> {
        if !matches!(
            layer.media_type.as_str(),
            "application/vnd.oci.image.layer.v1.tar"
                | "application/vnd.oci.image.layer.v1.tar+gzip"
                | "application/vnd.oci.image.layer.v1.tar+zstd"
                | "application/vnd.oci.image.layer.nondistributable.v1.tar"
                | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
                | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
                | "application/vnd.docker.image.rootfs.diff.tar"
                | "application/vnd.docker.image.rootfs.diff.tar.gzip"
                | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        ) {
            let kind = quoted(&layer.media_type);
            return Err(Error::unimplemented(format!("layers of type {kind} are not supported")));
        }
        let digest = Digest::parse(&layer.digest)?;
        let diff_id = Digest::parse(diff_id).context(|| "rootfs.diff_ids")?;
        let file = self.open(&digest.path(), Some(layer.size))?;
        unpack_file(file, Some((digest, diff_id)), target, As::Layer, what, work)
    }
}

/// Unpacks an archive, compressed or not, whose digests before and after are checked if they are
/// known.
///
/// # Errors
/// As [`unpack`], and when a digest is wrong.
pub fn unpack_file(
    file: File,
    digests: Option<(Digest, Digest)>,
    target: &Path,
    how: As,
    what: &str,
    work: &mut Work<'_>,
) -> Result<()> {
    let size = file.metadata()?.len();
    let stop = work.stop;
    let (packed, unpacked) = digests.unzip();
    let source = Measured::new(file, u64::MAX, String::new(), stop)
        .expecting(packed)
        .shown(work.progress.bar(what, size));
    let plain = Plain::open(BufReader::with_capacity(64 << 10, source))?;
    let plain = Measured::new(plain, work.bytes, work.too_many_bytes(), stop).expecting(unpacked);
    let mut archive = Archive::new(plain);
    unpack(&mut archive, target, how, work)?;
    // What comes after the archive's end is still part of the digests.
    let mut plain = archive.into_source();
    std::io::copy(&mut plain, &mut std::io::sink())?;
    work.bytes = work.bytes.saturating_sub(plain.count());
    plain.finish()?.into_source().into_inner().finish()?;
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
