//! What a process is and may.

use super::{Errno, Fd, Result, c_string, check, check_int};
use crate::description::{Capabilities, Rlimit, Scheduler, Seccomp};
use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{c_char, c_int, c_ulong};
use core::mem::{size_of, zeroed};
use core::ptr::null;

/// Ends the process at once.
pub fn exit(code: c_int) -> ! {
    #[expect(unsafe_code, reason = "_exit(2)")]
    // SAFETY: nothing has to be done before.
    unsafe {
        libc::_exit(code)
    }
}

/// The process's number in its own pid namespace.
pub fn own_pid() -> c_int {
    #[expect(unsafe_code, reason = "getpid(2)")]
    // SAFETY: it cannot fail.
    unsafe {
        libc::getpid()
    }
}

fn prctl(option: c_int, argument: c_ulong, second: c_ulong) -> Result<c_int> {
    let zero: c_ulong = 0;
    #[expect(unsafe_code, reason = "prctl(2)")]
    // SAFETY: only options that take numbers are used.
    let result = unsafe { libc::prctl(option, argument, second, zero, zero) };
    check_int(result)
}

/// Whether others of the same user may trace the process, read its memory and its descriptors.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into(), 0).map(drop)
}

/// Nobody's death kills the process any more.
pub fn outlive_parent() -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, 0, 0).map(drop)
}

/// Whether a change from user 0 to another keeps the permitted capabilities.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0).map(drop)
}

/// Drops from the bounding set what is not in `keep`.
pub fn bound_capabilities(keep: u64) -> Result<()> {
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_READ, capability, 0) {
            Ok(1) if keep & (1 << capability) == 0 => {
                prctl(libc::PR_CAPBSET_DROP, capability, 0)?;
            }
            Ok(_) => {}
            // Past the last that this kernel has.
            Err(_) => break,
        }
    }
    Ok(())
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// _LINUX_CAPABILITY_VERSION_3.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// capset(2), then the ambient set. What the kernel does not know is left out; what this process
/// does not have is an error.
pub fn set_capabilities(wanted: &Capabilities) -> Result<()> {
    let mut known = 0_u64;
    for capability in 0..64 {
        match prctl(libc::PR_CAPBSET_READ, capability, 0) {
            Ok(_) => known |= 1 << capability,
            Err(_) => break,
        }
    }
    let half = |shift: u32| CapabilityHalf {
        effective: ((wanted.effective & known) >> shift) as u32,
        permitted: ((wanted.permitted & known) >> shift) as u32,
        inheritable: ((wanted.inheritable & known) >> shift) as u32,
    };
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let halves = [half(0), half(32)];
    #[expect(unsafe_code, reason = "capset(2)")]
    // SAFETY: header and both halves outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) };
    check(result)?;
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong, 0)?;
    for capability in 0..64 {
        if wanted.ambient & known & (1 << capability) != 0 {
            prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as c_ulong, capability)?;
        }
    }
    Ok(())
}

/// PR_SET_NO_NEW_PRIVS.
pub fn gain_no_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// seccomp(2), SECCOMP_SET_MODE_FILTER.
pub fn install_filter(filter: &Seccomp) -> Result<()> {
    let mut program: Vec<libc::sock_filter> = filter
        .program
        .iter()
        .map(|word| libc::sock_filter {
            code: *word as u16,
            jt: (word >> 16) as u8,
            jf: (word >> 24) as u8,
            k: (word >> 32) as u32,
        })
        .collect();
    let length = u16::try_from(program.len()).map_err(|_| Errno(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    #[expect(unsafe_code, reason = "seccomp(2)")]
    // SAFETY: the program outlives the call, and its length is given.
    let result = unsafe {
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        libc::syscall(libc::SYS_seccomp, mode, filter.flags, &raw const program)
    };
    check(result).map(drop)
}

/// setsid(2), unless the process leads a session already.
pub fn lead_session() -> Result<()> {
    #[expect(unsafe_code, reason = "setsid(2), getsid(2)")]
    // SAFETY: they take numbers.
    let (result, leads) = unsafe { (libc::setsid(), libc::getsid(0) == libc::getpid()) };
    if leads { Ok(()) } else { check_int(result).map(drop) }
}

/// Standard input becomes the controlling terminal.
pub fn control_terminal() -> Result<()> {
    #[expect(unsafe_code, reason = "TIOCSCTTY")]
    // SAFETY: it takes numbers.
    let result = unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) };
    check_int(result).map(drop)
}

