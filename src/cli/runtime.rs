//! What the OCI verbs share: the settings of this call, and the containers that there are.

use super::args::{CgroupManager, Global};
use crate::backend::{self, Backend, Place, background};
use crate::config::{self, BackendName, Config, Options};
use crate::error::{Context, Error, Kind, Result};
use crate::id::{ContainerId, Namespace};
use crate::route::{self, Subject};
use crate::spec::Spec;
use crate::store::{Folder, Record, Status};
use crate::sys::reaper;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The namespace of containers that are made on the command line. containerd's own have other
/// names, so that neither meets the other's ids.
pub const NAMESPACE: &str = "local";

/// How long work behind an answer may go on: Proxmox VE removes a guest in seconds.
const LAST_WORK: Duration = Duration::from_secs(60);

/// The settings of one call.
pub struct Runtime {
    /// The configuration, with the command line's flags on top.
    pub config: Config,
    namespace: Option<Namespace>,
}

impl Runtime {
    /// Reads the configuration.
    ///
    /// # Errors
    /// `InvalidArgument` for what is wrong with a flag or a file, `NotFound` for a file that
    /// `--config` names and that is not there.
    pub fn of(global: &Global) -> Result<Self> {
        if let Some(file) = &global.config {
            config::check(file)?;
        }
        let file = global.config.as_deref().unwrap_or(Path::new(config::FILE));
        let mut config = Config::load(file, &Options::default())?;
        if let Some(root) = &global.root {
            config.state_dir = absolute(root)?;
        }
        config.systemd_cgroup |= global.systemd_cgroup;
        if let Some(manager) = global.cgroup_manager {
            config.systemd_cgroup = manager == CgroupManager::Systemd;
        }
        let namespace = global.namespace.as_deref().map(Namespace::parse).transpose()?;
        let backend = global.runtime_type.as_deref().map(BackendName::parse).transpose();
        let backend = backend.context(|| "--runtime-type")?;
        config.runtime_type = backend;
        Ok(Self { config, namespace })
    }

    /// Where a new container is to be.
    ///
    /// # Errors
    /// `InvalidArgument` for an id that is none.
    pub fn place(&self, id: &str, bundle: PathBuf) -> Result<Place> {
        let id = ContainerId::parse(id)?;
        let namespace = match &self.namespace {
            Some(namespace) => namespace.clone(),
            None => Namespace::parse(NAMESPACE)?,
        };
        let folder = Folder::of(&self.config.state_dir, &namespace, &id);
        Ok(Place { namespace, id, bundle, folder })
    }

    /// The backend of a new container.
    ///
    /// # Errors
    /// As [`backend::open`]; `InvalidArgument` for an annotation that names none.
    pub fn open(&self, place: Place, spec: &Spec) -> Result<Box<dyn Backend>> {
        let subject = Subject::of(&place.namespace, &place.id, &spec.annotations);
        let decision = route::decide(&self.config, &subject)?;
        log::debug!("backend {}: {}", decision.backend, decision.reason);
        backend::open(decision.backend, &self.config, place, spec)
    }

    /// The backend of containers that do not choose one.
    pub fn backend(&self) -> BackendName {
        self.config.runtime_type.unwrap_or(self.config.default_container_type)
    }

    /// The namespaces that there is a folder for, and that this call is about.
    fn namespaces(&self) -> Result<Vec<Namespace>> {
        if let Some(namespace) = &self.namespace {
            return Ok(vec![namespace.clone()]);
        }
        let mut found: Vec<_> = names_in(&self.config.state_dir)?
            .iter()
            .filter_map(|name| Namespace::parse(name).ok())
            .collect();
        // Its own first.
        found.sort_by_key(|name| (name.as_str() != NAMESPACE, name.as_str().to_owned()));
        Ok(found)
    }

