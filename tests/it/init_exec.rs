//! `nexcage-init exec`: a further process in a guest, begun on the host.

use crate::support::guest::{self, Gated, Guest, first, shell};
use crate::support::proc::adopts_orphans;
use nexcage::init::{Description, Exec, Process};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;

/// A guest whose process reads a pipe that nobody writes, until it is killed.
fn guest_with(unshare: Vec<&'static str>) -> Gated {
    let mut guest = Guest::new();
    guest.unshare = unshare;
    let mut gated = guest.start(&first(shell("echo mark > /mark; echo up; exec sleep 1000")));
    gated.created();
    assert!(gated.go().is_none());
    let mut up = [0; 3];
    gated.output.read_exact(&mut up).unwrap();
    gated
}

fn start_of(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap()
}

fn describe(gated: &Gated, process: Process) -> Description {
    let init = gated.init();
    let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS;
    let exec = Exec {
        init,
        init_started: start_of(init),
        namespaces: namespaces.try_into().unwrap(),
        cgroups: vec![],
    };
    Description { process, first: None, exec: Some(exec) }
}

/// Its status and output.
fn end(pid: i32, output: impl Into<File>) -> (WaitStatus, String) {
    let mut text = String::new();
    output.into().read_to_string(&mut text).unwrap();
    (waitpid(Pid::from_raw(pid), None).unwrap(), text)
}

#[test]
fn an_exec_runs_in_the_guest_and_its_status_is_the_supervisor_s_to_reap() {
    if !adopts_orphans() {
        return;
    }
    let gated = guest_with(vec![]);
    let process = Process {
        uid: 1000,
        gid: 1001,
        umask: Some(0o077),
        no_new_privileges: true,
        oom_score_adj: Some(600),
        cwd: "/tmp".to_owned(),
        ..shell(
            "cat /mark; id -u; id -g; umask; pwd; cat /proc/self/oom_score_adj; \
             grep NoNewPrivs /proc/self/status; ls /proc/self/fd | wc -l; echo $PPID; exit 41",
        )
    };
    let (pid, output, failure) = guest::exec(&describe(&gated, process));
    assert!(failure.is_none(), "{failure:?}");
    let pid = pid.unwrap();
    let (status, output) = end(pid, output);
    assert_eq!(status, WaitStatus::Exited(Pid::from_raw(pid), 41));
    // Its parent is outside of the guest, so it has none inside.
    assert_eq!(output, "mark\n1000\n1001\n0077\n/tmp\n600\nNoNewPrivs:\t1\n4\n0\n");
}

