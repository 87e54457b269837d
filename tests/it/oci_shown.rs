//! What the command line shows of containers, its own and containerd's, and what it changes.

use crate::support::oci::{Container, Said, eventually};
use nexcage::id::{ContainerId, Namespace};
use nexcage::store::{Folder, Own, ProcessId, Record, Status};
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;

on_every_backend!(
    it_is_listed_with_its_processes,
    it_can_be_paused_and_limited,
    its_figures_are_printed_until_it_ends,
    what_spec_writes_runs,
);

fn json_of(said: Said) -> Value {
    serde_json::from_str(&said.good().out).unwrap()
}

fn it_is_listed_with_its_processes(backend: &'static str) {
    let container = Container::new(backend, &["sleep", "1000"]);
    let id = container.id.as_str();
    container.start();
    let all = json_of(container.run(&["list", "--format", "json"]));
    let listed = all.as_array().unwrap().iter().find(|state| state["id"] == id).unwrap();
    assert_eq!(*listed, container.state());
    assert_eq!((&listed["namespace"], &listed["backend"]), (&"local".into(), &backend.into()));
    assert!(container.run(&["list", "-q"]).good().out.lines().any(|line| line == id));
    let table = container.run(&["list"]).good().out;
    assert!(table.starts_with("ID "), "{table}");
    let pids = json_of(container.run(&["ps", "-f", "json", id]));
    assert_eq!(pids, json!([container.pid()]));
    let table = container.run(&["ps", id]).good().out;
    assert_eq!(table.lines().count(), 2, "{table}");
    container.run(&["--namespace", "other", "state", id]).refused("container does not exist");
    container.run(&["delete", "-f", id]).good();
    container.left_nothing();
}

fn it_can_be_paused_and_limited(backend: &'static str) {
    let container = Container::new(backend, &["sleep", "1000"]);
    let id = container.id.as_str();
    container.start();
    container.run(&["resume", id]).refused("cannot resume");
    container.run(&["pause", id]).good();
    assert_eq!(container.state()["status"], "paused");
    container.run(&["exec", id, "true"]).refused("paused");
    container.run(&["resume", id]).good();
    assert_eq!(container.run(&["exec", id, "true"]).code, 0);
    container.run(&["update", "--pids-limit", "40", id]).good();
    let limit = |wanted: &str| {
        let file = |folder: &std::path::PathBuf| fs::read_to_string(folder.join("pids.max")).ok();
        let limits: Vec<_> = container.cgroups().iter().filter_map(file).collect();
        assert!(limits.iter().any(|limit| limit.trim() == wanted), "{limits:?}");
    };
    limit("40");
    fs::write(container.file("resources.json"), r#"{"pids":{"limit":50}}"#).unwrap();
    let mut update = container.nexcage(&["update", "-r", "-", id]);
    Said::of(update.stdin(fs::File::open(container.file("resources.json")).unwrap())).good();
    limit("50");
    container.run(&["update", id]).refused("nothing to change");
    container.run(&["update", "--memory", "lots", id]).refused("--memory");
    container.run(&["update", "--mem-bw-schema", "x", id]).refused("--mem-bw-schema");
    container.run(&["pause", id]).good();
    container.run(&["delete", "-f", id]).good();
    container.left_nothing();
}

fn its_figures_are_printed_until_it_ends(backend: &'static str) {
    let container = Container::new(backend, &["sleep", "1000"]);
    let id = container.id.as_str();
    container.start();
    let once = json_of(container.run(&["events", "--stats", id]));
    assert_eq!((&once["type"], &once["id"]), (&"stats".into(), &id.into()));
    assert_eq!(once["data"]["pids"]["current"], 1);
    assert!(once["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{once}");
    let out = fs::File::create(container.file("events")).unwrap();
    let mut events = container.nexcage(&["events", "--interval", "20ms", id]);
    let mut events = events.stdout(out).stderr(Stdio::null()).spawn().unwrap();
    let printed = || fs::read_to_string(container.file("events")).unwrap();
    eventually("several figures", || (printed().lines().count() > 2).then_some(()));
    container.run(&["kill", id, "KILL"]).good();
    assert!(events.wait().unwrap().code().is_some());
    for line in printed().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["id"], id);
    }
    container.until("stopped");
    container.run(&["events", id]).refused("container not running");
    container.run(&["delete", id]).good();
    container.left_nothing();
}

