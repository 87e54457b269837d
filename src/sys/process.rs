//! This process: its place in the process tree, its fds, its memory.

use crate::error::{Context, Result};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

/// Takes ownership of an fd that a system call has just returned.
pub(super) fn own(fd: RawFd) -> OwnedFd {
    #[expect(unsafe_code, reason = "a raw fd from a system call has no owner yet")]
    // SAFETY: the callers pass what fcntl(F_DUPFD_CLOEXEC), dup3 or open_tree has just made: it is
    // open, and nobody else has it.
    unsafe {
        OwnedFd::from_raw_fd(fd)
    }
}

/// Which side of a [`fork`] this is.
pub enum Fork {
    /// The process that called, with the pid of the new one.
    Parent(i32),
    /// The new process.
    Child,
}

/// fork(2).
///
/// # Errors
/// When the kernel has no room for one more process.
pub fn fork() -> Result<Fork> {
    #[expect(unsafe_code, reason = "fork(2)")]
    // SAFETY: whoever calls is single-threaded (no runtime has been made yet), so the child's
    // memory, locks and allocator are as whole as the parent's.
    let forked = unsafe { nix::unistd::fork() };
    match forked.context(|| "fork")? {
        nix::unistd::ForkResult::Parent { child } => Ok(Fork::Parent(child.as_raw())),
        nix::unistd::ForkResult::Child => Ok(Fork::Child),
    }
}

/// Leaves the caller's session and standard fds: from here on containerd can neither signal this
/// process as part of a group nor wait for its output to end.
///
/// # Errors
/// When /dev/null cannot be opened.
pub fn detach() -> Result<()> {
    nix::unistd::setsid().context(|| "setsid")?;
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context(|| "open /dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Closes every fd but the standard ones. containerd may itself have been started with fds that
/// are not closed on exec; a supervisor would hold them for the container's life.
pub fn close_inherited_fds() {
    #[expect(unsafe_code, reason = "close_range(2) has no wrapper")]
    // SAFETY: called first of all, while no value of this program owns an fd above 2. A kernel
    // without the call (before 5.9) leaves them open, as every other shim does.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
    }
}

/// Has every fd but the standard ones closed in whatever this process starts. Whoever calls a
/// command may have left fds open in it, and a program that keeps one keeps its reader waiting.
pub fn seal_inherited_fds() {
    #[expect(unsafe_code, reason = "close_range(2) has no wrapper")]
    // SAFETY: the call takes numbers, and closes nothing in this process.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return;
    }
    // Before Linux 5.11.
    let fds = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for fd in fds.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok()) {
        if fd > 2 {
            #[expect(unsafe_code, reason = "fds that the caller left have no owner here")]
            // SAFETY: F_SETFD changes one flag; one that is not open any more is EBADF.
            unsafe {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}

/// A duplicate, at `above` or beyond, of an fd that the caller of this program left open under that
/// number.
///
/// # Errors
/// `InvalidArgument` when none is open there.
pub fn inherited_fd(number: RawFd, above: RawFd) -> Result<OwnedFd> {
    #[expect(unsafe_code, reason = "fds that the caller left have no owner here")]
    // SAFETY: the call takes numbers, and what it returns is a new fd that nobody else has.
    let raw = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, above) };
    if raw < 0 {
        return Err(crate::error::Error::invalid(format!(
            "file descriptor {number} is to be passed on, and is not open"
        )));
    }
    Ok(own(raw))
}

