//! Settings: where they come from, and what they are once every source has been read.
//!
//! A supervisor reads its settings once. Sources are laid over one another key by key, and each
//! must be right as a whole: an unknown key or a wrong type in any of them is an error that names
//! the source and the key, even when a later source sets the same key, because a mistyped setting
//! that is silently dropped is found only when it was needed.

pub(crate) mod input;
mod keys;
mod options;
#[cfg(test)]
mod tests;
mod value;

use crate::error::{Error, Result};
use crate::route::{Patterns, Rule};
use input::{Links, list, quoted, shown};
use keys::{Dialect, Merge};
pub(crate) use options::type_name;
pub use options::{Options, TYPES, from_any};
use std::fmt;
use std::path::{Path, PathBuf};
use value::{Format, Table, Value};

/// The administrator's file.
pub const FILE: &str = "/etc/nexcage/config.json";

/// The JSON Schema (draft 2020-12) of [`FILE`]. A test holds it against the parser.
pub const SCHEMA: &str = include_str!("config/schema.json");

/// The annotation by which a container chooses its own backend.
pub const BACKEND_ANNOTATION: &str = "io.nexcage.backend";

/// The largest configuration that is read, in bytes.
pub const MAX_SIZE: usize = 1 << 20;

/// A backend that a configuration may name. That it has a name does not mean that this build has
/// it: the registry of backends answers `Unimplemented` where one is used that it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendName {
    /// crun
    Crun,
    /// runc
    Runc,
    /// LXC's own tools
    Lxc,
    /// Proxmox VE's pct
    Pct,
}

impl BackendName {
    /// Every backend that has a name.
    pub const ALL: [Self; 4] = [Self::Crun, Self::Runc, Self::Lxc, Self::Pct];

    /// Takes a name from a configuration or an annotation.
    ///
    /// # Errors
    /// `InvalidArgument` that lists the names there are.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|backend| backend.as_str() == name).ok_or_else(|| {
            let known = list(&Self::ALL.map(Self::as_str));
            Error::invalid(format!("unknown backend {}; the backends are {known}", quoted(name)))
        })
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
            Self::Lxc => "lxc",
            Self::Pct => "pct",
        }
    }
}

impl fmt::Display for BackendName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Where an OCI runtime is and where it keeps its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciRuntime {
    /// An absolute path, or a bare name to look up in PATH.
    pub program: PathBuf,
    /// The folder for its state. One namespace knows nothing of another's ids, so each has a
    /// folder of its own below this one. Unset: a folder below `state_dir`.
    pub root: Option<PathBuf>,
}

/// LXC's own tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lxc {
    /// lxc-start: an absolute path, or a bare name to look up in PATH.
    pub program: PathBuf,
    /// How a guest ended is asked of LXC's monitor only, and never of the kernel.
    pub exit_by_monitor: bool,
}

/// Proxmox VE's pct, and the guests it is to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pct {
    /// An absolute path, or a bare name to look up in PATH.
    pub program: PathBuf,
    /// The lowest vmid that a guest may get.
    pub vmid_min: u32,
    /// The highest one.
    pub vmid_max: u32,
    /// The guest's configuration is written to the cluster file system by nexcage itself, which
    /// saves the second that `pct create` takes.
    pub direct_config: bool,
    /// The storage that a guest's root is copied to. Unset: the bundle's root is bound.
    pub storage: Option<String>,
    /// The size of such a volume, in GiB.
    pub disk_size: u32,
    /// Whether guests are unprivileged. Unset: as the bundle's user namespace says.
    pub unprivileged: Option<bool>,
}

impl Default for Pct {
    fn default() -> Self {
        Self {
            program: "pct".into(),
            // The far end of the ids that Proxmox VE hands out by itself (100 to 999999, lowest
            // first), so that those of people and of nexcage do not meet.
            vmid_min: 900_000,
            vmid_max: 999_999,
            direct_config: false,
            storage: None,
            disk_size: 8,
            unprivileged: None,
        }
    }
}

