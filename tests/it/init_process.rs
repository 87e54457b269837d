//! runtime-spec's `process`, as a process inside sees it.

use crate::support::guest::{self, CAPABILITIES, Failure, Guest, first, shell};
use nexcage::init::{Capabilities, MemoryPolicy, Process, Rlimit, Scheduler, Seccomp};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A line of /proc/self/status.
fn status_line<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim()
}

fn capability_line(status: &str, name: &str) -> u64 {
    u64::from_str_radix(status_line(status, name), 16).unwrap()
}

/// It does not come to run; what was said of it, and the status it leaves.
fn fails(process: Process) -> (Failure, i32) {
    fails_in(Guest::new(), process)
}

fn fails_in(guest: Guest, process: Process) -> (Failure, i32) {
    let mut gated = guest.start(&first(process));
    // Some of it is seen before the start, some only then.
    let failure = match gated.answer() {
        Err(failure) => failure,
        Ok(()) => gated.go().unwrap(),
    };
    (failure, gated.end().0)
}

#[test]
fn arguments_and_environment_arrive_byte_for_byte() {
    let value = "zwei\nZeilen\t\"quoted\" $HOME `x` \u{1} äöü 🦀";
    let process = Process {
        args: ["sh", "-c", "for w in \"$@\"; do echo \"<$w>\"; done", "0", value, "", "-x"]
            .map(str::to_owned)
            .into(),
        ..shell("")
    };
    assert_eq!(guest::run(&first(process)), format!("<{value}>\n<>\n<-x>\n"));
    let process = Process {
        args: ["/bin/cat", "/proc/self/environ"].map(str::to_owned).into(),
        env: vec![format!("A.B-c={value}"), "HOME=".to_owned(), "E=1".to_owned()],
        ..shell("")
    };
    let output = guest::run(&first(process));
    assert_eq!(output, format!("A.B-c={value}\0HOME=\0E=1\0"), "and nothing is added");
}

