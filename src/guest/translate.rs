//! What config.json asks for, divided: LXC's configuration, what the init does, what the
//! supervisor does. Pure functions; [`super::fields`] is the table of what goes where.

mod config;
pub(crate) mod cursor;
mod devices;
mod hooks;
mod mounts;
mod namespaces;
mod options;
mod process;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wrong;

pub(crate) use cursor::{escape, is_unset};

use super::resources::{self, Setting};
use super::{fields, seccomp};
use crate::config::input::quoted;
use crate::error::{Error, Result};
use crate::init::{Attributes, First, Hook, Process, protocol};
use crate::sys::inroot::Missing;
use config::Config;
use cursor::At;
pub(super) use devices::ALWAYS as ALWAYS_ALLOWED;
use mounts::Mounts;
use namespaces::Namespaces;
pub(crate) use options::is_mount_option;
pub(crate) use process::CAPABILITIES;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Who starts the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The supervisor itself, by lxc-start: the configuration is whole.
    Lxc,
    /// Proxmox's pct: the configuration is included by the one that pct writes.
    Pct,
}

/// What a path of the host is, links followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A folder.
    Dir,
    /// A regular file.
    File,
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A socket.
    Socket,
    /// A named pipe.
    Fifo,
}

/// The host, and what has been decided about the guest.
pub struct Host<'a> {
    /// Who starts the guest.
    pub driver: Driver,
    /// All controllers are those of cgroup v2.
    pub cgroup2: bool,
    /// The bundle, absolute.
    pub bundle: &'a Path,
    /// The root file system, absolute.
    pub rootfs: &'a Path,
    /// The folder with the gate's socket, which gets the init's own folder in the guest.
    pub gate: &'a Path,
    /// The init's program, a private copy.
    pub program: &'a Path,
    /// The guest's cgroup relative to each hierarchy's top, without a slash in front.
    pub cgroup: &'a str,
    /// The network namespace of the host, which LXC's monitor is not in.
    pub network: &'a str,
    /// The process has a terminal.
    pub console: bool,
    /// Where a path of the guest ends in its root once links have been followed, relative to it.
    pub resolve: &'a dyn Fn(&str) -> Result<String>,
    /// What a path of the host is.
    pub exists: &'a dyn Fn(&Path) -> Option<FileKind>,
}

/// Hooks by their moment; those of kind startContainer are the init's ([`First::start_hooks`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before the root is entered, on the host.
    pub prestart: Vec<Hook>,
    /// As `prestart`, and after it.
    pub create_runtime: Vec<Hook>,
    /// Before the root is entered, in the guest's namespaces.
    pub create_container: Vec<Hook>,
    /// After the process has begun.
    pub poststart: Vec<Hook>,
    /// After the guest has been deleted.
    pub poststop: Vec<Hook>,
}

/// A place that a mount needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The folder of the host in which it is; `None` for the root file system.
    pub base: Option<PathBuf>,
    /// Relative to that.
    pub path: String,
    /// What to make if nothing is there.
    pub kind: Missing,
}

/// A bind mount that the supervisor makes without a place, and the init puts into its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Where config.json has it.
    pub pointer: String,
    /// A path of the host.
    pub source: PathBuf,
    /// With all that is mounted below it.
    pub below: bool,
    /// How its ids are mapped; none if they are not.
    pub ids: Vec<IdMap>,
    /// The ids of all below it are, too.
    pub ids_below: bool,
}

/// One range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// Of groups, not of users.
    pub groups: bool,
    /// The first id in the guest.
    pub guest: u32,
    /// The first id on the host.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// A config.json, divided.
pub struct Translation {
    /// LXC's configuration: the whole, or what pct's includes.
    pub config: String,
    /// The process, for the init.
    pub process: Process,
    /// What else the init does; the state is left empty.
    pub first: First,
    /// For the supervisor.
    pub hooks: Hooks,
    /// For the supervisor, to write into the guest's cgroup.
    pub resources: Vec<Setting>,
    /// Ids of a user namespace of the guest's own; none where it has none.
    pub idmap: Vec<IdMap>,
    /// Places to be made before LXC starts, in this order.
    pub targets: Vec<Target>,
    /// Mounts for the init, one for each of [`First::mounts`].
    pub binds: Vec<Bind>,
    /// What the guest goes without, for the log.
    pub notes: Vec<String>,
}

impl Translation {
    /// Who is root in the guest, as the host sees it: user and group.
    pub fn host_root(&self) -> (u32, u32) {
        let root = |groups| {
            let range = self.idmap.iter().find(|range| range.groups == groups && range.guest == 0);
            range.map_or(0, |range| range.host)
        };
        (root(false), root(true))
    }
}

/// Links below /dev that LXC makes, or not, depending on its version.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
];

/// The annotation with the signal that stops the workload, as containerd copies it from the image.
const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";

