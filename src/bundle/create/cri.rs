//! A bundle from what crictl takes: a container's configuration and its pod's, as files.
//!
//! Together with the sandbox's id they are CRI's CreateContainerRequest, and errors name its
//! fields: `/config/…` is the container's file and `/sandbox_config/…` the pod's. Enums are
//! numbers, as Go's own JSON has them, and so is what is left out: 0.
//!
//! | field | what becomes of it |
//! |---|---|
//! | command, args | as in CRI: instead of Entrypoint, instead of Cmd |
//! | labels, annotations of both | annotations; the container's own win, labels lose |
//! | envs, working_dir, tty, mounts, devices | config.json |
//! | linux.resources | linux.resources, process.oomScoreAdj |
//! | linux.security_context | user, groups, capabilities, paths, noNewPrivileges |
//! | privileged, of a privileged pod | all capabilities and devices, no hidden paths, no profiles |
//! | seccomp | RuntimeDefault: what containerd's default allows; Localhost: the file |
//! | apparmor | RuntimeDefault: containerd's profile, if the host has it; Localhost: the name |
//! | selinux_options, with a level | process.selinuxLabel, linux.mountLabel |
//! | namespace_options | POD and NODE: the sandbox's namespaces; pid CONTAINER: one of its own, |
//! | | TARGET: that of another container of the pod |
//! | cgroup_parent | linux.cgroupsPath |
//! | hostname, dns_config | `mounts/hostname`, `mounts/resolv.conf`, unless mounted otherwise |
//! | log_path, log_directory, stdin, stdin_once | nothing: they are for who runs the bundle |
//! | CDI, user namespaces and id mappings, relabelling, images as mounts | refused |

mod container;
mod pod;
mod sandbox;
mod seccomp;
mod security;

use super::settings::{self, Mount, Settings};
use super::{Made, Request};
use crate::config::Config;
use crate::config::input::{self, Links, shown};
use crate::error::{Context, Error, Result};
use crate::guest::translate::cursor::At;
use crate::id::{ContainerId, Namespace};
use crate::route::{self, Subject};
use crate::spec;
use crate::store::create_private;
use container::{Container, Pids};
use pod::Pod;
use sandbox::Sandbox;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What a bundle is to be made of.
#[derive(Debug)]
pub struct CriRequest {
    /// The file with the container's configuration.
    pub container: PathBuf,
    /// The file with its pod's.
    pub pod: PathBuf,
    /// The sandbox's id. Without one, it is looked for by the pod's uid.
    pub sandbox_id: Option<String>,
    /// The container's id. Without one, it is a new one of 64 digits.
    pub container_id: Option<String>,
    /// The namespace of the sandbox.
    pub namespace: Namespace,
    /// The folder of state, below which the bundle is made.
    pub root: PathBuf,
}

/// Makes the bundle `<root>/<sandbox id>/<container id>`. `request` says where the image is; its
/// target is not looked at.
///
/// # Errors
/// All wrong fields at once; `FailedPrecondition` for a sandbox that is not ready; what
/// [`super::create`] says.
pub fn create(
    cri: &CriRequest,
    config: &Config,
    mut request: Request,
    stop: &super::stop::Stop,
) -> Result<Made> {
    let (container, pod) = read(cri)?;
    if request.rootfs.is_none() {
        return Err(Error::invalid(
            "/config/image/image: images are not pulled: give its files by --rootfs",
        ));
    }
    let sandbox = Sandbox::find(&cri.root, &cri.namespace, cri.sandbox_id.as_deref(), &pod)?;
    let id = match &cri.container_id {
        Some(id) => ContainerId::parse(id)?,
        None => new_id()?,
    };
    let folder = cri.root.join(sandbox.id.as_str());
    request.target = folder.join(id.as_str());
    let pids = match &container.pids {
        Pids::Own => None,
        Pids::Pod => Some(sandbox.pid),
        Pids::Target(id) => Some(sandbox::target(&cri.root, &cri.namespace, &sandbox, id)?),
    };
    let annotations = annotations(&container, &pod, &sandbox);
    let backend = match request.backend.take() {
        Some(backend) => backend,
        None => {
            let mut subject = Subject::of(&cri.namespace, &id, &annotations);
            subject.labels.extend(pod.labels.clone());
            subject.labels.extend(container.labels.clone());
            route::decide(config, &subject)?.backend
        }
    };
    request.backend = Some(backend);
    let cgroup = pod.cgroup_parent.as_ref();
    let cgroup = cgroup.map(|parent| cgroups_path(parent, &id, config.systemd_cgroup));
    fill(&mut request, container, &pod, cgroup, Joined { sandbox: sandbox.pid, pids });
    request.settings.annotations = annotations.into_iter().collect();
    let is_new = !folder.exists();
    create_private(&folder)?;
    let made = super::create(request, stop);
    if made.is_err() && is_new {
        // Somebody else may have made a bundle in it by now.
        drop(fs::remove_dir(&folder));
    }
    made
}

fn read(cri: &CriRequest) -> Result<(Container, Pod)> {
    let json = |path: &Path| -> Result<Value> {
        let text = input::read(path, spec::MAX_REQUEST, Links::Follow)?
            .ok_or_else(|| Error::not_found(format!("there is no file {}", shown(path))))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::invalid(format!("{}: {error}", shown(path))))
    };
    let (container, pod) = (json(&cri.container)?, json(&cri.pod)?);
    let mut errors = Vec::new();
    let container = Container::read(&At::top(&container, "/config"), &mut errors);
    let pod = Pod::read(&At::top(&pod, "/sandbox_config"), &mut errors);
    if container.security.privileged && !pod.privileged {
        errors.push(Error::invalid(
            "/config/linux/security_context/privileged: the pod is not, by \
             /sandbox_config/linux/security_context/privileged",
        ));
    }
    match Error::list(errors) {
        Some(error) => Err(error),
        None => Ok((container, pod)),
    }
}