/// Closes every fd above the standard ones but `kept`, which gets the number 3.
///
/// # Errors
/// When it cannot be moved.
pub fn close_all_but(kept: OwnedFd) -> Result<OwnedFd> {
    use std::os::fd::IntoRawFd;
    // Closed with the others below, and not by its value.
    let from = kept.into_raw_fd();
    if from != 3 {
        #[expect(unsafe_code, reason = "dup3(2) onto a number that somebody may own")]
        // SAFETY: called in a new process that is about to forget whatever it has copies of, so
        // that nobody uses or closes number 3 again.
        Errno::result(unsafe { libc::dup3(from, 3, libc::O_CLOEXEC) }).context(|| "move an fd")?;
    }
    #[expect(unsafe_code, reason = "close_range(2) has no wrapper")]
    // SAFETY: as above.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 4, u32::MAX, 0) };
    if result != 0 {
        // Before Linux 5.9.
        let fds = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let fds: Vec<RawFd> =
            fds.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        for fd in fds.into_iter().filter(|&fd| fd > 3) {
            #[expect(unsafe_code, reason = "the fds of the process this one was forked from")]
            // SAFETY: as above; the one that listed them is closed already, which is EBADF.
            unsafe {
                libc::close(fd);
            }
        }
    }
    Ok(own(3))
}

/// Takes the last word off the command line that ps(1) shows: a supervisor is a fork of `start`,
/// and would seem to be a start that hangs. Where the kernel does not tell where the words are,
/// they stay.
pub fn drop_last_argument() {
    let Some((address, len)) = arguments() else { return };
    let Ok(shown) = std::fs::read("/proc/self/cmdline") else { return };
    if shown.len() != len || shown.last() != Some(&0) {
        return;
    }
    let Some(body) = shown.get(..len - 1) else { return };
    let keep = body.iter().rposition(|&byte| byte == 0).map_or(len, |last| last + 1);
    #[expect(unsafe_code, reason = "the words of the command line belong to nobody")]
    // SAFETY: the kernel has just said that this program's words lie there, `len` bytes long;
    // they are on the stack it started with, which is writable and never unmapped, and Rust's
    // own copies of them are made anew at each call of `args_os`, of which there is none after
    // this.
    unsafe {
        let start = std::ptr::with_exposed_provenance_mut::<u8>(address);
        std::ptr::write_bytes(start.add(keep), 0, len - keep);
    }
}

/// Where this process's words lie, and how many bytes they are (proc_pid_stat(5), fields 48, 49).
fn arguments() -> Option<(usize, usize)> {
    let stat = Stat::of("self")?;
    let (start, end): (usize, usize) = (stat.number(48)?, stat.number(49)?);
    (start != 0).then(|| Some((start, end.checked_sub(start)?)))?
}

/// Makes orphans below this process its children (prctl(2), PR_SET_CHILD_SUBREAPER).
///
/// # Errors
/// None in practice.
pub fn become_subreaper() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context(|| "become a subreaper")
}

/// The limit of open files that this process was started with, once it has another.
static OPEN_FILES: OnceLock<(u64, u64)> = OnceLock::new();

/// Raises the number of files this process may have open as far as it goes: a supervisor needs
/// nine for each exec, and service managers give daemons 1024. What it starts gets the old limit
/// again.
///
/// # Errors
/// What the kernel says.
pub fn raise_open_files() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context(|| "raise RLIMIT_NOFILE")?;
        OPEN_FILES.get_or_init(|| (soft, hard));
    }
    Ok(())
}

/// Undoes [`raise_open_files`], between fork and exec: it makes one system call.
pub(super) fn restore_open_files() -> std::io::Result<()> {
    match OPEN_FILES.get() {
        Some(&(soft, hard)) => Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?),
        None => Ok(()),
    }
}

/// Gives freed memory back to the kernel. A bundle's config.json is parsed once; without this
/// its pages would stay with the supervisor for the container's life.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "malloc_trim(3)")]
        // SAFETY: malloc_trim only releases memory that the allocator has free.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// Forgets which pages of its own file the program has touched so far. Most of them are the work of
/// a start and a Create, and idle for the container's life after that; the kernel keeps them for all
/// supervisors at once, and maps those that are wanted again.
pub fn trim_program() {
    #[expect(unsafe_code, reason = "the linker's names for where the program lies")]
    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }
    const PAGE: usize = 4096;
    #[expect(unsafe_code, reason = "madvise(2)")]
    // SAFETY: only the addresses of the two are taken. Between them are the program's constants and
    // its code, which the file is mapped for and nobody writes: what is given up is read from the
    // file again. Where pages are larger the call fails, and all stays.
    unsafe {
        let start = (&raw const __executable_start).expose_provenance();
        let end = (&raw const etext).expose_provenance() & !(PAGE - 1);
        let address = std::ptr::with_exposed_provenance_mut(start);
        libc::madvise(address, end.saturating_sub(start), libc::MADV_DONTNEED);
    }
}