/// Divides a config.json.
///
/// # Errors
/// `InvalidArgument` with the JSON pointer of a value that is wrong or that nobody knows,
/// `Unimplemented` with that of one that a guest of LXC cannot have.
pub fn translate(spec: &Value, host: &Host<'_>) -> Result<Translation> {
    fields::check(spec, "")?;
    let top = At::top(spec, "");
    let linux = top.at("linux");
    let (mut config, mut first) = (Config::default(), First::default());
    let namespaces = Namespaces::of(&linux)?;
    base(host, &mut config)?;
    namespaces.lines(host, &mut config)?;
    names(&top, &namespaces, &mut config, &mut first)?;
    let mapped = namespaces.has_users();
    let (nodes, host_nodes) = devices::nodes(&linux.at("devices"), host, mapped)?;
    let (propagation, changes) = root_propagation(&linux.at("rootfsPropagation"))?;
    let mut mounts = Mounts::new(host, &mut config, &mut first);
    mounts.propagation = propagation;
    mounts.first.attributes.extend(changes);
    mounts.mappings = mapped.then_some(namespaces.idmap.as_slice());
    mounts.foreign =
        ["network", "ipc", "pid"].into_iter().filter(|kind| !namespaces.has_new(kind)).collect();
    // Proxmox's guests have one in any case.
    mounts.foreign_cgroups = host.driver == Driver::Lxc && !namespaces.has_new("cgroup");
    let binds = mounts.all(&top.at("mounts"), &host_nodes)?;
    let (targets, mut notes) = (mounts.targets, mounts.notes);
    devices::rules(&linux.at("resources"), host, &mut config)?;
    namespaces.sysctls(&linux.at("sysctl"), &mut config)?;
    stop_signal(&top.at("annotations").at(STOP_SIGNAL), &mut config)?;
    let (hooks, start_hooks) = hooks::hooks(&top.at("hooks"))?;
    first.devices = nodes;
    first.links = LINKS.map(|(to, path)| (to.to_owned(), path.to_owned())).to_vec();
    first.masked = paths(&linux.at("maskedPaths"))?;
    first.readonly = paths(&linux.at("readonlyPaths"))?;
    first.readonly_root = top.at("root").at("readonly").flag()?;
    first.console = host.console;
    first.start_hooks = start_hooks;
    // Said now rather than when there is a terminal already.
    console_size(top.at("process").value())?;
    let mut process = process::process(&top.at("process"), &mut notes)?;
    around(&mut process, spec)?;
    Ok(Translation {
        config: config.finish(),
        process,
        first,
        hooks,
        resources: resources::settings(linux.at("resources").value(), host.cgroup2)?,
        idmap: namespaces.idmap.clone(),
        targets,
        binds,
        notes,
    })
}

/// The process of an exec: what it says of itself, and what the container's config.json says for
/// all processes of the container. And what it goes without, for the log.
///
/// # Errors
/// As [`translate`].
pub fn exec_process(process: &Value, spec: &Value) -> Result<(Process, Vec<String>)> {
    fields::check(process, "/process")?;
    let (at, container) = (At::top(process, "/process"), At::top(spec, "").at("process"));
    let mut notes = Vec::new();
    let mut found = process::process(&at, &mut notes)?;
    let affinity = [at, container.clone()].map(|at| at.at("execCPUAffinity"));
    if let Some(affinity) = affinity.iter().find(|at| at.is_set()) {
        (found.cpus_initial, found.cpus_final) = process::affinity(affinity)?;
    }
    // Whoever asks for an exec seldom says these again.
    let or_containers = |own: Option<String>, key: &str| -> Result<Option<String>> {
        Ok(own.or(container.at(key).text()?.map(str::to_owned)))
    };
    found.apparmor = or_containers(found.apparmor, "apparmorProfile")?;
    found.selinux = or_containers(found.selinux, "selinuxLabel")?;
    around(&mut found, spec)?;
    Ok((found, notes))
}

/// Width and height of a process's terminal, where it says them.
///
/// # Errors
/// `InvalidArgument` for numbers that no terminal has.
pub fn console_size(process: &Value) -> Result<Option<(u16, u16)>> {
    let size = At::top(process, "/process").at("consoleSize");
    if !size.is_set() {
        return Ok(None);
    }
    let number = |key| -> Result<u16> { Ok(size.at(key).number()?.unwrap_or(0)) };
    Ok(Some((number("width")?, number("height")?)))
}

/// The hooks that the supervisor runs.
///
/// # Errors
/// As [`translate`].
pub fn hooks_of(spec: &Value) -> Result<Hooks> {
    Ok(hooks::hooks(&At::top(spec, "").at("hooks"))?.0)
}

/// The words of mounts' options that are understood, those of file systems aside.
pub fn mount_options() -> Vec<String> {
    options::words()
}

/// The names of the capabilities that there are.
pub fn capabilities() -> Vec<String> {
    process::CAPABILITIES.map(|name| format!("CAP_{name}")).to_vec()
}

