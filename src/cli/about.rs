//! `features` and `spec`: what this runtime can do, and a config.json to start from.

use super::Said;
use super::runtime::Runtime;
use crate::backend::features;
use crate::error::{Context, Error, Result};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// What `spec` writes.
const SPEC: &str = include_str!("spec.json");

/// `nexcage features`
///
/// # Errors
/// `Unavailable` when the backend's runtime is not there.
pub fn features(runtime: &Runtime) -> Result<Said> {
    let features = features::of(runtime.backend(), &runtime.config)?;
    Ok(Said { out: format!("{features:#}\n"), ..Said::default() })
}

/// `nexcage spec`
///
/// # Errors
/// `AlreadyExists` when there is a config.json.
pub fn spec(bundle: &Path, rootless: bool) -> Result<Said> {
    let path = bundle.join("config.json");
    let mut spec: Value =
        serde_json::from_str(SPEC).map_err(|error| Error::unknown(error.to_string()))?;
    if rootless {
        for_rootless(&mut spec);
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| writeln!(file, "{spec:#}"))
        .context(|| format!("write {}", path.display()))?;
    Ok(Said::default())
}

/// What a user who is not root may ask for: a user namespace with one id, the host's network, its
/// /sys by a bind mount, no terminals of another group, no limits.
fn for_rootless(spec: &mut Value) {
    let linux = &mut spec["linux"];
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
    linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
    let Some(mounts) = spec["mounts"].as_array_mut() else { return };
    mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    for mount in mounts {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
        if mount["destination"] == "/sys" {
            *mount = json!({
                "destination": "/sys", "type": "none", "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_spec_writes_is_a_bundle() {
        for rootless in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            spec(folder.path(), rootless).unwrap();
            let loaded = crate::spec::load(folder.path()).unwrap();
            let has_users = loaded.namespaces.iter().any(|namespace| namespace.kind == "user");
            assert_eq!(has_users, rootless);
            assert!(loaded.terminal);
            let again = spec(folder.path(), rootless).unwrap_err();
            assert_eq!(again.kind(), crate::error::Kind::AlreadyExists);
        }
    }
}
