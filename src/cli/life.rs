//! `start`, `pause`, `resume`, `update`: what changes a container that there is.

use super::Said;
use super::args::Update;
use super::runtime::{Found, Runtime, block_on};
use super::{delete, watcher};
use crate::backend::{Backend, Checkpoint};
use crate::container::{CHECKPOINT_END, GRACE, Op, unless_dead};
use crate::error::{Context, Error, Result};
use crate::spec;
use crate::store::Status;
use crate::sys::handle::Process;
use crate::sys::pidfd::{self, ExitSource, Foreign};
use std::io::Read;
use std::path::Path;

/// `nexcage start`
///
/// # Errors
/// `NotFound`, `FailedPrecondition` unless it is created; what the backend says.
pub fn start(runtime: &Runtime, id: &str) -> Result<Said> {
    change(runtime, id, "start", Op::Start, Some(Status::Running), async |found, backend| {
        if let Some(kept) = watcher::kept_for_start(&found.place)? {
            backend.take_over(kept)?;
        }
        backend.start().await
    })
}

/// `nexcage pause`
///
/// # Errors
/// `NotFound`, `FailedPrecondition` unless it runs; what the backend says.
pub fn pause(runtime: &Runtime, id: &str) -> Result<Said> {
    let status = Some(Status::Paused);
    change(runtime, id, "pause", Op::Pause, status, async |_, backend| backend.pause().await)
}

/// `nexcage resume`
///
/// # Errors
/// `NotFound`, `FailedPrecondition` unless it is paused; what the backend says.
pub fn resume(runtime: &Runtime, id: &str) -> Result<Said> {
    let status = Some(Status::Running);
    change(runtime, id, "resume", Op::Resume, status, async |_, backend| backend.resume().await)
}

/// `nexcage update`
///
/// # Errors
/// `NotFound`, `InvalidArgument` for a limit that is none; what the backend says.
pub fn update(runtime: &Runtime, args: &Update) -> Result<Said> {
    let resources = match &args.resources {
        Some(file) => read(file)?,
        None => super::limits::resources(args)?.to_string().into_bytes(),
    };
    spec::parse_resources(&resources)?;
    change(runtime, &args.id, "update", Op::Update, None, async |_, backend| {
        backend.update(&resources).await
    })
}

/// Writes it to an image, and removes it if that is to be its end.
///
/// # Errors
/// As for `nexcage checkpoint`.
pub fn checkpoint(runtime: &Runtime, id: &str, what: &Checkpoint) -> Result<Said> {
    let said = change(runtime, id, "checkpoint", Op::Checkpoint, None, async |_, backend| {
        backend.checkpoint(what).await
    })?;
    if !what.exit {
        return Ok(said);
    }
    // As with crun and runc, the image is all that is left: a restore may take the same id.
    delete::delete(runtime, id, true)
}

/// A file, or standard input for `-`.
fn read(file: &Path) -> Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        let limit = u64::try_from(spec::MAX_REQUEST).unwrap_or(u64::MAX).saturating_add(1);
        std::io::stdin()
            .take(limit)
            .read_to_end(&mut bytes)
            .context(|| "read the resources from standard input")?;
        return Ok(bytes);
    }
    std::fs::read(file).context(|| format!("read {}", file.display()))
}

/// The container's first process, which may be anybody's child.
///
/// # Errors
/// `FailedPrecondition` when it has ended.
pub fn init_of(found: &Found) -> Result<Process> {
    let ended =
        || Error::precondition(format!("container {}: container not running", found.place.id));
    let init = found.record.own.init.ok_or_else(ended)?;
    let fd = pidfd::open(init.pid).map_err(|_| ended())?;
    if !init.is_alive() {
        return Err(ended());
    }
    Foreign::watch(init.pid, fd, ExitSource::at_hand()).map(Process::Foreign)
}

/// Does one thing to a container, alone, and writes down what it then is.
fn change(
    runtime: &Runtime,
    id: &str,
    verb: &str,
    op: Op,
    then: Option<Status>,
    act: impl AsyncFnOnce(&Found, &dyn Backend) -> Result<()>,
) -> Result<Said> {
    let mut found = runtime.find(id)?;
    let doing = || format!("{verb} container {id}");
    found.check_owner(verb).context(doing)?;
    if found.status() == Status::Creating {
        // Whoever makes it has the lock, and may never give it back.
        op.allowed_when(Status::Creating).context(doing)?;
    }
    let _lock = found.place.folder.lock().context(doing)?;
    found.reload().context(doing)?;
    op.allowed_when(found.status()).context(doing)?;
    let backend = found.backend().context(doing)?;
    block_on(async {
        let init = init_of(&found)?;
        let grace = if op == Op::Checkpoint { CHECKPOINT_END } else { GRACE };
        unless_dead(&init, grace, act(&found, backend.as_ref())).await
    })
    .context(doing)?;
    if let Some(status) = then {
        found.record.status = status;
        found.place.folder.save(&found.record).context(doing)?;
    }
    Ok(Said::default())
}