    /// The container of that id: the one made on the command line, else the only one of the name
    /// in another namespace.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` where several namespaces have one.
    pub fn find(&self, id: &str) -> Result<Found> {
        let missing = || {
            Error::not_found(format!(
                "container {}: container does not exist below {}",
                id.escape_debug(),
                self.config.state_dir.display()
            ))
        };
        let Ok(parsed) = ContainerId::parse(id) else { return Err(missing()) };
        let mut found = Vec::new();
        for namespace in self.namespaces()? {
            match Found::load(&self.config.state_dir, namespace, parsed.clone()) {
                Ok(container) if container.place.namespace.as_str() == NAMESPACE => {
                    return Ok(container);
                }
                Ok(container) => found.push(container),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let first = found.pop().ok_or_else(missing)?;
        if found.is_empty() {
            return Ok(first);
        }
        let others = found.iter().map(|other| other.place.namespace.as_str());
        let names: Vec<_> = others.chain([first.place.namespace.as_str()]).collect();
        Err(Error::invalid(format!(
            "container {id} is in the namespaces {}: say which one with --namespace",
            names.join(", ")
        )))
    }

    /// Every container that there is. What cannot be read is skipped, and the log says so.
    ///
    /// # Errors
    /// When the folder of state cannot be read.
    pub fn all(&self) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for namespace in self.namespaces()? {
            for name in names_in(&self.config.state_dir.join(namespace.as_str()))? {
                let Ok(id) = ContainerId::parse(&name) else { continue };
                match Found::load(&self.config.state_dir, namespace.clone(), id) {
                    Ok(found) => all.push(found),
                    // On its way in or out.
                    Err(error) if error.kind() == Kind::NotFound => {}
                    Err(error) => log::warn!("{error}"),
                }
            }
        }
        Ok(all)
    }
}

/// The names of the folders in a folder, which may be missing.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(|| format!("read {}", folder.display()))?,
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

/// A path as it is from every folder.
///
/// # Errors
/// When there is no working directory.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).context(|| format!("make {} absolute", path.display()))
}

/// A container that there is.
pub struct Found {
    /// Where it is.
    pub place: Place,
    /// Its record, as it was read last.
    pub record: Record,
}

impl Found {
    fn load(state_dir: &Path, namespace: Namespace, id: ContainerId) -> Result<Self> {
        let folder = Folder::of(state_dir, &namespace, &id);
        let record = folder.load()?;
        let bundle = record.bundle.clone();
        Ok(Self { place: Place { namespace, id, bundle, folder }, record })
    }

    /// Reads the record again: somebody may have changed it before the lock was had.
    ///
    /// # Errors
    /// `NotFound` when it is gone.
    pub fn reload(&mut self) -> Result<()> {
        self.record = self.place.folder.load()?;
        Ok(())
    }

    /// Where it is in its life: what the record says, unless its process, or whoever was making
    /// it, is not there any more.
    pub fn status(&self) -> Status {
        let own = &self.record.own;
        let alive = match self.record.status {
            Status::Creating => own.supervisor.is_some_and(|supervisor| supervisor.is_alive()),
            _ => own.init.is_some_and(|init| init.is_alive()),
        };
        if alive { self.record.status } else { Status::Stopped }
    }

    /// Refuses what a supervisor of containerd's has to do itself: it would not know of it.
    ///
    /// # Errors
    /// `FailedPrecondition`, with what to use.
    pub fn check_owner(&self, verb: &str) -> Result<()> {
        let own = &self.record.own;
        if own.by_command || !own.supervisor.is_some_and(|supervisor| supervisor.is_alive()) {
            return Ok(());
        }
        let (namespace, id) = (&self.place.namespace, &self.place.id);
        Err(Error::precondition(format!(
            "container {id} is containerd's, in namespace {namespace}: use \
             `ctr -n {namespace} task {verb} {id}`, or whatever made it"
        )))
    }

    /// Its backend.
    ///
    /// # Errors
    /// As [`backend::reopen`].
    pub fn backend(&self) -> Result<Box<dyn Backend>> {
        backend::reopen(&self.record, self.place.clone())
    }
}

/// Runs what waits, on one thread, with the commands it spawns reaped.
///
/// # Errors
/// What it says.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context(|| "start the runtime")?
        .block_on(async {
            reaper::start()?;
            let done = future.await;
            if !background::finished(LAST_WORK).await {
                log::warn!("a guest's removal goes on too long: `nexcage vmid reconcile` ends it");
            }
            done
        })
}
