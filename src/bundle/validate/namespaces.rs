//! `linux.namespaces`, and what means something only together with one of them.

use super::Host;
use super::at::At;
use crate::config::input::quoted;
use crate::guest::translate::FileKind;
use std::collections::BTreeMap;
use std::path::Path;

/// The namespaces that a container does not share with the host, as far as that can be told.
pub(super) struct Namespaces {
    /// By kind: whether it is a new one.
    found: BTreeMap<String, bool>,
}

/// user_namespaces(7): the kernel takes no more ranges.
const MOST_RANGES: usize = 340;

impl Namespaces {
    /// Checks and reads `linux.namespaces`.
    pub(super) fn check(at: &At<'_>, host: &Host<'_>) -> Self {
        let mut found = BTreeMap::new();
        for item in at.items() {
            let (kind, path) = (item.at("type"), item.at("path"));
            let Some(name) = kind.text() else { continue };
            if found.insert(name.to_owned(), !path.is_set()).is_some() {
                kind.error(
                    format!("{} is there twice; crun before 1.18 takes the last", quoted(name)),
                    "remove one of them",
                );
            }
            match path.value.as_str() {
                Some("") => path.warning(
                    "is empty: runc takes that for a new namespace, and crun for a path",
                    "remove it, for a new one",
                ),
                Some(text) if !text.starts_with('/') => path.error(
                    format!("found {}, wanted an absolute path", quoted(text)),
                    "give the whole path, such as /run/netns/NAME",
                ),
                Some(text) => match host.files.kind(Path::new(text)) {
                    None => path.error(
                        format!("{} is not there: nothing to join", quoted(text)),
                        "make the namespace first, or remove the path for a new one",
                    ),
                    Some(FileKind::Dir) => {
                        path.error("is a folder and no namespace", "name a file of /proc/PID/ns");
                    }
                    Some(_) => wrong_kind(&path, name, text),
                },
                None => {}
            }
        }
        Self { found }
    }

    /// Whether the container has one of its own, or shares somebody else's.
    pub(super) fn has(&self, kind: &str) -> bool {
        self.found.contains_key(kind)
    }

    /// What needs a namespace that is not there, and the ids of a user namespace.
    pub(super) fn rest(&self, linux: &At<'_>) {
        if !self.has("mount") {
            linux.at("namespaces").warning(
                "there is none of type mount: the container's mounts are made on the host, and LXC \
                 and Proxmox VE refuse",
                "add {\"type\": \"mount\"}",
            );
        }
        self.mappings(linux);
        let offsets = linux.at("timeOffsets");
        if offsets.is_set() && !self.has("time") {
            offsets.error(
                "there is no time namespace: the clocks are the host's",
                "add {\"type\": \"time\"} to /linux/namespaces, or remove it",
            );
        }
        for (key, value) in linux.at("sysctl").entries() {
            self.sysctl(key, &value);
        }
    }

    fn mappings(&self, linux: &At<'_>) {
        for key in ["uidMappings", "gidMappings"] {
            let at = linux.at(key);
            match (self.found.get("user"), at.is_set()) {
                (None, true) => at.error(
                    "there is no user namespace that the ids could be mapped in",
                    "add {\"type\": \"user\"} to /linux/namespaces, or remove the mappings",
                ),
                (Some(true), false) => at.warning(
                    "is missing, and there is a new user namespace: runc, LXC and Proxmox VE \
                     refuse, and crun maps as it sees fit",
                    "map at least the id 0",
                ),
                _ => {}
            }
            ranges(&at);
        }
    }

    /// A kernel parameter must be one that a namespace of the container's has for itself.
    fn sysctl(&self, key: &str, value: &At<'_>) {
        const IPC: [&str; 8] = [
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
        ];
        // The first of dot and slash separates, the other is part of a name (sysctl(8)).
        let dotted: String = match key.find(['.', '/']).and_then(|end| key.get(end..=end)) {
            Some("/") => key.chars().map(|char| if char == '/' { '.' } else { char }).collect(),
            _ => key.to_owned(),
        };
        if key.split(['.', '/']).any(str::is_empty) {
            return value.error(
                format!("{} is no kernel parameter", quoted(key)),
                "name it as sysctl(8) does, such as net.ipv4.ip_forward",
            );
        }
        let kind = if dotted.starts_with("net.") {
            "network"
        } else if dotted.starts_with("fs.mqueue.") || IPC.contains(&dotted.as_str()) {
            "ipc"
        } else if dotted == "kernel.domainname" {
            "uts"
        } else if dotted == "kernel.hostname" {
            return value
                .error("is what /hostname says, and runtimes refuse both ways", "use /hostname");
        } else {
            return value.error(
                "is the whole host's and not one container's: runtimes refuse it",
                "remove it, and set it on the host",
            );
        };
        if !self.has(kind) {
            value.error(
                format!("it would be changed on the host: there is no {kind} namespace"),
                format!("add {{\"type\": \"{kind}\"}} to /linux/namespaces, or remove it"),
            );
        }
        if value.text().is_some_and(|text| text.contains('\0')) {
            value.error("has a NUL in it", "take it out");
        }
    }
}

/// A file of /proc/PID/ns says by its name what it is.
fn wrong_kind(at: &At<'_>, name: &str, text: &str) {
    let (Some((folder, file)), wanted) = (
        text.rsplit_once('/'),
        match name {
            "network" => "net",
            "mount" => "mnt",
            other => other,
        },
    ) else {
        return;
    };
    let known = ["net", "mnt", "pid", "ipc", "uts", "user", "cgroup", "time"];
    let is_proc = folder.starts_with("/proc/") && folder.ends_with("/ns");
    if is_proc && known.contains(&file) && file != wanted {
        at.error(
            format!("is a namespace of type {file}, and one of type {wanted} is wanted"),
            format!("name {folder}/{wanted}"),
        );
    }
}

/// Ranges of ids: not too many, within 32 bits, and none over another.
pub(super) fn ranges(at: &At<'_>) {
    let items = at.items();
    if items.len() > MOST_RANGES {
        at.error(
            format!("has {} ranges, and the kernel takes {MOST_RANGES}", items.len()),
            "join some of them",
        );
        return;
    }
    let number = |item: &At<'_>, key: &str| item.at(key).number().unwrap_or(-1);
    for (key, whose) in [("containerID", "container"), ("hostID", "host")] {
        for (place, item) in items.iter().enumerate() {
            let (start, size) = (number(item, key), number(item, "size"));
            if start < 0 || size < 1 {
                continue;
            }
            if start + size > i128::from(u32::MAX) + 1 {
                item.at("size").error("leads past the highest id, 4294967295", "give fewer ids");
            }
            let over = items.iter().take(place).any(|other| {
                let (first, length) = (number(other, key), number(other, "size"));
                first >= 0 && length > 0 && start < first + length && first < start + size
            });
            if over {
                item.at(key).error(
                    format!("ids of the {whose} are in an earlier range, too: the kernel refuses"),
                    "map each id once",
                );
            }
        }
    }
}
