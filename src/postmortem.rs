//! Cleaning up after a supervisor that is gone: killed, or lost with its host's memory.
//!
//! Works from the record alone, needs no containerd, and may run any number of times. Every step
//! is tried whatever became of the one before.

use crate::backend::{self, Place};
use crate::error::{Error, Kind, Result};
use crate::exit::Exit;
use crate::store::{ProcessId, Record};
use crate::sys::mount::unmount;
use std::time::Duration;

/// How long the kernel may take to end a container's first process after everything in it was
/// killed: the first process of a pid namespace ends when the last of the others was reaped, and
/// those whose parent is outside are reaped there, which no cgroup shows.
const LAST: Duration = Duration::from_secs(1);

/// What there was to know of a dead container.
#[derive(Clone, Copy, Debug)]
pub struct Remains {
    /// The pid its first process had; 0 when that is not known.
    pub pid: i32,
    /// How it ended. The status is 137 when it was alive until now, 255 when nobody saw it end.
    pub exit: Exit,
}

/// Takes a container's folder. One whose record `is_taken` does not know for somebody's is a
/// leftover, and cleaned up first.
///
/// # Errors
/// `AlreadyExists`; what would not go.
pub async fn claim(place: &Place, is_taken: impl Fn(&Record) -> bool) -> Result<()> {
    match place.folder.create() {
        Err(error) if error.kind() == Kind::AlreadyExists => {}
        other => return other,
    }
    if place.folder.load().is_ok_and(|record| is_taken(&record)) {
        return Err(Error::already_exists(format!(
            "container {} already exists in namespace {}",
            place.id, place.namespace
        )));
    }
    log::warn!(container = place.id.as_str(); "cleaning up what an earlier supervisor left");
    clean(place).await?;
    place.folder.create()
}

/// Kills what lives of a container and removes what was made for it.
///
/// # Errors
/// Names everything that would not go.
pub async fn clean(place: &Place) -> Result<Remains> {
    let mut errors = Vec::new();
    let record = match place.folder.load() {
        Ok(record) => Some(record),
        Err(error) => {
            if error.kind() != Kind::NotFound {
                errors.push(error);
            }
            None
        }
    };
    let remains = match &record {
        Some(record) => bury(record, place, &mut errors).await,
        None => Remains { pid: 0, exit: Exit::unknown() },
    };
    // A bundle of somebody who called the command line is mounted by that somebody.
    let by_command = record.as_ref().is_some_and(|record| record.own.by_command);
    if place.bundle.is_absolute() && !by_command {
        errors.extend(unmount(&place.bundle.join("rootfs")).err());
    }
    if errors.is_empty() {
        errors.extend(place.folder.remove().err());
    }
    // A supervisor that still lives is told to forget this container, and ends if it has no other.
    let this = nix::unistd::getpid().as_raw();
    let supervisor = record.and_then(|record| record.own.supervisor);
    if let Some(supervisor) = supervisor.filter(|supervisor| supervisor.pid != this) {
        supervisor.signal(libc::SIGTERM);
    }
    Error::list(errors).map_or(Ok(remains), Err)
}

async fn bury(record: &Record, place: &Place, errors: &mut Vec<Error>) -> Remains {
    let own = &record.own;
    let was_alive = own.init.is_some_and(|init| init.signal(libc::SIGKILL));
    if let Some(cgroup) = &own.cgroup {
        errors.extend(cgroup.kill_all(libc::SIGKILL).err());
    }
    match backend::reopen(record, place.clone()) {
        Ok(backend) => {
            errors.extend(backend::delete_bounded(backend.as_ref(), true).await.err());
        }
        Err(error) => errors.push(error),
    }
    errors.extend(own.remove_cgroup().err());
    if let Some(init) = own.init
        && let Ok(ended) = tokio::time::timeout(LAST, init.ended()).await
    {
        errors.extend(ended.err());
    }
    if let Some(folder) = &own.rootfs_mount {
        errors.extend(unmount(folder).err());
    }
    let exit = match own.exit {
        Some(exit) => exit.into(),
        None if was_alive => Exit::signaled(libc::SIGKILL),
        None => Exit::unknown(),
    };
    Remains { pid: own.init.map_or(0, |init: ProcessId| init.pid), exit }
}
