//! runtime-spec's `process`, for the init.

use super::cursor::At;
use crate::config::input::quoted;
use crate::error::Result;
use crate::init::{Capabilities, MemoryPolicy, Process, RLIMITS, Rlimit, Scheduler};

/// Bit n is the capability at n (capabilities(7), linux/capability.h).
pub(crate) const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// sched(7): the name of each policy, and its number.
const POLICIES: [(&str, u32); 6] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

/// sched_setattr(2): the name of each flag without its SCHED_FLAG_, and its bit.
const SCHEDULER_FLAGS: [(&str, u64); 7] = [
    ("RESET_ON_FORK", 0x01),
    ("RECLAIM", 0x02),
    ("DL_OVERRUN", 0x04),
    ("KEEP_POLICY", 0x08),
    ("KEEP_PARAMS", 0x10),
    ("UTIL_CLAMP_MIN", 0x20),
    ("UTIL_CLAMP_MAX", 0x40),
];

/// set_mempolicy(2), linux/mempolicy.h: the policy at n has number n.
const MEMORY_POLICIES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

/// The same: flags, which are bits of the policy's number.
const MEMORY_POLICY_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

/// Numbers of CPUs and of memory nodes are below this.
const LONGEST_MASK: u32 = 8192;

/// All of it but what lies outside of `process` in config.json.
///
/// `notes` gets what the process goes without, for the log.
pub(super) fn process(at: &At<'_>, notes: &mut Vec<String>) -> Result<Process> {
    let user = at.at("user");
    let args = at.at("args");
    let args_found = args.texts()?;
    if args_found.is_empty() {
        return Err(args.wrong("is empty: there is nothing to run"));
    }
    let umask = user.at("umask");
    if umask.number::<u32>()?.is_some_and(|umask| umask > 0o777) {
        return Err(umask.wrong("is no mask of file modes (0 to 511, which is 0777)"));
    }
    Ok(Process {
        args: without_nul(&args, args_found)?,
        env: without_nul(&at.at("env"), at.at("env").texts()?)?,
        cwd: at.at("cwd").absolute()?.to_owned(),
        terminal: at.at("terminal").flag()?,
        uid: user.at("uid").number()?.unwrap_or(0),
        gid: user.at("gid").number()?.unwrap_or(0),
        groups: numbers(&user.at("additionalGids"))?,
        umask: umask.number()?,
        no_new_privileges: at.at("noNewPrivileges").flag()?,
        capabilities: capabilities(&at.at("capabilities"), notes)?,
        rlimits: rlimits(&at.at("rlimits"))?,
        oom_score_adj: oom_score_adj(&at.at("oomScoreAdj"))?,
        io_priority: io_priority(&at.at("ioPriority"))?,
        scheduler: scheduler(&at.at("scheduler"))?,
        apparmor: plain(&at.at("apparmorProfile"))?,
        selinux: plain(&at.at("selinuxLabel"))?,
        ..Process::default()
    })
}

/// CPUs of an exec before and after it has become the container's (`execCPUAffinity`).
pub(super) fn affinity(at: &At<'_>) -> Result<(Vec<u32>, Vec<u32>)> {
    Ok((list(&at.at("initial"), "CPUs")?, list(&at.at("final"), "CPUs")?))
}

fn plain(at: &At<'_>) -> Result<Option<String>> {
    at.text()?.map(|text| at.plain(text).map(str::to_owned)).transpose()
}

/// The kernel ends texts there, so one that goes on would be cut.
fn without_nul(at: &At<'_>, texts: Vec<String>) -> Result<Vec<String>> {
    match texts.iter().find(|text| text.contains('\0')) {
        Some(text) => Err(at.wrong(format!("{} has a NUL in it", quoted(text)))),
        None => Ok(texts),
    }
}

fn numbers(at: &At<'_>) -> Result<Vec<u32>> {
    at.items()?
        .iter()
        .map(|item| item.number()?.ok_or_else(|| item.wrong("is no number")))
        .collect()
}

/// Those that nobody here knows the process goes without, which is worth a note (runtime-spec, "Linux
/// Process": a warning and no failure).
fn capabilities(at: &At<'_>, notes: &mut Vec<String>) -> Result<Option<Capabilities>> {
    if !at.is_set() {
        return Ok(None);
    }
    let mut set = |name: &str| -> Result<u64> {
        at.at(name).items()?.iter().try_fold(0, |set, item| -> Result<u64> {
            let name = item.some_text()?;
            let word = name.strip_prefix("CAP_").unwrap_or(name);
            if let Some(number) = CAPABILITIES.iter().position(|known| *known == word) {
                return Ok(set | 1 << number);
            }
            notes.push(format!(
                "{}: the process goes without {}, which is no capability that is known here",
                item.pointer(),
                quoted(name)
            ));
            Ok(set)
        })
    };
    let (inheritable, permitted) = (set("inheritable")?, set("permitted")?);
    Ok(Some(Capabilities {
        bounding: set("bounding")?,
        effective: set("effective")?,
        inheritable,
        permitted,
        // The kernel refuses others, for which crun and runc do not fail (capabilities(7)).
        ambient: set("ambient")? & inheritable & permitted,
    }))
}

