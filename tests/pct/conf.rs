//! A guest's file in the cluster file system: reading, the allow-list, and writing it anew.

use crate::cluster::NODE;
use crate::fault;
use crate::report::{Failure, Outcome, reason, warn};
use nix::fcntl::{Flock, FlockArg};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

/// The raw keys that may stand in a guest's file.
const ALLOWED: &[&str] = &[
    "lxc.apparmor.profile",
    "lxc.apparmor.allow_incomplete",
    "lxc.apparmor.allow_nesting",
    "lxc.apparmor.raw",
    "lxc.selinux.context",
    "lxc.include",
    "lxc.arch",
    "lxc.uts.name",
    "lxc.signal.halt",
    "lxc.signal.reboot",
    "lxc.signal.stop",
    "lxc.init.cmd",
    "lxc.init.cwd",
    "lxc.init.uid",
    "lxc.init.gid",
    "lxc.init.groups",
    "lxc.pty.max",
    "lxc.console.logfile",
    "lxc.console.path",
    "lxc.tty.max",
    "lxc.devtty.dir",
    "lxc.hook.autodev",
    "lxc.hook.pre-start",
    "lxc.hook.pre-mount",
    "lxc.hook.mount",
    "lxc.hook.start",
    "lxc.hook.stop",
    "lxc.hook.post-stop",
    "lxc.hook.clone",
    "lxc.hook.destroy",
    "lxc.hook.version",
    "lxc.autodev",
    "lxc.kmsg",
    "lxc.mount.fstab",
    "lxc.mount.entry",
    "lxc.mount.auto",
    "lxc.rootfs.mount",
    "lxc.cap.drop",
    "lxc.cap.keep",
    "lxc.seccomp.profile",
    "lxc.seccomp.notify.proxy",
    "lxc.seccomp.notify.cookie",
    "lxc.idmap",
    "lxc.log.level",
    "lxc.log.file",
    "lxc.start.auto",
    "lxc.start.delay",
    "lxc.start.order",
    "lxc.group",
    "lxc.environment",
    "lxc.environment.runtime",
    "lxc.environment.hooks",
    "lxc.sysctl.fs.mqueue",
    "lxc.sysctl.kernel.msgmax",
    "lxc.sysctl.kernel.msgmnb",
    "lxc.sysctl.kernel.msgmni",
    "lxc.sysctl.kernel.sem",
    "lxc.sysctl.kernel.shmall",
    "lxc.sysctl.kernel.shmmax",
    "lxc.sysctl.kernel.shmmni",
    "lxc.sysctl.kernel.shm_rmid_forced",
];

/// The beginnings of raw keys that may stand there.
const ALLOWED_BELOW: &[&str] = &["lxc.cgroup2.", "lxc.cgroup.", "lxc.prlimit.", "lxc.net."];

/// The file of a guest of this node, relative to the cluster's root: how messages name it.
pub fn name(vmid: u32) -> String {
    format!("nodes/{NODE}/lxc/{vmid}.conf")
}

/// The file of a guest of this node.
pub fn path(vmid: u32) -> String {
    format!("{}/{}", crate::cluster::ROOT, name(vmid))
}

/// A guest's file.
#[derive(Clone, Debug, Default)]
pub struct Guest {
    /// The text of the lines that begin with `#`.
    pub description: String,
    /// Proxmox's own keys.
    pub keys: BTreeMap<String, String>,
    /// The process's environment, `lxc.environment.runtime` in the file.
    pub env: Vec<String>,
    /// LXC's keys, in order.
    pub raw: Vec<(String, String)>,
    /// Snapshots and pending changes, from the first line that begins with `[`.
    sections: String,
}

impl Guest {
    /// Reads a guest's file; what is wrong with it is said on standard error and no error. `code`
    /// is that of a file which does not exist.
    pub fn load(vmid: u32, code: u8) -> Outcome<Self> {
        let (guest, warnings) = Self::parse(vmid, &Self::read(vmid, code)?);
        for warning in warnings {
            warn(&warning);
        }
        Ok(guest)
    }

    /// Refuses a guest that is not there, without a word about what is wrong with its file.
    pub fn exists(vmid: u32, code: u8) -> Outcome {
        Self::read(vmid, code).map(drop)
    }

    fn read(vmid: u32, code: u8) -> Outcome<String> {
        fs::read_to_string(path(vmid)).map_err(|error| {
            let name = name(vmid);
            let text = match error.kind() {
                ErrorKind::NotFound => format!("Configuration file '{name}' does not exist"),
                _ => format!("unable to read '{name}' - {}", reason(&error)),
            };
            Failure::new(code, text)
        })
    }

    /// What the file's text says, and what in it is wrong.
    fn parse(vmid: u32, text: &str) -> (Self, Vec<String>) {
        let mut guest = Self::default();
        let mut warnings = Vec::new();
        let mut rest = text;
        while let Some((line, after)) =
            rest.split_once('\n').or((!rest.is_empty()).then_some((rest, "")))
        {
            if line.starts_with('[') {
                rest.clone_into(&mut guest.sections);
                break;
            }
            rest = after;
            if let Some(text) = line.strip_prefix('#') {
                guest.description += &decoded(text);
                guest.description.push('\n');
            } else if line.starts_with("lxc.") {
                if let Err(warning) = guest.take_raw(vmid, line) {
                    warnings.push(warning);
                }
            } else if let Some((key, value)) = normal(line) {
                if !crate::args::is_setting(key) && !matches!(key, "lock" | "digest" | "parent") {
                    warnings.push(format!(
                        "vm {vmid} - unable to parse value of '{key}' - unknown setting '{key}'"
                    ));
                }
                guest.keys.insert(key.to_owned(), value.to_owned());
            } else if !line.trim().is_empty() {
                warnings.push(format!("vm {vmid} - unable to parse config: {line}"));
            }
        }
        (guest, warnings)
    }

