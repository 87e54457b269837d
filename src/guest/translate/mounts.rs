//! `mounts`: lines of LXC's configuration, places for them in the root, and what the init sets
//! right afterwards.
//!
//! LXC mounts its own tmpfs on /dev first, then the entries in order, then cgroups and devpts, so
//! those three are said in keys of their own. Of a bind mount LXC applies flags only where it
//! happens to remount, so flags, propagation and whatever it has no word for are the init's.
//!
//! Bind mounts that LXC cannot make are the supervisor's ([`Bind`]): those through which mounts are
//! to appear on the host, for LXC's guests begin as slaves of it, those with mapped ids, for LXC
//! knows no mapping but the guest's own, and those that are in a folder of the host's. Whoever else
//! has such a volume may put a link on the way to them at any moment, and LXC looks them up by path
//! more than once, on the host at that. They come when LXC's are there, so nothing of LXC's can be
//! in them.

use super::config::{Config, fstab_word};
use super::cursor::At;
use super::namespaces::ranges;
use super::options::{self, Options};
use super::{Bind, FileKind, Host, IdMap, Target};
use crate::config::input::quoted;
use crate::error::{Context, Result};
use crate::init::{Attributes, First, MountPoint, protocol};
use crate::sys::inroot::Missing;
use std::path::{Component, Path, PathBuf};

/// getmntent(3) gets a buffer of this size from LXC and drops what does not fit.
const LONGEST: usize = 4000;

/// A page, less its end: the kernel takes no more option text from mount(2).
const MOST_DATA: usize = 4095;

/// What LXC makes its tmpfs on /dev of where no size is given is too small for most programs.
const DEV_SIZE: u64 = 64 << 20;

/// A mount's keys for ids that are mapped: of users, of groups.
const MAPPINGS: [&str; 2] = ["uidMappings", "gidMappings"];

/// A mount that is there when a later one is made.
struct Done {
    /// Its destination as config.json has it, cleaned up.
    said: String,
    /// Where that is, relative to the root.
    path: String,
    inside: Inside,
    /// The init puts it there.
    given: bool,
    /// It is the host's, too.
    shared: bool,
    /// It is a folder of the host's, or in one: others may change what leads to a place in it.
    foreign: bool,
}

impl Done {
    fn new(said: impl Into<String>, path: impl Into<String>, inside: Inside) -> Self {
        let (said, path) = (said.into(), path.into());
        Self { said, path, inside, given: false, shared: false, foreign: false }
    }
}

/// Which ids a bind mount shows.
enum Ids {
    /// Those of the files.
    Plain,
    /// Mapped as the guest's own.
    Guests,
    /// Mapped as it says itself.
    Others(Vec<IdMap>),
}

/// What a place for a mount can be made in.
enum Inside {
    /// Empty, and nobody else's: LXC may make it.
    Fresh,
    /// A folder of the host's.
    Host(PathBuf),
    /// Nothing can be made, or who knows what is there.
    Fixed,
}

/// Writes all mounts.
pub(super) struct Mounts<'a> {
    pub host: &'a Host<'a>,
    pub config: &'a mut Config,
    pub first: &'a mut First,
    pub targets: Vec<Target>,
    /// The guest has a user namespace of its own, and these mappings of linux.
    pub mappings: Option<&'a [IdMap]>,
    /// What becomes of all mounts without a word of their own: MS_SHARED if they are to be the
    /// host's, where those are shared.
    pub propagation: u64,
    /// Mounts of the supervisor's, and where the init puts them.
    given: Vec<(MountPoint, Bind)>,
    /// The namespaces that belong to a user namespace above the guest's own, if it has one.
    pub foreign: Vec<&'static str>,
    /// Its cgroup namespace is the host's, or another container's.
    pub foreign_cgroups: bool,
    /// What the guest goes without.
    pub notes: Vec<String>,
    done: Vec<Done>,
    has_dev: bool,
    has_pts: bool,
    cgroup: Option<String>,
}

impl<'a> Mounts<'a> {
    pub(super) fn new(host: &'a Host<'a>, config: &'a mut Config, first: &'a mut First) -> Self {
        let dev = Done::new("dev", "dev", Inside::Fresh);
        Self {
            host,
            config,
            first,
            targets: vec![Target { base: None, path: "dev".into(), kind: Missing::Folder }],
            mappings: None,
            propagation: 0,
            given: Vec::new(),
            foreign: Vec::new(),
            foreign_cgroups: false,
            notes: Vec::new(),
            done: vec![dev],
            has_dev: false,
            has_pts: false,
            cgroup: None,
        }
    }

