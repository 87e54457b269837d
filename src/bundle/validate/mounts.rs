//! `mounts`

use super::Host;
use super::at::At;
use super::namespaces::{Namespaces, ranges};
use super::top::clean;
use crate::config::input::{list, quoted};
use crate::guest::translate::is_mount_option;
use std::path::{Path, PathBuf};

/// Options of the file systems that every container has, by their names without a value
/// (proc(5), tmpfs(5), the kernel's Documentation/filesystems/devpts.rst). What is not here is
/// refused by the kernel.
const OPTIONS: [(&str, &[&str]); 5] = [
    ("proc", &["hidepid", "gid", "subset"]),
    ("sysfs", &[]),
    ("mqueue", &[]),
    (
        "tmpfs",
        &[
            "size",
            "nr_blocks",
            "nr_inodes",
            "mode",
            "uid",
            "gid",
            "mpol",
            "huge",
            "inode32",
            "inode64",
            "noswap",
            "quota",
            "usrquota",
            "grpquota",
            "casefold",
            "strict_encoding",
            "usrquota_block_hardlimit",
            "usrquota_inode_hardlimit",
            "grpquota_block_hardlimit",
            "grpquota_inode_hardlimit",
        ],
    ),
    ("devpts", &["uid", "gid", "mode", "ptmxmode", "newinstance", "max"]),
];

/// Options of SELinux, which any file system takes (mount(8)).
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

pub(super) fn check(at: &At<'_>, namespaces: &Namespaces, host: &Host<'_>) {
    if at.value.is_null() {
        at.warning(
            "is missing: crun refuses that, runc and runtime-spec do not",
            "write the mounts that the container needs, or []",
        );
    }
    let mut before: Vec<PathBuf> = Vec::new();
    for mount in at.items() {
        if !mount.value.is_object() {
            continue;
        }
        one(&mount, namespaces, host);
        let Some(text) = mount.at("destination").text() else { continue };
        let (path, _) = clean(&Path::new("/").join(text));
        if path == Path::new("/") {
            continue;
        }
        let hidden = before.iter().find(|earlier| **earlier != path && earlier.starts_with(&path));
        if let Some(hidden) = hidden {
            mount.at("destination").warning(
                format!("hides an earlier mount, on {}", hidden.display()),
                "put this one first",
            );
        }
        if before.contains(&path) {
            mount
                .at("destination")
                .note("is mounted on already: this one hides the other", "remove one of them");
        }
        before.push(path);
    }
}

fn one(at: &At<'_>, namespaces: &Namespaces, host: &Host<'_>) {
    destination(&at.at("destination"));
    let options = at.at("options").items();
    let words: Vec<&str> = options.iter().filter_map(At::text).collect();
    let is_bind = words.iter().any(|word| matches!(*word, "bind" | "rbind"));
    let kind = at.at("type");
    if is_bind {
        // crun's: what a link leads to need not be there.
        let takes_links = words.iter().any(|word| matches!(*word, "copy-symlink" | "src-nofollow"));
        source(&at.at("source"), takes_links, host);
    } else {
        match kind.text() {
            None => kind.error(
                "is missing, and the options have neither bind nor rbind",
                "name the file system, such as tmpfs, or add the option bind",
            ),
            Some("bind" | "rbind") => at.at("options").error(
                "have neither bind nor rbind: without one the type bind means nothing to the kernel",
                "add the option rbind",
            ),
            Some("none") => kind.error("is no file system, and there is no bind", "add the option bind"),
            Some(name) if !host.files.has_filesystem(name) => kind.warning(
                format!("{} is no file system that this host's kernel has now", quoted(name)),
                "load its module, or name another; /proc/filesystems lists them",
            ),
            Some(_) => {}
        }
    }
    for option in &options {
        option_of(option, kind.text().unwrap_or_default(), is_bind);
    }
    contradictions(at, &words);
    let mapped = [at.at("uidMappings"), at.at("gidMappings")];
    if mapped.iter().any(At::is_set) {
        if let Some(missing) = mapped.iter().find(|mappings| !mappings.is_set()) {
            missing.error("is missing beside the other mapping", "give both");
        }
        if !is_bind {
            at.warning("has mappings of ids and is no bind: runc refuses", "add the option bind");
        }
        if !namespaces.has("user") {
            at.warning(
                "has mappings of ids, and there is no user namespace: runc before 1.2 passes them \
                 over",
                "use them in a container with a user namespace",
            );
        }
        mapped.iter().for_each(ranges);
    }
}

