//! What a container's security context asks for beyond users and capabilities: to be privileged,
//! and profiles of seccomp, AppArmor and SELinux.

use super::{keep, only, seccomp};
use crate::bundle::create::settings;
use crate::config::input::{self, Links};
use crate::error::{Error, Result};
use crate::guest::translate::CAPABILITIES;
use crate::guest::translate::cursor::At;
use crate::spec;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The AppArmor profile that containerd loads for containers, and that is the default.
const APPARMOR_DEFAULT: &str = "cri-containerd.apparmor.d";

/// Kinds of profiles, by CRI's numbers.
const RUNTIME_DEFAULT: u8 = 0;
const LOCALHOST: u8 = 2;

/// A seccomp profile.
#[derive(Debug, Default)]
enum Filter {
    #[default]
    None,
    /// nexcage's own.
    Default,
    /// Somebody's file.
    Given(Value),
}

/// What is asked for.
#[derive(Debug, Default)]
pub struct Security {
    /// privileged
    pub privileged: bool,
    filter: Filter,
    apparmor: Option<String>,
    /// The process's label and that of its mounts.
    selinux: Option<(String, String)>,
}

impl Security {
    /// Reads `security_context`; what is wrong is added to `errors`.
    pub fn read(at: &At<'_>, errors: &mut Vec<Error>) -> Self {
        let privileged = keep(at.at("privileged").flag(), errors);
        // As in containerd, whoever is privileged is under no profile but one that has a name.
        let filter = keep(filter(&at.at("seccomp"), errors), errors);
        let apparmor = keep(apparmor(&at.at("apparmor"), privileged, errors), errors);
        let selinux = keep(selinux(&at.at("selinux_options"), errors), errors);
        Self {
            privileged,
            filter: if privileged { Filter::None } else { filter },
            apparmor,
            selinux: selinux.filter(|_| !privileged),
        }
    }

    /// Changes config.json, before what is asked for by name.
    ///
    /// # Errors
    /// When the host's devices cannot be looked at.
    pub fn apply(&self, config: &mut Value) -> Result<()> {
        if self.privileged {
            unlock(config)?;
        }
        if let Some(profile) = &self.apparmor {
            settings::set(config, &["process", "apparmorProfile"], profile.as_str());
        }
        if let Some((process, mounts)) = &self.selinux {
            settings::set(config, &["process", "selinuxLabel"], process.as_str());
            settings::set(config, &["linux", "mountLabel"], mounts.as_str());
        }
        let filter = match &self.filter {
            Filter::None => return Ok(()),
            Filter::Given(filter) => filter.clone(),
            Filter::Default => {
                let bounding = config.pointer("/process/capabilities/bounding");
                let names = bounding.and_then(Value::as_array).into_iter().flatten();
                seccomp::default(&names.filter_map(Value::as_str).collect::<Vec<_>>())
            }
        };
        settings::set(config, &["linux", "seccomp"], filter);
        Ok(())
    }
}

/// The type of a profile; none where there is no profile.
fn kind(at: &At<'_>, errors: &mut Vec<Error>) -> Option<u8> {
    only(at, &["profile_type", "localhost_ref"], errors);
    let number = keep(at.at("profile_type").number::<u8>(), errors).unwrap_or_default();
    let known = !at.value().is_null() && number <= LOCALHOST;
    if number > LOCALHOST {
        let problem = "wanted 0 (RuntimeDefault), 1 (Unconfined) or 2 (Localhost)";
        errors.push(at.at("profile_type").wrong(problem));
    }
    known.then_some(number)
}

fn filter(at: &At<'_>, errors: &mut Vec<Error>) -> Result<Filter> {
    match kind(at, errors) {
        Some(RUNTIME_DEFAULT) => Ok(Filter::Default),
        Some(LOCALHOST) => profile(&at.at("localhost_ref")).map(Filter::Given),
        _ => Ok(Filter::None),
    }
}