    /// All of `mounts`, then `nodes` of the host's /dev, then the gate. Returns what the supervisor
    /// has to do.
    pub(super) fn all(&mut self, mounts: &At<'_>, nodes: &[String]) -> Result<Vec<Bind>> {
        let dev = (self.host.resolve)("/dev").context(|| "look at /dev of the root file system")?;
        if dev != "dev" {
            return Err(mounts.refused(format!(
                "/dev of the image leads to /{dev}: LXC needs a folder or nothing there"
            )));
        }
        self.config.line("lxc.autodev", "1", "")?;
        for mount in mounts.items()? {
            self.one(&mount)?;
        }
        for path in nodes {
            let to = clean(path);
            let words = ["bind".to_owned()];
            self.entry(mounts, path, "none", &words, &to, Missing::File)?;
        }
        if !self.has_dev {
            self.config.line("lxc.autodev.tmpfs.size", &DEV_SIZE.to_string(), "")?;
        }
        if !self.has_pts {
            self.config.line("lxc.pty.max", "0", "")?;
        }
        self.gate()?;
        let (points, binds) = std::mem::take(&mut self.given).into_iter().unzip();
        self.first.mounts = points;
        Ok(binds)
    }

    fn one(&mut self, mount: &At<'_>) -> Result<()> {
        let destination = mount.at("destination");
        let said = clean(destination.plain(destination.some_text()?)?);
        let kind = mount.at("type").text()?.unwrap_or_default();
        let options = options::parse(&mount.at("options"))?;
        if said.is_empty() {
            return Err(destination.refused("nothing can be mounted on the root itself"));
        }
        let path = self.resolve(&said, &destination)?;
        if path.is_empty() {
            return Err(destination.refused("it leads to the root itself"));
        }
        let reserved = Path::new(protocol::FOLDER);
        if Path::new(&path).starts_with(reserved) {
            return Err(destination.refused("the init's own folder is there"));
        }
        if let Some(cgroup) = &self.cgroup
            && Path::new(&path).starts_with(cgroup)
        {
            return Err(destination.refused(
                "LXC mounts cgroups after everything else, and would hide it: mount it elsewhere",
            ));
        }
        let is_bind = options.bind.is_some() || matches!(kind, "bind" | "rbind");
        if is_bind {
            return self.bind(mount, said, path, options);
        }
        if let Some(outer) = self.outer(&path) {
            let place = quoted(&format!("/{}", outer.said));
            if outer.given {
                return Err(destination.refused(format!(
                    "LXC mounts it before the init mounts {place}, which would hide it: mount it \
                     elsewhere"
                )));
            }
            // LXC would make its place by a path that others may change.
            if outer.foreign && matches!(outer.inside, Inside::Fresh) && outer.path != path {
                return Err(destination.refused(format!(
                    "{place} is in a volume, where LXC cannot safely make a folder for it: mount \
                     it elsewhere"
                )));
            }
        }
        self.check_mappings(mount, &options)?;
        match (kind, path.as_str()) {
            ("tmpfs", "dev") => self.dev(mount, &options),
            (_, "dev") => Err(destination.refused(
                "the guest's /dev has to be a tmpfs: mount what is needed of it one by one",
            )),
            ("devpts", "dev/pts") => self.pts(mount, &options),
            ("devpts", _) => Err(destination.refused("LXC mounts a devpts on /dev/pts only")),
            ("cgroup" | "cgroup2", "sys/fs/cgroup") => self.cgroups(mount, &options, said, path),
            ("cgroup" | "cgroup2", _) => {
                Err(destination.refused("LXC mounts cgroups on /sys/fs/cgroup only"))
            }
            ("proc", _) if self.is_foreign("pid") => Err(mount.at("type").refused(
                "the kernel gives a guest with a user namespace of its own no /proc of a pid \
                 namespace that it shares: give it a pid namespace, or take the user namespace \
                 away (with pct, pct.unprivileged)",
            )),
            ("mqueue", _) if self.is_foreign("ipc") => {
                self.notes.push(format!(
                    "{}: there is no {} in the guest: the kernel does not show a guest with a \
                     user namespace of its own the message queues of an ipc namespace that it \
                     shares, though they work",
                    mount.pointer(),
                    quoted(&format!("/{said}")),
                ));
                Ok(())
            }
            ("sysfs", _) if self.is_foreign("network") => {
                // The kernel gives a sysfs only to the owner of the network namespace; the host's
                // shows what belongs to whoever looks.
                self.entry(mount, "/sys", "none", &["rbind".into()], &path, Missing::Folder)?;
                self.attributes(&path, &options, true);
                self.done.push(Done::new(said, path, Inside::Fixed));
                Ok(())
            }
            _ => self.file_system(mount, kind, said, path, &options),
        }
    }

