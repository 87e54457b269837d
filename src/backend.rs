//! What runs a container. A backend is one file; this one holds what it must do, and the list of
//! those there are.
//!
//! A value is one container's backend: it knows the container's id, bundle and folder. Signals,
//! process lists and statistics are not here: a pid and a cgroup are enough for them, and they
//! must work while a backend's command hangs.

pub mod background;
pub mod features;
pub mod lxc;
pub mod oci;
pub mod pct;

use crate::config::{BackendName, Config};
use crate::error::{Error, Result};
use crate::id::{ContainerId, ExecId, Namespace};
use crate::spec::Spec;
use crate::stdio::ChildIo;
use crate::store::{Folder, Own, ProcessId, Record, Status};
use crate::sys::cgroup::Cgroup;
use crate::sys::handle::Process;
use crate::sys::pidfd::ExitSource;
use async_trait::async_trait;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where one container is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its id.
    pub id: ContainerId,
    /// Its bundle, an absolute path.
    pub bundle: PathBuf,
    /// Its folder of state, which exists.
    pub folder: Folder,
}

/// The fds a process begins with, and the socket that its console is sent to, if it has one.
pub struct ProcessIo {
    /// Standard input, output and error.
    pub child: ChildIo,
    /// Where the runtime sends the terminal's master.
    pub console_socket: Option<PathBuf>,
    /// What the command line alone asks for.
    pub more: More,
}

/// What the caller of an OCI runtime may ask for beside a process's stdio.
#[derive(Default)]
pub struct More {
    /// Fds that the process gets as 3 and on.
    pub fds: Vec<OwnedFd>,
    /// How many of them, from the first, are sockets of systemd's (sd_listen_fds(3)).
    pub listen: usize,
    /// Flags of a runtime's command that are passed on as they are.
    pub flags: Vec<String>,
}

impl More {
    /// How many fds there are, and how many of them are sockets of systemd's.
    ///
    /// # Errors
    /// `InvalidArgument` for more than any process can have open.
    pub fn counts(&self) -> Result<(u32, u32)> {
        let count = |count: usize| u32::try_from(count).ok();
        count(self.fds.len())
            .zip(count(self.listen))
            .ok_or_else(|| Error::invalid("more fds than a process can have open"))
    }

    /// What a backend says that has no command to pass flags on to.
    ///
    /// # Errors
    /// `Unimplemented`, which names what was asked for.
    pub fn refuse_flags(&self) -> Result<()> {
        if self.flags.is_empty() {
            return Ok(());
        }
        let flags = self.flags.join(" ");
        Err(Error::unimplemented(format!("a guest of LXC's does not have {flags}")))
    }
}

/// What a checkpoint is to contain (containerd.runc.v1.CheckpointOptions).
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Folder of the image.
    pub image: PathBuf,
    /// Folder for criu's own files; empty for the runtime's choice.
    pub work: PathBuf,
    /// Whether the container ends with it.
    pub exit: bool,
    /// Open TCP connections are kept.
    pub open_tcp: bool,
    /// Unix sockets with a peer outside are kept.
    pub external_unix_sockets: bool,
    /// Terminals are kept.
    pub terminal: bool,
    /// File locks are kept.
    pub file_locks: bool,
    /// Namespaces made empty on restore.
    pub empty_namespaces: Vec<String>,
    /// `soft`, `full`, `strict` or `ignore`; empty for the runtime's choice.
    pub cgroups_mode: String,
    /// Flags of the runtime's command that are passed on as they are.
    pub flags: Vec<String>,
}

/// Drives one container. Dropping a future of these kills the command that it waits for, so a
/// hanging command can always be given up.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Its name in configurations, errors and state.
    fn name(&self) -> &'static str;

    /// Writes into the record what [`reopen`] needs; before the creation, and once more after it.
    fn record(&self, own: &mut Own);

    /// Makes the container; its init waits for [`Backend::start`].
    async fn create(&self, io: ProcessIo) -> Result<Process>;

    /// Lets the init become the container's process.
    async fn start(&self) -> Result<()>;

    /// Removes what the backend keeps of a container; with `force` a running one too. A container
    /// that the backend does not know is success.
    async fn delete(&self, force: bool) -> Result<()>;

    /// Runs one more process in the container, described by the JSON of runtime-spec's `process`.
    async fn exec(&self, exec: &ExecId, process: &[u8], io: ProcessIo) -> Result<Process>;

    /// The cgroup of the container once it is created, where that is not simply the one that its
    /// first process is in.
    fn cgroup(&self) -> Option<Cgroup> {
        None
    }

    /// What has to stay open until the start, once this process has created the container and is
    /// not the one that will start it.
    fn hand_over(&self) -> Option<OwnedFd> {
        None
    }

    /// Where it will be told how the first process of the container that this process has created
    /// ends, for the one that watches it from now on; see [`Backend::watch`].
    fn teller(&self) -> Option<OwnedFd> {
        None
    }

    /// Who knows how the container's first process will have ended, in the process that watches it
    /// in place of the one that has created it. `told` is what [`Backend::teller`] gave there. To be
    /// called in a tokio runtime.
    ///
    /// # Errors
    /// When the one who tells cannot be heard.
    fn watch(&self, told: Option<OwnedFd>) -> Result<ExitSource> {
        drop(told);
        Ok(ExitSource::at_hand())
    }

    /// Takes what [`Backend::hand_over`] gave in the process that created the container.
    ///
    /// # Errors
    /// When it is not this backend's.
    fn take_over(&self, kept: OwnedFd) -> Result<()> {
        drop(kept);
        Err(self.lacks("start by another process"))
    }

    /// Freezes every process.
    async fn pause(&self) -> Result<()> {
        Err(self.lacks("pause"))
    }

    /// Thaws every process.
    async fn resume(&self) -> Result<()> {
        Err(self.lacks("resume"))
    }

    /// Changes limits to those of runtime-spec's `linux.resources`, in JSON.
    async fn update(&self, resources: &[u8]) -> Result<()> {
        let _ = resources;
        Err(self.lacks("update"))
    }

    /// Writes the container's processes to an image.
    async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<()> {
        let _ = checkpoint;
        Err(self.lacks("checkpoint"))
    }

    /// Makes and starts the container from such an image.
    async fn restore(&self, image: &Path, io: ProcessIo) -> Result<Process> {
        let _ = (image, io);
        Err(self.lacks("restore"))
    }

    /// The error of an operation that this backend does not have.
    fn lacks(&self, operation: &str) -> Error {
        Error::unimplemented(format!("the backend {} has no {operation}", self.name()))
    }
}

