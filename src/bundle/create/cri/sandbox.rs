//! The sandbox that a container is to join: one of nexcage's own, and running.

use super::pod::Pod;
use crate::config::input::quoted;
use crate::error::{Context, Error, Kind, Result};
use crate::id::{ContainerId, Namespace};
use crate::store::{Folder, Record, Status};
use std::fs;
use std::path::Path;

/// A sandbox that is ready.
#[derive(Debug)]
pub struct Sandbox {
    /// Its id.
    pub id: ContainerId,
    /// The host's pid of its first process.
    pub pid: i32,
}

impl Sandbox {
    /// Finds the pod's sandbox, by its id or else by the pod's uid.
    ///
    /// # Errors
    /// `FailedPrecondition` that names the sandbox and says what it is instead.
    pub fn find(root: &Path, namespace: &Namespace, id: Option<&str>, pod: &Pod) -> Result<Self> {
        let (id, record) = match id {
            Some(id) => {
                let id = ContainerId::parse(id).context(|| "/pod_sandbox_id")?;
                match Folder::of(root, namespace, &id).load() {
                    Ok(record) => (id, record),
                    Err(error) if error.kind() == Kind::NotFound => {
                        return Err(Error::precondition(format!(
                            "sandbox {id} is unknown in namespace {namespace} below {}",
                            root.display()
                        )));
                    }
                    Err(error) => return Err(error),
                }
            }
            None => by_uid(root, namespace, pod)?,
        };
        let refuse = |problem: &str| {
            Err(Error::precondition(format!("sandbox {id} in namespace {namespace} {problem}")))
        };
        let said = |key: &str| record.annotations.get(&format!("io.kubernetes.cri.{key}"));
        if said("container-type").is_none_or(|kind| kind != "sandbox") {
            return refuse("is a container and no pod's sandbox");
        }
        if said("sandbox-uid").is_some_and(|uid| *uid != pod.uid) {
            return refuse("is another pod's: its uid is not /sandbox_config/metadata/uid");
        }
        match (record.status, record.own.init) {
            (Status::Running, Some(init)) if init.is_alive() => Ok(Self { id, pid: init.pid }),
            (Status::Running, _) => refuse("is not ready: its process has ended"),
            (Status::Creating | Status::Created, _) => refuse("is not ready: it was not started"),
            (Status::Paused, _) => refuse("is not ready: it is paused"),
            (Status::Stopped, _) => refuse("is not ready: it has stopped"),
        }
    }
}

/// The pid of a container of the sandbox's, whose pid namespace another one is to share.
///
/// # Errors
/// `FailedPrecondition` that names it and says what it is instead.
pub fn target(root: &Path, namespace: &Namespace, sandbox: &Sandbox, id: &str) -> Result<i32> {
    const FIELD: &str = "/config/linux/security_context/namespace_options/target_id";
    let parsed = ContainerId::parse(id).context(|| FIELD)?;
    let refuse = |problem: &str| {
        Err(Error::precondition(format!(
            "{FIELD}: container {parsed} in namespace {namespace} {problem}"
        )))
    };
    let record = match Folder::of(root, namespace, &parsed).load() {
        Err(error) if error.kind() == Kind::NotFound => return refuse("is unknown"),
        other => other?,
    };
    let its = record.annotations.get("io.kubernetes.cri.sandbox-id").map(String::as_str);
    if parsed != sandbox.id && its != Some(sandbox.id.as_str()) {
        return refuse(&format!("is not of sandbox {}", sandbox.id));
    }
    match (record.status, record.own.init) {
        (Status::Stopped, _) => refuse("has stopped"),
        (_, Some(init)) if init.is_alive() => Ok(init.pid),
        _ => refuse("has no process"),
    }
}

fn by_uid(root: &Path, namespace: &Namespace, pod: &Pod) -> Result<(ContainerId, Record)> {
    let entries = match fs::read_dir(root.join(namespace.as_str())) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        other => Some(other.context(|| format!("look for sandboxes in {}", root.display()))?),
    };
    let mut found: Vec<(ContainerId, Record)> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| ContainerId::parse(entry.file_name().to_str()?).ok())
        .filter_map(|id| Folder::of(root, namespace, &id).load().ok().map(|record| (id, record)))
        .filter(|(_, record)| {
            let said = |key: &str| record.annotations.get(&format!("io.kubernetes.cri.{key}"));
            said("container-type").is_some_and(|kind| kind == "sandbox")
                && said("sandbox-uid") == Some(&pod.uid)
        })
        .collect();
    // A pod that was started anew has a sandbox that has stopped, too.
    if found.iter().any(|(_, record)| record.status == Status::Running) {
        found.retain(|(_, record)| record.status == Status::Running);
    }
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(Error::precondition(format!(
            "the pod with uid {} has no sandbox in namespace {namespace} below {}",
            quoted(&pod.uid),
            root.display()
        ))),
        (Some(_), false) => Err(Error::precondition(format!(
            "the pod with uid {} has several sandboxes: --sandbox-id says which",
            quoted(&pod.uid)
        ))),
    }
}
