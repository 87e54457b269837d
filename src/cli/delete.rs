//! `kill` and `delete`.

use super::args::Kill;
use super::runtime::{Runtime, block_on};
use super::{Said, signals};
use crate::backend::Place;
use crate::error::{Context, Error, Kind, Result};
use crate::postmortem;
use crate::store::{Own, Status};

/// `nexcage kill`
///
/// # Errors
/// `NotFound`, `InvalidArgument` for a signal that does not exist, `FailedPrecondition` when its
/// process has ended or is not there yet.
pub fn kill(runtime: &Runtime, args: &Kill) -> Result<Said> {
    let signal = signals::parse(&args.signal)?;
    let found = runtime.find(&args.id)?;
    let own = &found.record.own;
    let mut reached = false;
    if args.all
        && let Some(cgroup) = &own.cgroup
    {
        reached = cgroup.kill_all(signal)? > 0;
        // Whoever wants everything gone has what it wants.
        reached |= found.status() == Status::Stopped;
    }
    reached = reached || own.init.is_some_and(|init| init.signal(signal));
    if !reached {
        let id = &found.place.id;
        return Err(match found.status() {
            Status::Creating => {
                Error::precondition(format!("cannot kill container {id}: it is being created"))
            }
            _ => Error::precondition(format!("cannot kill container {id}: container not running")),
        });
    }
    if signal == libc::SIGKILL
        && let Some(cgroup) = &own.cgroup
    {
        cgroup.let_die().context(|| format!("kill container {}", args.id))?;
    }
    Ok(Said::default())
}

/// `nexcage delete`
///
/// # Errors
/// `NotFound` (unless by force), `FailedPrecondition` unless it is stopped (or by force); what
/// would not go.
pub fn delete(runtime: &Runtime, id: &str, force: bool) -> Result<Said> {
    let mut found = match runtime.find(id) {
        Err(error) if force && error.kind() == Kind::NotFound => return Ok(Said::default()),
        found => found?,
    };
    let doing = || format!("delete container {id}");
    found.check_owner("delete").context(doing)?;
    if force {
        end(&found.record.own);
    } else if found.status() == Status::Creating {
        // Whoever makes it has the lock, and may never give it back.
        return Err(not_stopped(id, Status::Creating));
    }
    let lock = match found.place.folder.lock().and_then(|lock| found.reload().map(|()| lock)) {
        // Somebody else was faster.
        Err(error) if force && error.kind() == Kind::NotFound => return Ok(Said::default()),
        lock => lock.context(doing)?,
    };
    let status = found.status();
    if !force && status != Status::Stopped {
        return Err(not_stopped(id, status));
    }
    block_on(remove(&found.place)).context(doing)?;
    drop(lock);
    Ok(Said::default())
}

/// Ends what may hold the lock for as long as it lives: the container's process, whom a start or a
/// stop waits for, and a command that is making it.
fn end(own: &Own) {
    for process in [own.maker, own.init].into_iter().flatten() {
        process.signal(libc::SIGKILL);
    }
    if let Some(cgroup) = &own.cgroup {
        // What cannot be thawed is told of when all in it is killed.
        drop(cgroup.let_die());
    }
}

fn not_stopped(id: &str, status: Status) -> Error {
    let name = serde_json::to_value(status).ok();
    let name = name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
    Error::precondition(format!("cannot delete container {id} that is not stopped: {name}"))
}

/// Kills what is left of it, and removes all that was made for it.
///
/// # Errors
/// Names what would not go.
pub async fn remove(place: &Place) -> Result<()> {
    postmortem::clean(place).await.map(drop)
}
