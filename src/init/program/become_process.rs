//! Becoming the container's process: everything of runtime-spec's `process`, and the exec.

use super::failure::{Context, Failure};
use super::paths::{self, Proc};
use super::sys::{self, Errno, Strings};
use crate::description::{Capabilities, MemoryPolicy, Process, RLIMITS};
use crate::protocol::FIRST_PASSED;
use crate::text;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

/// Where programs are looked for if the process has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Sets the CPUs, unless the list is empty.
pub fn limit_cpus(cpus: &[u32]) -> Result<(), Failure> {
    if cpus.is_empty() {
        return Ok(());
    }
    sys::set_cpus(cpus).context(|| format!("run on the CPUs {cpus:?}"))
}

/// An exec's, as long as it is on the host. One that may not be lowered (CAP_SYS_RESOURCE) stops no
/// container.
pub fn set_oom_score(score: Option<i32>) -> Result<(), Failure> {
    let Some(score) = score else { return Ok(()) };
    let written =
        Proc::open().and_then(|proc| proc.write("self/oom_score_adj", &format!("{score}")));
    match written {
        Err(Errno(libc::EPERM | libc::EACCES)) => Ok(()),
        other => other.context(|| format!("write {score} to /proc/self/oom_score_adj")),
    }
}

/// Returns only what went wrong. `proc` is where labels are written, the guest's own if `None`.
pub fn run(process: &Process, proc: Option<Proc>) -> Failure {
    match apply(process, proc).map(|env| execute(process, &env)) {
        Ok(failure) | Err(failure) => failure,
    }
}

/// Everything but the exec, in the order that each step needs; returns the environment.
fn apply(process: &Process, proc: Option<Proc>) -> Result<Strings, Failure> {
    let (uid, gid) = (process.uid, process.gid);
    take_session(process)?;
    if let Some(priority) = process.io_priority {
        sys::set_io_priority(priority).context(|| format!("set the I/O priority {priority:#x}"))?;
    }
    if let Some(scheduler) = &process.scheduler {
        sys::set_scheduler(scheduler)
            .context(|| format!("set the scheduler of policy {}", scheduler.policy))?;
    }
    if let Some(MemoryPolicy { mode, nodes }) = &process.memory_policy {
        sys::set_memory_policy(*mode, nodes)
            .context(|| format!("set the memory policy {mode:#x} of the nodes {nodes:?}"))?;
    }
    if let Some(personality) = process.personality {
        sys::set_personality(personality)
            .context(|| format!("set the personality {personality:#x}"))?;
    }
    let env = environment(process)?;
    keep_passed(process)?;
    own_stdio(uid)?;
    set_labels(process, proc)?;
    sys::set_umask(process.umask.unwrap_or(0o022));
    for limit in &process.rlimits {
        sys::set_limit(limit).context(|| {
            let name = RLIMITS.get(limit.resource as usize).unwrap_or(&"?");
            format!("set RLIMIT_{name} to {} and {}", limit.soft, limit.hard)
        })?;
    }
    let moved = match sys::change_folder(&process.cwd) {
        Ok(()) => true,
        // The user may be let in where root is not, on a file system of another machine.
        Err(Errno(libc::EACCES | libc::EPERM)) => false,
        Err(error) => return Err(no_folder(process, error)),
    };
    limit_cpus(&process.cpus_final)?;
    sys::reset_signals();
    let capabilities = process.capabilities.clone().unwrap_or_default();
    sys::bound_capabilities(capabilities.bounding)
        .context(|| "drop capabilities from the bounding set".into())?;
    if !process.no_new_privileges {
        // Without no_new_privs it takes CAP_SYS_ADMIN, which is about to go.
        install_filter(process)?;
    }
    match sys::set_groups(&process.groups) {
        Err(Errno(libc::EPERM)) if process.groups.is_empty() => {}
        other => other.context(|| format!("set the additional groups {:?}", process.groups))?,
    }
    sys::set_gid(gid).context(|| format!("become group {gid}"))?;
    sys::keep_capabilities(true).context(|| "keep capabilities".into())?;
    sys::set_uid(uid).context(|| format!("become user {uid}"))?;
    if !moved {
        sys::change_folder(&process.cwd).map_err(|error| no_folder(process, error))?;
    }
    check_folder(&process.cwd)?;
    set_capabilities(&capabilities)?;
    if process.no_new_privileges {
        sys::gain_no_privileges().context(|| "set no_new_privs".into())?;
        install_filter(process)?;
    }
    Ok(env)
}