fn destination(at: &At<'_>) {
    let Some(text) = at.text() else { return };
    let path = Path::new(text);
    if text.contains('\0') {
        return at.error("has a NUL in it", "take it out");
    }
    if path.is_relative() {
        at.warning(
            format!("{} is no absolute path; runtimes put a / before it", quoted(text)),
            format!("write {}", quoted(&format!("/{text}"))),
        );
    }
    let (cleaned, out) = clean(&Path::new("/").join(path));
    if cleaned == Path::new("/") {
        at.error("is the container's root itself", "mount on a folder in it, or use /root/path");
    } else if out > 0 {
        at.warning(
            format!("climbs above the root; runtimes stay in it and take {}", cleaned.display()),
            format!("write {}", cleaned.display()),
        );
    }
}

fn source(at: &At<'_>, takes_links: bool, host: &Host<'_>) {
    let Some(text) = at.text() else {
        at.error("is missing, and the mount is a bind", "name the file or folder of the host");
        return;
    };
    // Relative to the bundle, says runtime-spec.
    let path = host.bundle.join(text);
    if !takes_links && host.files.kind(&path).is_none() {
        at.error(
            format!("{} is not there", path.display()),
            "make it before the container is made, or correct the path",
        );
    }
}

fn option_of(at: &At<'_>, kind: &str, is_bind: bool) {
    let Some(word) = at.text() else { return };
    if is_mount_option(word) {
        return;
    }
    let name = word.split('=').next().unwrap_or(word);
    if CONTEXTS.contains(&name) {
        return;
    }
    if is_bind {
        at.warning(
            format!("{} is no option of a mount, and a bind has no others", quoted(word)),
            "remove it",
        );
        return;
    }
    let Some((_, known)) = OPTIONS.iter().find(|(known, _)| *known == kind) else { return };
    if !word.split(',').all(|part| known.contains(&part.split('=').next().unwrap_or(part))) {
        at.warning(
            format!(
                "{} is no option of runtime-spec: it is handed to {kind}, which does not know it",
                quoted(word)
            ),
            match known.is_empty() {
                true => format!("remove it: {kind} has none of its own"),
                false => format!("remove it; {kind} has {}", list(known)),
            },
        );
    } else if name == "size" && kind == "tmpfs" && !is_size(word) {
        at.error(
            format!("{} is no size to the kernel", quoted(word)),
            "write a number and k, m, g or %, such as size=64m",
        );
    }
}

/// As the kernel reads tmpfs' sizes.
fn is_size(word: &str) -> bool {
    let value = word.split(',').next().and_then(|part| part.strip_prefix("size="));
    value.is_some_and(|value| {
        let digits = value.trim_end_matches(|char: char| "kKmMgGtTpPeE%".contains(char));
        let is_number = match digits.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).is_ok(),
            None => digits.parse::<u64>().is_ok(),
        };
        is_number && !digits.starts_with('+') && value.len() - digits.len() <= 1
    })
}

/// Words of which one takes back the other.
fn contradictions(at: &At<'_>, words: &[&str]) {
    const PAIRS: [(&str, &str); 6] = [
        ("ro", "rw"),
        ("nosuid", "suid"),
        ("nodev", "dev"),
        ("noexec", "exec"),
        ("noatime", "strictatime"),
        ("sync", "async"),
    ];
    for (one, other) in PAIRS {
        if words.contains(&one) && words.contains(&other) {
            at.at("options").warning(
                format!("have both {one} and {other}: the last one counts"),
                "remove one of them",
            );
        }
    }
    let propagation = |word: &&&str| {
        matches!(
            word.strip_prefix('r').unwrap_or(word),
            "shared" | "slave" | "private" | "unbindable"
        )
    };
    let mut found: Vec<&&str> = words.iter().filter(propagation).collect();
    found.dedup();
    if let [one, other, ..] = found[..] {
        at.at("options").warning(
            format!("have both {one} and {other}: crun refuses, runc applies all of them"),
            "keep one",
        );
    }
}