/// A file with what is `linux.seccomp` in config.json.
fn profile(at: &At<'_>) -> Result<Value> {
    let name = at.some_text()?;
    let path = Path::new(name.strip_prefix("localhost/").unwrap_or(name));
    if !path.is_absolute() {
        return Err(at.wrong("wanted the absolute path of a file, as the kubelet gives it"));
    }
    let text = input::read(path, spec::MAX_REQUEST, Links::Follow)
        .map_err(|error| at.wrong(error))?
        .ok_or_else(|| at.wrong(format!("there is no file {}", input::shown(path))))?;
    let profile: Value = serde_json::from_slice(&text)
        .map_err(|error| at.wrong(format!("{}: {error}", input::shown(path))))?;
    let rules = profile.get("syscalls").and_then(Value::as_array).into_iter().flatten();
    let docker = |rule: &Value| {
        ["includes", "excludes"]
            .iter()
            .any(|key| rule.get(key).is_some_and(|value| *value != json!({})))
    };
    if profile.get("archMap").is_some() || rules.into_iter().any(docker) {
        return Err(at.refused(format!(
            "{} is a profile of Docker's, with archMap, includes or excludes: give one as \
             runtime-spec has it",
            input::shown(path)
        )));
    }
    if !profile.is_object() {
        return Err(at.wrong(format!("{} is no JSON object", input::shown(path))));
    }
    Ok(profile)
}

fn apparmor(at: &At<'_>, privileged: bool, errors: &mut Vec<Error>) -> Result<Option<String>> {
    match kind(at, errors) {
        Some(RUNTIME_DEFAULT) if privileged => Ok(None),
        Some(RUNTIME_DEFAULT) => {
            // Each line is a name and a mode in brackets (apparmor(7)).
            let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles");
            let is_it = |line: &str| line.starts_with(&format!("{APPARMOR_DEFAULT} ("));
            match loaded.is_ok_and(|loaded| loaded.lines().any(is_it)) {
                true => Ok(Some(APPARMOR_DEFAULT.to_owned())),
                false => Err(at.at("profile_type").refused(format!(
                    "this host has no AppArmor profile {APPARMOR_DEFAULT}, which containerd loads \
                     as its default: 1 (Unconfined), or 2 and localhost_ref"
                ))),
            }
        }
        Some(LOCALHOST) => {
            let name = at.at("localhost_ref").some_text()?;
            Ok(Some(name.strip_prefix("localhost/").unwrap_or(name).to_owned()))
        }
        _ => Ok(None),
    }
}

fn selinux(at: &At<'_>, errors: &mut Vec<Error>) -> Result<Option<(String, String)>> {
    only(at, &["user", "role", "type", "level"], errors);
    if !at.is_set() {
        return Ok(None);
    }
    let labels = labels(at)?;
    match Path::new("/sys/fs/selinux/enforce").exists() {
        true => Ok(Some(labels)),
        false => Err(at.refused("this host has no SELinux, and runc refuses labels then")),
    }
}

/// The labels of process and mounts. What is left out is what container-selinux has for every
/// container.
fn labels(at: &At<'_>) -> Result<(String, String)> {
    let word = |key: &str, usual: &str| -> Result<String> {
        let at = at.at(key);
        let text = at.text()?.unwrap_or(usual);
        let plain = |char: char| !char.is_whitespace() && !char.is_control();
        match text.chars().all(plain) && (key == "level" || !text.contains(':')) {
            true => Ok(text.to_owned()),
            false => Err(at.wrong("is no part of a label")),
        }
    };
    let user = word("user", "system_u")?;
    let role = word("role", "system_r")?;
    let kind = word("type", "container_t")?;
    if !at.at("level").is_set() {
        return Err(at.at("level").refused(
            "no level is chosen here, for nobody keeps the categories of other containers: give \
             one, such as s0:c1,c2",
        ));
    }
    let level = word("level", "")?;
    Ok((
        format!("{user}:{role}:{kind}:{level}"),
        format!("{user}:object_r:container_file_t:{level}"),
    ))
}

