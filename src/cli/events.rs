//! `events`: a container's figures, and what the kernel killed in it for lack of memory, as
//! `runc events` prints them.

use super::runtime::{Runtime, block_on};
use super::{Said, life};
use crate::error::{Context, Error, Kind, Result};
use crate::stats;
use crate::sys::oom::OomWatch;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

/// `nexcage events`
///
/// # Errors
/// `NotFound`; `FailedPrecondition` unless it runs; when it has no cgroup.
pub fn events(runtime: &Runtime, id: &str, interval: &str, once: bool) -> Result<Said> {
    let interval = humantime::parse_duration(interval)
        .ok()
        .filter(|interval| !interval.is_zero())
        .ok_or_else(|| Error::invalid(format!("--interval {interval:?}: wanted a time, as 5s")))?;
    let found = runtime.find(id)?;
    let cgroup = found.record.own.cgroup.clone().ok_or_else(|| {
        Error::precondition(format!("container {id} has no cgroup of its own to look at"))
    })?;
    let event = |kind: &str, data: Value| json!({ "type": kind, "id": id, "data": data });
    block_on(async {
        let init = life::init_of(&found)?;
        if once {
            return say(&event("stats", stats::as_event(&cgroup)?));
        }
        let mut oom = OomWatch::new(&cgroup)?;
        let mut tick = tokio::time::interval(interval);
        let mut ended = std::pin::pin!(ended(&init));
        loop {
            let killed = async {
                let counted = match &mut oom {
                    Some(oom) => oom.next().await,
                    None => false,
                };
                if !counted {
                    // Nothing is left that could be killed, or nothing is counted.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = killed => say(&event("oom", Value::Null))?,
                () = &mut ended => return Ok(()),
                _ = tick.tick() => match stats::as_event(&cgroup) {
                    Ok(figures) => say(&event("stats", figures))?,
                    // It is ending, and its cgroup went first.
                    Err(error) if error.kind() == Kind::NotFound => return Ok(()),
                    Err(error) => return Err(error),
                },
            }
        }
    })?;
    Ok(Said::default())
}

async fn ended(process: &crate::sys::handle::Process) {
    process.dying().await;
    // The kernel tells of a kill and of the death in one breath: the reason is printed first.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// A line at once: whoever reads wants it now.
fn say(event: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{event}").and_then(|()| out.flush()).context(|| "print an event")
}