fn rlimits(at: &At<'_>) -> Result<Vec<Rlimit>> {
    let mut limits: Vec<Rlimit> = Vec::new();
    for item in at.items()? {
        let kind = item.at("type");
        let name = kind.some_text()?;
        let word = name.strip_prefix("RLIMIT_").unwrap_or(name);
        let number = RLIMITS.iter().position(|known| *known == word);
        let resource = number
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| kind.wrong(format!("{} is no limit of getrlimit(2)", quoted(name))))?;
        if limits.iter().any(|limit| limit.resource == resource) {
            return Err(kind.wrong(format!("{name} is there twice")));
        }
        // Unsigned in the spec, and some write -1 for no limit.
        let limit = |at: At<'_>| match at.number::<i128>()? {
            Some(-1) => Ok(u64::MAX),
            Some(number) => u64::try_from(number).map_err(|_| at.wrong("is below zero")),
            None => Err(at.wrong("is missing")),
        };
        let (soft, hard) = (limit(item.at("soft"))?, limit(item.at("hard"))?);
        if soft > hard {
            return Err(item.wrong(format!("soft {soft} is above hard {hard}")));
        }
        limits.push(Rlimit { resource, soft, hard });
    }
    Ok(limits)
}

fn oom_score_adj(at: &At<'_>) -> Result<Option<i32>> {
    let found = at.number()?;
    if found.is_some_and(|score: i32| !(-1000..=1000).contains(&score)) {
        return Err(at.wrong("is not between -1000 and 1000"));
    }
    Ok(found)
}

fn io_priority(at: &At<'_>) -> Result<Option<u32>> {
    if !at.is_set() {
        return Ok(None);
    }
    let class = at.at("class");
    let number = match class.some_text()? {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(class.wrong(format!("{} is no class of I/O", quoted(other)))),
    };
    let priority: u32 = at.at("priority").number()?.unwrap_or(0);
    if priority > 7 {
        return Err(at.at("priority").wrong("is above 7"));
    }
    Ok(Some(number << 13 | priority))
}

fn scheduler(at: &At<'_>) -> Result<Option<Scheduler>> {
    if !at.is_set() {
        return Ok(None);
    }
    let policy = at.at("policy");
    let name = policy.some_text()?;
    let known = POLICIES.iter().find(|(known, _)| *known == name);
    let (_, number) =
        known.ok_or_else(|| policy.wrong(format!("{} is no policy of sched(7)", quoted(name))))?;
    let flags = at.at("flags").items()?.iter().try_fold(0, |set, item| -> Result<u64> {
        let name = item.some_text()?;
        let word = name.strip_prefix("SCHED_FLAG_");
        let known = SCHEDULER_FLAGS.iter().find(|(known, _)| Some(*known) == word);
        let (_, bit) = known.ok_or_else(|| {
            item.wrong(format!("{} is no flag of sched_setattr(2)", quoted(name)))
        })?;
        Ok(set | bit)
    })?;
    Ok(Some(Scheduler {
        policy: *number,
        flags,
        nice: at.at("nice").number()?.unwrap_or(0),
        priority: at.at("priority").number()?.unwrap_or(0),
        runtime: at.at("runtime").number()?.unwrap_or(0),
        deadline: at.at("deadline").number()?.unwrap_or(0),
        period: at.at("period").number()?.unwrap_or(0),
    }))
}

/// `linux.memoryPolicy`.
pub(super) fn memory_policy(at: &At<'_>) -> Result<Option<MemoryPolicy>> {
    if !at.is_set() {
        return Ok(None);
    }
    let mode = at.at("mode");
    let name = mode.some_text()?;
    let known = MEMORY_POLICIES.iter().zip(0..).find(|(known, _)| **known == name);
    let (_, number) = known
        .ok_or_else(|| mode.wrong(format!("{} is no policy of set_mempolicy(2)", quoted(name))))?;
    let mode = at.at("flags").items()?.iter().try_fold(number, |set, item| -> Result<u32> {
        let name = item.some_text()?;
        let known = MEMORY_POLICY_FLAGS.iter().find(|(known, _)| *known == name);
        let (_, bit) = known.ok_or_else(|| {
            item.wrong(format!("{} is no flag of set_mempolicy(2)", quoted(name)))
        })?;
        Ok(set | bit)
    })?;
    Ok(Some(MemoryPolicy { mode, nodes: list(&at.at("nodes"), "memory nodes")? }))
}

/// A list such as `0-3,7`.
fn list(at: &At<'_>, what: &str) -> Result<Vec<u32>> {
    let Some(text) = at.text()? else { return Ok(Vec::new()) };
    let wrong = || at.wrong(format!("{} is no list of {what}, such as 0-3,7", quoted(text)));
    let number = |text: &str| -> Result<u32> {
        let number: Option<u32> = text.trim().parse().ok();
        number.filter(|number| *number < LONGEST_MASK).ok_or_else(wrong)
    };
    let mut found = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        found.extend(first..=last);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