    /// Whether the guest's user namespace does not own its namespace of that kind.
    fn is_foreign(&self, kind: &str) -> bool {
        self.mappings.is_some() && self.foreign.contains(&kind)
    }

    fn file_system(
        &mut self,
        mount: &At<'_>,
        kind: &str,
        said: String,
        path: String,
        options: &Options,
    ) -> Result<()> {
        let at = mount.at("type");
        if kind.is_empty() {
            return Err(at.wrong("is missing, and no option says bind"));
        }
        let kind = at.plain(kind)?;
        let source = mount.at("source");
        let from = source.text()?.map_or(Ok(kind), |text| source.plain(text))?;
        let data = options.data.join(",");
        if data.len() > MOST_DATA {
            return Err(mount.at("options").wrong("is longer than the kernel takes"));
        }
        let fresh = matches!(kind, "tmpfs" | "ramfs");
        let mut words = options.words.clone();
        if fresh {
            // Places for what is mounted in it are made before it becomes read-only.
            words.retain(|word| word != "ro");
        }
        words.extend(options.data.iter().cloned());
        self.entry(mount, from, kind, &words, &path, Missing::Folder)?;
        let late = if fresh { libc::MOUNT_ATTR_RDONLY } else { 0 };
        let rest = Options {
            // The rest of the words is LXC's, on the first call of mount(2).
            set: options.set & (libc::MOUNT_ATTR_NOSYMFOLLOW | late),
            all_set: options.all_set,
            all_clear: options.all_clear,
            propagation: options.propagation,
            propagation_below: options.propagation_below,
            ..Options::default()
        };
        self.attributes(&path, &rest, false);
        let inside = if fresh { Inside::Fresh } else { Inside::Fixed };
        let foreign = self.outer(&path).is_some_and(|outer| outer.foreign);
        self.done.push(Done { foreign, ..Done::new(said, path, inside) });
        Ok(())
    }

    fn bind(&mut self, mount: &At<'_>, said: String, path: String, options: Options) -> Result<()> {
        let at = mount.at("source");
        let said_source = at.plain(at.some_text()?)?;
        // runtime-spec, "Mounts": absolute, or relative to the bundle.
        let source = self.host.bundle.join(said_source);
        let Some(source) = source.to_str() else {
            return Err(at.refused("relative to a bundle whose path is not UTF-8"));
        };
        if path == "dev" {
            return Err(mount.at("destination").refused(
                "a /dev of somebody else's would have the init's folder in it: bind its files one \
                 by one",
            ));
        }
        if let Some(word) = options.data.first() {
            return Err(mount
                .at("options")
                .wrong(format!("{} is nothing that a bind mount can have", quoted(word))));
        }
        let kind = match (self.host.exists)(Path::new(source)) {
            Some(FileKind::Dir) => Missing::Folder,
            Some(_) => Missing::File,
            None => {
                return Err(crate::error::Error::not_found(format!(
                    "{}: {}: no such file on the host",
                    at.pointer(),
                    quoted(said_source)
                )));
            }
        };
        let ids = self.ids(mount, &options)?;
        let shared = self.propagation == libc::MS_SHARED
            && matches!(options.propagation, 0 | libc::MS_SHARED);
        let outer = self.outer(&path);
        let given = shared
            || matches!(ids, Ids::Others(_))
            || outer.is_some_and(|outer| outer.given || outer.foreign);
        let foreign = outer.is_some_and(|outer| outer.foreign) || matches!(kind, Missing::Folder);
        if let Some(outer) = outer.filter(|outer| outer.shared && outer.path != path) {
            self.notes.push(format!(
                "{}: what is mounted on {} is mounted on the host, too, for {} is shared with it, \
                 and stays there when the container is gone",
                mount.pointer(),
                quoted(&format!("/{said}")),
                quoted(&format!("/{}", outer.said)),
            ));
        }
        if given {
            let ids = match ids {
                Ids::Plain => Vec::new(),
                Ids::Guests => self.mappings.unwrap_or_default().to_vec(),
                Ids::Others(ranges) => ranges,
            };
            self.give(mount, source, &path, kind, ids, &options);
        } else {
            let mut words = vec![options.bind.unwrap_or("bind").to_owned()];
            if options.set & libc::MOUNT_ATTR_RDONLY != 0 {
                words.push("ro".to_owned());
            }
            if matches!(ids, Ids::Guests) {
                words.push("idmap=container".to_owned());
            }
            self.entry(mount, source, "none", &words, &path, kind)?;
            self.attributes(&path, &options, false);
        }
        let inside = match kind {
            Missing::Folder => Inside::Host(PathBuf::from(source)),
            Missing::File => Inside::Fixed,
        };
        self.done.push(Done { given, shared, foreign, ..Done::new(said, path, inside) });
        Ok(())
    }