/// A container of a containerd, whose supervisor is this very process.
fn containerds(root: &std::path::Path, namespace: &str, id: &str) -> Folder {
    let (namespace, id) = (Namespace::parse(namespace).unwrap(), ContainerId::parse(id).unwrap());
    let folder = Folder::of(root, &namespace, &id);
    folder.create().unwrap();
    let own = ProcessId::of(i32::try_from(std::process::id()).unwrap());
    let record = Record {
        oci_version: "1.0.2".to_owned(),
        id: id.as_str().to_owned(),
        status: Status::Running,
        pid: own.map(|own| own.pid),
        bundle: "/none".into(),
        annotations: std::collections::BTreeMap::new(),
        own: Own {
            version: 1,
            namespace: namespace.as_str().to_owned(),
            backend: "crun".to_owned(),
            runtime: "/none".into(),
            runtime_root: "/none".into(),
            systemd_cgroup: false,
            init_path: None,
            supervisor: own,
            by_command: false,
            maker: None,
            created: None,
            init: own,
            monitor: None,
            cgroup: None,
            cgroups_path: None,
            rootfs_mount: None,
            exit: None,
        },
    };
    folder.save(&record).unwrap();
    folder
}

#[test]
fn a_container_of_containerds_is_shown_and_left_to_it() {
    let container = Container::new("crun", &["true"]);
    let root = container.file("root");
    containerds(&root, "k8s.io", "pod");
    containerds(&root, "default", "twice");
    containerds(&root, "k8s.io", "twice");
    let root = root.to_str().unwrap();
    let call = |args: &[&str]| container.run(&[&["--root", root][..], args].concat());
    let state = json_of(call(&["state", "pod"]));
    assert_eq!((&state["status"], &state["namespace"]), (&"running".into(), &"k8s.io".into()));
    assert_eq!(json_of(call(&["list", "-f", "json"])).as_array().unwrap().len(), 3);
    // Signal 0 asks whether it is there.
    call(&["kill", "pod", "0"]).good();
    for verb in ["pause", "resume", "start", "delete", "checkpoint"] {
        call(&[verb, "pod"]).refused("ctr -n k8s.io task");
    }
    call(&["update", "--pids-limit", "1", "pod"]).refused("ctr -n k8s.io task");
    call(&["delete", "-f", "pod"]).refused("ctr -n k8s.io task");
    call(&["state", "twice"]).refused("--namespace");
    call(&["--namespace", "default", "state", "twice"]).good();
}

#[test]
fn an_error_is_written_where_and_as_it_is_wanted() {
    let container = Container::new("crun", &["true"]);
    let log = || fs::read_to_string(container.file("log")).unwrap();
    let state = ["state", "none"];
    let said = container.run(&[&["--log-format", "json"][..], &state].concat());
    let line: Value = serde_json::from_str(&said.refused("does not exist").err).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("container does not exist"));
    assert!(line["time"].is_string());
    container
        .run(&[&["--log", "log", "--log-format", "json"][..], &state].concat())
        .refused("nexcage: container none");
    assert_eq!(serde_json::from_str::<Value>(&log()).unwrap()["msg"], line["msg"]);
    fs::remove_file(container.file("log")).unwrap();
    container.run(&[&["--log", "log"][..], &state].concat()).refused("nexcage: ");
    container.run(&[&["--log", "file:log"][..], &state].concat()).refused("nexcage: ");
    assert_eq!(log().lines().count(), 2);
    assert!(log().starts_with("time=\"") && log().contains("level=error msg=\"container none"));
}

#[test]
fn features_are_those_of_the_backend() {
    for (backend, highest) in [("crun", "1."), ("runc", "1."), ("lxc", "1.3.0"), ("pct", "1.3.0")] {
        let container = Container::new(backend, &["true"]);
        let features = json_of(container.run(&["features"]));
        assert_eq!(features["ociVersionMin"], "1.0.0");
        assert!(features["ociVersionMax"].as_str().unwrap().starts_with(highest));
        assert_eq!(features["annotations"]["io.nexcage.backend"], backend);
        assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    }
}

fn what_spec_writes_runs(backend: &'static str) {
    let container = Container::new(backend, &["true"]);
    fs::remove_file(container.bundle().join("config.json")).unwrap();
    container.run(&["spec", "--bundle", "bundle"]).good();
    container.run(&["spec", "--bundle", "bundle"]).refused("config.json");
    let path = container.bundle().join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = json!(["/bin/sh", "-c", "echo hello; exit 3"]);
    spec["root"]["path"] = json!(crate::support::bed::rootfs());
    spec["linux"]["cgroupsPath"] = json!(format!("/{}", container.id));
    fs::write(&path, spec.to_string()).unwrap();
    let said = container.run(&["run", "-b", "bundle", &container.id]);
    assert_eq!((said.code, said.out.as_str()), (3, "hello\n"), "{said:?}");
    container.left_nothing();
}
