//! state.json: what outlives the supervisor.
//!
//! One folder a container, `<state>/<namespace>/<id>/`, mode 0700. The record in it is the OCI
//! state (runtime-spec, "State") with nexcage's own part under one key, so any tool that reads
//! OCI state reads it. It is written whole: a temporary file in the same folder, fsync, rename,
//! fsync of the folder. A reader sees the old record or the new, never half.

use crate::error::{Context, Error, Kind, Result};
use crate::exit::Exit;
use crate::id::{ContainerId, Namespace};
use crate::sys::cgroup::Cgroup;
use crate::sys::{pidfd, process};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where state lives unless the configuration says otherwise.
pub const DEFAULT_DIR: &str = "/run/nexcage";

/// A record larger than this was not written by nexcage.
const MAX_RECORD: u64 = 4 << 20;

/// The status words of the OCI state, and the one that runc and crun add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The backend is at work on it.
    Creating,
    /// Its init waits for the start.
    Created,
    /// Its process runs.
    Running,
    /// Its process is frozen.
    Paused,
    /// Its process has ended.
    Stopped,
}

/// A process that can be told from a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    /// Its pid.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub start_time: u64,
}

impl ProcessId {
    /// The process of that pid, if it lives.
    pub fn of(pid: i32) -> Option<Self> {
        process::start_time(pid).map(|start_time| Self { pid, start_time })
    }

    /// Whether it still lives.
    pub fn is_alive(self) -> bool {
        process::start_time(self.pid) == Some(self.start_time)
    }

    /// Sends it a signal; returns whether it was there.
    pub fn signal(self, number: i32) -> bool {
        process::signal_if_same(self.pid, self.start_time, number)
    }

    /// Waits for its end; returns at once if it has ended. To be called in a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub async fn ended(self) -> Result<()> {
        match pidfd::open(self.pid) {
            Ok(fd) if self.is_alive() => pidfd::ended(fd).await,
            _ => Ok(()),
        }
    }
}

/// An exit as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitRecord {
    /// As in [`Exit::status`].
    pub status: u32,
    /// Nanoseconds since 1970.
    pub at: u64,
    /// The status stands for one that nobody knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
}

impl From<Exit> for ExitRecord {
    fn from(exit: Exit) -> Self {
        let since = exit.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        Self { status: exit.status, at, unknown: !exit.known }
    }
}

impl From<ExitRecord> for Exit {
    fn from(record: ExitRecord) -> Self {
        let at: SystemTime = UNIX_EPOCH + Duration::from_nanos(record.at);
        Self { status: record.status, at, known: !record.unknown }
    }
}

/// Nexcage's own part of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Own {
    /// 1. A reader refuses a number it does not know.
    pub version: u32,
    /// containerd's namespace.
    pub namespace: String,
    /// The backend's name.
    pub backend: String,
    /// The runtime binary that made the container, as it was found.
    pub runtime: PathBuf,
    /// The runtime's own state (`--root`).
    pub runtime_root: PathBuf,
    /// Whether the runtime was told to use systemd for cgroups.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub systemd_cgroup: bool,
    /// nexcage-init where the configuration says that it is, for guests of LXC's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_path: Option<PathBuf>,
    /// The supervisor.
    pub supervisor: Option<ProcessId>,
    /// Made by the command line: the supervisor only watches, and commands may act on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_command: bool,
    /// The command that is making it, until it is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maker: Option<ProcessId>,
    /// When it was created, in nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<u64>,
    /// The container's first process.
    pub init: Option<ProcessId>,
    /// LXC's monitor, where the container is a guest of LXC's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<ProcessId>,
    /// The container's cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
    /// Where config.json wants the cgroup, if it says so by path: all that is known of the cgroup
    /// until the container is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroups_path: Option<String>,
    /// The folder that snapshot mounts were put on, when there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs_mount: Option<PathBuf>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitRecord>,
}

impl Own {
    /// Kills what is left in the container's cgroup, and removes that.
    ///
    /// # Errors
    /// Names what would not go; no cgroup is success.
    pub fn remove_cgroup(&self) -> Result<()> {
        let cgroup = match (&self.cgroup, &self.cgroups_path) {
            (Some(cgroup), _) => Some(cgroup.clone()),
            (None, Some(path)) => Cgroup::at(path)?,
            (None, None) => None,
        };
        let Some(cgroup) = cgroup else { return Ok(()) };
        cgroup.kill_all(libc::SIGKILL)?;
        cgroup.remove()
    }
}

/// A container's record (state.json).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The runtime-spec version of the bundle.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Where it is in its life.
    pub status: Status,
    /// The host's pid of its first process, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The bundle's absolute path.
    pub bundle: PathBuf,
    /// The bundle's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What is not the OCI state's.
    #[serde(rename = "io.nexcage")]
    pub own: Own,
}

impl Record {
    /// Notes the container's first process, and its cgroup if nobody else's processes are in it.
    pub fn note_init(&mut self, pid: i32, cgroup: Option<Cgroup>) {
        self.pid = Some(pid);
        self.own.init = ProcessId::of(pid);
        self.own.cgroup = cgroup;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.own.created = u64::try_from(since.as_nanos()).ok();
    }

    /// Notes that the container's first process has ended, and how.
    pub fn note_exit(&mut self, exit: Exit) {
        self.status = Status::Stopped;
        self.pid = None;
        self.own.exit = Some(exit.into());
    }
}