/// Puts this process and its children into a core scheduling group of their own, so that they
/// share a core with nobody else's (prctl(2), PR_SCHED_CORE).
///
/// # Errors
/// Where the kernel or the CPU does not have it.
pub fn new_core_scheduling_cookie() -> Result<()> {
    const PR_SCHED_CORE: i32 = 62;
    const PR_SCHED_CORE_CREATE: i32 = 1;
    const PIDTYPE_TGID: i32 = 1;
    #[expect(unsafe_code, reason = "prctl(2)")]
    // SAFETY: with these arguments prctl takes numbers only.
    let result = unsafe { libc::prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0, PIDTYPE_TGID, 0) };
    if result < 0 {
        return Err(Errno::last()).context(|| "core scheduling");
    }
    Ok(())
}

/// What proc_pid_stat(5) tells of a process, from the third field on: the second is the name in
/// brackets, and the name may hold anything.
struct Stat(String);

impl Stat {
    /// `None` when it is gone.
    fn of(pid: impl std::fmt::Display) -> Option<Self> {
        let mut stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.drain(..stat.rfind(')')? + 2);
        Some(Self(stat))
    }

    /// The field of that number there.
    fn field(&self, number: usize) -> Option<&str> {
        self.0.split_ascii_whitespace().nth(number.checked_sub(3)?)
    }

    fn number<T: std::str::FromStr>(&self, number: usize) -> Option<T> {
        self.field(number)?.parse().ok()
    }
}

/// When a process started, in clock ticks since boot: with its pid, what tells it from a later
/// one of the same number (proc_pid_stat(5), field 22). `None` when it is gone or a zombie.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = Stat::of(pid)?;
    if matches!(stat.field(3)?, "Z" | "X") {
        return None;
    }
    stat.number(22)
}

/// The parent of a process, in this process's pid namespace. `None` when it is gone.
pub fn parent(pid: i32) -> Option<i32> {
    Stat::of(pid)?.number(4)
}

/// Whether a process has ended, or has begun to. It has begun before it closes its files, and may
/// be long from over when the end of one of them is seen.
pub fn is_exiting(pid: i32) -> bool {
    const PF_EXITING: u64 = 4;
    let Some(stat) = Stat::of(pid) else { return true };
    stat.number(9).is_some_and(|flags: u64| flags & PF_EXITING != 0)
}

/// Sends a signal to the process of that pid, if it is still the one that started then.
/// Returns whether it was there.
pub fn signal_if_same(pid: i32, started: u64, number: i32) -> bool {
    // The pidfd holds on to whoever has the number now; the start time tells whether that is
    // the one that is meant, and the signal can reach nobody else.
    let Ok(fd) = super::pidfd::open(pid) else { return false };
    start_time(pid) == Some(started) && super::pidfd::signal(&fd, number).is_ok()
}

/// The processes that were given these words one after the other on their command line.
pub fn with_arguments(words: &[&[u8]]) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let given: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
        given.windows(words.len()).any(|some| some == words)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_process_is_found_by_words_of_its_command_line() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "echo; read word", "1000.0625", "0.5"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // A process that spawn has just returned may not have its command line yet.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let found = with_arguments(&[b"1000.0625", b"0.5"]);
        let half = with_arguments(&[b"1000.0625", b"0"]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [child.id().cast_signed()]);
        assert!(half.is_empty());
    }

    #[test]
    fn a_process_is_told_from_a_later_one_of_its_number_by_its_start() {
        let own = std::process::id().cast_signed();
        let started = start_time(own).unwrap();
        assert!(signal_if_same(own, started, 0));
        assert!(!signal_if_same(own, started + 1, 0));
        assert_eq!(start_time(i32::MAX), None);
    }
}
