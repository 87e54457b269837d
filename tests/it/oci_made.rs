//! What a caller hands in with a container, what it gets out, and what is left where that fails.

use crate::support::oci::{Container, Said, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

on_every_backend!(
    a_watcher_holds_nothing_of_the_callers,
    a_create_that_fails_leaves_nothing,
    a_create_that_is_killed_leaves_nothing,
    a_terminal_goes_to_the_console_socket,
    a_pidfd_goes_to_its_socket,
    it_works_without_any_environment,
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
        let own = fd == "/dev/null" || fd.contains("pidfd") || fd.starts_with("socket:");
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

fn a_create_that_is_killed_leaves_nothing(backend: &'static str) {
    let mut container = Container::new(backend, &["true"]);
    let script = format!(": >{}; exec sleep 3", container.file("started").display());
    container.edit(|spec| {
        spec["hooks"] = json!({
            "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }],
        });
    });
    let mut create = container.nexcage(&["create", "-b", "bundle", &container.id]);
    let mut create = create.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the hook runs", || container.file("started").exists().then_some(()));
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

#[test]
fn more_descriptors_than_the_standard_ones_are_passed_on() {
    for backend in ["crun", "runc"] {
        let script = "cat <&3; echo $LISTEN_PID";
        let container = Container::new(backend, &["sh", "-c", script]);
        fs::write(container.file("three"), "three\n").unwrap();
        let run = |flags: &str, listen: &str| {
            // A shell, for it opens fd 3 of its child.
            let script = "exec 3<three; exec \"$@\"";
            let mut shell = std::process::Command::new("/bin/sh");
            let inner = container.nexcage(&["run", "-b", "bundle"]);
            shell.args(["-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
            shell.args(flags.split_whitespace()).arg(&container.id);
            shell.current_dir(container.folder.path());
            for (name, value) in inner.get_envs() {
                shell.env(name, value.unwrap());
            }
            if !listen.is_empty() {
                shell.env("LISTEN_FDS", listen);
            }
            Said::of(&mut shell)
        };
        assert_eq!(run("--preserve-fds 1", "").good().out, "three\n\n", "{backend}");
        assert_eq!(run("", "1").good().out, "three\n1\n", "{backend}");
        run("--preserve-fds 900", "").refused("is not open");
        let unasked = run("", "");
        assert!(!unasked.out.contains("three"), "{backend}: {unasked:?}");
    }
    let guest = Container::new("lxc", &["true"]);
    // Fd 3 is the bundle's folder here, whatever it is.
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", "exec 3</; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_nexcage")]);
    shell.args(["--runtime-type", "lxc", "run", "--preserve-fds", "1", "-b"]);
    shell.arg(guest.bundle()).arg(&guest.id);
    Said::of(&mut shell).refused("--preserve-fds");
    guest.left_nothing();
}