/// Held by whoever changes a container's record, among processes that may do so at once.
pub struct Lock {
    _file: Flock<File>,
}

/// One container's folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder of a container; nothing is made.
    pub fn of(state_dir: &Path, namespace: &Namespace, id: &ContainerId) -> Self {
        Self(state_dir.join(namespace.as_str()).join(id.as_str()))
    }

    /// One that was found, at this path.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, readable by root alone.
    ///
    /// # Errors
    /// `AlreadyExists` when it is there.
    pub fn create(&self) -> Result<()> {
        if let Some(parent) = self.0.parent() {
            create_private(parent)?;
        }
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.0)
            .context(|| format!("make {}", self.0.display()))
    }

    /// Removes it with all that is in it. Nothing there is success.
    ///
    /// # Errors
    /// Names what could not be removed.
    pub fn remove(&self) -> Result<()> {
        let gone = || match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        // A supervisor that lives, and is being cleaned up after, may write in this very moment.
        gone().or_else(|_| gone()).context(|| format!("remove {}", self.0.display()))
    }

    /// Waits until nobody else changes the record.
    ///
    /// # Errors
    /// `NotFound` when the folder is gone, also when it went meanwhile.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.0.join("lock");
        let doing = || format!("lock {}", path.display());
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .context(doing)?;
        let file = loop {
            match Flock::lock(file.try_clone().context(doing)?, FlockArg::LockExclusive) {
                Ok(locked) => break locked,
                Err((_, Errno::EINTR)) => {}
                Err((_, errno)) => return Err(errno).context(doing),
            }
        };
        let (held, there) = (file.metadata().context(doing)?, fs::metadata(&path).context(doing)?);
        if (held.dev(), held.ino()) != (there.dev(), there.ino()) {
            return Err(Error::not_found(format!("{}: it is gone", path.display())));
        }
        Ok(Lock { _file: file })
    }

    /// Reads the record.
    ///
    /// # Errors
    /// `NotFound` when there is none; `Unknown` when it is not nexcage's or of a version that
    /// this program does not know.
    pub fn load(&self) -> Result<Record> {
        let path = self.0.join("state.json");
        let mut text = String::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_RECORD).read_to_string(&mut text))
            .context(|| format!("read {}", path.display()))?;
        parse(&text).context(|| format!("read {}", path.display()))
    }

    /// Writes the record so that no reader ever sees half of one.
    ///
    /// # Errors
    /// The old record, if any, is then still there.
    pub fn save(&self, record: &Record) -> Result<()> {
        let new = self.0.join("state.json.new");
        self.write(&new, record).context(|| format!("write {}", new.display()))
    }

    fn write(&self, new: &Path, record: &Record) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|error| Error::unknown(error.to_string()))?;
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(new, self.0.join("state.json"))?;
        File::open(&self.0)?.sync_all()?;
        Ok(())
    }
}

/// The name under which a bundle points to its container's folder.
const NOTE: &str = "nexcage";

/// Notes in the bundle where its state is: the `delete` program gets no options, and could not
/// know of a state folder that they set.
///
/// # Errors
/// Names the link.
pub fn note_in(bundle: &Path, folder: &Folder) -> Result<()> {
    let link = bundle.join(NOTE);
    match std::os::unix::fs::symlink(&folder.0, &link) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            fs::remove_file(&link)?;
            std::os::unix::fs::symlink(&folder.0, &link)
        }
        made => made,
    }
    .context(|| format!("write {}", link.display()))
}

/// What [`note_in`] has noted.
pub fn noted_in(bundle: &Path) -> Option<Folder> {
    fs::read_link(bundle.join(NOTE)).ok().filter(|folder| folder.is_absolute()).map(Folder)
}

/// Reads a record's text.
fn parse(text: &str) -> Result<Record> {
    let record: Record = serde_json::from_str(text)
        .map_err(|error| Error::unknown(format!("not a record of nexcage: {error}")))?;
    match record.own.version {
        1 => Ok(record),
        other => Err(Error::new(
            Kind::FailedPrecondition,
            format!("version {other} of the record is newer than this nexcage: upgrade it"),
        )),
    }
}

/// Makes a folder and its parents, readable by root alone.
///
/// # Errors
/// Names the folder.
pub fn create_private(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(path)
        .context(|| format!("make {}", path.display()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The record of a sandbox that runs on crun, and whose process is this one.
    pub(crate) fn sandbox(namespace: &Namespace, id: &str) -> Record {
        let pid = std::process::id().cast_signed();
        Record {
            oci_version: "1.2.0".to_owned(),
            id: id.to_owned(),
            status: Status::Running,
            pid: Some(pid),
            bundle: "/b".into(),
            annotations: BTreeMap::new(),
            own: Own {
                version: 1,
                namespace: namespace.to_string(),
                backend: "crun".to_owned(),
                runtime: "/usr/bin/crun".into(),
                runtime_root: "/r".into(),
                systemd_cgroup: false,
                supervisor: None,
                init: ProcessId::of(pid),
                monitor: None,
                cgroup: None,
                cgroups_path: None,
                rootfs_mount: None,
                exit: None,
                by_command: false,
                maker: None,
                created: None,
                init_path: None,
            },
        }
    }
}
