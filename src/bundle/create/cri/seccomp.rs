//! The system calls of a container whose seccomp profile is `RuntimeDefault`.
//!
//! What is allowed is what containerd's and Docker's default profiles allow (their documentation
//! names them), so that a program meets here what it meets there: everything that acts on the
//! process, its files and its sockets, and, with a capability, what that capability is for. The
//! rest fails with EPERM, as calls of a newer kernel do.

use serde_json::{Value, json};

/// For every container, apart by blanks.
const ALL: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2
    dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64
    fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64
    fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64
    futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd
    getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid
    gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
    io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr
    listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise
    map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock
    mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget
    msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect
    open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free
    pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_mrelease
    pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv
    recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
    rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max
    sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select
    semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg
    sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer
    setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
    setreuid32 setrlimit set_robust_list setsid setsockopt set_thread_area set_tid_address setuid
    setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
    sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount statx
    symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
    truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64
    utimes vfork vmsplice wait4 waitid waitpid write writev
    ptrace process_vm_readv process_vm_writev";

/// What a capability brings.
const WITH: [(&str, &str); 14] = [
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie \
         lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog \
         umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// Personalities (personality(2)): Linux and Linux32, each also with UNAME26, and the question.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The flags of clone(2) that make namespaces, CLONE_NEWTIME aside, which it does not take.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// Sockets to other virtual machines: a virtual machine's host would be reached past its network.
const AF_VSOCK: u64 = 40;

/// `linux.seccomp` for a process whose bounding set is `capabilities`.
pub fn default(capabilities: &[&str]) -> Value {
    let words = |text: &'static str| text.split_whitespace();
    let mut names: Vec<&str> = words(ALL).collect();
    for (capability, calls) in WITH {
        if capabilities.contains(&capability) {
            names.extend(words(calls));
        }
    }
    let (architectures, own): (&[&str], &[&str]) = match std::env::consts::ARCH {
        "x86_64" => {
            (&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], &["arch_prctl", "modify_ldt"])
        }
        "aarch64" => (
            &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
            &[
                "arm_fadvise64_64",
                "arm_sync_file_range",
                "sync_file_range2",
                "breakpoint",
                "cacheflush",
                "set_tls",
            ],
        ),
        // The runtime takes the kernel's own then.
        _ => (&[], &["sync_file_range2"]),
    };
    names.extend(own);
    names.sort_unstable();
    names.dedup();
    let mut rules = vec![
        json!({ "names": names, "action": "SCMP_ACT_ALLOW" }),
        only_if("socket", "SCMP_CMP_NE", AF_VSOCK, None),
    ];
    rules.extend(PERSONALITIES.map(|which| only_if("personality", "SCMP_CMP_EQ", which, None)));
    if !capabilities.contains(&"CAP_SYS_ADMIN") {
        rules.push(only_if("clone", "SCMP_CMP_MASKED_EQ", NEW_NAMESPACES, Some(0)));
        // Its flags are behind a pointer. A libc that is told there is no such call takes clone.
        rules.push(json!({
            "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS,
        }));
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": architectures,
        "syscalls": rules,
    })
}

/// Allows a call by its first argument.
fn only_if(name: &str, op: &str, value: u64, second: Option<u64>) -> Value {
    let mut condition = json!({ "index": 0, "value": value, "op": op });
    if let Some(second) = second {
        condition["valueTwo"] = second.into();
    }
    json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(seccomp: &Value) -> Vec<&str> {
        let rules = seccomp["syscalls"].as_array().unwrap();
        let plain = rules
            .iter()
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].is_null());
        plain
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|n| n.as_str().unwrap())
            .collect()
    }

    #[test]
    fn what_a_capability_is_for_comes_with_it() {
        let (plain, admin) = (default(&[]), default(&["CAP_SYS_ADMIN"]));
        for name in ["read", "execve", "ptrace", "openat2"] {
            assert!(allowed(&plain).contains(&name), "{name}");
        }
        for name in ["mount", "unshare", "setns", "clone", "clone3"] {
            assert!(!allowed(&plain).contains(&name) && allowed(&admin).contains(&name), "{name}");
        }
        for name in ["keyctl", "add_key", "kexec_load", "io_uring_setup", "userfaultfd", "reboot"] {
            assert!(!allowed(&admin).contains(&name), "{name}");
        }
        assert!(allowed(&default(&["CAP_SYS_BOOT"])).contains(&"reboot"));
    }

    #[test]
    fn every_call_is_one_that_there_is() {
        let all = WITH.map(|(capability, _)| capability);
        let profile = default(&all);
        // Of other architectures, or of kernels that are newer than the table of calls.
        let unknown: Vec<&str> = allowed(&profile)
            .into_iter()
            .filter(|name| !crate::guest::seccomp::knows(name))
            .collect();
        assert_eq!(unknown, [""; 0]);
        for (capability, _) in WITH {
            let bare = capability.strip_prefix("CAP_").unwrap();
            assert!(crate::guest::translate::CAPABILITIES.contains(&bare), "{capability}");
        }
    }
}