/// What is right of a value; what is wrong is kept for the end.
fn keep<T: Default>(result: Result<T>, errors: &mut Vec<Error>) -> T {
    result.unwrap_or_else(|error| {
        errors.push(error);
        T::default()
    })
}

/// An object whose every key is known.
fn only(at: &At<'_>, known: &[&str], errors: &mut Vec<Error>) {
    for (key, value) in keep(at.entries(), errors) {
        if !known.contains(&key) {
            errors.push(value.wrong("CRI has no such field"));
        }
    }
}

/// A map of texts.
fn texts(at: &At<'_>, errors: &mut Vec<Error>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (key, value) in keep(at.entries(), errors) {
        all.insert(key.to_owned(), keep(value.any_text().map(str::to_owned), errors));
    }
    all
}

/// Fields that are refused as soon as they are set.
fn refuse(at: &At<'_>, key: &str, why: &str, errors: &mut Vec<Error>) {
    let at = at.at(key);
    if at.is_set() && *at.value() != json!(false) {
        errors.push(at.refused(why));
    }
}

fn annotations(container: &Container, pod: &Pod, sandbox: &Sandbox) -> BTreeMap<String, String> {
    let mut all = pod.labels.clone();
    all.extend(container.labels.clone());
    all.extend(pod.annotations.clone());
    all.extend(container.annotations.clone());
    // As containerd's CRI plugin names them.
    for (key, value) in [
        ("container-type", "container"),
        ("container-name", container.name.as_str()),
        ("image-name", container.image.as_str()),
        ("sandbox-id", sandbox.id.as_str()),
        ("sandbox-name", pod.name.as_str()),
        ("sandbox-namespace", pod.namespace.as_str()),
        ("sandbox-uid", pod.uid.as_str()),
    ] {
        all.insert(format!("io.kubernetes.cri.{key}"), value.to_owned());
    }
    all
}

/// Processes whose namespaces a container shares.
struct Joined {
    sandbox: i32,
    /// Whose pid namespace; `None` for one of its own.
    pids: Option<i32>,
}

fn fill(
    request: &mut Request,
    mut container: Container,
    pod: &Pod,
    cgroup: Option<String>,
    joined: Joined,
) {
    let command = std::mem::take(&mut container.command);
    request.settings = Settings {
        entrypoint: (!command.is_empty()).then_some(command),
        args: std::mem::take(&mut container.args),
        env: std::mem::take(&mut container.env),
        cwd: container.cwd.take(),
        user: container.user.take(),
        memory: container.memory,
        memory_swap: container.memory_swap,
        cpu_shares: container.cpu_shares,
        cpuset_cpus: container.cpuset_cpus.take(),
        cap_add: std::mem::take(&mut container.cap_add),
        cap_drop: std::mem::take(&mut container.cap_drop),
        read_only: container.read_only,
        terminal: container.tty,
        ..Settings::default()
    };
    // The shorter first: what is mounted later would hide what is below it.
    container.mounts.sort_by_key(|mount| Path::new(&mount.destination).components().count());
    request.files = pod.files();
    let files: Vec<Mount> = request
        .files
        .iter()
        .map(|(name, _)| Mount {
            kind: "bind".to_owned(),
            source: request.target.join("mounts").join(name).to_string_lossy().into_owned(),
            destination: format!("/etc/{name}"),
            options: vec!["rbind".to_owned(), "ro".to_owned(), "rprivate".to_owned()],
        })
        .collect();
    request.edit = Some(Box::new(move |config, _| {
        settings::add_mounts(config, &container.mounts);
        let files: Vec<Mount> = files
            .into_iter()
            .filter(|file| !settings::has_mount(config, &file.destination))
            .collect();
        settings::add_mounts(config, &files);
        if let Some(cgroup) = cgroup {
            settings::set(config, &["linux", "cgroupsPath"], cgroup);
        }
        join(config, &joined);
        container.finish(config)
    }));
}

/// The sandbox's namespaces; its host name comes with them.
fn join(config: &mut Value, joined: &Joined) {
    let kinds = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
    let mut namespaces: Vec<Value> = kinds
        .iter()
        .map(|(kind, file)| {
            json!({ "type": kind, "path": format!("/proc/{}/ns/{file}", joined.sandbox) })
        })
        .collect();
    namespaces.push(match joined.pids {
        None => json!({ "type": "pid" }),
        Some(pid) => json!({ "type": "pid", "path": format!("/proc/{pid}/ns/pid") }),
    });
    namespaces.extend([json!({ "type": "mount" }), json!({ "type": "cgroup" })]);
    settings::set(config, &["linux", "namespaces"], namespaces);
    if let Some(config) = config.as_object_mut() {
        config.remove("hostname");
    }
}

fn cgroups_path(parent: &str, id: &ContainerId, systemd: bool) -> String {
    if systemd {
        let slice = parent.rsplit('/').next().unwrap_or(parent);
        format!("{slice}:nexcage:{id}")
    } else {
        format!("{}/{id}", parent.trim_end_matches('/'))
    }
}

/// As containerd's CRI plugin makes them: 64 hexadecimal digits.
fn new_id() -> Result<ContainerId> {
    use std::io::Read;
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context(|| "read /dev/urandom")?;
    ContainerId::parse(&bytes.map(|byte| format!("{byte:02x}")).concat())
}

#[cfg(test)]
mod tests;