    /// Leaves a bind mount to the supervisor and the init.
    fn give(
        &mut self,
        mount: &At<'_>,
        source: &str,
        path: &str,
        kind: Missing,
        ids: Vec<IdMap>,
        options: &Options,
    ) {
        // Whatever has to be there is made by the supervisor, or by the init.
        self.place(path, kind);
        self.hide(path);
        let mut attributes = Vec::new();
        if self.propagation != libc::MS_SHARED {
            attributes.push(Attributes {
                path: format!("/{path}"),
                propagation: self.propagation,
                recursive: true,
                ..Attributes::default()
            });
        }
        attributes.extend(attributes_of(path, options, false));
        let folder = kind == Missing::Folder;
        let bind = Bind {
            pointer: mount.pointer().to_owned(),
            source: PathBuf::from(source),
            below: options.bind == Some("rbind"),
            ids,
            ids_below: options.idmap_below,
        };
        self.given.push((MountPoint { path: format!("/{path}"), folder, attributes }, bind));
    }

    /// /dev itself, which LXC makes, mode 0755, before all entries.
    fn dev(&mut self, mount: &At<'_>, options: &Options) -> Result<()> {
        let at = mount.at("options");
        let mut size = DEV_SIZE;
        for word in &options.data {
            let refuse = || at.refused(format!("LXC cannot have {} on /dev", quoted(word)));
            match word.split_once('=') {
                Some(("mode", "755" | "0755")) | Some(("uid" | "gid", "0")) => {}
                Some(("size", text)) => size = bytes(text).ok_or_else(refuse)?,
                _ => return Err(refuse()),
            }
        }
        // LXC reads it into an int.
        if i32::try_from(size).is_err() {
            return Err(at.refused("LXC has no /dev of 2 GiB or more"));
        }
        self.config.line("lxc.autodev.tmpfs.size", &size.to_string(), at.pointer())?;
        self.has_dev = true;
        self.attributes("dev", options, false);
        Ok(())
    }

    /// /dev/pts, which LXC mounts nosuid, noexec, with mode 0620, group 5 and ptmxmode 0666.
    fn pts(&mut self, mount: &At<'_>, options: &Options) -> Result<()> {
        let at = mount.at("options");
        let mut most = 1024;
        for word in &options.data {
            let refuse = || at.refused(format!("LXC cannot have {} on /dev/pts", quoted(word)));
            match word.split_once('=').unwrap_or((word, "")) {
                ("newinstance", "")
                | ("mode", "620" | "0620")
                | ("ptmxmode", "666" | "0666")
                | ("gid", "5")
                | ("uid", "0") => {}
                ("max", text) => most = text.parse().map_err(|_| refuse())?,
                _ => return Err(refuse()),
            }
        }
        let most: u32 = most;
        self.config.line("lxc.pty.max", &most.to_string(), at.pointer())?;
        self.has_pts = true;
        self.attributes("dev/pts", options, false);
        self.done.push(Done::new("dev/pts", "dev/pts", Inside::Fixed));
        Ok(())
    }

