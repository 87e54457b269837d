//! `state`, `list` and `ps`: what there is.

use super::Said;
use super::args::Format;
use super::runtime::{Found, Runtime};
use crate::error::{Context, Error, Result};
use crate::exit::Exit;
use crate::spec;
use crate::store::Status;
use serde_json::{Value, json};
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `nexcage state`
///
/// # Errors
/// `NotFound`.
pub fn state(runtime: &Runtime, id: &str) -> Result<Said> {
    let found = runtime.find(id)?;
    Ok(Said { out: format!("{:#}\n", described(&found)), ..Said::default() })
}

/// `nexcage list`
///
/// # Errors
/// When the folder of state cannot be read.
pub fn list(runtime: &Runtime, format: Format, quiet: bool) -> Result<Said> {
    let all = runtime.all()?;
    let mut out = String::new();
    if quiet {
        out.extend(all.iter().map(|found| format!("{}\n", found.place.id)));
    } else if format == Format::Json {
        let all: Vec<_> = all.iter().map(described).collect();
        out = format!("{}\n", json!(all));
    } else {
        let heads = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER", "NAMESPACE", "BACKEND"];
        let mut rows = vec![heads.map(str::to_owned)];
        rows.extend(all.iter().map(|found| {
            let state = described(found);
            let text = |key: &str| match &state[key] {
                Value::String(text) => text.clone(),
                Value::Null => "-".to_owned(),
                other => other.to_string(),
            };
            ["id", "pid", "status", "bundle", "created", "owner", "namespace", "backend"].map(text)
        }));
        out = table(&rows);
    }
    Ok(Said { out, ..Said::default() })
}

/// Columns as wide as their widest word.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, word) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
            // Writing to a String does not fail.
            write!(line, "{word:width$}  ").ok();
        }
        writeln!(out, "{}", line.trim_end()).ok();
    }
    out
}

/// The OCI state, with what runc adds, and what nexcage knows beyond that.
pub fn described(found: &Found) -> Value {
    let (record, own) = (&found.record, &found.record.own);
    let status = found.status();
    let pid = if status == Status::Stopped { 0 } else { record.pid.unwrap_or(0) };
    let mut state = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": pid,
        "status": status,
        "bundle": record.bundle,
        "namespace": own.namespace,
        "backend": own.backend,
        "owner": owner(found),
    });
    if let Ok(spec) = spec::load(&record.bundle) {
        state["rootfs"] = json!(spec.rootfs(&record.bundle));
    }
    if let Some(created) = own.created {
        state["created"] = time(UNIX_EPOCH + Duration::from_nanos(created)).into();
    }
    if !record.annotations.is_empty() {
        state["annotations"] = json!(record.annotations);
    }
    if status == Status::Stopped {
        // Nobody saw how, or nobody could tell.
        let known = own.exit.filter(|exit| !exit.unknown);
        state["exitStatus"] = known.map_or(Value::Null, |exit| exit.status.into());
        if let Some(exit) = own.exit {
            state["exitedAt"] = time(Exit::from(exit).at).into();
        }
    }
    state
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_nanos(at).to_string()
}

/// The name of whoever made it.
fn owner(found: &Found) -> String {
    let uid = std::fs::metadata(found.place.folder.path()).map_or(0, |found| found.uid());
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// `nexcage ps`
///
/// # Errors
/// `NotFound`; `FailedPrecondition` unless it runs; when ps(1) cannot be run.
pub fn ps(runtime: &Runtime, id: &str, format: Format, args: &[String]) -> Result<Said> {
    let found = runtime.find(id)?;
    if found.status() == Status::Stopped {
        return Err(Error::precondition(format!("container {id}: container not running")));
    }
    let own = &found.record.own;
    let mut pids = own.cgroup.as_ref().map(|cgroup| cgroup.pids()).unwrap_or_default();
    pids.extend(own.init.map(|init| init.pid));
    pids.sort_unstable();
    pids.dedup();
    if format == Format::Json {
        return Ok(Said { out: format!("{}\n", json!(pids)), ..Said::default() });
    }
    let default = ["-ef".to_owned()];
    let args = if args.is_empty() { &default } else { args };
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
    let said = Command::new("ps")
        .args(args)
        .env("PATH", path)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context(|| "run ps")?;
    if !said.status.success() {
        return Err(Error::unknown(format!("ps {} ended with {}", args.join(" "), said.status)));
    }
    let text = String::from_utf8_lossy(&said.stdout);
    only(&text, &pids).map(|out| Said { out, ..Said::default() })
}

/// The head and the lines of what ps(1) prints that are about one of `pids`.
fn only(text: &str, pids: &[i32]) -> Result<String> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or_else(|| Error::invalid("ps prints no column PID: ask for one"))?;
    let of_one = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    let shown: Vec<_> = std::iter::once(head).chain(lines.filter(of_one)).collect();
    Ok(format!("{}\n", shown.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::only;

    #[test]
    fn of_all_processes_the_containers_are_shown() {
        let text = "UID PID CMD\nroot 1 init\nroot 12 sh 1\nroot 13 12\n";
        assert_eq!(only(text, &[12]).unwrap(), "UID PID CMD\nroot 12 sh 1\n");
        assert!(only("UID CMD\n", &[1]).is_err());
    }
}