/// keyctl(2): a session keyring without anything of the caller's.
pub fn join_new_keyring() -> Result<()> {
    #[expect(unsafe_code, reason = "keyctl(2)")]
    // SAFETY: a null name is a new keyring without one.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, null::<c_char>())
    };
    check(result).map(drop)
}

/// ioprio_set(2) of this process.
pub fn set_io_priority(priority: u32) -> Result<()> {
    const WHO_PROCESS: c_int = 1;
    #[expect(unsafe_code, reason = "ioprio_set(2)")]
    // SAFETY: it takes numbers.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, priority) };
    check(result).map(drop)
}

/// sched_setattr(2) of this process.
pub fn set_scheduler(scheduler: &Scheduler) -> Result<()> {
    #[expect(unsafe_code, reason = "a C struct")]
    // SAFETY: zeros are a valid sched_attr.
    let mut attributes: libc::sched_attr = unsafe { zeroed() };
    attributes.size = size_of::<libc::sched_attr>() as u32;
    attributes.sched_policy = scheduler.policy;
    attributes.sched_flags = scheduler.flags;
    attributes.sched_nice = scheduler.nice;
    attributes.sched_priority = scheduler.priority;
    attributes.sched_runtime = scheduler.runtime;
    attributes.sched_deadline = scheduler.deadline;
    attributes.sched_period = scheduler.period;
    #[expect(unsafe_code, reason = "sched_setattr(2)")]
    // SAFETY: the struct outlives the call, and says its size.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    check(result).map(drop)
}

/// As many CPUs and memory nodes as any kernel can be built for.
type Mask = [u64; 128];

fn mask(numbers: &[u32]) -> Result<Mask> {
    let mut mask = [0; 128];
    for number in numbers {
        let word = mask.get_mut(*number as usize / 64).ok_or(Errno(libc::EINVAL))?;
        *word |= 1 << (number % 64);
    }
    Ok(mask)
}

/// set_mempolicy(2) of this process; `mode` has the flags in it.
pub fn set_memory_policy(mode: u32, nodes: &[u32]) -> Result<()> {
    let mask = mask(nodes)?;
    // Without nodes there is no mask: a policy that takes none takes no empty one, either.
    let bits = if nodes.is_empty() { 0 } else { 8 * size_of::<Mask>() };
    #[expect(unsafe_code, reason = "set_mempolicy(2)")]
    // SAFETY: the mask outlives the call, and has that many bits.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask.as_ptr(), bits) };
    check(result).map(drop)
}

/// sched_setaffinity(2) of this process.
pub fn set_cpus(cpus: &[u32]) -> Result<()> {
    let mask = mask(cpus)?;
    #[expect(unsafe_code, reason = "sched_setaffinity(2)")]
    // SAFETY: the mask outlives the call, and its length is given.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(&mask), mask.as_ptr()) };
    check(result).map(drop)
}

/// personality(2).
pub fn set_personality(personality: u32) -> Result<()> {
    #[expect(unsafe_code, reason = "personality(2)")]
    // SAFETY: it takes a number.
    let result = unsafe { libc::personality(c_ulong::from(personality)) };
    check_int(result).map(drop)
}

/// prlimit(2) of this process.
pub fn set_limit(limit: &Rlimit) -> Result<()> {
    let value = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
    let none = null::<libc::rlimit64>();
    #[expect(unsafe_code, reason = "prlimit(2)")]
    // SAFETY: the struct outlives the call, and the old limit is not asked for.
    let result =
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, limit.resource, &raw const value, none) };
    check(result).map(drop)
}

/// umask(2).
pub fn set_umask(mask: u32) {
    #[expect(unsafe_code, reason = "umask(2)")]
    // SAFETY: it takes a number.
    unsafe {
        libc::umask(mask)
    };
}

/// setgroups(2).
pub fn set_groups(groups: &[u32]) -> Result<()> {
    #[expect(unsafe_code, reason = "setgroups(2)")]
    // SAFETY: the list outlives the call, and its length is given.
    let result = unsafe { libc::setgroups(groups.len(), groups.as_ptr()) };
    check_int(result).map(drop)
}

/// setresgid(2), all three.
pub fn set_gid(gid: u32) -> Result<()> {
    #[expect(unsafe_code, reason = "setresgid(2)")]
    // SAFETY: it takes numbers.
    let result = unsafe { libc::setresgid(gid, gid, gid) };
    check_int(result).map(drop)
}

