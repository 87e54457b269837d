//! A mount's options in the words of runtime-spec: what LXC is told, and what the init does.

use super::cursor::At;
use crate::config::input::quoted;
use crate::error::Result;

/// A mount's options, taken apart.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// `bind` or `rbind`, where one of them is there.
    pub bind: Option<&'static str>,
    /// Words of fstab(5) that LXC makes flags of mount(2) of.
    pub words: Vec<String>,
    /// Options of the file system, as they are.
    pub data: Vec<String>,
    /// MOUNT_ATTR_… for the mount itself, from the same words.
    pub set: u64,
    /// See `set`.
    pub clear: u64,
    /// MOUNT_ATTR_… for it and all below.
    pub all_set: u64,
    /// See `all_set`.
    pub all_clear: u64,
    /// MS_SHARED and the like, without MS_REC.
    pub propagation: u64,
    /// The propagation is that of all mounts below, too.
    pub propagation_below: bool,
    /// Ids are to be mapped, as the option `idmap` or `ridmap` says.
    pub idmap: bool,
    /// Those of all mounts below, too.
    pub idmap_below: bool,
}

/// The kernel's word for what `attribute` is a value of, and not a bit.
const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

/// fstab's words: what each sets of mount_setattr(2), and what it clears.
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("noatime", libc::MOUNT_ATTR_NOATIME, ATIME),
    ("relatime", libc::MOUNT_ATTR_RELATIME, ATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, ATIME),
    // The kernel's default, which these fall back to.
    ("atime", libc::MOUNT_ATTR_RELATIME, ATIME),
    ("norelatime", libc::MOUNT_ATTR_RELATIME, ATIME),
    ("nostrictatime", libc::MOUNT_ATTR_RELATIME, ATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// Words of mount(2)'s flags that belong to the file system and not to the mount. LXC takes them,
/// and mounts without.
const SUPERBLOCK: [&str; 4] = ["sync", "dirsync", "mand", "lazytime"];

/// Words that change nothing: what the kernel logs, and what it does anyway.
const NOTHING: [&str; 6] = ["silent", "loud", "defaults", "async", "nomand", "nolazytime"];

/// Words that mean something to LXC, and nothing that a config.json could want.
const LXCS: [&str; 4] = ["optional", "relative", "create", "remount"];

/// Every word that is no option of a file system.
pub(super) fn words() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().map(|(word, ..)| *word);
    let propagations = ["shared", "slave", "private", "unbindable"];
    let doubled =
        attributes.chain(propagations).flat_map(|word| [word.to_owned(), format!("r{word}")]);
    let others = NOTHING.into_iter().chain(["bind", "rbind"]);
    let mut words: Vec<_> = doubled.chain(others.map(str::to_owned)).collect();
    words.sort_unstable();
    words
}

/// Takes a mount's options apart.
pub(super) fn parse(at: &At<'_>) -> Result<Options> {
    let mut options = Options::default();
    for item in at.items()? {
        let word = item.any_text()?;
        if !word.is_empty() {
            options.add(&item, item.plain(word)?)?;
        }
    }
    Ok(options)
}

/// An attribute by its word.
fn attribute(word: &str) -> Option<(u64, u64)> {
    ATTRIBUTES.iter().find(|(known, ..)| *known == word).map(|(_, set, clear)| (*set, *clear))
}

/// MS_SHARED and the like, by its word without the r of a recursive one.
pub(super) fn propagation(word: &str) -> Option<u64> {
    Some(match word {
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "private" => libc::MS_PRIVATE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    })
}

impl Options {
    fn add(&mut self, at: &At<'_>, word: &str) -> Result<()> {
        let all = word.strip_prefix('r');
        if let Some((set, clear)) = attribute(word) {
            (self.set, self.clear) = merge((self.set, self.clear), (set, clear));
            // LXC would take this one for an option of the file system.
            if !word.ends_with("symfollow") {
                self.words.push(word.to_owned());
            }
        } else if let Some((set, clear)) = all.and_then(attribute) {
            let before = (self.all_set, self.all_clear);
            (self.all_set, self.all_clear) = merge(before, (set, clear));
        } else if let Some(kind) = propagation(word) {
            (self.propagation, self.propagation_below) = (kind, false);
        } else if let Some(kind) = all.and_then(propagation) {
            (self.propagation, self.propagation_below) = (kind, true);
        } else if SUPERBLOCK.contains(&word) {
            return Err(at.refused(format!(
                "LXC mounts without {word}: take the option away, or mount it on the host and bind \
                 it"
            )));
        } else {
            match word {
                "bind" => self.bind = self.bind.or(Some("bind")),
                "rbind" => self.bind = Some("rbind"),
                "idmap" | "ridmap" => {
                    (self.idmap, self.idmap_below) = (true, word == "ridmap");
                }
                "tmpcopyup" => {
                    return Err(at.refused(
                        "LXC cannot copy what is in the image to a tmpfs: take the option away, \
                         or mount a volume there",
                    ));
                }
                _ if NOTHING.contains(&word) => {}
                "iversion" | "noiversion" => {
                    return Err(at.refused("the kernel decides by the file system"));
                }
                _ => self.data.push(data(at, word)?),
            }
        }
        Ok(())
    }
}

/// A later word on the same bits takes the earlier one's place.
fn merge(before: (u64, u64), word: (u64, u64)) -> (u64, u64) {
    let (set, clear) = word;
    ((before.0 & !clear) | set, (before.1 & !set) | clear)
}

/// An option of the file system, which LXC must not take for one of its own.
fn data(at: &At<'_>, word: &str) -> Result<String> {
    for part in word.split(',') {
        let name = part.split('=').next().unwrap_or(part);
        let others = ["bind", "rbind", "idmap", "ridmap"];
        let plain = name.strip_prefix('r').unwrap_or(name);
        let is_lxcs = LXCS.contains(&name)
            || others.contains(&name)
            || SUPERBLOCK.contains(&name)
            || NOTHING.contains(&name)
            || [name, plain].iter().any(|name| attribute(name).is_some())
            || [name, plain].iter().any(|name| propagation(name).is_some());
        if is_lxcs {
            return Err(at.wrong(format!("{} is no option of a file system", quoted(word))));
        }
    }
    Ok(word.to_owned())
}

/// Whether a word is no option of a file system but one that runtime-spec, or crun or runc, has
/// for every mount.
pub(crate) fn is_mount_option(word: &str) -> bool {
    let plain = word.strip_prefix('r').unwrap_or(word);
    let others = [
        "bind",
        "rbind",
        "idmap",
        "ridmap",
        "remount",
        "tmpcopyup",
        "copy-symlink",
        "iversion",
        "noiversion",
    ];
    // crun writes the mappings behind it.
    let name = word.split('=').next().unwrap_or(word);
    [word, plain].iter().any(|word| attribute(word).is_some() || propagation(word).is_some())
        || SUPERBLOCK.contains(&word)
        || NOTHING.contains(&word)
        || others.contains(&name)
}
