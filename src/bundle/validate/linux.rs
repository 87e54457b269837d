//! The rest of `linux`: devices, paths, seccomp, Intel RDT, the cgroup.

use super::at::At;
use super::process::id;
use super::{Host, resources};
use crate::config::input::quoted;
use crate::guest::seccomp;
use crate::guest::translate::FileKind;
use std::collections::BTreeMap;
use std::path::Path;

/// The highest error that the kernel returns for a call (MAX_ERRNO).
const HIGHEST_ERROR: i128 = 4095;

pub(super) fn check(linux: &At<'_>, host: &Host<'_>) {
    devices(&linux.at("devices"));
    for key in ["maskedPaths", "readonlyPaths"] {
        for item in linux.at(key).items() {
            if let Some((problem, mend)) = relative(&item) {
                item.tolerated(problem, mend);
            }
        }
    }
    cgroups_path(&linux.at("cgroupsPath"));
    seccomp(&linux.at("seccomp"));
    intel_rdt(&linux.at("intelRdt"), host);
    for flag in linux.at("personality").at("flags").items() {
        flag.warning("runtime-spec has no flag yet, and runtimes pass it over", "remove it");
    }
    resources::check(&linux.at("resources"), host);
}

/// What is wrong with a path that is not absolute, as runtime-spec wants it: crun and runc take one
/// from the root, except for a device's with crun.
fn relative(at: &At<'_>) -> Option<(String, &'static str)> {
    let text = at.value.as_str().filter(|text| !text.starts_with('/'))?;
    let problem = format!("found {}, wanted an absolute path", quoted(text));
    Some((problem, "give the path as the container sees it"))
}

fn devices(at: &At<'_>) {
    let mut seen: BTreeMap<&str, &serde_json::Value> = BTreeMap::new();
    for item in at.items() {
        let path = item.at("path");
        if let Some((problem, mend)) = relative(&path) {
            path.error(problem, mend);
        }
        if let Some(text) = path.text() {
            match seen.insert(text, item.value) {
                Some(other) if other == item.value => {
                    path.warning("is there twice", "remove one of them");
                }
                Some(_) => path.tolerated(
                    "is there twice, for two devices; crun and runc make one of them",
                    "give one of them another path",
                ),
                None => {}
            }
        }
        let Some(kind) = item.at("type").text() else { continue };
        for (key, most) in [("major", 0xfff), ("minor", 0xf_ffff)] {
            let number = item.at(key);
            match number.number() {
                None if kind != "p" && number.value.is_null() => number.tolerated(
                    "is missing; crun and runc take 0",
                    "give the device's number: `stat -c %Hr:%Lr` of one that is there",
                ),
                Some(value) if !(0..=most).contains(&value) => {
                    number
                        .error(format!("is not between 0 and {most}"), "give the device's number");
                }
                _ => {}
            }
        }
        id(&item.at("uid"));
        id(&item.at("gid"));
        let mode = item.at("fileMode");
        let own = match kind {
            "b" => libc::S_IFBLK,
            "p" => libc::S_IFIFO,
            _ => libc::S_IFCHR,
        };
        if let Some(bits) = mode.number()
            && ![0, i128::from(own)].contains(&(bits & !0o7777))
        {
            mode.error(
                format!("{bits} has bits of another kind of file"),
                "give permissions alone, in decimal: 438 is 0666",
            );
        }
    }
}

/// A path below the hierarchies' top, or systemd's `slice:prefix:name`.
fn cgroups_path(at: &At<'_>) {
    let Some(text) = at.text() else { return };
    if text.chars().any(char::is_control) {
        at.error("has a control character", "take it out");
    } else if text.split('/').any(|word| word == "..") {
        at.error(
            format!("{} climbs up: crun fails, runc takes another path", quoted(text)),
            "give the path without ..",
        );
    }
}

fn seccomp(at: &At<'_>) {
    if !at.value.is_object() {
        return;
    }
    errno(at, "defaultAction", "defaultErrnoRet");
    let rules = at.at("syscalls").items();
    for rule in &rules {
        errno(rule, "action", "errnoRet");
        let names = rule.at("names");
        if names.value.as_array().is_some_and(Vec::is_empty) {
            names.tolerated(
                "is empty; crun and runc pass the rule over",
                "name a system call, or remove the rule",
            );
        }
        for name in names.items() {
            let Some(text) = name.text() else { continue };
            let plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if !text.bytes().all(plain) {
                name.warning(
                    format!("{} is no name of a system call: the rule does nothing", quoted(text)),
                    "write it as its manual page does, in small letters",
                );
            } else if !seccomp::knows(text) {
                name.note(
                    format!("{} is no system call known here; runtimes pass it over", quoted(text)),
                    "it does no harm if it is another architecture's, or newer",
                );
            }
        }
        for condition in rule.at("args").items() {
            let second = condition.at("valueTwo");
            if condition.at("op").text() == Some("SCMP_CMP_MASKED_EQ") && second.value.is_null() {
                second.warning(
                    "is missing, and SCMP_CMP_MASKED_EQ compares with it: 0 is taken",
                    "give what is left of the argument under the mask in value",
                );
            }
        }
    }
    let notifies = std::iter::once(at.at("defaultAction"))
        .chain(rules.iter().map(|rule| rule.at("action")))
        .find(|action| action.text() == Some("SCMP_ACT_NOTIFY"));
    if let Some(action) = notifies
        && !at.at("listenerPath").is_set()
    {
        action.tolerated(
            "nobody would answer: there is no /linux/seccomp/listenerPath; runc refuses",
            "name the agent's socket there, or take another action",
        );
    }
    let metadata = at.at("listenerMetadata");
    if metadata.is_set() && !at.at("listenerPath").is_set() {
        metadata.error("must not be there without listenerPath", "remove it, or add the path");
    }
}

fn errno(at: &At<'_>, action: &str, key: &str) {
    let value = at.at(key);
    let Some(number) = value.number() else { return };
    let most = match at.at(action).text() {
        Some("SCMP_ACT_ERRNO") => HIGHEST_ERROR,
        Some("SCMP_ACT_TRACE") => u16::MAX.into(),
        Some(other) => {
            value.error(
                format!("{} returns no error; crun refuses, runc passes it over", quoted(other)),
                "remove it",
            );
            return;
        }
        None => return,
    };
    if number > most {
        value.error(format!("is above {most}"), "give a number of errno(3)");
    }
}

fn intel_rdt(at: &At<'_>, host: &Host<'_>) {
    let class = at.at("closID");
    if class.text().is_some_and(|name| name.contains('/') || name == "." || name == "..") {
        class.error("is no name of a folder in /sys/fs/resctrl", "give a name without a slash");
    }
    let resctrl = Path::new("/sys/fs/resctrl");
    if at.is_set() && host.files.kind(resctrl) != Some(FileKind::Dir) {
        at.warning(
            "this host has no /sys/fs/resctrl: runtimes refuse",
            "mount it, on a processor that has Intel RDT",
        );
    }
}