/// All that containerd gives a privileged container: every capability, nothing hidden, the host's
/// devices, a sysfs and cgroups that can be written.
fn unlock(config: &mut Value) -> Result<()> {
    let all = capabilities();
    for set in ["bounding", "effective", "permitted"] {
        settings::set(config, &["process", "capabilities", set], all.clone());
    }
    for key in ["maskedPaths", "readonlyPaths"] {
        settings::set(config, &["linux", key], json!([]));
    }
    let mounts = config.get_mut("mounts").and_then(Value::as_array_mut);
    for mount in mounts.into_iter().flatten() {
        let is_locked = matches!(mount["type"].as_str(), Some("sysfs" | "cgroup"));
        let options = mount.get_mut("options").and_then(Value::as_array_mut);
        for option in options.filter(|_| is_locked).into_iter().flatten() {
            if *option == "ro" {
                *option = "rw".into();
            }
        }
    }
    let mut found = Vec::new();
    devices(Path::new("/dev"), &mut found)?;
    settings::set(config, &["linux", "devices"], found);
    let rule = json!([{ "allow": true, "access": "rwm" }]);
    settings::set(config, &["linux", "resources", "devices"], rule);
    Ok(())
}

/// Those that this process could hand on: neither a newer kernel's nor those taken away from it.
fn capabilities() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = bounding.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let own = bounding.unwrap_or(u64::MAX);
    let names = CAPABILITIES.iter().enumerate().filter(|(bit, _)| own >> bit & 1 == 1);
    names.map(|(_, name)| format!("CAP_{name}")).collect()
}

/// The devices below a folder, without those that every container has of its own.
fn devices(folder: &Path, found: &mut Vec<Value>) -> Result<()> {
    const OWN: [&str; 7] = ["pts", "shm", "fd", "mqueue", "console", "ptmx", "tty"];
    let mut entries: Vec<_> = fs::read_dir(folder)?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        if folder == Path::new("/dev") && OWN.iter().any(|own| name == *own) {
            continue;
        }
        // One that has gone meanwhile is not there.
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        let kind = match about.file_type() {
            kind if kind.is_dir() => {
                devices(&path, found)?;
                continue;
            }
            kind if kind.is_char_device() => "c",
            kind if kind.is_block_device() => "b",
            _ => continue,
        };
        let Some(path) = path.to_str() else { continue };
        found.push(json!({
            "path": path, "type": kind,
            "major": libc::major(about.rdev()), "minor": libc::minor(about.rdev()),
            "fileMode": about.mode() & 0o777, "uid": about.uid(), "gid": about.gid(),
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_made_of_what_is_given_and_what_is_usual() {
        let label = |value: Value| labels(&At::top(&value, "/s")).map_err(|e| e.to_string());
        let of = |process: &str, mounts: &str| Ok((process.to_owned(), mounts.to_owned()));
        assert_eq!(
            label(json!({ "level": "s0:c1,c2" })),
            of(
                "system_u:system_r:container_t:s0:c1,c2",
                "system_u:object_r:container_file_t:s0:c1,c2"
            )
        );
        assert_eq!(
            label(json!({ "user": "u", "role": "r", "type": "t", "level": "s0" })),
            of("u:r:t:s0", "u:object_r:container_file_t:s0")
        );
        assert!(label(json!({ "type": "t" })).unwrap_err().starts_with("/s/level: no level"));
        assert_eq!(label(json!({ "type": "a:b" })).unwrap_err(), "/s/type: is no part of a label");
    }

    #[test]
    fn a_profile_is_runtime_specs_and_not_dockers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.json");
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            let value = json!({ "profile_type": 2, "localhost_ref": path });
            filter(&At::top(&value, "/s"), &mut Vec::new()).map_err(|error| error.to_string())
        };
        let given = read(r#"{ "defaultAction": "SCMP_ACT_ALLOW" }"#).unwrap();
        assert!(
            matches!(given, Filter::Given(value) if value["defaultAction"] == "SCMP_ACT_ALLOW")
        );
        for (text, says) in [
            ("{", "EOF"),
            ("[]", "no JSON object"),
            (r#"{ "archMap": [] }"#, "Docker's"),
            (r#"{ "syscalls": [{ "includes": { "caps": ["x"] } }] }"#, "Docker's"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with("/s/localhost_ref: ") && error.contains(says), "{error}");
        }
        fs::remove_file(&path).unwrap();
        let value = json!({ "profile_type": 2, "localhost_ref": path });
        let error = filter(&At::top(&value, "/s"), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("there is no file"), "{error}");
    }
}