    fn cgroups(
        &mut self,
        mount: &At<'_>,
        options: &Options,
        said: String,
        path: String,
    ) -> Result<()> {
        if let Some(word) = options.data.first() {
            let at = mount.at("options");
            return Err(at.refused(format!("LXC cannot have {} on cgroups", quoted(word))));
        }
        if self.host.cgroup2 && self.foreign_cgroups {
            // LXC mounts those of a namespace of the guest's own only.
            if self.mappings.is_some() {
                let bind = ["bind".to_owned()];
                self.entry(mount, "/sys/fs/cgroup", "none", &bind, &path, Missing::Folder)?;
            } else {
                let words = &options.words;
                self.entry(mount, "cgroup2", "cgroup2", words, &path, Missing::Folder)?;
            }
            self.attributes(&path, options, false);
            self.done.push(Done::new(said, path, Inside::Fixed));
            return Ok(());
        }
        let readonly = options.set & libc::MOUNT_ATTR_RDONLY != 0;
        let value = if readonly { "cgroup:ro:force" } else { "cgroup:rw:force" };
        self.config.line("lxc.mount.auto", value, mount.pointer())?;
        self.attributes(&path, options, false);
        self.cgroup = Some(path);
        Ok(())
    }

    /// The folder with the socket, and the init's program in it. Last, so that nothing hides it.
    fn gate(&mut self) -> Result<()> {
        let words = ["bind", "ro", "nosuid", "nodev"];
        let program = format!("{}/{}", protocol::FOLDER, protocol::PROGRAM);
        for (from, to, create) in [
            (self.host.gate, protocol::FOLDER, Some("create=dir")),
            (self.host.program, program.as_str(), None),
        ] {
            let from = from.to_str().ok_or_else(|| {
                crate::error::Error::invalid(format!("state_dir: {from:?} is not UTF-8"))
            })?;
            let words: Vec<&str> = words.into_iter().chain(create).collect();
            self.write(from, to, "none", &words.join(","), "state_dir")?;
        }
        Ok(())
    }

    /// One entry, with what it is mounted on.
    fn entry(
        &mut self,
        mount: &At<'_>,
        source: &str,
        kind: &str,
        words: &[String],
        path: &str,
        missing: Missing,
    ) -> Result<()> {
        let mut words = words.to_vec();
        words.extend(self.place(path, missing).map(str::to_owned));
        if words.is_empty() {
            words.push("defaults".to_owned());
        }
        self.write(source, path, kind, &words.join(","), mount.pointer())
    }

