//! What a caller hands in with a container, what it gets out, and what is left where that fails.

use crate::support::node;
use crate::support::oci::{Container, Said, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

on_every_backend!(
    a_watcher_holds_nothing_of_the_callers,
    a_create_that_fails_leaves_nothing,
    a_create_that_is_killed_leaves_nothing,
    a_create_that_hangs_can_be_deleted_by_force,
    a_terminal_goes_to_the_console_socket,
    a_pidfd_goes_to_its_socket,
    it_works_without_any_environment,
    descriptors_are_passed_on_as_runc_passes_them_on,
    an_exec_gets_descriptors_too,
    many_descriptors_go_to_the_process_and_to_nobody_else,
);

fn a_watcher_holds_nothing_of_the_callers(backend: &'static str) {
    let container = Container::new(backend, &["sleep", "1000"]);
    let mut create = container.nexcage(&["create", "-b", "bundle", &container.id]);
    let mut create = create.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(create.wait().unwrap().success());
    let proc = format!("/proc/{}", container.watcher());
    let fds = fs::read_dir(format!("{proc}/fd")).unwrap().flatten();
    for fd in fds.filter_map(|fd| fs::read_link(fd.path()).ok()) {
        let fd = fd.to_string_lossy();
        let own = fd == "/dev/null" || fd.starts_with("anon_inode:") || fd.starts_with("socket:");
        assert!(own, "the watcher holds {fd}");
    }
    assert_eq!(fs::read_link(format!("{proc}/cwd")).unwrap().to_str(), Some("/"));
    // The pipe ends with the container, and not with the watcher.
    kill(Pid::from_raw(container.watcher()), Signal::SIGSTOP).unwrap();
    container.run(&["kill", &container.id, "KILL"]).good();
    let mut said = String::new();
    create.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    kill(Pid::from_raw(container.watcher()), Signal::SIGCONT).unwrap();
    container.until("stopped");
    container.run(&["delete", &container.id]).good();
    container.left_nothing();
}

fn a_create_that_fails_leaves_nothing(backend: &'static str) {
    let container = Container::new(backend, &["/no/such/program"]);
    for verb in ["create", "run"] {
        let said = container.run(&[verb, "-b", "bundle", "--pid-file", "pid", &container.id]);
        assert!(said.code == 1 && said.err.contains("/no/such/program"), "{said:?}");
        assert!(!container.file("pid").exists());
        container.run(&["state", &container.id]).refused("container does not exist");
        container.left_nothing();
    }
    container.run(&["create", "-b", "none", &container.id]).refused("config.json");
    container.run(&["create", "-b", "bundle", "../x"]).refused("container id");
}

/// A create that hangs in a hook for so many seconds.
fn hanging(container: &mut Container, seconds: u32) -> Child {
    let script = format!(": >{}; exec sleep {seconds}", container.file("started").display());
    container.edit(|spec| {
        spec["hooks"] = json!({
            "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }],
        });
    });
    let mut create = container.nexcage(&["create", "-b", "bundle", &container.id]);
    let create = create.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the hook runs", || container.file("started").exists().then_some(()));
    create
}

fn a_create_that_hangs_can_be_deleted_by_force(backend: &'static str) {
    let mut container = Container::new(backend, &["true"]);
    let mut create = hanging(&mut container, 10);
    container.run(&["delete", &container.id]).refused("not stopped: creating");
    container.run(&["start", &container.id]).refused(&container.id);
    container.run(&["delete", "--force", &container.id]).good();
    assert_eq!(create.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
    container.left_nothing_but(".pivot");
}

fn a_create_that_is_killed_leaves_nothing(backend: &'static str) {
    let mut container = Container::new(backend, &["true"]);
    let mut create = hanging(&mut container, 3);
    create.kill().unwrap();
    create.wait().unwrap();
    // LXC puts that one where pid 1 is, and its path is known only from a guest that has come up.
    container.left_nothing_but(".pivot");
}

fn a_terminal_goes_to_the_console_socket(backend: &'static str) {
    let mut container = Container::new(backend, &["sh", "-c", "tty; read line; exit 4"]);
    container.edit(|spec| spec["process"]["terminal"] = true.into());
    let create = ["create", "-b", "bundle", &container.id];
    container.run(&create).refused("--console-socket");
    container.left_nothing();
    let listener = UnixListener::bind(container.file("console")).unwrap();
    let flags = ["create", "-b", "bundle", "--console-socket", "console", &container.id];
    container.run(&flags).good();
    let (stream, _) = listener.accept().unwrap();
    let master = nexcage::sys::scm::receive(&stream).unwrap().unwrap().remove(0);
    container.run(&["start", &container.id]).good();
    let mut master = File::from(master);
    let mut seen = Vec::new();
    while !seen.ends_with(b"\n") {
        let mut byte = [0];
        master.read_exact(&mut byte).unwrap();
        seen.extend(byte);
    }
    assert_eq!(String::from_utf8_lossy(&seen), "/dev/pts/0\r\n");
    master.write_all(b"\n").unwrap();
    assert_eq!(container.until_recorded()["exitStatus"], 4);
    container.run(&["delete", &container.id]).good();
    container.left_nothing();
}

fn a_pidfd_goes_to_its_socket(backend: &'static str) {
    let container = Container::new(backend, &["sleep", "1000"]);
    let listener = UnixListener::bind(container.file("pidfd")).unwrap();
    let flags = ["--pidfd-socket", "pidfd", "--pid-file", "pid"];
    let create = [&["create", "-b", "bundle"][..], &flags, &[&container.id]].concat();
    container.run(&create).good();
    let (stream, _) = listener.accept().unwrap();
    let fd = nexcage::sys::scm::receive(&stream).unwrap().unwrap().remove(0);
    let number = std::os::fd::AsRawFd::as_raw_fd(&fd);
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim();
    assert_eq!(pid, container.pid().to_string());
    container.run(&["delete", "-f", &container.id]).good();
    container.left_nothing();
}

fn it_works_without_any_environment(backend: &'static str) {
    let container = Container::new(backend, &["sh", "-c", "echo ready; sleep 1000"]);
    let programs = crate::support::bed::folder();
    let config = json!({
        "crun": { "path": programs.join("crun-1.28/crun") },
        "runc": { "path": programs.join("runc-1.1/runc") },
        "pct": { "path": Path::new(node::PROGRAMS).join("pct") },
    });
    fs::write(container.file("config.json"), config.to_string()).unwrap();
    let call = |args: &[&str]| {
        let mut command = container.nexcage(&[]);
        command.args(["--config", "config.json"]).args(args).env_clear();
        Said::of(&mut command)
    };
    call(&["run", "-d", "--bundle", "bundle", &container.id]).good();
    assert_eq!(call(&["exec", &container.id, "sh", "-c", "exit 5"]).code, 5);
    assert_eq!(container.state()["status"], "running");
    call(&["kill", &container.id, "KILL"]).good();
    container.until("stopped");
    call(&["delete", &container.id]).good();
    container.left_nothing();
}

/// A command with a file at 3, 4 and on, and variables.
fn with_files(container: &Container, count: usize, command: &Command, env: &str) -> Said {
    let name = |number: usize| format!("file{number}");
    for number in 3..3 + count {
        fs::write(container.file(&name(number)), format!("{number}\n")).unwrap();
    }
    // A shell, for it opens them in its child; bash, for any number.
    let opened = (3..3 + count).map(|number| format!("exec {number}<{}\n", name(number)));
    let script = format!("{}{env} exec \"$@\"", opened.collect::<String>());
    let mut shell = Command::new("/bin/bash");
    shell.args(["-c", &script, "bash"]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(container.folder.path()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        shell.env(name, value.unwrap());
    }
    Said::of(&mut shell)
}

/// Says what it was told of, and what is open.
const TELL: &str = "cat <&3; cat <&4; env | grep ^LISTEN_ | sort; \
                    cd /proc/self/fd; for fd in *; do test -e $fd && echo $fd; done";

fn descriptors_are_passed_on_as_runc_passes_them_on(backend: &'static str) {
    let container = Container::new(backend, &["sh", "-c", TELL]);
    let oracle = Container::new("runc", &["sh", "-c", TELL]);
    for (env, flags) in [
        ("", "--preserve-fds 2"),
        ("", ""),
        ("LISTEN_FDS=2 LISTEN_PID=$$", ""),
        ("LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web", "--preserve-fds 1"),
        ("LISTEN_FDS=2 LISTEN_PID=1", ""),
    ] {
        let said = |of: &Container, program: fn(&Container, &[&str]) -> Command| {
            let words = format!("run -b bundle {flags} {}", of.id);
            let words: Vec<_> = words.split_whitespace().collect();
            with_files(of, 3, &program(of, &words), env)
        };
        let ours = said(&container, Container::nexcage);
        let mut theirs = said(&oracle, Container::oracle);
        if backend == "crun" {
            // It tells how many there are to nobody.
            theirs.out = theirs
                .out
                .lines()
                .filter(|line| !line.starts_with("LISTEN_FDS="))
                .map(|line| format!("{line}\n"))
                .collect();
        }
        assert_eq!((ours.code, &ours.out), (theirs.code, &theirs.out), "{env} {flags}: {ours:?}");
        container.left_nothing();
    }
    let gone = container.nexcage(&["run", "-b", "bundle", "--preserve-fds", "900", &container.id]);
    with_files(&container, 3, &gone, "").refused("is not open");
    container.left_nothing();
}

fn an_exec_gets_descriptors_too(backend: &'static str) {
    let container = Container::new(backend, &["sleep", "1000"]);
    container.start();
    for (flags, expected) in [("--preserve-fds 2", "3\n4\n0\n1\n2\n3\n4\n"), ("", "0\n1\n2\n")] {
        let mut words = vec!["exec"];
        words.extend(flags.split_whitespace().chain([&*container.id, "sh", "-c", TELL]));
        let said = with_files(&container, 3, &container.nexcage(&words), "");
        assert_eq!(said.out, expected, "{flags}: {said:?}");
    }
    container.run(&["delete", "-f", &container.id]).good();
    container.left_nothing();
}

fn many_descriptors_go_to_the_process_and_to_nobody_else(backend: &'static str) {
    if ["crun", "runc"].contains(&backend) {
        // What their hooks get is theirs.
        return;
    }
    let script = "cat /tmp/hook; ls /proc/self/fd | wc -l; cat <&3; cat /proc/self/fd/402";
    let mut container = Container::new(backend, &["sh", "-c", script]);
    let hook = "{ cat <&3; ls /proc/self/fd | wc -l; } >/tmp/hook 2>/dev/null";
    container.edit(|spec| {
        spec["hooks"] = json!({
            "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", hook] }],
        });
    });
    let create = ["create", "-b", "bundle", "--preserve-fds", "400", &container.id];
    let said = with_files(&container, 400, &container.nexcage(&create), "exec >out 2>&1;");
    assert_eq!(said.code, 0, "{said:?} {}", container.output());
    container.run(&["start", &container.id]).good();
    container.until("stopped");
    // The standard ones and the folder that ls reads.
    assert_eq!(container.output(), "4\n404\n3\n402\n");
    container.run(&["delete", &container.id]).good();
    container.left_nothing();
}
