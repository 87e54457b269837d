//! What one backend refuses, or does in a way of its own.

use super::at::Findings;
use super::{Host, Level};
use crate::backend::Place;
use crate::config::BackendName;
use crate::error::{Error, Kind, Result};
use crate::guest::cgroup_path;
use crate::guest::fields::{self, How};
use crate::guest::translate::{self, Driver, escape, is_unset};
use crate::id::{ContainerId, Namespace};
use crate::store::Folder;
use crate::sys::inroot::Root;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// So many refusals are asked for, one after the other.
const MOST: usize = 50;

/// A field that older versions of crun or runc pass over without a word.
struct Limit {
    /// As in [`fields::Field`].
    pointer: &'static str,
    /// The first version of crun that knows it.
    crun: Option<&'static str>,
    /// The first version of runc that knows it.
    runc: Option<&'static str>,
}

const fn since(
    pointer: &'static str,
    crun: Option<&'static str>,
    runc: Option<&'static str>,
) -> Limit {
    Limit { pointer, crun, runc }
}

/// 1.8 passes it over and 1.28 does not; NEWS does not say which version is the first.
const LATE: Option<&str> = Some("1.28, or an earlier one after 1.8,");

/// From crun's NEWS and runc's CHANGELOG.md. A field that all versions since crun 1.0 and runc 1.1
/// know is not here.
const LIMITS: &[Limit] = &[
    since("/domainname", Some("1.7"), Some("1.2")),
    since("/process/scheduler/**", Some("1.8.5"), Some("1.2")),
    since("/process/ioPriority/**", Some("1.8.6"), Some("1.2")),
    since("/process/execCPUAffinity/**", LATE, Some("1.3")),
    since("/mounts/*/{uidMappings,gidMappings}/**", None, Some("1.2")),
    since("/linux/timeOffsets/**", Some("1.8.4"), Some("1.2")),
    since("/linux/personality/**", None, Some("1.2")),
    since("/linux/netDevices/**", LATE, Some("1.4")),
    since("/linux/memoryPolicy/**", Some("1.24"), Some("1.4")),
    since("/linux/intelRdt/{closID,l3CacheSchema,memBwSchema}", Some("1.10"), None),
    since("/linux/intelRdt/schemata/**", LATE, Some("1.4")),
    since("/linux/intelRdt/enableMonitoring", Some("1.24"), Some("1.4")),
    since("/linux/resources/cpu/burst", Some("1.11"), Some("1.2")),
    since("/linux/resources/cpu/idle", Some("1.5"), None),
    since("/linux/resources/memory/checkBeforeUpdate", Some("1.7"), None),
];

pub(super) fn check(spec: &Value, backend: BackendName, host: &Host<'_>, findings: &Findings) {
    match backend {
        BackendName::Crun | BackendName::Runc => versions(spec, backend, findings),
        BackendName::Lxc => guest(spec, Driver::Lxc, backend, host, findings),
        BackendName::Pct => guest(spec, Driver::Pct, backend, host, findings),
    }
}

/// Calls `visit` with the pointer of every value that is no list or object and is not unset.
fn leaves(value: &Value, pointer: &mut String, visit: &mut dyn FnMut(&str)) {
    let length = pointer.len();
    match value {
        _ if is_unset(value) => {}
        Value::Object(map) => {
            for (key, value) in map {
                *pointer += "/";
                *pointer += &escape(key);
                leaves(value, pointer, visit);
                pointer.truncate(length);
            }
        }
        Value::Array(list) => {
            for (number, value) in list.iter().enumerate() {
                *pointer += &format!("/{number}");
                leaves(value, pointer, visit);
                pointer.truncate(length);
            }
        }
        _ => visit(pointer),
    }
}

/// What is said of one field is said once, at its first value.
fn versions(spec: &Value, backend: BackendName, findings: &Findings) {
    let mut said = BTreeSet::new();
    leaves(spec, &mut String::new(), &mut |pointer| {
        let Some(limit) = LIMITS.iter().find(|limit| fields::fits(limit.pointer, pointer)) else {
            return;
        };
        let version = if backend == BackendName::Crun { limit.crun } else { limit.runc };
        if let Some(version) = version
            && said.insert(limit.pointer)
        {
            findings.add(
                Level::Note,
                pointer,
                format!("{backend} before {version} passes it over"),
                format!("look at `{backend} --version`"),
            );
        }
    });
    let version = spec["ociVersion"].as_str().unwrap_or_default();
    if backend == BackendName::Crun && !version.starts_with("1.0.") && version.starts_with("1.") {
        findings.add(
            Level::Note,
            "/ociVersion",
            "crun before 1.14.3 refuses every version but 1.0",
            "look at `crun --version`, or say 1.0.2",
        );
    }
    let times = spec["linux"]["namespaces"].as_array().map_or(&[][..], Vec::as_slice);
    let time = times.iter().position(|namespace| namespace["type"] == "time");
    if let Some(number) = time {
        let first = if backend == BackendName::Crun { "1.8.4" } else { "1.2" };
        findings.add(
            Level::Note,
            format!("/linux/namespaces/{number}/type"),
            format!("{backend} before {first} has no time namespaces, and refuses"),
            format!("look at `{backend} --version`"),
        );
    }
}