    /// Has a place made for a mount, if nothing is there: by the supervisor, or by LXC, whose word
    /// for that is returned.
    fn place(&mut self, path: &str, missing: Missing) -> Option<&'static str> {
        let target = match self.outer(path) {
            Some(outer) if outer.path == path => return None,
            Some(Done { inside: Inside::Fixed, .. }) => return None,
            Some(Done { inside: Inside::Fresh, .. }) => {
                return Some(match missing {
                    Missing::Folder => "create=dir",
                    Missing::File => "create=file",
                });
            }
            Some(Done { inside: Inside::Host(folder), path: outer, .. }) => {
                let rest = Path::new(path).strip_prefix(outer).unwrap_or(Path::new(path));
                let path = rest.to_string_lossy().into_owned();
                Target { base: Some(folder.clone()), path, kind: missing }
            }
            None => Target { base: None, path: path.to_owned(), kind: missing },
        };
        self.targets.push(target);
        None
    }

    /// The last mount so far that a path of the root is in.
    fn outer(&self, path: &str) -> Option<&Done> {
        self.done.iter().rev().find(|done| Path::new(path).starts_with(&done.path))
    }

    fn write(
        &mut self,
        source: &str,
        path: &str,
        kind: &str,
        words: &str,
        pointer: &str,
    ) -> Result<()> {
        let wrong = |problem| crate::error::Error::invalid(format!("{pointer}: {problem}"));
        // getmntent(3) would take the line for a comment.
        if source.starts_with('#') {
            return Err(wrong("the source begins with a #, which LXC cannot read".to_owned()));
        }
        let fields = [source, path, kind, words].map(fstab_word);
        if fields.iter().any(String::is_empty) {
            return Err(wrong("has an empty part".to_owned()));
        }
        let line = format!("{} 0 0", fields.join(" "));
        if line.len() > LONGEST {
            return Err(wrong(format!(
                "LXC reads no mount of more than {LONGEST} bytes, and this has {}",
                line.len()
            )));
        }
        self.config.line("lxc.mount.entry", &line, pointer)
    }

    /// What the init sets of a mount of LXC's. `below` makes all of it mean the mounts below, too.
    fn attributes(&mut self, path: &str, options: &Options, below: bool) {
        self.hide(path);
        self.first.attributes.extend(attributes_of(path, options, below));
    }

    /// Forgets what the init was to do where it cannot be reached any more: below a mount that
    /// comes later. LXC's /dev is the first of all.
    fn hide(&mut self, path: &str) {
        if path == "dev" {
            return;
        }
        let path = format!("/{path}");
        let hidden = |earlier: &str| Path::new(earlier).starts_with(&path);
        self.first.attributes.retain(|earlier| !hidden(&earlier.path));
        self.given.retain(|(earlier, _)| !hidden(&earlier.path));
    }

    /// Where a destination is, relative to the root. What an earlier mount hides is not looked at.
    fn resolve(&self, said: &str, at: &At<'_>) -> Result<String> {
        let outer = self
            .done
            .iter()
            .filter(|done| Path::new(said).starts_with(&done.said))
            .max_by_key(|done| done.said.len());
        if let Some(outer) = outer {
            let rest = Path::new(said).strip_prefix(&outer.said).unwrap_or(Path::new(""));
            let path = Path::new(&outer.path).join(rest);
            return Ok(path.to_string_lossy().trim_end_matches('/').to_owned());
        }
        let found = (self.host.resolve)(&format!("/{said}")).context(|| at.pointer().to_owned())?;
        if found.chars().any(char::is_control) {
            return Err(at.wrong(format!("leads to {}, a control character", quoted(&found))));
        }
        Ok(found)
    }

    fn check_mappings(&self, mount: &At<'_>, options: &Options) -> Result<()> {
        const WHY: &str = "only those of bind mounts can be mapped";
        let mapped = MAPPINGS.into_iter().find(|key| mount.at(key).is_set());
        match mapped {
            Some(key) => Err(mount.at(key).refused(WHY)),
            None if options.idmap => Err(mount.at("options").refused(WHY)),
            None => Ok(()),
        }
    }

    /// The ids that a bind mount shows.
    fn ids(&self, mount: &At<'_>, options: &Options) -> Result<Ids> {
        let [users, groups] = MAPPINGS.map(|key| mount.at(key));
        if !users.is_set() && !groups.is_set() {
            return match self.mappings {
                _ if !options.idmap => Ok(Ids::Plain),
                Some(_) => Ok(Ids::Guests),
                None => Err(mount.at("options").wrong(
                    "the guest has no user namespace of its own to map ids by: give the mount \
                     uidMappings and gidMappings",
                )),
            };
        }
        for at in [&users, &groups] {
            if !at.is_set() {
                return Err(at.wrong("is missing, and the other one is there"));
            }
        }
        let mut found = ranges(&users, false)?;
        found.extend(ranges(&groups, true)?);
        // LXC's own way, where the guest has these.
        Ok(if self.mappings == Some(found.as_slice()) { Ids::Guests } else { Ids::Others(found) })
    }
}

/// What mount_setattr(2) has to set. `below` makes all of it mean the mounts below, too.
fn attributes_of(path: &str, options: &Options, below: bool) -> Vec<Attributes> {
    let words = [
        (options.set, options.clear, 0, below),
        (options.all_set, options.all_clear, 0, true),
        (0, 0, options.propagation, options.propagation_below),
    ];
    let some = words.into_iter().filter(|(set, clear, kind, _)| set | clear | kind != 0);
    some.map(|(set, clear, propagation, recursive)| Attributes {
        path: format!("/{path}"),
        set,
        clear,
        propagation,
        recursive,
    })
    .collect()
}

/// A destination without what means nothing in it, and without the slash in front.
fn clean(path: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(word) => words.extend(word.to_str()),
            Component::ParentDir => drop(words.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    words.join("/")
}

/// A size as tmpfs takes it, without percentages.
fn bytes(text: &str) -> Option<u64> {
    let shift = match text.bytes().next_back()? {
        b'k' | b'K' => 10,
        b'm' | b'M' => 20,
        b'g' | b'G' => 30,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { text.get(..text.len() - 1)? };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