#[test]
fn home_comes_from_passwd_where_it_is_missing() {
    let guest = Guest::new();
    fs::write(guest.root().join("etc/passwd"), "root:x:0:0::/r:/bin/sh\nu:x:7:7::/h u:/bin/sh\n")
        .unwrap();
    let process = |uid| Process { uid, ..shell("echo $HOME") };
    assert_eq!(guest.start(&first(process(7))).finish(), "/h u\n");
    let guest = Guest::new();
    fs::remove_file(guest.root().join("etc/passwd")).unwrap();
    assert_eq!(guest.start(&first(process(0))).finish(), "/\n");
    let guest = Guest::new();
    fs::remove_file(guest.root().join("etc/passwd")).unwrap();
    nix::unistd::mkfifo(&guest.root().join("etc/passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(guest.start(&first(process(0))).finish(), "/\n", "a pipe is not waited for");
}

#[test]
fn user_groups_and_mask_are_as_described() {
    let process = Process {
        uid: 1000,
        gid: 1001,
        groups: vec![5, 1002],
        ..shell("id -u; id -g; grep Groups /proc/self/status; umask")
    };
    let output = guest::run(&first(process.clone()));
    assert_eq!(output, "1000\n1001\nGroups:\t5 1002 \n0022\n");
    let output = guest::run(&first(Process { umask: Some(0o137), groups: vec![], ..process }));
    assert_eq!(output, "1000\n1001\nGroups:\t \n0137\n");
}

#[test]
fn all_five_capability_sets_are_as_described() {
    let sets = Capabilities {
        bounding: 0b1111_1111,
        permitted: 0b0111_1111,
        effective: 0b0011_1111,
        inheritable: 0b0001_1111,
        ambient: 0b0000_0111,
    };
    // Not a shell: an exec of root's, or of a file, computes the sets anew. What survives for a
    // user without privileges are the ambient ones.
    let args = vec!["/bin/cat".to_owned(), "/proc/self/status".to_owned()];
    let user = Process { uid: 1000, args, capabilities: Some(sets), ..shell("") };
    let status = guest::run(&first(user.clone()));
    assert_eq!(capability_line(&status, "CapBnd"), 0b1111_1111);
    assert_eq!(capability_line(&status, "CapInh"), 0b0001_1111);
    assert_eq!(capability_line(&status, "CapAmb"), 0b0000_0111);
    assert_eq!(capability_line(&status, "CapPrm"), 0b0000_0111);
    assert_eq!(capability_line(&status, "CapEff"), 0b0000_0111);
    let status = guest::run(&first(Process { uid: 0, ..user.clone() }));
    assert_eq!(capability_line(&status, "CapPrm"), 0b1111_1111, "root gets the bounding set");
    let status = guest::run(&first(Process { uid: 0, capabilities: None, ..user }));
    for set in ["CapBnd", "CapInh", "CapAmb", "CapPrm", "CapEff"] {
        assert_eq!(capability_line(&status, set), 0, "{set}");
    }
}

#[test]
fn capabilities_that_this_kernel_does_not_have_are_left_out() {
    let own = capability_line(&fs::read_to_string("/proc/self/status").unwrap(), "CapBnd");
    // Guests of these tests are made without CAP_SYS_PTRACE.
    let own = own & !(1 << 19);
    let unknown = 0b111 << 61;
    let sets = Capabilities {
        bounding: own | unknown,
        effective: own | unknown,
        permitted: own | unknown,
        inheritable: unknown,
        ambient: unknown,
    };
    let process = Process { capabilities: Some(sets), ..shell("cat /proc/self/status") };
    assert_eq!(capability_line(&guest::run(&first(process)), "CapEff"), own);
}

#[test]
fn no_new_privileges_is_set_only_where_it_is_asked_for() {
    for no_new_privileges in [false, true] {
        let process = Process { no_new_privileges, ..shell("cat /proc/self/status") };
        let status = guest::run(&first(process));
        let set = status_line(&status, "NoNewPrivs");
        assert_eq!(set, if no_new_privileges { "1" } else { "0" });
        assert_eq!(status_line(&status, "Seccomp"), "0", "and no filter");
        assert_eq!(capability_line(&status, "CapEff"), CAPABILITIES);
    }
}

/// setpriority(2) answers EDOM.
fn filter() -> Seccomp {
    let instruction = |code: u32, jt: u64, jf: u64, k: u32| {
        u64::from(code) | jt << 16 | jf << 24 | u64::from(k) << 32
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    let number = u32::try_from(libc::SYS_setpriority).unwrap();
    let domain = libc::SECCOMP_RET_ERRNO | libc::EDOM.cast_unsigned();
    Seccomp {
        flags: 0,
        program: vec![
            instruction(load, 0, 0, 0),
            instruction(equal, 0, 1, number),
            instruction(answer, 0, 0, domain),
            instruction(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
        ],
    }
}

#[test]
fn a_seccomp_filter_is_in_force_with_and_without_new_privileges() {
    let script = "grep Seccomp: /proc/self/status; renice -n 3 -p $$ 2>&1; echo end";
    for no_new_privileges in [false, true] {
        for uid in [0, 1000] {
            let process =
                Process { uid, no_new_privileges, seccomp: Some(filter()), ..shell(script) };
            let output = guest::run(&first(process));
            let expected =
                "Seccomp:\t2\nrenice: setpriority: Numerical argument out of domain\nend\n";
            let alike = output.replace("Math argument", "Numerical argument");
            assert_eq!(alike, expected, "{no_new_privileges} {uid}");
        }
    }
    let broken = Seccomp { flags: 0, program: vec![0xffff] };
    let (failure, status) = fails(Process { seccomp: Some(broken), ..shell("true") });
    assert_eq!((failure.errno, status), (libc::EINVAL, 126));
    assert_eq!(failure.text, "install the seccomp filter: Invalid argument");
}

#[test]
fn limits_priorities_and_cpus_are_as_described() {
    let process = Process {
        rlimits: vec![
            Rlimit { resource: libc::RLIMIT_NOFILE, soft: 100, hard: 200 },
            Rlimit { resource: libc::RLIMIT_CORE, soft: 0, hard: 0 },
        ],
        // IOPRIO_CLASS_IDLE.
        io_priority: Some(3 << 13),
        scheduler: Some(Scheduler {
            policy: libc::SCHED_BATCH.cast_unsigned(),
            nice: 7,
            ..Scheduler::default()
        }),
        cpus_initial: vec![0],
        personality: Some(0x0004_0000),
        // MPOL_BIND.
        memory_policy: Some(MemoryPolicy { mode: 2, nodes: vec![0] }),
        ..shell(
            "ulimit -Sn; ulimit -Hn; ulimit -c; \
             grep Cpus_allowed_list /proc/self/status; cut -d' ' -f19,41 /proc/self/stat; \
             cat /proc/self/personality; ionice -p $$; grep -c ' bind:0 ' /proc/self/numa_maps \
             | sed 's/[1-9][0-9]*/bound/'",
        )
    };
    assert_eq!(
        guest::run(&first(process)),
        "100\n200\n0\nCpus_allowed_list:\t0\n7 3\n00040000\nidle\nbound\n"
    );
}

#[test]
fn a_memory_policy_that_the_kernel_does_not_take_is_named() {
    let policy = MemoryPolicy { mode: 2, nodes: vec![1000] };
    let (failure, _) = fails(Process { memory_policy: Some(policy), ..shell("true") });
    assert_eq!(failure.errno, libc::EINVAL);
    assert!(
        failure.text.starts_with("set the memory policy 0x2 of the nodes [1000]"),
        "{failure:?}"
    );
}

#[test]
fn a_limit_that_cannot_be_set_is_named() {
    let limit = Rlimit { resource: libc::RLIMIT_NOFILE, soft: 2, hard: 1 };
    let (failure, status) = fails(Process { rlimits: vec![limit], ..shell("true") });
    assert_eq!((failure.errno, status), (libc::EINVAL, 126));
    assert_eq!(failure.text, "set RLIMIT_NOFILE to 2 and 1: Invalid argument");
}

#[test]
fn the_working_folder_is_made_if_it_is_missing() {
    let process = Process { cwd: "/new/folder".to_owned(), ..shell("pwd; stat -c %a .") };
    assert_eq!(guest::run(&first(process)), "/new/folder\n755\n");
}

#[test]
fn a_working_folder_that_only_the_user_may_enter_is_entered() {
    let guest = Guest::new();
    fs::create_dir(guest.root().join("closed")).unwrap();
    nix::unistd::chown(&guest.root().join("closed"), Some(1000.into()), None).unwrap();
    fs::set_permissions(guest.root().join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let process = Process { uid: 1000, cwd: "/closed".to_owned(), ..shell("pwd") };
    assert_eq!(guest.start(&first(process)).finish(), "/closed\n");
}

#[test]
fn a_working_folder_below_proc_is_refused() {
    for cwd in ["/proc", "/proc/self", "/link"] {
        let guest = Guest::new();
        std::os::unix::fs::symlink("/proc/1", guest.root().join("link")).unwrap();
        let (failure, status) =
            fails_in(guest, Process { cwd: cwd.to_owned(), ..shell("echo ran") });
        assert!(
            failure.text.starts_with(&format!("the working folder {cwd} is /proc")),
            "{failure:?}"
        );
        assert_eq!(status, 126);
    }
    // Those that lead through a descriptor are not even made.
    let guest = Guest::new();
    let process = Process { cwd: "/proc/self/fd/3".to_owned(), ..shell("echo ran") };
    let mut gated = guest.start(&first(process));
    let failure = gated.answer().unwrap_err();
    assert!(failure.text.contains("/proc/self/fd/3"), "{failure:?}");
}

#[test]
fn a_program_that_is_not_there_is_said_so_with_its_errno() {
    let process = |program: &str| Process { args: vec![program.to_owned()], ..shell("") };
    let (failure, status) = fails(process("none"));
    assert_eq!((failure.errno, status), (libc::ENOENT, 127));
    assert_eq!(
        failure.text,
        "executable file `none` not found in $PATH: No such file or directory"
    );
    let (failure, status) = fails(process("/bin/none"));
    assert_eq!((failure.errno, status), (libc::ENOENT, 127));
    assert_eq!(failure.text, "executable file `/bin/none` not found: No such file or directory");
    let (failure, status) = fails(process("/etc"));
    assert_eq!((failure.errno, status), (libc::EACCES, 126));
    assert_eq!(failure.text, "exec `/etc`: Permission denied");
    let (failure, status) = fails(Process { args: vec![], ..process("") });
    assert_eq!((failure.errno, status), (0, 126));
    assert_eq!(failure.text, "there is no program to run: process.args is empty");
}

#[test]
fn a_program_that_may_not_be_run_is_passed_over_and_remembered() {
    let script = |guest: &Guest, name: &str, mode: u32, text: &str| {
        let path = guest.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let process = Process {
        args: vec!["tool".to_owned()],
        env: vec!["PATH=/none:/a:/b".to_owned()],
        ..shell("")
    };
    let guest = Guest::new();
    script(&guest, "a/tool", 0o644, "");
    script(&guest, "b/tool", 0o755, "#!/bin/sh\necho found\n");
    assert_eq!(guest.start(&first(process.clone())).finish(), "found\n");
    let guest = Guest::new();
    script(&guest, "a/tool", 0o644, "");
    let (failure, status) = fails_in(guest, process.clone());
    assert_eq!((failure.errno, status), (libc::EACCES, 126));
    assert_eq!(failure.text, "exec `/a/tool`: Permission denied");
    let guest = Guest::new();
    script(&guest, "b/tool", 0o755, "no program");
    let (failure, status) = fails_in(guest, process);
    assert_eq!((failure.errno, status), (libc::ENOEXEC, 126));
    assert_eq!(failure.text, "exec `/b/tool`: Exec format error");
}

#[test]
fn signals_that_were_ignored_are_not() {
    let mut guest = Guest::new();
    guest.prepare = "trap '' HUP INT TERM PIPE CHLD USR1".to_owned();
    let status = guest.start(&first(shell("exec cat /proc/self/status"))).finish();
    assert_eq!(u64::from_str_radix(status_line(&status, "SigIgn"), 16), Ok(0));
    assert_eq!(u64::from_str_radix(status_line(&status, "SigBlk"), 16), Ok(0));
}
