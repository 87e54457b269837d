//! Making a bundle: a folder with `rootfs/`, `config.json`, and `mounts/` where the image has
//! volumes.
//!
//! config.json is made of four layers, each over the one before: the default
//! ([`default::default`]), the image's configuration (image-spec, conversion.md), a template
//! (a JSON merge patch, [`merge`]), and flags ([`settings`]).
//!
//! Everything is made in a [`draft`] beside the bundle's place, which nobody but root can enter:
//! set-uid programs and devices of an image are out of other users' reach then and later.

pub mod archive;
pub mod cri;
pub mod default;
pub mod draft;
pub mod image;
pub mod inode;
pub mod layout;
pub mod merge;
mod overlay;
pub mod progress;
pub mod settings;
pub mod stop;
pub mod stream;
mod tree;
pub mod unpack;
pub mod users;
mod volumes;
pub mod work;

use super::validate;
use crate::config::input::{self, Links, shown};
use crate::config::{BACKEND_ANNOTATION, BackendName};
use crate::error::{Context, Error, Result};
use crate::spec;
use crate::sys::inroot::Root;
use draft::Draft;
use image::Image;
use layout::Choice;
use serde_json::Value;
use settings::Settings;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use stop::Stop;
use unpack::As;
use work::Work;

/// How many bytes archives may unpack to unless it is said otherwise: 64 GiB.
pub const MOST_BYTES: u64 = 64 << 30;

/// A last change of config.json, with the root at hand.
pub type Edit = Box<dyn FnOnce(&mut Value, &Root) -> Result<()>>;

/// What a bundle is to be made of.
pub struct Request {
    /// Its folder, which may exist only if it is empty.
    pub target: PathBuf,
    /// A folder, a tar archive or an OCI image layout. Without one, the root is empty.
    pub rootfs: Option<PathBuf>,
    /// The folder is not copied but mounted, under a layer that takes what is written.
    pub overlay: bool,
    /// Which image of a layout.
    pub choice: Choice,
    /// A file with a JSON merge patch for config.json.
    pub template: Option<PathBuf>,
    /// Flags.
    pub settings: Settings,
    /// The backend that the bundle is for, as its annotation.
    pub backend: Option<BackendName>,
    /// How many bytes archives may unpack to.
    pub most_bytes: u64,
    /// Whether device nodes other than those that every container has are made.
    pub devices: bool,
    /// A last change of config.json.
    pub edit: Option<Edit>,
    /// Files for `mounts/`, by name.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Request {
    /// A bundle at `target` of which nothing else is said.
    pub fn new(target: PathBuf) -> Self {
        Self {
            target,
            rootfs: None,
            overlay: false,
            choice: Choice::default(),
            template: None,
            settings: Settings::default(),
            backend: None,
            most_bytes: MOST_BYTES,
            devices: false,
            edit: None,
            files: Vec::new(),
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Request").field("target", &self.target).finish_non_exhaustive()
    }
}

/// A bundle that was made.
#[derive(Debug)]
pub struct Made {
    /// Its absolute path.
    pub path: PathBuf,
    /// What was left out, and what else is to be known, a line each.
    pub notes: Vec<String>,
}

/// Makes a bundle.
///
/// # Errors
/// What is wrong with the request or its sources, by name. Nothing is left of a bundle that could
/// not be made, nor of one that was stopped.
pub fn create(request: Request, stop: &Stop) -> Result<Made> {
    let doing = format!("make the bundle {}", shown(&request.target));
    create_all(request, stop).context(|| doing)
}

fn create_all(mut request: Request, stop: &Stop) -> Result<Made> {
    request.settings.check()?;
    let template = request.template.as_deref().map(read_template).transpose()?;
    let draft = Draft::begin(&request.target)?;
    let mut work = Work::new(stop, request.most_bytes, request.devices);
    let target = draft.target().to_owned();
    let lower = match fill(&draft, &mut request, template, &mut work) {
        Ok(lower) => lower,
        Err(error) => {
            return Err(match draft.discard() {
                Ok(()) => error,
                Err(second) => error.context(format!("(and then: {second})")),
            });
        }
    };
    draft.finish()?;
    let mut notes = work.notes();
    if let Some(lower) = lower {
        if let Err(error) = overlay::mount(&lower, &target) {
            return Err(match fs::remove_dir_all(&target) {
                Ok(()) => error,
                Err(second) => error.context(format!("(and then: {second})")),
            });
        }
        notes.push(overlay::note(&lower, &target));
    }
    Ok(Made { path: target, notes })
}

fn read_template(path: &Path) -> Result<Value> {
    let text = input::read(path, spec::MAX_SIZE, Links::Follow)?
        .ok_or_else(|| Error::not_found(format!("there is no file {}", shown(path))))?;
    let value: Value = serde_json::from_slice(&text)
        .map_err(|error| Error::invalid(format!("{}: {error}", shown(path))))?;
    if !value.is_object() {
        return Err(Error::invalid(format!("{}: not a JSON object", shown(path))));
    }
    Ok(value)
}

/// Fills the draft; the lower layer of an overlay, if there is to be one.
fn fill(
    draft: &Draft,
    request: &mut Request,
    template: Option<Value>,
    work: &mut Work<'_>,
) -> Result<Option<PathBuf>> {
    let rootfs = draft.folder().join("rootfs");
    make_folder(&rootfs)?;
    let source = request
        .rootfs
        .as_deref()
        .map(|path| path.canonicalize().context(|| format!("--rootfs: look at {}", shown(path))));
    let source = source.transpose()?;
    let (image, lower) = match &source {
        None if request.overlay => {
            return Err(Error::invalid("--overlay needs a folder: give --rootfs"));
        }
        None => {
            work.note("the root is empty", "without --rootfs nothing is put into it");
            (None, None)
        }
        Some(source) if request.overlay => {
            overlay::check(source)?;
            overlay::prepare(draft.folder(), source)?;
            (None, Some(source.clone()))
        }
        Some(source) => (fill_root(draft, &rootfs, source, &request.choice, work)?, None),
    };
    let root = Root::open(lower.as_deref().unwrap_or(&rootfs))?;
    let mut config = configure(image.as_ref(), template, request, &root)?;
    if let Some(image) = &image {
        volumes::make(image, draft, &root, &mut config, work)?;
    }
    if let Some(edit) = request.edit.take() {
        edit(&mut config, &root)?;
    }
    for (name, contents) in &request.files {
        let folder = draft.folder().join("mounts");
        make_folder(&folder)?;
        fs::write(folder.join(name), contents).context(|| format!("write mounts/{name}"))?;
    }
    let text = format!("{config:#}\n");
    check(&text, draft, request.backend)?;
    write(&draft.folder().join("config.json"), &text)?;
    work.stop.check()?;
    Ok(lower)
}

/// Makes a folder that everybody may look into, whatever the umask, unless it is there.
fn make_folder(path: &Path) -> Result<()> {
    let doing = || format!("make {}", path.display());
    DirBuilder::new().recursive(true).mode(0o755).create(path).context(doing)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).context(doing)
}