/// setresuid(2), all three.
pub fn set_uid(uid: u32) -> Result<()> {
    #[expect(unsafe_code, reason = "setresuid(2)")]
    // SAFETY: it takes numbers.
    let result = unsafe { libc::setresuid(uid, uid, uid) };
    check_int(result).map(drop)
}

/// Every signal does what it does by default, and none is held back.
pub fn reset_signals() {
    // The kernel's struct sigaction, whose order differs among machines; zeros mean SIG_DFL in
    // all of them. The C library would refuse its own two signals.
    let default = [0_u64; 4];
    let none = null::<u64>();
    let nothing = 0_u64;
    let size = size_of::<u64>();
    for signal in 1..=64 {
        #[expect(unsafe_code, reason = "rt_sigaction(2)")]
        // SAFETY: the struct outlives the call; SIGKILL and SIGSTOP are refused.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, size)
        };
    }
    #[expect(unsafe_code, reason = "rt_sigprocmask(2)")]
    // SAFETY: the mask outlives the call.
    unsafe {
        let how = libc::SIG_SETMASK;
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const nothing, none, size)
    };
}

/// A write to a pipe that nobody reads fails, and is not the end of this process.
pub fn survive_broken_pipes() {
    #[expect(unsafe_code, reason = "signal(2)")]
    // SAFETY: there is no handler that could be called.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN)
    };
}

/// A list as execve(2) wants it.
pub struct Strings {
    _owned: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Strings {
    /// Of these; the ones with a NUL inside are an error.
    pub fn new(strings: &[String]) -> Result<Self> {
        let owned: Vec<CString> =
            strings.iter().map(|string| c_string(string)).collect::<Result<_>>()?;
        let mut pointers: Vec<_> = owned.iter().map(|string| string.as_ptr()).collect();
        pointers.push(null());
        Ok(Self { _owned: owned, pointers })
    }
}

/// execve(2), which returns only to say why not.
pub fn execute(path: &str, args: &Strings, env: &Strings) -> Errno {
    let path = match c_string(path) {
        Ok(path) => path,
        Err(error) => return error,
    };
    #[expect(unsafe_code, reason = "execve(2)")]
    // SAFETY: both lists end with a null and outlive the call.
    unsafe {
        libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr())
    };
    Errno::last()
}

/// fork(2): `None` in the child, its pid in the parent.
pub fn fork() -> Result<Option<c_int>> {
    #[expect(unsafe_code, reason = "fork(2)")]
    // SAFETY: there is one thread only.
    let pid = check_int(unsafe { libc::fork() })?;
    Ok((pid != 0).then_some(pid))
}

/// pidfd_open(2), close-on-exec.
pub fn open_process(pid: c_int) -> Result<Fd> {
    #[expect(unsafe_code, reason = "pidfd_open(2)")]
    // SAFETY: it takes numbers.
    Fd::new(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// setns(2) by a pidfd (kernel 5.8).
pub fn enter(process: &Fd, namespaces: c_int) -> Result<()> {
    #[expect(unsafe_code, reason = "setns(2)")]
    // SAFETY: it takes numbers.
    let result = unsafe { libc::setns(process.number(), namespaces) };
    check_int(result).map(drop)
}

/// SIGKILL by a pidfd.
pub fn kill(process: &Fd) -> Result<()> {
    #[expect(unsafe_code, reason = "pidfd_send_signal(2)")]
    // SAFETY: no more is said of the signal.
    let result = unsafe {
        let nothing = null::<libc::siginfo_t>();
        libc::syscall(libc::SYS_pidfd_send_signal, process.number(), libc::SIGKILL, nothing, 0)
    };
    check(result).map(drop)
}

/// How a child ended.
pub enum End {
    /// By itself, with this status.
    Exited(c_int),
    /// Of this signal.
    Killed(c_int),
}

/// waitid(2) for a child.
pub fn wait(child: c_int) -> Result<End> {
    #[expect(unsafe_code, reason = "a C struct")]
    // SAFETY: zeros are a valid siginfo.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    loop {
        #[expect(unsafe_code, reason = "waitid(2)")]
        // SAFETY: one struct is written, which outlives the call.
        let result = unsafe {
            libc::waitid(libc::P_PID, child.cast_unsigned(), &raw mut info, libc::WEXITED)
        };
        match check_int(result) {
            Ok(_) => break,
            Err(Errno(libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
    #[expect(unsafe_code, reason = "a union of C")]
    // SAFETY: waitid(2) has filled the part about a child.
    let status = unsafe { info.si_status() };
    Ok(if info.si_code == libc::CLD_EXITED { End::Exited(status) } else { End::Killed(status) })
}
