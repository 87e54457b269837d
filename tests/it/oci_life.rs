//! The life of a container on the command line, from create to delete, with each backend.

use crate::support::oci::{Container, Said, eventually};
use crate::support::proc::adopts_orphans;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;

on_every_backend!(
    a_container_lives_as_the_runtime_specification_has_it,
    the_callers_subreaper_gets_the_statuses,
    run_ends_with_the_status_of_its_process,
    run_passes_signals_on,
    an_exec_ends_with_the_status_of_its_process,
    an_end_is_stopped_although_the_watcher_was_killed,
    of_starts_at_once_one_succeeds,
    delete_by_force_ends_whatever_there_is,
    all_processes_can_be_signalled,
);

/// Ends with 7 when it is asked to.
const POLITE: [&str; 3] =
    ["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done"];

fn a_container_lives_as_the_runtime_specification_has_it(backend: &'static str) {
    let container = Container::new(backend, &POLITE);
    let id = container.id.as_str();
    container.run(&["state", id]).refused("container does not exist");
    container.run(&["start", id]).refused("container does not exist");
    container.run(&["kill", id]).refused("container does not exist");
    container.run(&["delete", id]).refused("container does not exist");
    container.run(&["delete", "--force", id]).good();

    container.create();
    let state = container.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], id);
    assert_eq!(state["ociVersion"], "1.0.2");
    assert_eq!(state["pid"], container.pid());
    assert_eq!(state["bundle"], container.bundle().to_str().unwrap());
    assert_eq!(state["annotations"]["org.example.key"], "value");
    assert_eq!(container.output(), "", "it ran before its start");
    container.run(&["create", "-b", "bundle", id]).refused("already exists");
    container.run(&["delete", id]).refused("that is not stopped: created");

    container.run(&["start", id]).good();
    eventually("it runs", || container.output().contains("ready").then_some(()));
    assert_eq!(container.state()["status"], "running");
    container.run(&["start", id]).refused("cannot start a container that is running");
    container.run(&["delete", id]).refused("that is not stopped: running");
    container.run(&["kill", id, "NONSENSE"]).refused("unknown signal");

    container.run(&["kill", id]).good();
    let state = container.until_recorded();
    assert_eq!((&state["status"], &state["pid"]), (&"stopped".into(), &0.into()));
    assert_eq!(state["exitStatus"], 7);
    container.run(&["kill", id]).refused("container not running");
    container.run(&["start", id]).refused("cannot start a container that is stopped");
    container.run(&["exec", id, "true"]).refused("container not running");
    container.run(&["delete", id]).good();
    container.run(&["state", id]).refused("container does not exist");
    container.left_nothing();
}

fn the_callers_subreaper_gets_the_statuses(backend: &'static str) {
    if !adopts_orphans() {
        return;
    }
    let container = Container::new(backend, &POLITE);
    let id = container.id.as_str();
    container.start();
    eventually("it runs", || container.output().contains("ready").then_some(()));
    let script = "exit 5";
    container.run(&["exec", "-d", "--pid-file", "exec", id, "sh", "-c", script]).good();
    let exec = fs::read_to_string(container.file("exec")).unwrap().parse().unwrap();
    assert_eq!(waitpid(Pid::from_raw(exec), None), Ok(WaitStatus::Exited(Pid::from_raw(exec), 5)));
    // A guest of Proxmox VE is systemd's child, whose status its watcher alone learns.
    let reaped = |container: &Container, wanted: fn(Pid) -> WaitStatus| {
        let pid = Pid::from_raw(container.pid());
        let wanted = if backend == "pct" { Err(Errno::ECHILD) } else { Ok(wanted(pid)) };
        assert_eq!(waitpid(pid, None), wanted);
    };
    container.run(&["kill", id, "SIGTERM"]).good();
    reaped(&container, |pid| WaitStatus::Exited(pid, 7));
    assert_eq!(container.until_recorded()["exitStatus"], 7);
    container.run(&["delete", id]).good();

    let killed = Container::new(backend, &["sleep", "1000"]);
    killed.start();
    killed.run(&["kill", &killed.id, "9"]).good();
    reaped(&killed, |pid| WaitStatus::Signaled(pid, Signal::SIGKILL, false));
    assert_eq!(killed.until_recorded()["exitStatus"], 137);
    killed.run(&["delete", &killed.id]).good();
    killed.left_nothing();
}

fn run_ends_with_the_status_of_its_process(backend: &'static str) {
    let script = "echo out; echo err >&2; read line; echo $line; exit 3";
    let container = Container::new(backend, &["sh", "-c", script]);
    fs::write(container.file("in"), "a line\n").unwrap();
    let mut run = container.nexcage(&["run", "--bundle", "bundle", &container.id]);
    let said = Said::of(run.stdin(fs::File::open(container.file("in")).unwrap()));
    assert_eq!((said.code, said.out.as_str()), (3, "out\na line\n"), "{said:?}");
    assert!(said.err.ends_with("err\n"), "{said:?}");
    container.left_nothing();

    let kept = container.run(&["run", "--keep", &container.id, "bundle"]);
    assert_eq!(kept.code, 3, "{kept:?}");
    assert_eq!(container.state()["exitStatus"], 3);
    container.run(&["delete", &container.id]).good();
    container.left_nothing();
}