#[test]
fn a_kill_by_the_pid_that_was_told_reaches_the_process() {
    if !adopts_orphans() {
        return;
    }
    let gated = guest_with(vec![]);
    let (pid, output, failure) = guest::exec(&describe(&gated, shell("exec sleep 1000")));
    assert!(failure.is_none(), "{failure:?}");
    let pid = Pid::from_raw(pid.unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let (status, _) = end(pid.as_raw(), output);
    assert_eq!(status, WaitStatus::Signaled(pid, nix::sys::signal::Signal::SIGTERM, false));
}

#[test]
fn an_exec_in_a_user_namespace_is_its_root_and_not_the_host_s() {
    if !adopts_orphans() {
        return;
    }
    let gated = guest_with(vec!["--user", "--map-root-user"]);
    let mut description = describe(
        &gated,
        Process {
            oom_score_adj: Some(600),
            ..shell("id -u; cat /proc/self/oom_score_adj; readlink /proc/self/ns/user")
        },
    );
    description.exec.as_mut().unwrap().namespaces |= u64::try_from(libc::CLONE_NEWUSER).unwrap();
    let (pid, output, failure) = guest::exec(&description);
    assert!(failure.is_none(), "{failure:?}");
    let (status, output) = end(pid.unwrap(), output);
    assert_eq!(status, WaitStatus::Exited(Pid::from_raw(pid.unwrap()), 0));
    let namespace = fs::read_link(format!("/proc/{}/ns/user", gated.init())).unwrap();
    assert_eq!(output, format!("0\n600\n{}\n", namespace.display()));
}

#[test]
fn a_process_that_is_not_the_one_described_is_not_entered() {
    if !adopts_orphans() {
        return;
    }
    let gated = guest_with(vec![]);
    let mut description = describe(&gated, shell("echo ran"));
    description.exec.as_mut().unwrap().init_started += 1;
    let (pid, _, failure) = guest::exec(&description);
    let failure = failure.unwrap();
    assert_eq!((pid, failure.errno), (None, libc::ESRCH));
    assert!(failure.text.contains("another one has its number"), "{failure:?}");
}

#[test]
fn a_cgroup_that_cannot_be_entered_is_named_and_nothing_runs() {
    if !adopts_orphans() {
        return;
    }
    let gated = guest_with(vec![]);
    let mut description = describe(&gated, shell("echo ran"));
    description.exec.as_mut().unwrap().cgroups = vec!["/none/cgroup.procs".to_owned()];
    let (pid, _, failure) = guest::exec(&description);
    assert_eq!(pid, None);
    let failure = failure.unwrap();
    assert_eq!(failure.text, "write \"0\" to /none/cgroup.procs: No such file or directory");
}

#[test]
fn the_cgroup_files_are_written_before_anything_else() {
    if !adopts_orphans() {
        return;
    }
    let gated = guest_with(vec![]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cgroup.procs");
    fs::write(&file, "").unwrap();
    let mut description = describe(&gated, shell("true"));
    description.exec.as_mut().unwrap().cgroups = vec![file.to_string_lossy().into_owned()];
    let (pid, output, failure) = guest::exec(&description);
    assert!(failure.is_none(), "{failure:?}");
    end(pid.unwrap(), output);
    assert_eq!(fs::read_to_string(&file).unwrap(), "0");
}

#[test]
fn an_exec_of_what_is_not_there_fails_with_its_errno_and_status() {
    if !adopts_orphans() {
        return;
    }
    let gated = guest_with(vec![]);
    let process = Process { args: vec!["none".to_owned()], ..shell("") };
    let (pid, output, failure) = guest::exec(&describe(&gated, process));
    let failure = failure.unwrap();
    assert_eq!(failure.errno, libc::ENOENT);
    assert!(failure.text.starts_with("executable file `none` not found in $PATH"), "{failure:?}");
    let pid = pid.unwrap();
    let (status, output) = end(pid, output);
    assert_eq!((status, output.as_str()), (WaitStatus::Exited(Pid::from_raw(pid), 127), ""));
}

#[test]
fn a_folder_of_the_host_cannot_be_reached_as_the_working_folder() {
    if !adopts_orphans() {
        return;
    }
    let gated = guest_with(vec![]);
    for number in 0..10 {
        let process = Process { cwd: format!("/proc/self/fd/{number}"), ..shell("echo ran; ls") };
        // As if one had been left open: standard input is a folder of the host.
        let folder = File::open("/").unwrap();
        let (output, theirs) = guest::pipe();
        let stdio = [folder.as_fd(), theirs.as_fd(), theirs.as_fd()];
        let (pid, failure) = guest::exec_with(&describe(&gated, process), stdio);
        drop(theirs);
        let text = failure.unwrap().text;
        if number == 0 {
            assert!(text.contains("(unreachable)"), "{text}");
        }
        let (_, output) = end(pid.unwrap(), output);
        assert_eq!(output, "", "{number}");
    }
}

#[test]
fn the_working_folder_of_an_exec_is_not_made() {
    if !adopts_orphans() {
        return;
    }
    let gated = guest_with(vec![]);
    let process = Process { cwd: "/none".to_owned(), ..shell("echo ran") };
    let (pid, output, failure) = guest::exec(&describe(&gated, process));
    let failure = failure.unwrap();
    assert_eq!(failure.text, "change to the working folder /none: No such file or directory");
    end(pid.unwrap(), output);
}

#[test]
fn a_terminal_is_the_exec_s_controlling_one() {
    if !adopts_orphans() {
        return;
    }
    let gated = guest_with(vec![]);
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut process = shell("echo said > /dev/tty");
    process.terminal = true;
    let slave = pty.slave.as_fd();
    let (pid, failure) = guest::exec_with(&describe(&gated, process), [slave, slave, slave]);
    assert!(failure.is_none(), "{failure:?}");
    let mut said = [0; 6];
    File::from(pty.master).read_exact(&mut said).unwrap();
    assert_eq!(&said, b"said\r\n");
    waitpid(Pid::from_raw(pid.unwrap()), None).unwrap();
}

#[test]
fn a_process_whose_supervisor_gives_up_before_it_knows_of_it_never_runs() {
    if !adopts_orphans() {
        return;
    }
    let gated = guest_with(vec![]);
    let null = File::open("/dev/null").unwrap();
    let (output, theirs) = nix::unistd::pipe().unwrap();
    let stdio = [null.as_fd(), theirs.as_fd(), theirs.as_fd()];
    let pid = guest::abandoned_exec(&describe(&gated, shell("echo ran")), stdio);
    drop(theirs);
    let (status, output) = end(pid, output);
    assert_eq!((status, output.as_str()), (WaitStatus::Exited(Pid::from_raw(pid), 1), ""));
}
