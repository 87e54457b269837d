//! What `nexcage` says of itself, of its configuration and of the host.

use crate::support::bed;
use serde_json::Value;
use std::fs;
use std::process::{Command, Output};

fn nexcage(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexcage"));
    command.args(args);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn said(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = nexcage(args).output().unwrap();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

const RULES: &str = r#"{
    "default_container_type": "crun",
    "routing": [
        { "backend": "pct", "image": "*/postgres:*" },
        { "backend": "lxc", "name": "db-*", "labels": { "app": ["a", "b"] } }
    ],
    "container_config": { "crun_name_patterns": ["cilium-*"] }
}"#;

#[test]
fn route_explain_says_which_rule_decides_and_why_those_before_did_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    fs::write(&file, RULES).unwrap();
    let config = file.to_str().unwrap();
    let explain = ["--config", config, "route", "explain"];
    let (status, out, err) =
        said(&[&explain[..], &["--name", "db-1", "--label", "app=b", "--image", "x/y:1"]].concat());
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "backend:    lxc\n\
         because:    rule 2 of routing (name \"db-1\" matches db-*, label app \"b\" matches b)\n\
         name:       db-1\n\
         image:      x/y:1\n\
         namespace:  default\n\
         not rule 1: image \"x/y:1\" does not match */postgres:*\n"
    );
    for (args, backend, word) in [
        (&["cilium-x"][..], "crun", "crun-name-patterns"),
        (&["web"], "crun", "default"),
        (&["web", "--annotation", "io.nexcage.backend=runc"], "runc", "annotation"),
        (&["web", "--image", "docker.io/library/postgres:17"], "pct", "routing"),
    ] {
        let (status, out, _) = said(&[&explain[..], args, &["--format", "json"]].concat());
        let said: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((status, said["backend"].as_str()), (0, Some(backend)), "{args:?}");
        assert_eq!(said["decidedBy"], word, "{args:?}");
    }
    let (_, out, _) = said(&[&["--runtime-type", "lxc"], &explain[..], &["web"]].concat());
    assert!(out.contains("because:    --runtime-type"), "{out}");
    let (status, _, err) = said(&[&["--runtime-type", "vm"], &explain[..], &["web"]].concat());
    assert_eq!(status, 1);
    assert!(err.contains("--runtime-type: unknown backend \"vm\""), "{err}");
}

#[test]
fn doctor_finds_what_is_there_and_says_what_to_do_about_what_is_not() {
    bed::check();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let doctor = |config: &str, path: &str| {
        fs::write(&file, config).unwrap();
        let output = nexcage(&["--config", file.to_str().unwrap(), "doctor", "--format", "json"])
            .env("PATH", path)
            .output()
            .unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["healthy"] == true, output.status.success());
        said
    };
    let of = |said: &Value, what: &str| {
        let findings = said["findings"].as_array().unwrap();
        findings.iter().find(|it| it["what"] == what).cloned().unwrap_or_default()
    };
    let crun = bed::crun();
    let said = doctor("{}", crun.parent().unwrap().to_str().unwrap());
    assert_eq!(of(&said, "crun")["level"], "ok", "{said:#}");
    assert!(of(&said, "crun")["found"].as_str().unwrap().contains("crun version"));
    assert_eq!(of(&said, "pct")["level"], "note");
    assert_eq!(of(&said, "state")["level"], "ok");

    let record = folder.path().join("state/ns/c/state.json");
    fs::create_dir_all(record.parent().unwrap()).unwrap();
    fs::write(&record, "{").unwrap();
    let state = folder.path().join("state").display().to_string();
    let said = doctor(&serde_json::json!({ "state_dir": state }).to_string(), "/nowhere");
    let found = of(&said, "container")["found"].as_str().unwrap_or_default().to_owned();
    assert!(found.contains(record.to_str().unwrap()), "{said:#}");

    let said = doctor(r#"{ "routing": [{ "backend": "pct", "name": "x" }] }"#, "/nowhere");
    assert_eq!(of(&said, "pct")["level"], "problem");
    assert_eq!(said["healthy"], false);
    let said = doctor(r#"{ "ruoting": [] }"#, "/nowhere");
    assert_eq!(of(&said, "config")["level"], "problem");
    assert!(of(&said, "config")["found"].as_str().unwrap().contains("the nearest is routing"));
}

#[test]
fn version_names_the_revision_and_the_backends() {
    for args in [&["--version"][..], &["-v"], &["version"]] {
        let (status, out, _) = said(args);
        assert_eq!(status, 0);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[0], format!("nexcage version {}", env!("CARGO_PKG_VERSION")));
        assert_eq!(lines[2..], ["spec: 1.3.0", "backends: crun runc lxc pct"]);
    }
    let (_, out, _) = said(&["version", "--format", "json"]);
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["backends"], serde_json::json!(["crun", "runc", "lxc", "pct"]));
}

#[test]
fn what_is_not_understood_is_2_and_what_fails_is_1() {
    assert_eq!(said(&["frobnicate"]).0, 2);
    assert_eq!(said(&[]).0, 2);
    assert_eq!(said(&["config", "check", "/none"]).0, 1);
    let (status, _, err) = said(&["--log-format", "json", "config", "check", "/none"]);
    let line: Value = serde_json::from_str(&err).unwrap();
    assert_eq!(status, 1);
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("there is no file /none"), "{line}");
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
}

#[test]
fn completions_and_man_pages_know_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(said(&["man", folder.path().to_str().unwrap()]).0, 0);
    let (_, completions, _) = said(&["completions", "bash"]);
    let (_, help, _) = said(&["--help"]);
    let verbs = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs: Vec<&str> = verbs
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.contains(&"create") && verbs.contains(&"doctor"), "{verbs:?}");
    for verb in verbs {
        assert!(folder.path().join(format!("nexcage-{verb}.1")).exists(), "{verb}");
        assert!(completions.contains(&format!("nexcage,{verb})")), "{verb}");
    }
}
