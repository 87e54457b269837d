//! Every field of config.json up to runtime-spec 1.3, and what becomes of it in a guest of LXC.
//!
//! One table, which the translation begins with: what is not in it is refused, and so nothing can
//! be passed over in silence, not even a field that runtime-spec gets after this was written.
//! ARCHITECTURE.md shows the same table, which a test compares.

use super::translate::{escape, is_unset};
use crate::config::input::quoted;
use crate::error::{Error, Result};
use serde_json::Value;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Becomes this part of LXC's configuration.
    Lxc(&'static str),
    /// The init does it, in this way.
    Init(&'static str),
    /// The supervisor does it, in this way.
    Supervisor(&'static str),
    /// Cannot be had, for this reason.
    Refused(&'static str),
}

/// A field, or some that share a fate.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its JSON pointer, with `*` for any key or number, `{a,b}` for either, and `/**` at the end
    /// for all that is below.
    pub pointer: &'static str,
    /// What becomes of it.
    pub how: How,
}

const fn lxc(pointer: &'static str, keys: &'static str) -> Field {
    Field { pointer, how: How::Lxc(keys) }
}

const fn init(pointer: &'static str, way: &'static str) -> Field {
    Field { pointer, how: How::Init(way) }
}

const fn supervisor(pointer: &'static str, way: &'static str) -> Field {
    Field { pointer, how: How::Supervisor(way) }
}

const fn refused(pointer: &'static str, why: &'static str) -> Field {
    Field { pointer, how: How::Refused(why) }
}

/// The table.
pub const FIELDS: &[Field] = &[
    supervisor("/ociVersion", "1.x"),
    supervisor(
        "/annotations/*",
        "chooses the backend; kept in state.json; stopSignal for lxc-stop",
    ),
    lxc("/root/path", "`lxc.rootfs.path`; with pct, pct's `rootfs`"),
    init("/root/readonly", "mount_setattr(2), after all else"),
    lxc("/hostname", "`lxc.uts.name`, in a UTS namespace of its own"),
    init("/domainname", "setdomainname(2), in a UTS namespace of its own"),
    // mounts
    lxc(
        "/mounts/*/destination",
        "`lxc.mount.entry`; /dev: `lxc.autodev`, /dev/pts: `lxc.pty.max`, cgroups: \
         `lxc.mount.auto`; not /, and nothing but a tmpfs on /dev",
    ),
    lxc("/mounts/*/{type,source}", "`lxc.mount.entry`"),
    lxc(
        "/mounts/*/options/*",
        "`lxc.mount.entry`; flags of binds, propagation, recursive attributes, nosymfollow, and \
         ro of a tmpfs by the init; sync, dirsync, mand, lazytime, tmpcopyup and iversion are \
         refused",
    ),
    lxc(
        "/mounts/*/{uidMappings,gidMappings}/*/{containerID,hostID,size}",
        "`idmap=container`, if they are those of linux; others by the supervisor, with \
         mount_setattr(2), for the init to mount",
    ),
    // process
    init("/process/{args,env}/*", "execve(2)"),
    init("/process/cwd", "made if missing, chdir(2)"),
    init("/process/terminal", "controlling terminal, /dev/console"),
    supervisor("/process/consoleSize/{height,width}", "TIOCSWINSZ before the process has it"),
    init("/process/user/{uid,gid,umask}", "setuid(2), setgid(2), umask(2)"),
    init("/process/user/additionalGids/*", "setgroups(2)"),
    refused("/process/user/username", "it is Windows': give uid and gid"),
    refused("/process/commandLine", "it is Windows': give args"),
    init(
        "/process/capabilities/{bounding,effective,inheritable,permitted,ambient}/*",
        "capset(2), prctl(2); ambient ones only if they are permitted and inheritable, too; names \
         that are not known are passed over, and the log says so",
    ),
    init("/process/rlimits/*/{type,soft,hard}", "setrlimit(2)"),
    init("/process/noNewPrivileges", "PR_SET_NO_NEW_PRIVS"),
    init("/process/apparmorProfile", "attr/apparmor/exec"),
    init("/process/selinuxLabel", "attr/exec"),
    supervisor(
        "/process/oomScoreAdj",
        "its oom_score_adj in /proc, an exec's by the init; passed over where the host does not let \
         it be lowered",
    ),
    init("/process/scheduler/{policy,nice,priority,runtime,deadline,period}", "sched_setattr(2)"),
    init("/process/scheduler/flags/*", "sched_setattr(2)"),
    init("/process/ioPriority/{class,priority}", "ioprio_set(2)"),
    init("/process/execCPUAffinity/{initial,final}", "sched_setaffinity(2), of execs only"),
    // hooks
    supervisor(
        "/hooks/{prestart,createRuntime}/*/{path,timeout}",
        "runs it in the bundle, from `lxc.hook.mount`, before the root is entered",
    ),
    supervisor("/hooks/{prestart,createRuntime}/*/{args,env}/*", "the same"),
    init(
        "/hooks/{createContainer,startContainer}/*/{path,timeout}",
        "runs it, in the bundle from `lxc.hook.mount`, or before the process",
    ),
    init("/hooks/{createContainer,startContainer}/*/{args,env}/*", "the same"),
    supervisor(
        "/hooks/{poststart,poststop}/*/{path,timeout}",
        "runs it in the bundle, on the host",
    ),
    supervisor("/hooks/{poststart,poststop}/*/{args,env}/*", "the same"),
    // linux
    lxc(
        "/linux/namespaces/*/{type,path}",
        "`lxc.namespace.keep` for those that are absent, `lxc.namespace.share.*` for a path, \
         `lxc.net.0.type = empty`; mount must be new, user must have no path",
    ),
    lxc(
        "/linux/{uidMappings,gidMappings}/*/{containerID,hostID,size}",
        "`lxc.idmap`; with pct, pct's",
    ),
    lxc(
        "/linux/timeOffsets/{boottime,monotonic}/{secs,nanosecs}",
        "`lxc.time.offset.boot`, `lxc.time.offset.monotonic`; secs or nanosecs of a clock, not both",
    ),
    init(
        "/linux/devices/*/{type,path,major,minor,fileMode,uid,gid}",
        "mknod(2); in a user namespace, a bind of the host's node by `lxc.mount.entry`",
    ),
    refused(
        "/linux/netDevices/**",
        "LXC cannot move a network device that it does not give back: let CNI do it",
    ),
    lxc(
        "/linux/cgroupsPath",
        "`lxc.cgroup.dir.container`; a slice as systemd's folder; with pct, Proxmox VE's own",
    ),
    init(
        "/linux/rootfsPropagation",
        "mount_setattr(2); if shared, binds that do not say otherwise come from the supervisor, \
         and nothing else can be mounted in them",
    ),
    init("/linux/maskedPaths/*", "/dev/null or an empty tmpfs over it"),
    init("/linux/readonlyPaths/*", "bind, read-only"),
    refused(
        "/linux/mountLabel",
        "LXC has no label for all mounts: give each mount a context option",
    ),
    init("/linux/personality/domain", "personality(2)"),
    refused("/linux/personality/flags/**", "runtime-spec has none yet"),
    lxc("/linux/sysctl/*", "`lxc.sysctl.*`, if it is of a namespace that the guest does not share"),
    init(
        "/linux/seccomp/{defaultAction,defaultErrnoRet}",
        "a BPF program, which the supervisor compiles",
    ),
    init("/linux/seccomp/{architectures,flags}/*", "the same"),
    init("/linux/seccomp/syscalls/*/{action,errnoRet}", "the same"),
    init("/linux/seccomp/syscalls/*/names/*", "the same; unknown names are passed over"),
    init("/linux/seccomp/syscalls/*/args/*/{index,value,valueTwo,op}", "the same"),
    refused(
        "/linux/seccomp/{listenerPath,listenerMetadata}",
        "nobody listens for a guest: use actions other than SCMP_ACT_NOTIFY",
    ),
    refused("/linux/intelRdt/**", "a guest of LXC gets no class of resctrl: use crun or runc"),
    init("/linux/memoryPolicy/{mode,nodes}", "set_mempolicy(2), of execs, too"),
    init("/linux/memoryPolicy/flags/*", "the same"),
    // linux.resources
    lxc(
        "/linux/resources/devices/*/{allow,type,major,minor,access}",
        "`lxc.cgroup.devices.*`, `lxc.cgroup2.devices.*`, after a rule that denies all and before \
         those that every container has",
    ),
    supervisor("/linux/resources/memory/{limit,reservation,swap}", "the guest's cgroup"),
    supervisor(
        "/linux/resources/memory/{kernel,kernelTCP,swappiness,disableOOMKiller,useHierarchy,\
         checkBeforeUpdate}",
        "the guest's cgroup where it has a file for that; else refused",
    ),
    supervisor(
        "/linux/resources/cpu/{shares,quota,period,burst,idle,cpus,mems}",
        "the guest's cgroup",
    ),
    supervisor("/linux/resources/cpu/{realtimeRuntime,realtimePeriod}", "cgroup v1; else refused"),
    supervisor("/linux/resources/pids/limit", "the guest's cgroup"),
    supervisor(
        "/linux/resources/blockIO/{weight,leafWeight}",
        "the guest's cgroup; leafWeight is refused",
    ),
    supervisor(
        "/linux/resources/blockIO/weightDevice/*/{major,minor,weight,leafWeight}",
        "the guest's cgroup; leafWeight is refused",
    ),
    supervisor(
        "/linux/resources/blockIO/{throttleReadBpsDevice,throttleWriteBpsDevice,\
         throttleReadIOPSDevice,throttleWriteIOPSDevice}/*/{major,minor,rate}",
        "the guest's cgroup",
    ),
    supervisor("/linux/resources/hugepageLimits/*/{pageSize,limit}", "the guest's cgroup"),
    supervisor("/linux/resources/network/classID", "cgroup v1; else refused"),
    supervisor("/linux/resources/network/priorities/*/{name,priority}", "cgroup v1; else refused"),
    supervisor("/linux/resources/rdma/*/{hcaHandles,hcaObjects}", "the guest's cgroup"),
    supervisor("/linux/resources/unified/*", "cgroup v2, the file of that name; else refused"),
    // other systems
    refused("/solaris/**", "this is Linux"),
    refused("/windows/**", "this is Linux"),
    refused("/vm/**", "a guest of LXC is no virtual machine"),
    refused("/zos/**", "this is Linux"),
    refused("/freebsd/**", "this is Linux"),
];

/// Checks that every value below `value`, whose own pointer is `pointer`, is known.
///
/// # Errors
/// `InvalidArgument` with the pointer of one that is not in the table, `Unimplemented` with that
/// of one that cannot be had.
pub fn check(value: &Value, pointer: &str) -> Result<()> {
    // Go's writers leave empty values where they mean nothing, and `false` where somebody else's
    // field is off.
    if is_unset(value) {
        return Ok(());
    }
    if let Some(field) = find(pointer) {
        let covers_all = field.pointer.ends_with("/**");
        match field.how {
            How::Refused(_) if *value == Value::Bool(false) => return Ok(()),
            How::Refused(why) if covers_all || !value.is_object() && !value.is_array() => {
                return Err(Error::unimplemented(format!("{}: {why}", shown(pointer))));
            }
            _ if !value.is_object() && !value.is_array() => return Ok(()),
            _ => {}
        }
    }
    let below = |key: &str| format!("{pointer}/{}", escape(key));
    match value {
        Value::Object(map) => map.iter().try_for_each(|(key, value)| check(value, &below(key))),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .try_for_each(|(number, value)| check(value, &below(&number.to_string()))),
        _ => Err(Error::invalid(format!(
            "{}: found {}, which runtime-spec 1.3 has nothing for: remove it",
            shown(pointer),
            quoted(&value.to_string())
        ))),
    }
}

/// A pointer for a message: keys may be anything, and long.
fn shown(pointer: &str) -> String {
    pointer.chars().take(300).flat_map(char::escape_debug).collect()
}

/// The field that a pointer is, or lies in.
pub(crate) fn find(pointer: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| fits(field.pointer, pointer))
}

/// Whether a pointer is one of those that a pattern means.
pub(crate) fn fits(pattern: &str, pointer: &str) -> bool {
    let (mut wanted, mut found) = (pattern.split('/'), pointer.split('/'));
    loop {
        match (wanted.next(), found.next()) {
            (Some("**"), Some(_)) => return true,
            // What is all below a key begins with the key itself.
            (Some("**"), None) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(wanted), Some(found)) if one_of(wanted, found) => {}
            _ => return false,
        }
    }
}

/// Whether a word is the one wanted, or one of those in braces.
fn one_of(wanted: &str, found: &str) -> bool {
    match wanted.strip_prefix('{').and_then(|words| words.strip_suffix('}')) {
        Some(words) => words.split(',').any(|word| word == found),
        None => wanted == found,
    }
}

#[cfg(test)]
mod tests;
