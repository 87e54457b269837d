//! What a CRI plugin says of a container in its annotations: which pod it is of, and what it is
//! called there. containerd's spelling (pkg/cri/annotations) and CRI-O's (pkg/annotations) are
//! understood.

use crate::error::{Context, Error, Kind, Result};
use crate::id::{ContainerId, Namespace};
use crate::store::{Folder, Record, Status};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The container that holds the pod's namespaces.
    Sandbox,
    /// One that joins them.
    Container,
}

/// What the annotations say. Everything is `None` for a container that is of no pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cri<'a> {
    /// What it is to its pod.
    pub role: Option<Role>,
    /// The id of the pod's sandbox.
    pub sandbox: Option<&'a str>,
    /// The pod's namespace in Kubernetes.
    pub pod_namespace: Option<&'a str>,
    /// The container's name within its pod.
    pub name: Option<&'a str>,
    /// The image reference.
    pub image: Option<&'a str>,
    /// Its labels; CRI-O alone hands them to a runtime.
    pub labels: BTreeMap<String, String>,
}

impl<'a> Cri<'a> {
    /// Reads a container's annotations.
    pub fn of(annotations: &'a BTreeMap<String, String>) -> Self {
        let one = |keys: &[&str]| {
            let found = keys.iter().find_map(|key| annotations.get(*key));
            found.map(String::as_str).filter(|value| !value.is_empty())
        };
        let role =
            match one(&["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]) {
                Some("sandbox") => Some(Role::Sandbox),
                Some("container") => Some(Role::Container),
                _ => None,
            };
        let labels = one(&["io.kubernetes.cri-o.Labels"]);
        Self {
            role,
            sandbox: one(&["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"]),
            pod_namespace: one(&[
                "io.kubernetes.cri.sandbox-namespace",
                "io.kubernetes.pod.namespace",
            ]),
            name: one(&["io.kubernetes.cri.container-name", "io.kubernetes.container.name"]),
            image: one(&["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"]),
            // Labels that are no object of strings are CRI-O's mistake, not the container's.
            labels: labels.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default(),
        }
    }

    /// Checks that the sandbox of a pod's container runs, and is of the same namespaces, before
    /// anything is made for the container. A container of no pod, and a sandbox, pass.
    ///
    /// # Errors
    /// `FailedPrecondition` that names the sandbox; `InvalidArgument` where the annotations do
    /// not say which it is.
    pub fn check_sandbox(&self, state_dir: &Path, namespace: &Namespace) -> Result<()> {
        if self.role != Some(Role::Container) {
            return Ok(());
        }
        let Some(sandbox) = self.sandbox else {
            return Err(Error::invalid(
                "the annotations say that it is a container of a pod, and not which: \
                 io.kubernetes.cri.sandbox-id is missing",
            ));
        };
        let id = ContainerId::parse(sandbox).context(|| "annotation sandbox-id")?;
        match Folder::of(state_dir, namespace, &id).load() {
            Ok(record) => self.fits(&record),
            Err(error) if error.kind() == Kind::NotFound => Err(unknown(state_dir, namespace, &id)),
            Err(error) => Err(error).context(|| format!("sandbox {id}")),
        }
    }

    /// Whether this container may join the sandbox of that record.
    fn fits(&self, sandbox: &Record) -> Result<()> {
        let id = &sandbox.id;
        let of = Cri::of(&sandbox.annotations);
        if let (Some(ours), Some(theirs)) = (self.pod_namespace, of.pod_namespace)
            && ours != theirs
        {
            return Err(Error::precondition(format!(
                "sandbox {id} is a pod of the namespace {theirs}, the container one of {ours}"
            )));
        }
        let lives = sandbox.own.init.is_some_and(|init| init.is_alive());
        match sandbox.status {
            Status::Running | Status::Paused if lives => Ok(()),
            Status::Creating | Status::Created => Err(Error::precondition(format!(
                "sandbox {id} has not been started: start it first"
            ))),
            Status::Running | Status::Paused | Status::Stopped => Err(Error::precondition(
                format!("sandbox {id} has stopped: remove the pod and run it again"),
            )),
        }
    }
}

fn unknown(state_dir: &Path, namespace: &Namespace, id: &ContainerId) -> Error {
    let elsewhere = fs::read_dir(state_dir).ok().and_then(|entries| {
        entries.flatten().find(|entry| entry.path().join(id.as_str()).join("state.json").exists())
    });
    Error::precondition(match elsewhere {
        Some(other) => format!(
            "sandbox {id} is of the namespace {}, the container of {namespace}",
            other.file_name().to_string_lossy()
        ),
        None => format!(
            "sandbox {id} is not known here: it has been removed, or another runtime made it; \
             run the pod anew"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{self, ProcessId};

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn both_spellings_are_understood() {
        let containerd = annotations(&[
            ("io.kubernetes.cri.container-type", "container"),
            ("io.kubernetes.cri.sandbox-id", "pause"),
            ("io.kubernetes.cri.sandbox-namespace", "shop"),
            ("io.kubernetes.cri.container-name", "db"),
            ("io.kubernetes.cri.image-name", "docker.io/library/postgres:17"),
        ]);
        let crio = annotations(&[
            ("io.kubernetes.cri-o.ContainerType", "container"),
            ("io.kubernetes.cri-o.SandboxID", "pause"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.container.name", "db"),
            ("io.kubernetes.cri-o.ImageName", "docker.io/library/postgres:17"),
            ("io.kubernetes.cri-o.Labels", r#"{"app": "shop"}"#),
        ]);
        let expected = Cri {
            role: Some(Role::Container),
            sandbox: Some("pause"),
            pod_namespace: Some("shop"),
            name: Some("db"),
            image: Some("docker.io/library/postgres:17"),
            labels: BTreeMap::new(),
        };
        assert_eq!(Cri::of(&containerd), expected);
        let labels = annotations(&[("app", "shop")]);
        assert_eq!(Cri::of(&crio), Cri { labels, ..expected });
        assert_eq!(Cri::of(&annotations(&[("other", "x")])), Cri::default());
    }

    fn sandbox(state_dir: &Path, namespace: &str, change: impl Fn(&mut Record)) {
        let namespace = Namespace::parse(namespace).unwrap();
        let folder = Folder::of(state_dir, &namespace, &ContainerId::parse("pause").unwrap());
        folder.create().unwrap();
        let mut record = store::tests::sandbox(&namespace, "pause");
        record.annotations = annotations(&[("io.kubernetes.cri.sandbox-namespace", "shop")]);
        change(&mut record);
        folder.save(&record).unwrap();
    }

    fn checked(state_dir: &Path, namespace: &str) -> Result<(), String> {
        let annotations = annotations(&[
            ("io.kubernetes.cri.container-type", "container"),
            ("io.kubernetes.cri.sandbox-id", "pause"),
            ("io.kubernetes.cri.sandbox-namespace", "shop"),
        ]);
        let namespace = Namespace::parse(namespace).unwrap();
        Cri::of(&annotations).check_sandbox(state_dir, &namespace).map_err(|error| {
            assert_eq!(error.kind(), Kind::FailedPrecondition);
            error.to_string()
        })
    }

    #[test]
    fn a_sandbox_that_runs_is_joined_and_any_other_is_refused_by_its_id() {
        let root = tempfile::tempdir().unwrap();
        sandbox(root.path(), "runs", |_| ());
        sandbox(root.path(), "stopped", |record| record.status = Status::Stopped);
        sandbox(root.path(), "created", |record| record.status = Status::Created);
        sandbox(root.path(), "dead", |record| {
            record.own.init = Some(ProcessId { pid: 1, start_time: u64::MAX });
        });
        sandbox(root.path(), "other", |record| {
            record
                .annotations
                .insert("io.kubernetes.cri.sandbox-namespace".to_owned(), "elsewhere".to_owned());
        });
        assert_eq!(checked(root.path(), "runs"), Ok(()));
        let stopped = "sandbox pause has stopped: remove the pod and run it again";
        assert_eq!(checked(root.path(), "stopped").unwrap_err(), stopped);
        assert_eq!(checked(root.path(), "dead").unwrap_err(), stopped);
        assert_eq!(
            checked(root.path(), "created").unwrap_err(),
            "sandbox pause has not been started: start it first"
        );
        assert_eq!(
            checked(root.path(), "other").unwrap_err(),
            "sandbox pause is a pod of the namespace elsewhere, the container one of shop"
        );
    }

    #[test]
    fn a_sandbox_that_is_not_there_is_told_from_one_of_another_namespace() {
        let root = tempfile::tempdir().unwrap();
        let message = checked(root.path(), "none").unwrap_err();
        assert!(message.starts_with("sandbox pause is not known here"), "{message}");
        sandbox(root.path(), "runs", |_| ());
        assert_eq!(
            checked(root.path(), "none").unwrap_err(),
            "sandbox pause is of the namespace runs, the container of none"
        );
    }

    #[test]
    fn a_container_of_no_pod_and_a_sandbox_need_none() {
        let namespace = Namespace::parse("default").unwrap();
        for pairs in [&[][..], &[("io.kubernetes.cri.container-type", "sandbox")]] {
            let annotations = annotations(pairs);
            Cri::of(&annotations).check_sandbox(Path::new("/none"), &namespace).unwrap();
        }
        let nameless = annotations(&[("io.kubernetes.cri.container-type", "container")]);
        let error = Cri::of(&nameless).check_sandbox(Path::new("/none"), &namespace).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
    }
}