    fn take_raw(&mut self, vmid: u32, line: &str) -> Result<(), String> {
        let wrong = || format!("vm {vmid} - unable to parse config: {line}");
        let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)));
        let (key, rest) = line.split_at(end.ok_or_else(wrong)?);
        let rest = rest.trim_start();
        let value = rest.strip_prefix([':', '=']).ok_or_else(wrong)?.trim();
        if matches!(key, "lxc.rootfs.path" | "lxc.rootfs.options") {
            return Err(format!("vm {vmid} - {key}: {key} is auto generated from rootfs"));
        }
        if key == "lxc.environment.runtime" {
            self.env.push(value.to_owned());
        } else if ALLOWED.contains(&key) || ALLOWED_BELOW.iter().any(|start| key.starts_with(start))
        {
            self.raw.push((key.to_owned(), value.to_owned()));
            if key.starts_with("lxc.cgroup.") {
                return Err(format!("vm {vmid} - {key}: cgroup v1 keys are deprecated"));
            }
        } else {
            return Err(wrong());
        }
        Ok(())
    }

    /// The file's text as it is written: the description, Proxmox's keys sorted, LXC's in order.
    fn text(&self) -> String {
        let mut text = String::new();
        for line in self.description.lines() {
            text += &format!("#{}\n", encoded(line));
        }
        for (key, value) in &self.keys {
            text += &format!("{key}: {value}\n");
        }
        for value in &self.env {
            text += &format!("lxc.environment.runtime: {value}\n");
        }
        for (key, value) in &self.raw {
            text += &format!("{key}: {value}\n");
        }
        if !self.sections.is_empty() {
            text += &format!("\n{}", self.sections);
        }
        text
    }

    /// Writes the file anew: what the allow-list does not have is gone from then on.
    pub fn store(&self, vmid: u32) -> Outcome {
        let temporary = format!("{}.tmp.{}", path(vmid), std::process::id());
        let mut file = File::create(&temporary).map_err(|error| {
            Failure::new(255, format!("unable to open file '{temporary}' - {}", reason(&error)))
        })?;
        let written = file
            .write_all(self.text().as_bytes())
            .and_then(|()| fs::rename(&temporary, path(vmid)));
        written.map_err(|error| {
            fs::remove_file(&temporary).ok();
            Failure::new(255, format!("unable to write '{temporary}' - {}", reason(&error)))
        })
    }

    /// Creates the file, unless there is a guest of that number in the cluster.
    pub fn store_new(&self, vmid: u32) -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path(vmid))?;
        file.write_all(self.text().as_bytes()).inspect_err(|_| {
            fs::remove_file(path(vmid)).ok();
        })
    }

    /// One of Proxmox's keys.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    /// Whether a flag is set.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key) == Some("1")
    }

    /// Refuses what a locked guest refuses.
    pub fn unlocked(&self) -> Outcome {
        match self.get("lock") {
            Some(lock) => crate::report::fail(format!("CT is locked ({lock})")),
            None => Ok(()),
        }
    }

    /// `pct config`'s lines.
    pub fn shown(&self) -> Vec<String> {
        let mut keys = self.keys.clone();
        if !self.description.is_empty() {
            keys.insert("description".to_owned(), encoded(&self.description));
        }
        if !self.env.is_empty() {
            keys.insert("env".to_owned(), self.env.join("\0"));
        }
        let raw = self.raw.iter().cloned();
        keys.into_iter().chain(raw).map(|(key, value)| format!("{key}: {value}")).collect()
    }
}

/// A line of Proxmox's own: `key: value`.
fn normal(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    let (key, value) = (key.trim_end(), value.trim());
    let word = key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    (word && !value.is_empty()).then_some((key, value))
}

/// Control characters, colons, percent signs and all that is not ASCII, as in a URI.
pub fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            0..=31 | 127.. | b':' | b'%' => encoded += &format!("%{byte:02X}"),
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match (first, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Takes the lock of a guest's file on this node; `code` is that of a lock that stays taken.
/// `say` is told that it waits.
pub fn lock(vmid: u32, code: u8, say: impl Fn(&str)) -> Outcome<Flock<File>> {
    let folder = "/run/lock/lxc";
    let path = format!("{folder}/pve-config-{vmid}.lock");
    let open = || {
        fs::create_dir_all(folder)?;
        OpenOptions::new().append(true).create(true).open(&path)
    };
    let mut file = open().map_err(|error| {
        Failure::new(code, format!("can't open file '{path}' - {}", reason(&error)))
    })?;
    let end = Instant::now() + fault::time("lock-timeout").unwrap_or(Duration::from_secs(10));
    let mut waited = false;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                if waited {
                    say(" OK");
                }
                return Ok(lock);
            }
            Err((back, _)) => file = back,
        }
        if !waited {
            say("trying to acquire lock...");
            waited = true;
        }
        if Instant::now() > end {
            return Err(Failure::new(code, format!("can't lock file '{path}' - got timeout")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