fn run_passes_signals_on(backend: &'static str) {
    let script = "trap 'exit 9' HUP; echo ready; while :; do sleep 0.02; done";
    for (signal, status) in [(Signal::SIGHUP, 9), (Signal::SIGKILL, 137)] {
        let container = Container::new(backend, &["sh", "-c", script]);
        let out = fs::File::create(container.file("out")).unwrap();
        let mut run =
            container.nexcage(&["run", "-b", "bundle", &container.id]).stdout(out).spawn().unwrap();
        eventually("it runs", || container.output().contains("ready").then_some(()));
        if signal == Signal::SIGKILL {
            // Nobody can pass that on: the container is killed itself.
            container.run(&["kill", &container.id, "KILL"]).good();
        } else {
            kill(Pid::from_raw(i32::try_from(run.id()).unwrap()), signal).unwrap();
        }
        assert_eq!(run.wait().unwrap().code(), Some(status));
        container.left_nothing();
    }
}

fn an_exec_ends_with_the_status_of_its_process(backend: &'static str) {
    let container = Container::new(backend, &POLITE);
    let id = container.id.as_str();
    container.start();
    let script = "echo $X; pwd; id -u; id -g; exit 6";
    let flags = ["exec", "--env", "X=1", "--cwd", "/tmp", "--user", "1000:1001", id];
    let said = container.run(&[&flags[..], &["sh", "-c", script]].concat());
    assert_eq!((said.code, said.out.as_str()), (6, "1\n/tmp\n1000\n1001\n"), "{said:?}");
    assert_eq!(container.run(&["exec", id, "sh", "-c", "kill -9 $$"]).code, 137);
    let process = serde_json::json!({
        "args": ["sh", "-c", "echo $Y"], "cwd": "/", "env": ["PATH=/bin", "Y=2"],
        "user": { "uid": 0, "gid": 0 },
    });
    fs::write(container.file("process.json"), process.to_string()).unwrap();
    let said = container.run(&["exec", "--process", "process.json", id]);
    assert_eq!((said.code, said.out.as_str()), (0, "2\n"), "{said:?}");
    let none = container.run(&["exec", id, "/none"]);
    assert!(none.code != 0 && none.err.contains("/none"), "{none:?}");
    container.run(&["exec", id]).refused("no command");
    container.run(&["delete", "-f", id]).good();
    container.left_nothing();
}

fn an_end_is_stopped_although_the_watcher_was_killed(backend: &'static str) {
    let container = Container::new(backend, &POLITE);
    container.start();
    eventually("it runs", || container.output().contains("ready").then_some(()));
    kill(Pid::from_raw(container.watcher()), Signal::SIGKILL).unwrap();
    assert_eq!(container.state()["status"], "running");
    container.run(&["kill", &container.id, "KILL"]).good();
    let state = container.until("stopped");
    assert!(state["exitStatus"].is_null(), "nobody saw it: {state}");
    container.run(&["delete", &container.id]).good();
    container.left_nothing();
}

fn of_starts_at_once_one_succeeds(backend: &'static str) {
    let container = Container::new(backend, &POLITE);
    container.create();
    let starts: Vec<_> =
        (0..6).map(|_| container.nexcage(&["start", &container.id]).spawn().unwrap()).collect();
    let started = starts.into_iter().filter_map(|mut start| start.wait().unwrap().code());
    assert_eq!(started.filter(|code| *code == 0).count(), 1);
    eventually("it runs", || container.output().contains("ready").then_some(()));
    container.run(&["delete", "-f", &container.id]).good();
    container.left_nothing();
}

fn delete_by_force_ends_whatever_there_is(backend: &'static str) {
    let created = Container::new(backend, &POLITE);
    created.create();
    created.run(&["delete", "--force", &created.id]).good();
    created.left_nothing();
    let script = "trap '' TERM; (while :; do sleep 0.1; done) & while :; do sleep 0.1; done";
    let running = Container::new(backend, &["sh", "-c", script]);
    running.run(&["run", "-d", "-b", "bundle", &running.id]).good();
    assert_eq!(running.state()["status"], "running");
    running.run(&["exec", "-d", &running.id, "sleep", "1000"]).good();
    running.run(&["delete", "--force", &running.id]).good();
    running.left_nothing();
}

fn all_processes_can_be_signalled(backend: &'static str) {
    let script = "trap 'echo one' USR1; (trap 'echo two' USR1; echo x; while :; do sleep 0.02; \
                  done) & echo x; while :; do sleep 0.02; done";
    let container = Container::new(backend, &["sh", "-c", script]);
    container.start();
    eventually("both run", || (container.output().matches('x').count() == 2).then_some(()));
    container.run(&["kill", "--all", &container.id, "USR1"]).good();
    eventually("both are told", || {
        let said = container.output();
        (said.contains("one") && said.contains("two")).then_some(())
    });
    container.run(&["kill", "-a", &container.id, "KILL"]).good();
    container.until("stopped");
    container.run(&["kill", "-a", &container.id, "KILL"]).good();
    container.run(&["delete", &container.id]).good();
    container.left_nothing();
}
