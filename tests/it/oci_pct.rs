//! Guests of Proxmox VE that the command line makes: what systemd, the cluster and LXC's monitor
//! have to do with it.

use crate::support::node;
use crate::support::oci::{Container, Said, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a program of the node says.
fn node_says(program: &str, args: &[&str]) -> String {
    Said::of(Command::new(Path::new(node::PROGRAMS).join(program)).args(args)).good().out
}

#[test]
fn how_a_guest_ended_is_heard_from_lxcs_monitor() {
    if !node::is_here() {
        return;
    }
    // The kernel alone does not tell what wait(2) shows of a guest that has restarted itself.
    let mut container = Container::new("pct", &["reboot", "-f"]);
    container.edit(|spec| {
        for set in ["bounding", "effective", "permitted"] {
            spec["process"]["capabilities"][set] = json!(["CAP_SYS_BOOT"]);
        }
    });
    container.run(&["run", "-d", "-b", "bundle", &container.id]).good();
    let state = container.until_recorded();
    assert_eq!(state["exitStatus"], 128 + Signal::SIGHUP as i32, "{state}");
    container.run(&["delete", &container.id]).good();
    container.left_nothing();
}

#[test]
fn a_stopped_guest_is_there_until_its_delete_and_its_hooks_run() {
    if !node::is_here() {
        return;
    }
    let mut container = Container::new("pct", &["sleep", "1000"]);
    let file = container.file("hooks");
    let hook = |kind: &str| {
        let script = format!("echo {kind} >>{}", file.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
    };
    container.edit(|spec| {
        spec["hooks"] = json!({
            "createRuntime": hook("createRuntime"), "poststart": hook("poststart"),
            "poststop": hook("poststop"),
        });
    });
    let said = || fs::read_to_string(&file).unwrap_or_default();
    container.create();
    assert_eq!(said(), "createRuntime\n");
    assert!(node_says("pct", &["list"]).contains("running"));
    container.run(&["start", &container.id]).good();
    assert_eq!(said(), "createRuntime\npoststart\n");
    container.run(&["kill", &container.id, "KILL"]).good();
    assert_eq!(container.until_recorded()["exitStatus"], 137);
    eventually("pct says so", || node_says("pct", &["list"]).contains("stopped").then_some(()));
    // Its record is there: it is nobody's to tidy away.
    let said_of_it = container.run(&["vmid", "reconcile", "--destroy"]).good().out;
    assert_eq!(said_of_it, "everything fits together\n");
    container.run(&["delete", &container.id]).good();
    assert_eq!(said(), "createRuntime\npoststart\npoststop\n");
    assert_eq!(node_says("pct", &["list"]), "");
    container.left_nothing();
}

#[test]
fn of_a_create_that_is_killed_with_its_watcher_everything_can_be_deleted() {
    if !node::is_here() {
        return;
    }
    // Where pct is slow, and a word on its command line then.
    let steps = [("latency-create", "create"), ("latency-create-locked", "create")];
    for (step, verb) in [&steps[..], &[("latency-start", "start")]].concat() {
        for with_watcher in [true, false] {
            node::suffer(step, "1500");
            let container = Container::new("pct", &["sleep", "1000"]);
            let mut create = container.nexcage(&["create", "-b", "bundle", &container.id]);
            let mut create = create.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let vmid = eventually("it has a vmid", || {
                let note = fs::read(container.record_folder().join("vmid.json")).ok()?;
                serde_json::from_slice::<Value>(&note).ok()?["vmid"].as_u64()
            });
            eventually("pct is at work", || {
                let lines = fs::read_dir("/proc").unwrap().flatten();
                let mut lines = lines.filter_map(|it| fs::read(it.path().join("cmdline")).ok());
                let call = format!("/pct\0{verb}\0{vmid}\0");
                lines.any(|line| String::from_utf8_lossy(&line).contains(&call)).then_some(())
            });
            let watcher = container.watcher();
            if with_watcher {
                kill(Pid::from_raw(watcher), Signal::SIGKILL).unwrap();
            }
            create.kill().unwrap();
            create.wait().unwrap();
            node::recover(step);
            if with_watcher {
                container.run(&["start", &container.id]).refused("cannot start");
                container.run(&["delete", "--force", &container.id]).good();
            }
            container.left_nothing();
        }
    }
}

#[test]
fn two_of_a_name_and_many_at_once_get_a_guest_each() {
    if !node::is_here() {
        return;
    }
    let all: Vec<_> = (0..4).map(|_| Container::new("pct", &["sleep", "1000"])).collect();
    let create = |container: &Container| {
        let mut create = container.nexcage(&["create", "-b", "bundle", &container.id]);
        create.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let creates: Vec<_> = all.iter().chain(&all[..1]).map(create).collect();
    let created = creates.into_iter().filter_map(|mut create| create.wait().unwrap().code());
    assert_eq!(created.filter(|code| *code == 0).count(), 4);
    assert_eq!(node_says("pct", &["list"]).lines().count(), 5);
    for container in &all {
        assert_eq!(container.state()["status"], "created");
        container.run(&["delete", "-f", &container.id]).good();
    }
    all[0].left_nothing();
}
