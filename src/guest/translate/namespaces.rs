//! `linux.namespaces` and what depends on them: id mappings, clock offsets, sysctls.

use super::config::Config;
use super::cursor::At;
use super::{Driver, Host, IdMap};
use crate::config::input::quoted;
use crate::error::Result;

/// runtime-spec's name, and LXC's.
const KINDS: [(&str, &str); 8] = [
    ("mount", "mnt"),
    ("user", "user"),
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// user_namespaces(7): the kernel takes no more ranges.
const MOST_RANGES: usize = 340;

/// The namespaces of a guest.
pub(super) struct Namespaces {
    /// In the order of [`KINDS`]: absent, or with a path, or new.
    found: [Option<Option<String>>; 8],
    /// Of users, then of groups.
    pub idmap: Vec<IdMap>,
    /// LXC's keys and values.
    offsets: Vec<(&'static str, String)>,
}

impl Namespaces {
    pub(super) fn of(linux: &At<'_>) -> Result<Self> {
        let mut found: [Option<Option<String>>; 8] = Default::default();
        for namespace in linux.at("namespaces").items()? {
            let at = namespace.at("type");
            let name = at.some_text()?;
            let known = KINDS.iter().zip(&mut found).find(|((kind, _), _)| *kind == name);
            let Some((_, slot)) = known else {
                return Err(at.wrong(format!("{} is no kind of namespace", quoted(name))));
            };
            if slot.is_some() {
                return Err(at.wrong(format!("{name} is there twice")));
            }
            let path = namespace.at("path");
            let path = path.is_set().then(|| path.absolute()).transpose()?;
            if path.is_some() && matches!(name, "mount" | "user") {
                return Err(namespace.at("path").refused(format!(
                    "LXC cannot put a guest into a {name} namespace that is there already"
                )));
            }
            *slot = Some(path.map(str::to_owned));
        }
        let mut namespaces = Self { found, idmap: Vec::new(), offsets: Vec::new() };
        if !namespaces.has_new("mount") {
            return Err(linux
                .at("namespaces")
                .refused("there is none of type mount: a guest of LXC always has one of its own"));
        }
        namespaces.idmap = idmap(linux, namespaces.has_users())?;
        namespaces.offsets = offsets(&linux.at("timeOffsets"), &namespaces)?;
        Ok(namespaces)
    }

    fn kind(&self, name: &str) -> Option<&Option<String>> {
        let pair = KINDS.iter().zip(&self.found).find(|((kind, _), _)| *kind == name);
        pair.and_then(|(_, found)| found.as_ref())
    }

    /// Whether the guest has a new namespace of that kind.
    pub(super) fn has_new(&self, name: &str) -> bool {
        matches!(self.kind(name), Some(None))
    }

    /// Whether the guest has a user namespace of its own.
    pub(super) fn has_users(&self) -> bool {
        self.has_new("user")
    }

    /// LXC's lines for them.
    pub(super) fn lines(&self, host: &Host<'_>, config: &mut Config) -> Result<()> {
        const POINTER: &str = "/linux/namespaces";
        let mut kept = Vec::new();
        for ((_, key), found) in KINDS.iter().zip(&self.found) {
            match found {
                // Proxmox has cgroups of its own for its guests, below which others do not look.
                None if *key == "cgroup" && host.driver == Driver::Pct => {}
                None if *key == "net" && host.driver == Driver::Lxc => {
                    config.line("lxc.namespace.share.net", host.network, POINTER)?;
                }
                None => kept.push(*key),
                Some(Some(path)) => {
                    config.line(&format!("lxc.namespace.share.{key}"), path, POINTER)?;
                }
                Some(None) => {}
            }
        }
        // LXC makes neither of these by itself, but all that such a list does not name.
        let by_itself = ["user", "time"];
        if kept.iter().any(|kind| !by_itself.contains(kind)) {
            config.line("lxc.namespace.keep", &kept.join(" "), POINTER)?;
        }
        if self.has_new("network") {
            // What brings up the loopback device. Proxmox numbers its own from 0 to 31.
            let number = match host.driver {
                Driver::Lxc => 0,
                Driver::Pct => 99,
            };
            config.line(&format!("lxc.net.{number}.type"), "empty", POINTER)?;
            config.line(&format!("lxc.net.{number}.flags"), "up", POINTER)?;
        }
        for (key, offset) in &self.offsets {
            config.line(key, offset, "/linux/timeOffsets")?;
        }
        if host.driver == Driver::Lxc {
            for IdMap { groups, guest, host, size } in &self.idmap {
                let kind = if *groups { "g" } else { "u" };
                config.line("lxc.idmap", &format!("{kind} {guest} {host} {size}"), "/linux")?;
            }
        }
        Ok(())
    }

    /// Kernel parameters, of namespaces that are the guest's only.
    pub(super) fn sysctls(&self, at: &At<'_>, config: &mut Config) -> Result<()> {
        const IPC: [&str; 10] = [
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
            "kernel.msg_next_id",
            "kernel.auto_msgmni",
        ];
        for (key, value) in at.entries()? {
            // Of a key with slashes, dots are part of a name (sysctl(8)).
            let words: Vec<&str> = match key.find(['.', '/']).map(|end| &key[end..=end]) {
                Some("/") => key.split('/').collect(),
                _ => key.split('.').collect(),
            };
            let plain = |word: &&str| {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
                !word.is_empty() && word.bytes().all(fits)
            };
            if !words.iter().all(plain) {
                return Err(value.refused("LXC cannot write a parameter of that name"));
            }
            let name = words.join(".");
            let kind = if name.starts_with("net.") {
                "network"
            } else if name.starts_with("fs.mqueue.") || IPC.contains(&name.as_str()) {
                "ipc"
            } else if matches!(name.as_str(), "kernel.domainname" | "kernel.hostname") {
                "uts"
            } else {
                return Err(value.refused("it is the whole host's, not one container's"));
            };
            if self.kind(kind).is_none() {
                return Err(value.refused(format!(
                    "it would be changed on the host: the guest's {kind} namespace is the host's"
                )));
            }
            config.line(&format!("lxc.sysctl.{name}"), value.any_text()?, value.pointer())?;
        }
        Ok(())
    }
}

fn idmap(linux: &At<'_>, has_users: bool) -> Result<Vec<IdMap>> {
    let mut found = Vec::new();
    for (key, groups) in [("uidMappings", false), ("gidMappings", true)] {
        let at = linux.at(key);
        if at.items()?.is_empty() == has_users {
            return Err(at.wrong(if has_users {
                "is missing, and /linux/namespaces has a new one of type user"
            } else {
                "is there, and /linux/namespaces has no new one of type user"
            }));
        }
        found.extend(ranges(&at, groups)?);
        let is_root = |range: &IdMap| range.groups == groups && range.guest == 0;
        if has_users && !found.iter().any(is_root) {
            return Err(at.refused("LXC needs the guest's id 0 to be one of the host's"));
        }
    }
    Ok(found)
}

/// Ranges of ids, as config.json has them.
pub(super) fn ranges(at: &At<'_>, groups: bool) -> Result<Vec<IdMap>> {
    let items = at.items()?;
    if items.len() > MOST_RANGES {
        return Err(at.wrong(format!("has more than the kernel's {MOST_RANGES} ranges")));
    }
    let read = |range: &At<'_>| {
        let number = |key: &str| -> Result<u32> {
            range.at(key).number()?.ok_or_else(|| range.at(key).wrong("is missing"))
        };
        let (guest, host, size) = (number("containerID")?, number("hostID")?, number("size")?);
        if size == 0 || guest.checked_add(size).is_none() || host.checked_add(size).is_none() {
            return Err(range.wrong("is no range of ids"));
        }
        Ok(IdMap { groups, guest, host, size })
    };
    items.iter().map(read).collect()
}

/// LXC hands seconds to the kernel as they are, or else nanoseconds, each from a line of its own;
/// where it has both it loses the nanoseconds.
fn offsets(at: &At<'_>, namespaces: &Namespaces) -> Result<Vec<(&'static str, String)>> {
    let mut found = Vec::new();
    for (name, key) in
        [("boottime", "lxc.time.offset.boot"), ("monotonic", "lxc.time.offset.monotonic")]
    {
        let clock = at.at(name);
        let seconds: i64 = clock.at("secs").number()?.unwrap_or(0);
        let rest = clock.at("nanosecs");
        let nanoseconds: u32 = rest.number()?.unwrap_or(0);
        if nanoseconds > 999_999_999 {
            return Err(rest.wrong("is a second or more"));
        }
        if seconds != 0 && nanoseconds != 0 {
            return Err(rest.refused("LXC sets a clock by seconds or by nanoseconds: leave it out"));
        }
        if (seconds, nanoseconds) != (0, 0) && !namespaces.has_new("time") {
            return Err(clock.wrong("is there, and /linux/namespaces has no new one of type time"));
        }
        if namespaces.has_new("time") {
            found.push((key, format!("{seconds}s")));
            found.push((key, format!("{nanoseconds}ns")));
        }
    }
    Ok(found)
}
