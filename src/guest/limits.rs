//! Writes limits into a guest's cgroup.

use super::resources::{DeviceRule, Setting};
use super::translate::ALWAYS_ALLOWED;
use crate::error::{Context, Error, Result};
use crate::sys::cgroup::Cgroup;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

/// Writes all settings. One that the kernel refuses is tried again after the others: memory cannot
/// be raised above memory and swap together, nor that be lowered below memory, so which of the two
/// comes first depends on what was there before.
///
/// # Errors
/// Names the value's place in config.json, the file, and what the kernel says. `Unavailable` where
/// this host lacks the controller.
pub fn apply(cgroup: &Cgroup, settings: &[Setting]) -> Result<()> {
    let refused: Vec<&Setting> =
        settings.iter().filter(|setting| write(cgroup, setting).is_err()).collect();
    refused.into_iter().try_for_each(|setting| write(cgroup, setting))
}

fn write(cgroup: &Cgroup, setting: &Setting) -> Result<()> {
    let folder = cgroup.legacy(setting.controller).or_else(|| cgroup.unified());
    let Some(folder) = folder else {
        return if setting.optional { Ok(()) } else { Err(lacks(setting)) };
    };
    let path = folder.join(&setting.file);
    // Not created where it is missing: tmpfs in a test would take any name.
    match OpenOptions::new().write(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound && setting.optional => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(lacks(setting)),
        opened => {
            opened.and_then(|mut file| file.write_all(setting.value.as_bytes())).context(|| {
                format!("{}: write {:?} to {}", setting.pointer, setting.value, path.display())
            })
        }
    }
}

/// Writes device rules, and after them those that every guest has.
///
/// # Errors
/// `Unimplemented` on cgroup v2, where rules are a program that LXC has loaded.
pub fn apply_devices(cgroup: &Cgroup, rules: &[DeviceRule]) -> Result<()> {
    const POINTER: &str = "/linux/resources/devices";
    let Some(folder) = cgroup.legacy("devices") else {
        return Err(Error::unimplemented(format!(
            "{POINTER}: on cgroup v2 the rules of a guest of LXC cannot be changed while it lives"
        )));
    };
    let always = ALWAYS_ALLOWED.iter().map(|rule| (true, *rule));
    for (allow, text) in rules.iter().map(|rule| (rule.allow, rule.text.as_str())).chain(always) {
        let path = folder.join(if allow { "devices.allow" } else { "devices.deny" });
        OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .context(|| format!("{POINTER}: write {text:?} to {}", path.display()))?;
    }
    Ok(())
}

fn lacks(setting: &Setting) -> Error {
    Error::unavailable(format!(
        "{}: this host's cgroups have no {}; enable the controller {} or remove the value",
        setting.pointer, setting.file, setting.controller
    ))
}