/// How long a backend may take to remove a container before its command is given up. containerd
/// gives a clean-up 5 s in all.
const DELETE: Duration = Duration::from_secs(3);

/// [`Backend::delete`], within a bound.
///
/// # Errors
/// `DeadlineExceeded` when it hangs; what the backend says.
pub async fn delete_bounded(backend: &dyn Backend, force: bool) -> Result<()> {
    tokio::time::timeout(DELETE, backend.delete(force)).await.unwrap_or_else(|_| {
        Err(Error::deadline(format!(
            "{} delete{} did not end in {} s and was killed",
            backend.name(),
            if force { " --force" } else { "" },
            DELETE.as_secs()
        )))
    })
}

/// The backend of that name for a new container.
///
/// # Errors
/// `Unavailable` when its program is not on this host, `Unimplemented` when this build does not
/// have it; both say what to do.
pub fn open(
    name: BackendName,
    config: &Config,
    place: Place,
    spec: &Spec,
) -> Result<Box<dyn Backend>> {
    match name {
        BackendName::Crun | BackendName::Runc => {
            let path = spec.cgroups_path.as_deref();
            let settings = oci::Settings::of(name, config, &place)?.for_cgroup(path);
            Ok(Box::new(oci::Oci::new(name, settings, place, &spec.oci_version)))
        }
        BackendName::Lxc => {
            let settings = lxc::Settings::of(config)?;
            Ok(Box::new(lxc::Lxc::new(place, settings, spec.cgroups_path.as_deref())?))
        }
        BackendName::Pct => Ok(Box::new(pct::Pct::new(place, pct::Settings::of(config)?))),
    }
}

/// The record of a container that is about to be made, by this process.
pub fn new_record(
    place: &Place,
    backend: &dyn Backend,
    spec: Spec,
    rootfs: Option<&Path>,
) -> Record {
    let mut own = Own {
        version: 1,
        namespace: place.namespace.as_str().to_owned(),
        backend: backend.name().to_owned(),
        runtime: PathBuf::new(),
        runtime_root: PathBuf::new(),
        systemd_cgroup: false,
        init_path: None,
        supervisor: ProcessId::of(nix::unistd::getpid().as_raw()),
        by_command: false,
        maker: None,
        created: None,
        init: None,
        monitor: None,
        cgroup: None,
        cgroups_path: spec.cgroups_path.filter(|path| path.starts_with('/')),
        rootfs_mount: rootfs.map(Path::to_owned),
        exit: None,
    };
    backend.record(&mut own);
    Record {
        oci_version: spec.oci_version,
        id: place.id.as_str().to_owned(),
        status: Status::Creating,
        pid: None,
        bundle: place.bundle.clone(),
        annotations: spec.annotations,
        own,
    }
}

/// Takes the cgroup that config.json names out of the record if it had processes in it before the
/// container, and says whether it had: then it is neither to be killed nor to be removed, whatever
/// becomes of the container.
///
/// # Errors
/// `InvalidArgument` for a path that is no container's.
pub fn disown_cgroup(record: &mut Record) -> Result<bool> {
    let shared = match &record.own.cgroups_path {
        Some(path) => Cgroup::at(path)?.is_some_and(|cgroup| !cgroup.pids().is_empty()),
        None => false,
    };
    if shared {
        record.own.cgroups_path = None;
    }
    Ok(shared)
}

/// The cgroup of a container whose first process has that pid, as soon as it is created.
pub fn cgroup_of(backend: &dyn Backend, pid: i32) -> Option<Cgroup> {
    let found = match backend.cgroup() {
        Some(cgroup) => Ok(Some(cgroup)),
        None => Cgroup::of(pid),
    };
    found.unwrap_or_else(|error| {
        log::warn!("no cgroup to watch: {error}");
        None
    })
}

/// Undoes a creation that has failed half way; what would not go.
pub async fn undo(backend: &dyn Backend, record: Option<&Record>) -> Vec<Error> {
    let mut errors = Vec::new();
    errors.extend(delete_bounded(backend, true).await.err());
    errors.extend(record.and_then(|record| record.own.remove_cgroup().err()));
    errors
}

/// The backend that made a recorded container.
///
/// # Errors
/// As [`open`].
pub fn reopen(record: &Record, place: Place) -> Result<Box<dyn Backend>> {
    let name = BackendName::parse(&record.own.backend)?;
    match name {
        BackendName::Crun | BackendName::Runc => {
            let settings = oci::Settings::recorded(&record.own);
            Ok(Box::new(oci::Oci::new(name, settings, place, &record.oci_version)))
        }
        BackendName::Lxc => Ok(Box::new(lxc::Lxc::reopen(place, &record.own)?)),
        BackendName::Pct => Ok(Box::new(pct::Pct::reopen(place, &record.own))),
    }
}