/// lxc and pct: the very translation that a creation begins with.
fn guest(spec: &Value, driver: Driver, backend: BackendName, host: &Host<'_>, findings: &Findings) {
    let mut said = BTreeSet::new();
    leaves(spec, &mut String::new(), &mut |pointer| {
        let Some(field) = fields::find(pointer) else { return };
        let (who, way) = match field.how {
            How::Lxc(keys) => ("LXC's configuration", keys),
            How::Init(way) => ("nexcage-init", way),
            How::Supervisor(way) => ("the supervisor", way),
            How::Refused(_) => return,
        };
        if said.insert(field.pointer) {
            findings.add(
                Level::Note,
                pointer,
                format!("with {backend}: {who}: {way}"),
                "nothing is to be done",
            );
        }
    });
    let mut rest = spec.clone();
    let mut before = BTreeSet::new();
    for _ in 0..MOST {
        let Err(error) = translated(&rest, driver, host) else { return };
        let message = error.to_string();
        let (pointer, problem) = split(&rest, &message);
        if !before.insert(pointer.clone()) {
            return;
        }
        if !findings.refuse(&pointer) {
            let mend = match error.kind() {
                Kind::Unimplemented => "remove it, or use crun or runc for this container",
                _ => "correct it",
            };
            let pointer = pointer.as_str();
            findings.add(Level::Error, pointer, format!("{backend} refuses: {problem}"), mend);
        }
        // Without it the next one is found.
        if !remove(&mut rest, &pointer) {
            return;
        }
    }
}

/// The pointer that an error begins with, and the rest of it.
fn split(spec: &Value, message: &str) -> (String, String) {
    let mut ends = message.match_indices(": ").map(|(end, _)| end);
    // A key may have a colon in it.
    let found = ends.find_map(|end| {
        let (pointer, problem) = message.split_at_checked(end)?;
        let is_one =
            pointer.starts_with('/') && (spec.pointer(pointer).is_some() || !pointer.contains(' '));
        is_one.then(|| (pointer.to_owned(), problem.trim_start_matches(": ").to_owned()))
    });
    found.unwrap_or_else(|| (String::new(), message.to_owned()))
}

/// Takes a value out, of a list by putting nothing in its place. Whether it was there.
fn remove(spec: &mut Value, pointer: &str) -> bool {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return false };
    let key = key.replace("~1", "/").replace("~0", "~");
    match spec.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&key).is_some(),
        Some(Value::Array(list)) => match key.parse::<usize>() {
            Ok(number) if number < list.len() => {
                list.remove(number);
                true
            }
            _ => false,
        },
        _ => false,
    }
}

fn translated(spec: &Value, driver: Driver, host: &Host<'_>) -> Result<()> {
    let place = Place {
        namespace: Namespace::parse("default")?,
        id: ContainerId::parse("container")?,
        bundle: host.bundle.to_owned(),
        folder: Folder::of(
            Path::new("/run/nexcage"),
            &Namespace::parse("default")?,
            &ContainerId::parse("container")?,
        ),
    };
    let cgroup = match driver {
        Driver::Lxc => {
            let path = spec["linux"]["cgroupsPath"].as_str().filter(|path| !path.is_empty());
            cgroup_path(&place, path)?
        }
        Driver::Pct => "lxc/100".to_owned(),
    };
    let rootfs = host.bundle.join(spec["root"]["path"].as_str().unwrap_or_default());
    if driver == Driver::Pct {
        crate::backend::pct::guest::bind_root(&rootfs).map_err(|error| {
            Error::invalid(error.to_string().replacen("root.path: ", "/root/path: ", 1))
        })?;
    }
    let root = Root::open(&rootfs).ok();
    translate::translate(
        spec,
        &translate::Host {
            driver,
            cgroup2: host.cgroup2,
            bundle: host.bundle,
            rootfs: &rootfs,
            gate: &place.folder.path().join("gate"),
            program: &place.folder.path().join("nexcage-init"),
            cgroup: &cgroup,
            network: "/proc/self/ns/net",
            console: spec["process"]["terminal"] == true,
            resolve: &|path| match &root {
                Some(root) => root.resolve(path),
                None => Ok(path.trim_start_matches('/').to_owned()),
            },
            exists: &|path| host.files.kind(path),
        },
    )?;
    Ok(())
}