/// All settings, resolved. The keys and their meaning are those of [`SCHEMA`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The backend of a container that does not choose one.
    pub default_container_type: BackendName,
    /// The backend of a pod's sandbox.
    pub sandbox_backend: BackendName,
    /// The backend that the command line chose for everything.
    pub runtime_type: Option<BackendName>,
    /// The rules that choose a backend, in their order.
    pub routing: Vec<Rule>,
    /// Patterns of the names of containers that crun gets, after the rules.
    pub crun_name_patterns: Patterns,
    /// The default was set by the runtime's options, and the rules of files are not asked.
    pub default_by_options: bool,
    /// The folder for nexcage's own state; absolute.
    pub state_dir: PathBuf,
    /// The folder for what outlives a reboot; absolute.
    pub data_dir: PathBuf,
    /// crun
    pub crun: OciRuntime,
    /// runc
    pub runc: OciRuntime,
    /// LXC
    pub lxc: Lxc,
    /// pct
    pub pct: Pct,
    /// nexcage-init, the first process of LXC guests; absolute. Unset: beside the program itself,
    /// or where packages put it.
    pub init_path: Option<PathBuf>,
    /// Cgroups are made through systemd.
    pub systemd_cgroup: bool,
    /// The runtime moves the root with MS_MOVE instead of pivot_root.
    pub no_pivot_root: bool,
    /// The container keeps the caller's session keyring.
    pub no_new_keyring: bool,
    /// The cgroup that a supervisor moves itself to.
    pub shim_cgroup: Option<String>,
    /// The owner of the pipes that become a container's stdio.
    pub io_uid: u32,
    /// The group of those pipes.
    pub io_gid: u32,
    /// Where CRIU keeps the images of a checkpoint that names no folder; absolute.
    pub criu_image_path: Option<PathBuf>,
    /// Where CRIU keeps its logs; absolute.
    pub criu_work_path: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let runtime = |name: BackendName| OciRuntime { program: name.as_str().into(), root: None };
        Self {
            default_container_type: BackendName::Crun,
            sandbox_backend: BackendName::Crun,
            runtime_type: None,
            routing: Vec::new(),
            crun_name_patterns: Vec::new(),
            default_by_options: false,
            state_dir: "/run/nexcage".into(),
            data_dir: "/var/lib/nexcage".into(),
            crun: runtime(BackendName::Crun),
            runc: runtime(BackendName::Runc),
            lxc: Lxc { program: "lxc-start".into(), exit_by_monitor: false },
            init_path: None,
            pct: Pct::default(),
            systemd_cgroup: false,
            no_pivot_root: false,
            no_new_keyring: false,
            shim_cgroup: None,
            io_uid: 0,
            io_gid: 0,
            criu_image_path: None,
            criu_work_path: None,
        }
    }
}

impl Config {
    /// Reads every source, the later over the earlier: what is built in, `file` (usually [`FILE`];
    /// it may be missing), the file that ConfigPath names (it may not), ConfigBody, and a runc
    /// options message. Files are JSON or TOML; ConfigBody is the `options` table of containerd's
    /// configuration and may use runc's keys (BinaryName, SystemdCgroup, …) as well as ours.
    ///
    /// **BinaryName** says which program runs containers: an absolute path, or a name to look up
    /// in PATH. If its last part begins with `runc` or `crun`, it also chooses that backend, for
    /// containers and for a pod's sandbox (unless some source names `sandbox_backend`). Any other
    /// program must take crun's or runc's arguments, and runs in place of whichever of the two is
    /// the default backend. **Root** is the state folder of the backend that is then the default.
    ///
    /// Options that choose a default backend, and state no rules of their own, put the rules of
    /// files aside: who wrote them meant that backend for every container of that runtime.
    ///
    /// # Errors
    /// `InvalidArgument`, one line that names the source and the key.
    pub fn load(file: &Path, options: &Options) -> Result<Self> {
        let mut merge = Merge::default();
        if let Some(text) = input::read(file, MAX_SIZE, Links::Follow)? {
            apply_file(&mut merge, file, &text)?;
        }
        let body = value::parse(&options.body, Format::of(&options.body)).map_err(sent)?;
        if let Some(path) = config_path(options, &body).map_err(sent)? {
            let text = input::read(&path, MAX_SIZE, Links::Follow)?.ok_or_else(|| {
                sent(Error::invalid(format!("ConfigPath: there is no file {}", shown(&path))))
            })?;
            apply_file(&mut merge, &path, &text)?;
        }
        merge.apply(body, Dialect::Containerd).map_err(sent)?;
        merge.apply(options.runc.clone(), Dialect::Containerd).map_err(sent)?;
        merge.finish()
    }
}

/// Reads one file as [`Config::load`] would, for its errors.
///
/// # Errors
/// As [`Config::load`]; a missing file is one.
pub fn check(file: &Path) -> Result<()> {
    let text = input::read(file, MAX_SIZE, Links::Follow)?
        .ok_or_else(|| Error::not_found(format!("there is no file {}", shown(file))))?;
    let mut merge = Merge::default();
    apply_file(&mut merge, file, &text)?;
    merge.finish().map(drop).map_err(|error| error.context(shown(file)))
}

fn sent(error: Error) -> Error {
    error.context("options sent by containerd")
}

fn apply_file(merge: &mut Merge, path: &Path, text: &[u8]) -> Result<()> {
    // A suffix that states the format makes for better messages than guessing from broken text.
    let format = match path.extension().and_then(|suffix| suffix.to_str()) {
        Some("json") => Format::Json,
        Some("toml") => Format::Toml,
        _ => Format::of(text),
    };
    value::parse(text, format)
        .and_then(|table| merge.apply(table, Dialect::Own))
        .map_err(|error| error.context(shown(path)))
}

/// The file that the options name. CRI sends no body along with a path, but others may, and then
/// the path stands in the body too.
fn config_path(options: &Options, body: &Table) -> Result<Option<PathBuf>> {
    let inside = match body.get("ConfigPath") {
        Some(Value::Text(path)) if !path.is_empty() => Some(PathBuf::from(path)),
        _ => None,
    };
    let path = match (&options.path, inside) {
        (Some(outer), Some(inner)) if *outer != inner => {
            return Err(Error::invalid(format!(
                "ConfigPath is both {} and {}",
                shown(outer),
                shown(&inner)
            )));
        }
        (outer, inner) => outer.clone().or(inner),
    };
    // A supervisor's working folder is its container's bundle, where no configuration belongs.
    match path {
        Some(path) if !path.is_absolute() => Err(Error::invalid(format!(
            "ConfigPath: found {}, wanted an absolute path",
            quoted(&path.to_string_lossy())
        ))),
        path => Ok(path),
    }
}