fn take_session(process: &Process) -> Result<(), Failure> {
    sys::lead_session().context(|| "begin a session".into())?;
    if process.terminal {
        sys::control_terminal().context(|| "take the terminal as the controlling one".into())?;
    }
    // Kernels without keyrings, and guests that may not, do without.
    sys::join_new_keyring().ok();
    Ok(())
}

fn environment(process: &Process) -> Result<Strings, Failure> {
    let mut env = process.env.clone();
    if text::value_of(&env, "HOME").is_none() {
        let home = paths::read("/etc/passwd")
            .ok()
            .and_then(|passwd| text::home_in(&passwd, process.uid))
            .unwrap_or_else(|| "/".to_owned());
        env.push(format!("HOME={home}"));
    }
    if process.listen_fds > 0 {
        env.retain(|entry| !entry.starts_with("LISTEN_FDS=") && !entry.starts_with("LISTEN_PID="));
        env.push(format!("LISTEN_FDS={}", process.listen_fds));
        env.push(format!("LISTEN_PID={}", sys::own_pid()));
    }
    Strings::new(&env).context(|| "set the environment".into())
}

/// Up to here they would have been closed in a hook.
fn keep_passed(process: &Process) -> Result<(), Failure> {
    (FIRST_PASSED..).take(process.passed_fds as usize).try_for_each(|number| {
        sys::keep_at_exec(number).context(|| format!("pass on descriptor {number}"))
    })
}

/// The user may open its own /dev/stdout again. Not /dev/null, which is everybody's.
fn own_stdio(uid: u32) -> Result<(), Failure> {
    for number in 0..3 {
        let what = || format!("give descriptor {number} to user {uid}");
        let facts = sys::facts_of_number(number).context(what)?;
        let null = facts.is(libc::S_IFCHR) && facts.device == sys::device(1, 3);
        if facts.uid == uid || null {
            continue;
        }
        match sys::own_number(number, uid) {
            // Not every kind of file can be given away, nor everybody's.
            Ok(()) | Err(Errno(libc::EPERM | libc::EINVAL | libc::EROFS)) => {}
            Err(error) => return Err(Failure::of(&what(), error)),
        }
    }
    Ok(())
}

/// The labels that the exec puts on.
fn set_labels(process: &Process, proc: Option<Proc>) -> Result<(), Failure> {
    if process.apparmor.is_none() && process.selinux.is_none() {
        return Ok(());
    }
    let proc = match proc {
        Some(proc) => proc,
        None => Proc::open().context(|| "open /proc to set a label".into())?,
    };
    if let Some(profile) = &process.apparmor {
        let line = format!("exec {profile}");
        let written = match proc.write("thread-self/attr/apparmor/exec", &line) {
            // A kernel older than the folder (5.8).
            Err(Errno(libc::ENOENT)) => proc.write("thread-self/attr/exec", &line),
            other => other,
        };
        written.context(|| format!("set the AppArmor profile {profile}"))?;
    }
    if let Some(label) = &process.selinux {
        proc.write("thread-self/attr/exec", label)
            .context(|| format!("set the SELinux label {label}"))?;
    }
    Ok(())
}

fn no_folder(process: &Process, error: Errno) -> Failure {
    Failure::of(&format!("change to the working folder {}", process.cwd), error)
}

/// A path like /proc/self/fd/7 could lead to the host, had anything been left open.
fn check_folder(cwd: &str) -> Result<(), Failure> {
    match sys::current_folder() {
        Ok(path) if text::is_inside(&path) => Ok(()),
        Ok(path) => Err(Failure::new(format!(
            "the working folder {cwd} is {path}, which is outside of the container or below /proc"
        ))),
        Err(error) => Err(Failure::of(&format!("find out where {cwd} is"), error)),
    }
}

