//! A bundle is judged as a whole before anything is made of it.

use crate::support::bed;
use crate::support::oci::{Container, Said};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

on_every_backend!(
    a_broken_bundle_is_refused_with_all_that_is_wrong,
    a_config_that_is_no_json_is_refused_with_its_line,
    what_is_wrong_and_runs_all_the_same_is_only_warned_of,
    what_the_runtimes_write_runs,
);

/// What is wrong with the bundle of [`broken`], with a blank for the file's name.
const WRONG: [(&str, &str); 3] = [
    ("/hostname", "found \"7\", wanted a string: put it into quotation marks"),
    (
        "/linux/namespaces/5/type",
        "\"disk\" is not known: there are pid, network, mount, ipc, uts, user, cgroup and time",
    ),
    (
        "/process/cwd",
        "found \"tmp\", wanted an absolute path: give the path as the container sees it, such as /",
    ),
];

fn broken(backend: &'static str) -> Container {
    let mut container = Container::new(backend, &["true"]);
    container.edit(|spec| {
        spec["process"]["cwd"] = "tmp".into();
        spec["hostname"] = 7.into();
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "disk" }));
        // Wrong, and yet no reason.
        spec["linux"]["maskedPaths"] = json!(["proc/kcore"]);
    });
    container
}

/// The lines that standard error should have, in front of which is `start`.
fn lines(container: &Container, start: &str) -> Vec<String> {
    let config = container.bundle().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let column = |pointer: &str| {
        let value = container.spec.pointer(pointer).unwrap();
        let key = pointer.rsplit('/').next().unwrap();
        1 + text.find(&format!("\"{key}\":{value}")).unwrap() + key.len() + 3
    };
    let mut found: Vec<(usize, String)> = WRONG
        .iter()
        .map(|(pointer, what)| {
            let column = column(pointer);
            (column, format!("{start}{}:1:{column}: {pointer}: {what}", config.display()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, line)| line).collect()
}

#[track_caller]
fn nothing_was_made(container: &Container) {
    assert!(!container.file("pid").exists());
    assert!(!container.record_folder().exists());
    container.left_nothing();
    container.run(&["state", &container.id]).refused("container does not exist");
}

fn a_broken_bundle_is_refused_with_all_that_is_wrong(backend: &'static str) {
    let container = broken(backend);
    let id = container.id.as_str();
    let make = ["-b", "bundle", "--pid-file", "pid", id];
    for verb in [&["create"][..], &["run"], &["run", "-d"]] {
        let said = container.run(&[verb, &make].concat());
        assert_eq!((said.code, said.out.as_str()), (1, ""));
        assert_eq!(said.err.lines().collect::<Vec<_>>(), lines(&container, "nexcage: "));
        nothing_was_made(&container);
    }
    let messages = |text: &str| -> Vec<String> {
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["level"], "error");
            line["msg"].as_str().unwrap().to_owned()
        };
        text.lines().map(line).collect()
    };
    let said = container.run(&[&["--log-format", "json", "create"], &make[..]].concat());
    assert_eq!(said.code, 1);
    assert_eq!(messages(&said.err), lines(&container, ""));
    let flags = ["--log", "log", "--log-format", "json", "create"];
    let said = container.run(&[&flags, &make[..]].concat());
    assert_eq!(said.err.lines().collect::<Vec<_>>(), lines(&container, "nexcage: "));
    assert_eq!(
        messages(&fs::read_to_string(container.file("log")).unwrap()),
        lines(&container, "")
    );
    nothing_was_made(&container);
}

fn a_config_that_is_no_json_is_refused_with_its_line(backend: &'static str) {
    let container = Container::new(backend, &["true"]);
    let config = container.bundle().join("config.json");
    fs::write(&config, "{\n  \"ociVersion\": \"1.0.2\",\n}").unwrap();
    let said = container.run(&["create", "-b", "bundle", "--pid-file", "pid", &container.id]);
    let wanted = format!("nexcage: {}:3:1: this is no JSON: ", config.display());
    assert!(said.code == 1 && said.err.starts_with(&wanted), "{said:?}");
    assert_eq!(said.err.lines().count(), 1);
    nothing_was_made(&container);
}

fn what_is_wrong_and_runs_all_the_same_is_only_warned_of(backend: &'static str) {
    // LXC's translation takes no such thing, and runc minds variables without a value.
    let (pointer, value) = match backend {
        "crun" => ("/process/env", json!(["PATH=/bin", "A"])),
        "runc" => ("/linux/maskedPaths", json!(["proc/kcore"])),
        _ => ("/hostname", json!("a_b")),
    };
    let mut container = Container::new(backend, &["true"]);
    container.edit(|spec| match pointer {
        "/hostname" => spec["hostname"] = value,
        "/process/env" => spec["process"]["env"] = value,
        _ => spec["linux"]["maskedPaths"] = value,
    });
    let said = container.run(&["run", "-b", "bundle", &container.id]).good();
    assert_eq!(said.err, "");
    let said = container.run(&["--log-level", "warning", "run", "-b", "bundle", &container.id]);
    let said = said.good();
    assert!(said.err.contains("config.json:1:") && said.err.contains(pointer), "{said:?}");
}

fn what_the_runtimes_write_runs(backend: &'static str) {
    let programs = [
        env!("CARGO_BIN_EXE_nexcage").into(),
        bed::crun(),
        bed::folder().join("crun-1.28/crun"),
        bed::runc(),
    ];
    for program in programs {
        let container = Container::new(backend, &[]);
        let config = container.bundle().join("config.json");
        fs::remove_file(&config).unwrap();
        let mut spec = Command::new(&program);
        Said::of(spec.arg("spec").current_dir(container.bundle())).good();
        let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = json!(["sh", "-c", "echo hello; exit 4"]);
        spec["root"]["path"] = bed::rootfs().to_str().into();
        spec["linux"]["cgroupsPath"] = format!("/{}", container.id).into();
        fs::write(&config, spec.to_string()).unwrap();
        let said = container.run(&["run", "-b", "bundle", &container.id]);
        let program = program.display();
        assert_eq!((said.code, said.out.as_str()), (4, "hello\n"), "{program}: {}", said.err);
        container.left_nothing();
    }
}

#[test]
fn what_lxc_cannot_have_is_told_at_once() {
    let mut container = Container::new("lxc", &["true"]);
    container.edit(|spec| {
        spec["linux"]["intelRdt"] = json!({ "closID": "class" });
        spec["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0".into();
    });
    let said = container.run(&["create", "-b", "bundle", "--pid-file", "pid", &container.id]);
    assert_eq!(said.code, 1);
    let lines: Vec<_> = said.err.lines().collect();
    let told = |line: &&str, pointer: &str| line.contains(pointer) && line.contains("lxc refuses");
    assert!(
        lines.len() == 2
            && told(&lines[0], "/linux/intelRdt")
            && told(&lines[1], "/linux/mountLabel"),
        "{said:?}"
    );
    nothing_was_made(&container);
}
