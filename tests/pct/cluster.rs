//! The cluster file system: what pmxcfs promises of /etc/pve, from memory, through FUSE.
//!
//! It is a file system of its own because the promises cannot be had from a folder: a guest's
//! file exists once in the whole cluster, without quorum everything can be read and nothing
//! written (EACCES, and not the EROFS of a read-only mount), a full one says ENOSPC, a file is
//! 1 MiB at most, `.vmlist` is always true, and when the daemon is down every call fails.

use crate::fault;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

/// Where it is mounted.
pub const ROOT: &str = "/etc/pve";

/// This machine's name in the cluster, and another one's.
pub const NODE: &str = "pve";
const OTHER: &str = "other";

/// pmxcfs takes no larger file.
const LARGEST: u64 = 1024 * 1024;

/// The longest request: a write of `WRITE` bytes and what stands before it.
const WRITE: u32 = 128 * 1024;
const REQUEST: usize = WRITE as usize + 4096;

/// The ids that never change.
const TOP: u64 = 1;
const VMLIST: u64 = 2;
const VERSION: u64 = 3;

/// FUSE's numbers for what the kernel asks.
mod ask {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
    pub const RENAME2: u32 = 45;
}

/// Mounts it, says so by one line on standard output, and serves it to the end.
pub fn serve() -> std::io::Result<()> {
    let mut device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
        device.as_raw_fd()
    );
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("/dev/fuse"), ROOT, Some("fuse"), flags, Some(options.as_str()))?;
    writeln!(std::io::stdout(), "mounted")?;
    let mut tree = Tree::new();
    let mut request = vec![0; REQUEST];
    loop {
        match device.read(&mut request) {
            Ok(length) => tree.answer(&mut device, &request[..length])?,
            // Unmounted: there is nothing to serve any more.
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

enum Kind {
    Folder(BTreeMap<String, u64>),
    File(Vec<u8>),
    Link(String),
    /// Written anew each time that it is read.
    Made,
}

struct Node {
    kind: Kind,
    changed: u64,
}

struct Tree {
    nodes: HashMap<u64, Node>,
    next: u64,
    changes: u64,
}

type Reply = Result<Vec<u8>, Errno>;

impl Tree {
    fn new() -> Self {
        let mut tree = Self { nodes: HashMap::new(), next: VERSION + 1, changes: 1 };
        tree.nodes.insert(TOP, Node { kind: Kind::Folder(BTreeMap::new()), changed: now() });
        tree.put(TOP, ".vmlist", VMLIST, Kind::Made);
        tree.put(TOP, ".version", VERSION, Kind::Made);
        let nodes = tree.add(TOP, "nodes", Kind::Folder(BTreeMap::new()));
        for name in [NODE, OTHER] {
            let node = tree.add(nodes, name, Kind::Folder(BTreeMap::new()));
            for guests in ["lxc", "qemu-server"] {
                tree.add(node, guests, Kind::Folder(BTreeMap::new()));
            }
        }
        for (name, to) in [
            ("local", format!("nodes/{NODE}")),
            ("lxc", format!("nodes/{NODE}/lxc")),
            ("qemu-server", format!("nodes/{NODE}/qemu-server")),
        ] {
            tree.add(TOP, name, Kind::Link(to));
        }
        let storage = format!(
            "dir: local\n\tpath {}\n\tcontent vztmpl,rootdir,images,iso,backup\n\n",
            crate::storage::LOCAL
        );
        tree.add(TOP, "storage.cfg", Kind::File(storage.into_bytes()));
        tree
    }

    fn add(&mut self, folder: u64, name: &str, kind: Kind) -> u64 {
        let id = self.next;
        self.next += 1;
        self.put(folder, name, id, kind);
        id
    }

    fn put(&mut self, folder: u64, name: &str, id: u64, kind: Kind) {
        self.nodes.insert(id, Node { kind, changed: now() });
        if let Some(Kind::Folder(entries)) = self.nodes.get_mut(&folder).map(|node| &mut node.kind)
        {
            entries.insert(name.to_owned(), id);
        }
        self.changes += 1;
    }

    fn entries(&self, folder: u64) -> Result<&BTreeMap<String, u64>, Errno> {
        match self.nodes.get(&folder).map(|node| &node.kind) {
            Some(Kind::Folder(entries)) => Ok(entries),
            Some(_) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn entries_mut(&mut self, folder: u64) -> Result<&mut BTreeMap<String, u64>, Errno> {
        self.changes += 1;
        match self.nodes.get_mut(&folder).map(|node| &mut node.kind) {
            Some(Kind::Folder(entries)) => Ok(entries),
            Some(_) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn child(&self, folder: u64, name: &str) -> Result<u64, Errno> {
        self.entries(folder)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// Every guest of the cluster: vmid, node, type, and the id of its file.
    fn guests(&self) -> Vec<(u32, String, &'static str, u64)> {
        let mut guests = Vec::new();
        let nodes = self.child(TOP, "nodes").and_then(|nodes| self.entries(nodes));
        for (name, node) in nodes.into_iter().flatten() {
            for (folder, kind) in [("lxc", "lxc"), ("qemu-server", "qemu")] {
                let files = self.child(*node, folder).and_then(|folder| self.entries(folder));
                for (file, id) in files.into_iter().flatten() {
                    if let Some(vmid) = vmid_of(file) {
                        guests.push((vmid, name.clone(), kind, *id));
                    }
                }
            }
        }
        guests.sort();
        guests
    }

    /// Whether a folder holds guests of some node.
    fn holds_guests(&self, folder: u64) -> bool {
        let nodes = self.child(TOP, "nodes").and_then(|nodes| self.entries(nodes));
        nodes.into_iter().flatten().any(|(_, node)| {
            ["lxc", "qemu-server"].iter().any(|name| self.child(*node, name) == Ok(folder))
        })
    }

    /// Refuses a guest's file when another of that number is anywhere in the cluster.
    fn unique(&self, folder: u64, name: &str, moved: Option<u64>) -> Result<(), Errno> {
        let Some(vmid) = vmid_of(name).filter(|_| self.holds_guests(folder)) else {
            return Ok(());
        };
        let here = self.child(folder, name).ok();
        let taken = |guest: &(u32, String, &str, u64)| {
            guest.0 == vmid && Some(guest.3) != moved && Some(guest.3) != here
        };
        if self.guests().iter().any(taken) { Err(Errno::EEXIST) } else { Ok(()) }
    }

    fn content(&self, id: u64) -> Result<Vec<u8>, Errno> {
        match self.nodes.get(&id).map(|node| &node.kind) {
            Some(Kind::File(bytes)) => Ok(bytes.clone()),
            Some(Kind::Link(to)) => Ok(to.clone().into_bytes()),
            Some(Kind::Made) if id == VMLIST => Ok(self.vmlist().into_bytes()),
            Some(Kind::Made) => {
                Ok(format!("{{\n\"starttime\": 1,\n\"vmlist\": {}\n}}\n", self.changes)
                    .into_bytes())
            }
            Some(Kind::Folder(_)) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn vmlist(&self) -> String {
        let line = |(vmid, node, kind, id): &(u32, String, &str, u64)| {
            format!(
                "\"{vmid}\": {{ \"node\": \"{node}\", \"type\": \"{kind}\", \"version\": {id} }}"
            )
        };
        let ids: Vec<_> = self.guests().iter().map(line).collect();
        format!("{{\n\"version\": {},\n\"ids\": {{\n{}}}\n}}\n", self.changes, ids.join(",\n"))
    }

    fn answer(&mut self, device: &mut File, request: &[u8]) -> std::io::Result<()> {
        let (what, unique, node) = (int(request, 4), long(request, 8), long(request, 16));
        if matches!(what, ask::FORGET | ask::BATCH_FORGET | ask::INTERRUPT) {
            return Ok(());
        }
        let reply = self.reply(what, node, request.get(40..).unwrap_or_default());
        let (error, body) = match reply {
            Ok(body) => (0, body),
            Err(errno) => (-(errno as i32), Vec::new()),
        };
        let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
        let mut answer = Bytes::default();
        answer.int(length).int(error.cast_unsigned()).long(unique);
        answer.0.extend(body);
        match device.write(&answer.0) {
            // Whoever asked has gone.
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
            written => written.map(drop),
        }
    }

    fn reply(&mut self, what: u32, node: u64, body: &[u8]) -> Reply {
        if what == ask::INIT {
            let mut reply = Bytes::default();
            // Version 7.31, nothing optional, and the longest write.
            reply.int(7).int(31).int(0).int(0).int(0).int(WRITE).int(1);
            reply.0.resize(64, 0);
            return Ok(reply.0);
        }
        // The daemon is there and does nothing: so long nobody gets an answer, to whatever call.
        while fault::is_on("pmxcfs-hangs") {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        if fault::is_on("pmxcfs-down") {
            return Err(Errno::ENOTCONN);
        }
        match what {
            ask::LOOKUP => self.child(node, &name(body)).map(|id| self.entry(id)),
            ask::GETATTR => self.attributes(node),
            ask::READLINK => self.content(node),
            ask::OPEN => {
                // O_ACCMODE
                if int(body, 0) & 3 != 0 {
                    may_write()?;
                    if matches!(self.nodes.get(&node), Some(Node { kind: Kind::Made, .. })) {
                        return Err(Errno::EACCES);
                    }
                }
                Ok(opened())
            }
            ask::OPENDIR => Ok(opened()),
            ask::READ => Ok(part(&self.content(node)?, long(body, 8), int(body, 16))),
            ask::READDIR => Ok(part_of_folder(
                self.entries(node)?,
                |id| self.kind(id),
                long(body, 8),
                int(body, 16),
            )),
            ask::RELEASE | ask::FSYNC | ask::FLUSH | ask::RELEASEDIR | ask::FSYNCDIR => {
                Ok(Vec::new())
            }
            ask::STATFS => {
                let mut reply = Bytes::default();
                for _ in 0..5 {
                    reply.long(if fault::is_on("full") { 0 } else { 32768 });
                }
                reply.int(4096).int(255).int(4096);
                reply.0.resize(80, 0);
                Ok(reply.0)
            }
            ask::SETATTR
            | ask::CREATE
            | ask::WRITE
            | ask::MKDIR
            | ask::UNLINK
            | ask::RMDIR
            | ask::RENAME
            | ask::RENAME2 => {
                may_write()?;
                self.change(what, node, body)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    fn change(&mut self, what: u32, node: u64, body: &[u8]) -> Reply {
        let grows = matches!(what, ask::CREATE | ask::WRITE | ask::MKDIR);
        if grows && fault::is_on("full") {
            return Err(Errno::ENOSPC);
        }
        match what {
            ask::SETATTR => {
                // FATTR_SIZE; modes, owners and times are pmxcfs's own.
                if int(body, 0) & 8 != 0 {
                    let size = long(body, 16);
                    self.resize(node, size)?;
                }
                self.attributes(node)
            }
            ask::CREATE => {
                let name = name(body.get(16..).unwrap_or_default());
                if self.entries(node)?.contains_key(&name) {
                    return Err(Errno::EEXIST);
                }
                self.unique(node, &name, None)?;
                let id = self.add(node, &name, Kind::File(Vec::new()));
                Ok([self.entry(id), opened()].concat())
            }
            ask::WRITE => {
                let (at, count) = (long(body, 8), int(body, 16));
                let data = body.get(40..40 + count as usize).ok_or(Errno::EINVAL)?;
                let end = at + u64::from(count);
                if self.content(node)?.len() < usize::try_from(end).unwrap_or(usize::MAX) {
                    self.resize(node, end)?;
                }
                self.changes += 1;
                if let Some(Node { kind: Kind::File(bytes), changed }) = self.nodes.get_mut(&node) {
                    let at = usize::try_from(at).map_err(|_| Errno::EFBIG)?;
                    bytes[at..at + data.len()].copy_from_slice(data);
                    *changed = now();
                }
                let mut reply = Bytes::default();
                reply.int(count).int(0);
                Ok(reply.0)
            }
            ask::MKDIR => {
                let name = name(body.get(8..).unwrap_or_default());
                if self.entries(node)?.contains_key(&name) {
                    return Err(Errno::EEXIST);
                }
                let id = self.add(node, &name, Kind::Folder(BTreeMap::new()));
                Ok(self.entry(id))
            }
            ask::UNLINK => {
                let name = name(body);
                let id = self.child(node, &name)?;
                if matches!(self.nodes.get(&id), Some(Node { kind: Kind::Made, .. })) {
                    return Err(Errno::EACCES);
                }
                self.entries_mut(node)?.remove(&name);
                Ok(Vec::new())
            }
            ask::RMDIR => {
                let name = name(body);
                let id = self.child(node, &name)?;
                if !self.entries(id)?.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                self.entries_mut(node)?.remove(&name);
                Ok(Vec::new())
            }
            _ => {
                let to = long(body, 0);
                let (flags, names) = if what == ask::RENAME2 {
                    (int(body, 8), body.get(16..))
                } else {
                    (0, body.get(8..))
                };
                // FUSE of pmxcfs knows plain renames only.
                if flags != 0 {
                    return Err(Errno::EINVAL);
                }
                let names = names.unwrap_or_default();
                let (old, new) = (name(names), name(&names[name(names).len() + 1..]));
                let id = self.child(node, &old)?;
                self.unique(to, &new, Some(id))?;
                self.entries_mut(node)?.remove(&old);
                self.entries_mut(to)?.insert(new, id);
                Ok(Vec::new())
            }
        }
    }

    fn resize(&mut self, id: u64, size: u64) -> Result<(), Errno> {
        if size > LARGEST {
            return Err(Errno::EFBIG);
        }
        let size = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
        match self.nodes.get_mut(&id) {
            Some(Node { kind: Kind::File(bytes), changed }) => {
                bytes.resize(size, 0);
                *changed = now();
                Ok(())
            }
            _ => Err(Errno::EACCES),
        }
    }

    fn kind(&self, id: u64) -> u32 {
        match self.nodes.get(&id).map(|node| &node.kind) {
            Some(Kind::Folder(_)) => 0o040_000,
            Some(Kind::Link(_)) => 0o120_000,
            _ => 0o100_000,
        }
    }

    fn entry(&self, id: u64) -> Vec<u8> {
        let mut reply = Bytes::default();
        // Valid for no time at all: the kernel asks again whenever it wants to know.
        reply.long(id).long(0).long(0).long(0).int(0).int(0);
        self.attribute(id, &mut reply);
        reply.0
    }

    fn attributes(&self, id: u64) -> Reply {
        self.nodes.get(&id).ok_or(Errno::ENOENT)?;
        let mut reply = Bytes::default();
        reply.long(0).int(0).int(0);
        self.attribute(id, &mut reply);
        Ok(reply.0)
    }

    fn attribute(&self, id: u64, reply: &mut Bytes) {
        let kind = self.kind(id);
        let size = self.content(id).map_or(0, |content| content.len() as u64);
        let changed = self.nodes.get(&id).map_or(0, |node| node.changed);
        let mode = match kind {
            0o040_000 => 0o755,
            0o120_000 => 0o777,
            _ => 0o640,
        };
        reply.long(id).long(size).long(size.div_ceil(512));
        reply.long(changed).long(changed).long(changed).int(0).int(0).int(0);
        reply.int(kind | mode).int(1).int(0).int(0).int(0).int(4096).int(0);
    }
}

/// Without quorum pmxcfs refuses every change with EACCES.
fn may_write() -> Result<(), Errno> {
    if fault::is_on("no-quorum") { Err(Errno::EACCES) } else { Ok(()) }
}

/// The number in `150.conf`.
fn vmid_of(file: &str) -> Option<u32> {
    let digits = file.strip_suffix(".conf")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// An opened file: no handle, and never from the page cache, so that a file that is made anew
/// has the size that it has.
fn opened() -> Vec<u8> {
    let mut reply = Bytes::default();
    reply.long(0).int(1).int(0);
    reply.0
}

fn part(content: &[u8], offset: u64, count: u32) -> Vec<u8> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
    let end = start.saturating_add(count as usize).min(content.len());
    content[start..end].to_vec()
}

fn part_of_folder(
    entries: &BTreeMap<String, u64>,
    kind: impl Fn(u64) -> u32,
    offset: u64,
    count: u32,
) -> Vec<u8> {
    let mut reply = Bytes::default();
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    for (index, (name, id)) in entries.iter().enumerate().skip(skip) {
        let length = (24 + name.len()).next_multiple_of(8);
        if reply.0.len() + length > count as usize {
            break;
        }
        let end = reply.0.len() + length;
        let short = u32::try_from(name.len()).unwrap_or(0);
        reply.long(*id).long(index as u64 + 1).int(short).int(kind(*id) >> 12);
        reply.0.extend(name.as_bytes());
        reply.0.resize(end, 0);
    }
    reply.0
}

fn now() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_secs())
}

/// Text up to its NUL.
fn name(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn int(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map_or(0, u32::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok());
    eight.map_or(0, u64::from_ne_bytes)
}

#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn int(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn long(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
}