fn set_capabilities(capabilities: &Capabilities) -> Result<(), Failure> {
    sys::set_capabilities(capabilities).context(|| {
        format!(
            "set the capabilities (effective {:#x}, permitted {:#x}, inheritable {:#x}, ambient \
             {:#x})",
            capabilities.effective,
            capabilities.permitted,
            capabilities.inheritable,
            capabilities.ambient
        )
    })?;
    sys::keep_capabilities(false).context(|| "stop keeping capabilities".into())
}

fn install_filter(process: &Process) -> Result<(), Failure> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    sys::install_filter(filter).context(|| "install the seccomp filter".into())
}

/// Whether there is a program to run, as far as that can be told before the user is changed.
/// Runtimes find out when they create a container, and whoever waits for that is told then.
pub fn look_for_program(process: &Process) -> Result<(), Failure> {
    match sys::change_folder(&process.cwd) {
        Ok(()) => {}
        // The user may be let in where root is not.
        Err(Errno(libc::EACCES | libc::EPERM)) => return Ok(()),
        Err(error) => return Err(no_folder(process, error)),
    }
    check_folder(&process.cwd)?;
    let Some(program) = process.args.first().filter(|program| !program.is_empty()) else {
        return Err(nothing_to_run());
    };
    if program.contains('/') {
        return paths::is_program(program).map_err(|error| not_executed(program, error));
    }
    let path = text::value_of(&process.env, "PATH").unwrap_or(DEFAULT_PATH);
    let mut forbidden = None;
    for candidate in text::candidates(program, path) {
        match paths::is_program(&candidate) {
            Ok(()) => return Ok(()),
            Err(Errno(libc::EACCES)) => forbidden = forbidden.or(Some(candidate)),
            Err(_) => {}
        }
    }
    Err(not_found(program, forbidden))
}

fn nothing_to_run() -> Failure {
    Failure::new("there is no program to run: process.args is empty".into())
}

/// No folder of PATH has it, or one has it and it may not be run.
fn not_found(program: &str, forbidden: Option<String>) -> Failure {
    match forbidden {
        Some(candidate) => not_executed(&candidate, Errno(libc::EACCES)),
        None => Failure {
            status: 127,
            ..Failure::of(
                &format!("executable file `{program}` not found in $PATH"),
                Errno(libc::ENOENT),
            )
        },
    }
}

/// As execvp(3), without its shell for scripts that do not name theirs.
fn execute(process: &Process, env: &Strings) -> Failure {
    let Some(program) = process.args.first().filter(|program| !program.is_empty()) else {
        return nothing_to_run();
    };
    let args = match Strings::new(&process.args) {
        Ok(args) => args,
        Err(error) => return Failure::of("set the arguments", error),
    };
    if program.contains('/') {
        return not_executed(program, sys::execute(program, &args, env));
    }
    let path = text::value_of(&process.env, "PATH").unwrap_or(DEFAULT_PATH);
    let mut forbidden = None;
    for candidate in text::candidates(program, path) {
        match sys::execute(&candidate, &args, env) {
            error @ Errno(libc::ENOENT) if paths::is_program(&candidate).is_ok() => {
                return not_executed(&candidate, error);
            }
            Errno(libc::ENOENT | libc::ENOTDIR) => {}
            // There is one that may not be run; another may come.
            Errno(libc::EACCES) => forbidden = forbidden.or(Some(candidate)),
            error => return not_executed(&candidate, error),
        }
    }
    not_found(program, forbidden)
}

fn not_executed(path: &str, error: Errno) -> Failure {
    let status = if matches!(error.0, libc::ENOENT | libc::ENOTDIR) { 127 } else { 126 };
    let what = match error.0 {
        libc::ENOENT if paths::is_program(path).is_ok() => {
            format!("exec `{path}`, which is there: its interpreter or its dynamic loader is not")
        }
        libc::ENOENT => format!("executable file `{path}` not found"),
        _ => format!("exec `{path}`"),
    };
    Failure { status, ..Failure::of(&what, error) }
}