/// What `linux` has for every process.
fn around(process: &mut Process, spec: &Value) -> Result<()> {
    let linux = At::top(spec, "").at("linux");
    process.seccomp = seccomp::compile(linux.at("seccomp").value())?;
    process.personality = personality(&linux.at("personality"))?;
    process.memory_policy = process::memory_policy(&linux.at("memoryPolicy"))?;
    Ok(())
}

/// What every guest has.
fn base(host: &Host<'_>, config: &mut Config) -> Result<()> {
    let mut line = |key: &str, value: &str| config.line(key, value, "");
    match host.driver {
        Driver::Lxc => {
            let rootfs = host.rootfs.to_str().ok_or_else(|| {
                Error::invalid(format!("/root/path: {:?} is not UTF-8", host.rootfs))
            })?;
            line("lxc.rootfs.path", &format!("dir:{rootfs}"))?;
            line("lxc.rootfs.managed", "0")?;
            line("lxc.cgroup.relative", "0")?;
            line("lxc.cgroup.dir.container", &super::processes_cgroup(host.cgroup, host.cgroup2))?;
            line("lxc.cgroup.dir.monitor", &super::monitor_cgroup(host.cgroup))?;
            line("lxc.cgroup.dir.monitor.pivot", &super::pivot_cgroup(host.cgroup))?;
            // The init changes to the profile of config.json, as the last thing.
            line("lxc.apparmor.profile", "unconfined")?;
        }
        Driver::Pct => {
            // Proxmox's common settings mount proc and sys, and drop what the init needs.
            line("lxc.mount.auto", "")?;
            line("lxc.cap.drop", "")?;
        }
    }
    line("lxc.init.cmd", &format!("/{}/{}", protocol::FOLDER, protocol::PROGRAM))?;
    line("lxc.tty.max", "0")?;
    line("lxc.console.path", "none")
}

fn names(
    top: &At<'_>,
    namespaces: &Namespaces,
    config: &mut Config,
    first: &mut First,
) -> Result<()> {
    for key in ["hostname", "domainname"] {
        let at = top.at(key);
        if at.is_set() && !namespaces.has_new("uts") {
            return Err(at.refused(
                "the guest has no UTS namespace of its own, and the name would be another's, too: \
                 add one to /linux/namespaces",
            ));
        }
        // utsname(2)
        if at.text()?.is_some_and(|name| name.len() > 64) {
            return Err(at.wrong("is longer than the kernel's 64 bytes"));
        }
    }
    if namespaces.has_new("uts")
        && let Some(name) = top.at("hostname").text()?
    {
        config.line("lxc.uts.name", name, "/hostname")?;
    }
    first.domainname = top.at("domainname").text()?.map(str::to_owned);
    Ok(())
}

fn paths(at: &At<'_>) -> Result<Vec<String>> {
    at.items()?.iter().map(|item| item.absolute().map(str::to_owned)).collect()
}

/// What becomes of all mounts before each gets what its own options say, and what the init does for
/// that. LXC leaves all of them shared; without a word, runc and crun make slaves of them.
fn root_propagation(at: &At<'_>) -> Result<(u64, Vec<Attributes>)> {
    let word = at.text()?.unwrap_or("rslave");
    let plain = word.strip_prefix('r').unwrap_or(word);
    let Some(wanted) = options::propagation(plain) else {
        return Err(at.wrong(format!("{} is no propagation", quoted(word))));
    };
    let change = |propagation, recursive| Attributes {
        path: "/".to_owned(),
        propagation,
        recursive,
        ..Attributes::default()
    };
    let recursive = plain != word;
    let mut changes = vec![change(wanted, recursive)];
    if !recursive && wanted != libc::MS_SHARED {
        // A mount becomes shared in a shared one only, as which LXC's root has begun.
        changes.insert(0, change(libc::MS_SLAVE, true));
    }
    Ok((wanted, changes))
}

fn personality(at: &At<'_>) -> Result<Option<u32>> {
    let domain = at.at("domain");
    if at.at("flags").is_set() {
        return Err(at.at("flags").refused("no flag is known to runtime-spec either"));
    }
    match domain.text()? {
        None => Ok(None),
        Some("LINUX") => Ok(Some(0)),
        Some("LINUX32") => Ok(Some(8)),
        Some(other) => Err(domain.wrong(format!("{} is neither LINUX nor LINUX32", quoted(other)))),
    }
}

/// What lxc-stop sends: SIGPWR, its default, ends most workloads as a failure of the power would.
fn stop_signal(at: &At<'_>, config: &mut Config) -> Result<()> {
    let signal = at.text()?.unwrap_or("SIGTERM");
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"+-".contains(&byte);
    // A name that LXC does not know would keep the guest from starting, for lxc-stop's sake.
    let known = signal.bytes().all(word) && signal.strip_prefix("SIG").is_some();
    config.line("lxc.signal.halt", if known { signal } else { "SIGTERM" }, at.pointer())
}