fn fill_root(
    draft: &Draft,
    rootfs: &Path,
    source: &Path,
    choice: &Choice,
    work: &mut Work<'_>,
) -> Result<Option<Image>> {
    let doing = || shown(source);
    let found = fs::metadata(source).context(doing)?;
    if found.is_dir() {
        if layout::is_one(source) {
            return layout::unpack_image(source, choice, rootfs, work).map(Some).context(doing);
        }
        refuse_choice(choice).context(doing)?;
        if draft.folder().starts_with(source) {
            return Err(Error::invalid("the bundle would be made inside it")).context(doing);
        }
        tree::copy(source, rootfs, work).context(doing)?;
        return Ok(None);
    }
    if !found.is_file() {
        return Err(Error::invalid("neither a folder nor a file")).context(doing);
    }
    let file = File::open(source).context(doing)?;
    layout::unpack_file(file, None, rootfs, As::Root, "unpacking", work).context(doing)?;
    if layout::is_one(rootfs) {
        // It was a layout all along.
        let folder = draft.folder().join("layout");
        fs::rename(rootfs, &folder)?;
        make_folder(rootfs)?;
        let image = layout::unpack_image(&folder, choice, rootfs, work).context(doing)?;
        fs::remove_dir_all(&folder)?;
        return Ok(Some(image));
    }
    refuse_choice(choice).context(doing)?;
    if rootfs.join("manifest.json").is_file() && rootfs.join("repositories").exists() {
        return Err(Error::unimplemented(
            "an archive of docker save without an OCI layout in it is not supported: make one \
             with skopeo copy docker-archive:FILE oci:FOLDER",
        ))
        .context(doing);
    }
    Ok(None)
}

/// A choice among images, where there are none.
fn refuse_choice(choice: &Choice) -> Result<()> {
    if choice.reference.is_some() || choice.platform.is_some() {
        return Err(Error::invalid(
            "it is not an OCI image layout: --ref and --platform choose an image of one",
        ));
    }
    Ok(())
}

/// config.json, from the default to the flags.
fn configure(
    image: Option<&Image>,
    template: Option<Value>,
    request: &Request,
    root: &Root,
) -> Result<Value> {
    let mut config = default::default();
    if let Some(image) = image {
        merge::merge(&mut config, image.patch()?);
        if let Some(user) = image.user() {
            settings::set_user(&mut config, root, &user).context(|| "the image's User")?;
        }
    }
    let template_args =
        template.as_ref().is_some_and(|template| template.pointer("/process/args").is_some());
    if let Some(template) = template {
        merge::merge(&mut config, template);
    }
    let settings = &request.settings;
    if !template_args || settings.entrypoint.is_some() || !settings.args.is_empty() {
        let command = settings.command(image.filter(|_| !template_args));
        if !command.is_empty() {
            settings::set(&mut config, &["process", "args"], command);
        }
    }
    settings.apply(&mut config, root)?;
    if let Some(backend) = &request.backend {
        settings::set(&mut config, &["annotations", BACKEND_ANNOTATION], backend.as_str());
    }
    Ok(config)
}

/// What a template may have broken is found now, and not when the container is to be made.
fn check(text: &str, draft: &Draft, backend: Option<BackendName>) -> Result<()> {
    validate::admit_draft(text.as_bytes(), draft.target(), draft.folder(), backend)?;
    spec::parse(text.as_bytes()).context(|| "config.json")?;
    serde_json::from_str::<oci_spec::runtime::Spec>(text)
        .map_err(|error| Error::invalid(format!("config.json: {error}")))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let mut file = File::create_new(path).context(doing)?;
    file.write_all(text.as_bytes()).context(doing)?;
    file.sync_all().context(doing)
}

#[cfg(test)]
mod tests;
