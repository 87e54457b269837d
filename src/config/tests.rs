//! What the sources say, what comes of it, and what is said about mistakes.

use super::keys::{Field, KEYS, SCHEMA_KEY};
use super::options::tests::{generic, runc};
use super::*;
use crate::route::{Subject, decide};
use containerd_shim_protos::shim::oci::Options as Runc;
use proptest::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Settings from a configuration file with this text, and options.
fn load(file: Option<&str>, options: &Options) -> Result<Config> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    Config::load(&path, options).map_err(|error| {
        let message = error.to_string().replace(folder.path().to_str().unwrap(), "/etc/nexcage");
        Error::new(error.kind(), message)
    })
}

fn from_file(text: &str) -> Result<Config> {
    load(Some(text), &Options::default())
}

fn from_body(toml: &str) -> Result<Config> {
    load(None, &from_any(&generic("", toml)).unwrap())
}

fn refused(result: Result<Config>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::InvalidArgument);
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn without_any_source_everything_is_built_in() {
    assert_eq!(load(None, &Options::default()).unwrap(), Config::default());
    assert_eq!(from_file("{}").unwrap(), Config::default());
    assert_eq!(from_body("").unwrap(), Config::default());
}

#[test]
fn every_key_is_read_from_json_and_from_toml() {
    let json = r#"{
        "default_container_type": "pct", "sandbox_backend": "runc", "state_dir": "/s", "data_dir": "/d",
        "crun": {"path": "/crun", "root": "/cr"}, "runc": {"path": "/runc", "root": "/rr"},
        "init_path": "/init", "lxc": {"path": "/lxc-start", "exit_by_monitor": true},
        "pct": {
            "path": "/pct", "vmid_min": 100, "vmid_max": 999999999, "direct_config": true,
            "storage": "local-zfs", "disk_size": 2, "unprivileged": false
        },
        "systemd_cgroup": true, "no_pivot_root": true, "no_new_keyring": true,
        "shim_cgroup": "/shims", "io_uid": 1, "io_gid": 4294967295,
        "criu_image_path": "/ci", "criu_work_path": "/cw",
        "routing": [
            {"backend": "lxc", "name": ["web-*", "api"], "annotations": {"team": "d*"}},
            {"backend": "runc", "image": "*/nginx:*", "namespace": "x", "labels": {"app": ["a"]}}
        ],
        "container_config": {"crun_name_patterns": ["cilium-*"]}
    }"#;
    let toml = r#"
        default_container_type = "pct"
        sandbox_backend = "runc"
        state_dir = "/s"
        data_dir = "/d"
        init_path = "/init"
        lxc = { path = "/lxc-start", exit_by_monitor = true }
        systemd_cgroup = true
        no_pivot_root = true
        no_new_keyring = true
        shim_cgroup = "/shims"
        io_uid = 1
        io_gid = 4294967295
        criu_image_path = "/ci"
        criu_work_path = "/cw"
        container_config.crun_name_patterns = "cilium-*"
        runc.path = "/runc"
        runc.root = "/rr"
        [crun]
        path = "/crun"
        root = "/cr"
        [pct]
        path = "/pct"
        vmid_min = 100
        vmid_max = 999999999
        direct_config = true
        storage = "local-zfs"
        disk_size = 2
        unprivileged = false
        [[routing]]
        backend = "lxc"
        name = ["web-*", "api"]
        annotations.team = "d*"
        [[routing]]
        backend = "runc"
        image = "*/nginx:*"
        namespace = "x"
        labels.app = ["a"]
    "#;
    let runtime =
        |program: &str, root: &str| OciRuntime { program: program.into(), root: Some(root.into()) };
    let patterns = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Patterns>();
    let expected = Config {
        default_container_type: BackendName::Pct,
        sandbox_backend: BackendName::Runc,
        runtime_type: None,
        routing: vec![
            Rule {
                name: patterns(&["web-*", "api"]),
                annotations: [("team".to_owned(), patterns(&["d*"]))].into(),
                ..Rule::of(BackendName::Lxc)
            },
            Rule {
                image: patterns(&["*/nginx:*"]),
                namespace: patterns(&["x"]),
                labels: [("app".to_owned(), patterns(&["a"]))].into(),
                ..Rule::of(BackendName::Runc)
            },
        ],
        crun_name_patterns: patterns(&["cilium-*"]),
        default_by_options: false,
        state_dir: "/s".into(),
        data_dir: "/d".into(),
        crun: runtime("/crun", "/cr"),
        runc: runtime("/runc", "/rr"),
        lxc: Lxc { program: "/lxc-start".into(), exit_by_monitor: true },
        init_path: Some("/init".into()),
        pct: Pct {
            program: "/pct".into(),
            vmid_min: 100,
            vmid_max: 999_999_999,
            direct_config: true,
            storage: Some("local-zfs".to_owned()),
            disk_size: 2,
            unprivileged: Some(false),
        },
        systemd_cgroup: true,
        no_pivot_root: true,
        no_new_keyring: true,
        shim_cgroup: Some("/shims".to_owned()),
        io_uid: 1,
        io_gid: u32::MAX,
        criu_image_path: Some("/ci".into()),
        criu_work_path: Some("/cw".into()),
    };
    assert_eq!(from_file(json).unwrap(), expected);
    let by_options = Config { default_by_options: true, ..expected.clone() };
    assert_eq!(from_body(toml).unwrap(), by_options);
    assert_eq!(from_body(json).unwrap(), by_options);
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("c.toml", toml), ("c.json", json), ("toml", toml), ("json", json)] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        assert_eq!(Config::load(&path, &Options::default()).unwrap(), expected, "{name}");
    }
}

#[test]
fn a_file_may_say_where_its_schema_is() {
    let with = r#"{ "$schema": "file:///s.json", "default_container_type": "runc" }"#;
    assert_eq!(
        from_file(with).unwrap(),
        from_file(r#"{ "default_container_type": "runc" }"#).unwrap()
    );
    let wrong = from_file(r#"{ "$schema": 1 }"#).unwrap_err().to_string();
    assert!(wrong.contains("$schema") && wrong.contains("a string"), "{wrong}");
    // What the package installs.
    from_file(include_str!("../../packaging/config.json")).unwrap();
}

#[test]
fn the_schema_states_the_keys_types_and_defaults_that_the_parser_has() {
    fn leaves(prefix: &str, schema: &serde_json::Value, into: &mut Vec<(String, Leaf)>) {
        assert_eq!(schema["additionalProperties"], json!(false), "{prefix}");
        assert!(schema["description"].is_string());
        for (name, schema) in schema["properties"].as_object().unwrap() {
            if schema["type"] == "object" {
                leaves(&format!("{prefix}{name}."), schema, into);
            } else {
                into.push((format!("{prefix}{name}"), schema.clone()));
            }
        }
    }
    type Leaf = serde_json::Value;

    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(schema["title"].is_string());
    let mut stated = Vec::new();
    leaves("", &schema, &mut stated);
    stated.retain(|(name, _)| name != SCHEMA_KEY);
    let names: BTreeSet<&str> = stated.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, KEYS.iter().map(|(name, _)| *name).collect());

    for (name, leaf) in &stated {
        assert!(leaf["description"].is_string(), "{name}");
        let (_, field) = KEYS.iter().find(|(key, _)| key == name).unwrap();
        let mut built_in = Config::default();
        // Programs are names until someone gives a path, which the schema cannot state.
        let (kind, default) = match field {
            Field::Backend(at) => {
                let known = BackendName::ALL.map(BackendName::as_str);
                assert_eq!(leaf["enum"], json!(known), "{name}");
                ("string", Some(json!(at(&mut built_in).as_str())))
            }
            Field::Path(at) => {
                assert_eq!(leaf["pattern"], "^/", "{name}");
                ("string", Some(json!(at(&mut built_in))).filter(|_| !name.ends_with(".path")))
            }
            Field::MaybePath(at) => {
                assert_eq!(leaf["pattern"], "^/", "{name}");
                assert_eq!(*at(&mut built_in), None, "{name}");
                ("string", None)
            }
            Field::MaybeText(at) => {
                assert_eq!(*at(&mut built_in), None, "{name}");
                ("string", None)
            }
            Field::Flag(at) => ("boolean", Some(json!(at(&mut built_in)))),
            Field::MaybeFlag(at) => {
                assert_eq!(*at(&mut built_in), None, "{name}");
                ("boolean", None)
            }
            Field::Patterns(at) => {
                assert!(at(&mut built_in).is_empty(), "{name}");
                assert_eq!(leaf["$ref"], "#/$defs/patterns", "{name}");
                continue;
            }
            Field::Rules(at) => {
                assert!(at(&mut built_in).is_empty(), "{name}");
                ("array", Some(json!([])))
            }
            Field::Number(least, most, at) => {
                assert_eq!((&leaf["minimum"], &leaf["maximum"]), (&json!(least), &json!(most)));
                ("integer", Some(json!(at(&mut built_in))))
            }
        };
        assert_eq!(leaf["type"], kind, "{name}");
        assert_eq!(leaf.get("default"), default.as_ref(), "{name}");
    }
}

#[test]
fn the_older_form_is_taken_as_it_stands() {
    let old = r#"{"container_config": {
        "crun_name_patterns": ["kube-ovn-*", "cilium-*"], "default_container_type": "lxc"
    }}"#;
    let config = from_file(old).unwrap();
    assert_eq!(config.crun_name_patterns, ["kube-ovn-*", "cilium-*"]);
    assert_eq!(config.default_container_type, BackendName::Lxc);
    assert_eq!(
        refused(from_file(
            r#"{"default_container_type": "crun",
                "container_config": {"default_container_type": "lxc"}}"#
        )),
        "/etc/nexcage/config.json: container_config.default_container_type and \
         default_container_type both set default_container_type: keep one of them"
    );
    let vm = r#"{"container_config": {"default_container_type": "vm"}}"#;
    let message = refused(from_file(vm));
    assert!(message.contains("unknown backend \"vm\""), "{message}");
}

#[test]
fn a_wrong_rule_is_named_by_its_place() {
    for (rule, expected) in [
        (r#"{"name": "x"}"#, "routing[1]: backend is missing: a rule says which it chooses"),
        (
            r#"{"backend": "vm"}"#,
            "routing[1].backend: unknown backend \"vm\"; the backends are crun, runc, lxc and pct",
        ),
        (
            r#"{"backend": "lxc", "nmae": "x"}"#,
            "unknown key \"routing[1].nmae\"; a rule has backend, name, image, namespace, \
             annotations and labels",
        ),
        (
            r#"{"backend": "lxc", "name": []}"#,
            "routing[1].name: the list is empty, wanted a pattern or a list of patterns: leave the \
             key out for no condition",
        ),
        (
            r#"{"backend": "lxc", "labels": "x"}"#,
            "routing[1].labels: found the string \"x\", wanted an object of patterns",
        ),
        (
            r#"{"backend": "lxc", "labels": {"app": 1}}"#,
            "routing[1].labels.app: found the number 1, wanted a pattern or a list of patterns",
        ),
        ("7", "routing[1]: found the number 7, wanted a rule, an object"),
    ] {
        let file = format!(r#"{{"routing": [{{"backend": "crun"}}, {rule}]}}"#);
        let message = refused(from_file(&file));
        assert_eq!(message, format!("/etc/nexcage/config.json: {expected}"));
    }
    let message = refused(from_file(r#"{"routing": {}}"#));
    assert!(message.ends_with("routing: found an object, wanted a list of rules"), "{message}");
}

#[test]
fn options_that_choose_a_backend_put_the_rules_of_files_aside() {
    let file = r#"{"routing": [{"backend": "pct"}],
        "container_config": {"crun_name_patterns": "x"}}"#;
    let with = |body: &str| load(Some(file), &from_any(&generic("", body)).unwrap()).unwrap();
    let config = with("io_uid = 3");
    assert_eq!((config.routing.len(), config.default_by_options), (1, false));
    for body in ["default_container_type = \"lxc\"", "BinaryName = \"/usr/bin/runc\""] {
        let config = with(body);
        assert!(config.routing.is_empty() && config.crun_name_patterns.is_empty(), "{body}");
        assert!(config.default_by_options);
    }
    let own = with("default_container_type = \"lxc\"\n[[routing]]\nbackend = \"runc\"");
    assert_eq!(own.routing[0].backend, BackendName::Runc);
}

#[test]
fn a_later_source_wins_key_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("more");
    std::fs::write(&path, "io_uid = 2\nio_gid = 2\nstate_dir = \"/2\"").unwrap();
    let file = r#"{"io_uid": 1, "io_gid": 1, "state_dir": "/1", "shim_cgroup": "/1"}"#;
    let options = from_any(&generic(path.to_str().unwrap(), "io_uid = 3")).unwrap();
    let config = load(Some(file), &options).unwrap();
    assert_eq!((config.io_uid, config.io_gid), (3, 2));
    assert_eq!(config.state_dir, Path::new("/2"));
    assert_eq!(config.shim_cgroup.as_deref(), Some("/1"));
    // The path may stand in the body, too.
    let body = format!("ConfigPath = {path:?}\nio_uid = 3");
    let same = load(Some(file), &from_any(&generic("", &body)).unwrap()).unwrap();
    assert_eq!(same, config);
}

#[test]
fn a_runc_message_is_laid_over_the_files() {
    let message = Runc {
        no_pivot_root: true,
        no_new_keyring: true,
        shim_cgroup: "/shims".to_owned(),
        io_uid: 1,
        io_gid: 2,
        binary_name: "/usr/sbin/runc".to_owned(),
        root: "/run/r".to_owned(),
        systemd_cgroup: true,
        criu_image_path: "/ci".to_owned(),
        criu_work_path: "/cw".to_owned(),
        task_api_address: "ttrpc+unix:///x".to_owned(),
        task_api_version: 3,
        ..Runc::default()
    };
    let expected = Config {
        default_container_type: BackendName::Runc,
        sandbox_backend: BackendName::Runc,
        runc: OciRuntime { program: "/usr/sbin/runc".into(), root: Some("/run/r".into()) },
        no_pivot_root: true,
        no_new_keyring: true,
        shim_cgroup: Some("/shims".to_owned()),
        io_uid: 1,
        io_gid: 2,
        systemd_cgroup: true,
        criu_image_path: Some("/ci".into()),
        criu_work_path: Some("/cw".into()),
        default_by_options: true,
        ..Config::default()
    };
    let file = Some(r#"{"io_gid": 7}"#);
    assert_eq!(load(file, &from_any(&runc(&message)).unwrap()).unwrap(), expected);
    // Zero is "not set" there, so it undoes nothing.
    let empty = from_any(&runc(&Runc::new())).unwrap();
    assert_eq!(load(file, &empty).unwrap().io_gid, 7);
}

#[test]
fn an_options_table_copied_from_runc_works_as_it_is() {
    let config = from_body(
        r#"
        BinaryName = ""
        CriuImagePath = ""
        CriuPath = ""
        CriuWorkPath = "/cw"
        IoGid = 0
        IoUid = 5
        NoNewKeyring = false
        NoPivotRoot = true
        Root = ""
        ShimCgroup = "/shims"
        SystemdCgroup = true
        TypeUrl = "runtimeoptions.v1.Options"
        ConfigPath = ""
        default_container_type = "lxc"
        "#,
    );
    let expected = Config {
        default_container_type: BackendName::Lxc,
        criu_work_path: Some("/cw".into()),
        io_uid: 5,
        no_pivot_root: true,
        shim_cgroup: Some("/shims".to_owned()),
        systemd_cgroup: true,
        default_by_options: true,
        ..Config::default()
    };
    assert_eq!(config.unwrap(), expected);
}

#[test]
fn the_name_of_a_binary_chooses_its_backend() {
    for (binary, backend) in [
        ("runc", BackendName::Runc),
        ("/opt/runc-1.3", BackendName::Runc),
        ("crun-wasm", BackendName::Crun),
        ("/usr/bin/crun", BackendName::Crun),
    ] {
        let config = from_body(&format!("BinaryName = {binary:?}\nRoot = \"/r\"")).unwrap();
        assert_eq!(config.default_container_type, backend);
        assert_eq!(config.sandbox_backend, backend);
        let (chosen, other) = match backend {
            BackendName::Runc => (config.runc, config.crun),
            _ => (config.crun, config.runc),
        };
        assert_eq!(chosen, OciRuntime { program: binary.into(), root: Some("/r".into()) });
        assert_eq!(other.root, None);
        assert!(other.program == Path::new("crun") || other.program == Path::new("runc"));
    }
}

#[test]
fn another_binary_runs_in_place_of_the_default_backend() {
    let youki = from_any(&generic("", "BinaryName = \"/usr/bin/youki\"")).unwrap();
    let config = load(None, &youki).unwrap();
    assert_eq!(config.crun.program, Path::new("/usr/bin/youki"));
    assert_eq!(config.default_container_type, BackendName::Crun);
    let config = load(Some(r#"{"default_container_type": "runc"}"#), &youki).unwrap();
    assert_eq!(config.runc.program, Path::new("/usr/bin/youki"));
    assert_eq!(config.crun.program, Path::new("crun"));
    assert_eq!(config.default_container_type, BackendName::Runc);
    assert_eq!(config.sandbox_backend, BackendName::Crun);
}

#[test]
fn a_sandbox_backend_that_was_named_stays() {
    let options = from_any(&generic("", "BinaryName = \"runc\"")).unwrap();
    let config = load(Some(r#"{"sandbox_backend": "crun"}"#), &options).unwrap();
    assert_eq!(config.sandbox_backend, BackendName::Crun);
    assert_eq!(config.default_container_type, BackendName::Runc);
}

#[test]
fn mistakes_in_a_file_are_named() {
    let all = "default_container_type, sandbox_backend, routing, \
               container_config.crun_name_patterns, container_config.default_container_type, \
               state_dir, crun.path, crun.root, \
               runc.path, runc.root, data_dir, init_path, lxc.path, lxc.exit_by_monitor, \
               pct.path, pct.vmid_min, pct.vmid_max, pct.direct_config, pct.storage, pct.disk_size, pct.unprivileged, systemd_cgroup, no_pivot_root, no_new_keyring, shim_cgroup, \
               io_uid, io_gid, criu_image_path and criu_work_path";
    for (text, message) in [
        (r#"{"crun": {"pth": "/x"}}"#, "unknown key crun.pth; the nearest is crun.path"),
        (
            r#"{"default_contianer_type": "crun"}"#,
            "unknown key default_contianer_type; the nearest is default_container_type",
        ),
        (r#"{"SystemdCgroup": true}"#, "unknown key SystemdCgroup; the nearest is systemd_cgroup"),
        (
            r#"{"crun.path": "/x"}"#,
            "unknown key \"crun.path\": a dot is no part of a key, use an object",
        ),
        (r#"{"backends": []}"#, &format!("unknown key backends; the keys are {all}")),
        (r#"{"a\nb": 1}"#, &format!("unknown key a\\nb; the keys are {all}")),
        (
            r#"{"systemd_cgroup": "yes"}"#,
            "systemd_cgroup: found the string \"yes\", wanted true or false",
        ),
        (
            r#"{"crun": "/usr/bin/crun"}"#,
            "crun: found the string \"/usr/bin/crun\", wanted an object",
        ),
        (r#"{"crun": {"path": {}}}"#, "crun.path: found an object, wanted an absolute path"),
        (
            r#"{"crun": {"path": "crun"}}"#,
            "crun.path: found the string \"crun\", wanted an absolute path",
        ),
        (r#"{"state_dir": null}"#, "state_dir: found null, wanted an absolute path"),
        (r#"{"state_dir": ""}"#, "state_dir: \"\" is empty, wanted an absolute path"),
        (
            r#"{"state_dir": "/a\u0000"}"#,
            "state_dir: \"/a\\0\" has a control character, wanted an absolute path",
        ),
        (
            r#"{"pct": {"vmid_min": 99}}"#,
            "pct.vmid_min: found the number 99, wanted a number from 100 to 999999999",
        ),
        (
            r#"{"pct": {"unprivileged": 1}}"#,
            "pct.unprivileged: found the number 1, wanted true or false",
        ),
        (r#"{"shim_cgroup": ["a"]}"#, "shim_cgroup: found a list, wanted a string"),
        (r#"{"io_uid": -1}"#, "io_uid: found the number -1, wanted a number from 0 to 4294967295"),
        (
            r#"{"io_uid": 4294967296}"#,
            "io_uid: found the number 4294967296, wanted a number from 0 to 4294967295",
        ),
        (
            r#"{"io_uid": 18446744073709551615}"#,
            "io_uid: found a huge number, wanted a number from 0 to 4294967295",
        ),
        (r#"{"io_uid": 1.5}"#, "io_uid: found a fraction, wanted a number from 0 to 4294967295"),
        (r#"{"io_uid": true}"#, "io_uid: found true, wanted a number from 0 to 4294967295"),
        (
            r#"{"sandbox_backend": "docker"}"#,
            "sandbox_backend: unknown backend \"docker\"; the backends are crun, runc, lxc and pct",
        ),
        (
            "{\n\"io_uid\": 1,\n\"io_uid\": 2}",
            "not valid JSON: the key \"io_uid\" is given twice at line 3 column 12",
        ),
        ("{", "not valid JSON: EOF while parsing an object at line 1 column 1"),
        ("", "not valid JSON: EOF while parsing a value at line 1 column 0"),
        ("[]", "found a list, wanted an object"),
        ("{} x", "not valid JSON: trailing characters at line 1 column 4"),
    ] {
        assert_eq!(refused(from_file(text)), format!("/etc/nexcage/config.json: {message}"));
    }
}

#[test]
fn a_range_of_vmids_without_any_is_refused_whoever_made_it() {
    let message = "pct.vmid_min is 800 and pct.vmid_max is 700: there is no vmid between them";
    let options = from_any(&generic("", "pct.vmid_max = 700")).unwrap();
    assert_eq!(refused(load(Some(r#"{"pct": {"vmid_min": 800}}"#), &options)), message);
    assert_eq!(load(Some(r#"{"pct": {"vmid_min": 700}}"#), &options).unwrap().pct.vmid_min, 700);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "pct.vmid_min = 800\npct.vmid_max = 700").unwrap();
    assert_eq!(check(&path).unwrap_err().to_string(), format!("{}: {message}", path.display()));
}

#[test]
fn mistakes_in_the_options_are_named() {
    for (text, message) in [
        ("BinryName = \"x\"", "unknown key BinryName; the nearest is BinaryName"),
        ("runc.pth = 1", "unknown key runc.pth; the nearest is runc.path"),
        ("SystemdCgroup = 1", "SystemdCgroup: found the number 1, wanted true or false"),
        ("Root = \"r\"", "Root: found the string \"r\", wanted an absolute path"),
        (
            "CriuPath = \"/usr/sbin/criu\"",
            "CriuPath is obsolete: runc and crun look for criu in PATH; remove it",
        ),
        (
            "BinaryName = \"bin/runc\"",
            "BinaryName: found \"bin/runc\", wanted an absolute path or a name to look up in PATH",
        ),
        ("BinaryName = \"/\"", "BinaryName: \"/\" does not end in the name of a program"),
        ("BinaryName = \"..\"", "BinaryName: \"..\" does not end in the name of a program"),
        (
            "BinaryName = \"runc\"\ndefault_container_type = \"crun\"",
            "BinaryName \"runc\" chooses the backend runc, default_container_type says crun: \
             keep one of them",
        ),
        (
            "BinaryName = \"youki\"\ndefault_container_type = \"lxc\"",
            "BinaryName is for an OCI runtime, but default_container_type is lxc: set crun.path \
             or runc.path",
        ),
        (
            "Root = \"/r\"\ndefault_container_type = \"pct\"",
            "Root is for an OCI runtime, but default_container_type is pct: set crun.root or \
             runc.root",
        ),
        (
            "SystemdCgroup = true\nsystemd_cgroup = false",
            "SystemdCgroup and systemd_cgroup both set systemd_cgroup: keep one of them",
        ),
        (
            "BinaryName = \"/a/crun\"\ncrun.path = \"/b/crun\"",
            "crun.path and BinaryName both set crun.path: keep one of them",
        ),
        ("TypeUrl = 1", "TypeUrl: found the number 1, wanted a string"),
        ("ConfigPath = \"a\"", "ConfigPath: found \"a\", wanted an absolute path"),
        ("ConfigPath = \"/nonexistent/c\"", "ConfigPath: there is no file /nonexistent/c"),
        ("io_uid = 2001-01-01", "io_uid: found a date, wanted a number from 0 to 4294967295"),
        ("io_uid = 1\n\nio_uid = 1", "not valid TOML: duplicate key at line 3"),
        ("\nio_uid", "not valid TOML: key with no value, expected `=` at line 2"),
        ("{\"io_uid\": x}", "not valid JSON: expected value at line 1 column 12"),
    ] {
        assert_eq!(refused(from_body(text)), format!("options sent by containerd: {message}"));
    }
    let unknown = refused(from_body("x = 1"));
    assert!(unknown.contains("criu_work_path, BinaryName, "), "{unknown}");
    let binary = Options { body: vec![b'#', 0xff], ..Options::default() };
    assert_eq!(refused(load(None, &binary)), "options sent by containerd: not UTF-8 from byte 1");
}

#[test]
fn a_config_path_is_followed_and_has_to_be_there() {
    let options = from_any(&generic("/nonexistent/c.json", "")).unwrap();
    assert_eq!(
        refused(load(None, &options)),
        "options sent by containerd: ConfigPath: there is no file /nonexistent/c.json"
    );
    let options = from_any(&generic("/a", "ConfigPath = \"/b\"")).unwrap();
    assert_eq!(
        refused(load(None, &options)),
        "options sent by containerd: ConfigPath is both /a and /b"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.json");
    std::fs::write(&path, r#"{"crun": {"pth": 1}}"#).unwrap();
    let options = from_any(&generic(path.to_str().unwrap(), "")).unwrap();
    assert_eq!(
        refused(load(None, &options)),
        format!("{}: unknown key crun.pth; the nearest is crun.path", path.display())
    );
}

#[test]
fn runcs_keys_are_for_containerds_options_only() {
    let message = refused(from_file(r#"{"BinaryName": "runc"}"#));
    assert!(message.starts_with("/etc/nexcage/config.json: unknown key BinaryName; the keys are"));
    assert!(message.ends_with("criu_work_path"), "{message}");
}

#[test]
fn a_file_that_is_too_large_or_no_file_is_refused() {
    assert_eq!(
        refused(from_file(&" ".repeat(MAX_SIZE + 1))),
        "/etc/nexcage/config.json: 1048577 bytes, more than the limit of 1 MiB"
    );
    let folder = tempfile::tempdir().unwrap();
    let message = refused(Config::load(folder.path(), &Options::default()));
    assert_eq!(message, format!("{}: is not a regular file", folder.path().display()));
    let below_a_file = folder.path().join("file/config.json");
    std::fs::write(folder.path().join("file"), "").unwrap();
    let message = refused(Config::load(&below_a_file, &Options::default()));
    assert!(message.ends_with("Not a directory (os error 20)"), "{message}");
}

#[test]
fn a_hostile_file_gets_a_short_answer() {
    let key = "k".repeat(1 << 19);
    let message = refused(from_file(&format!("{{\"{key}\": 1}}")));
    assert!(message.len() < 800, "{message}");
    let message = refused(from_file(&format!("{{\"state_dir\": \"{key}\"}}")));
    assert!(message.len() < 500, "{message}");
    let message = refused(from_file(&"{\"a\":".repeat(100_000)));
    assert!(message.contains("recursion limit exceeded"), "{message}");
    let message = refused(from_body(&format!("a = {}", "[".repeat(100_000))));
    assert!(message.len() < 500, "{message}");
}

#[test]
fn a_backend_nobody_has_heard_of_is_refused_with_those_there_are() {
    for name in ["docker", "", "CRUN"] {
        let annotations = annotations(&[(BACKEND_ANNOTATION, name)]);
        let error = decide(&Config::default(), &Subject { annotations, ..Subject::default() });
        assert_eq!(
            error.unwrap_err().to_string(),
            format!(
                "annotation io.nexcage.backend: unknown backend {name:?}; the backends are crun, \
                 runc, lxc and pct"
            )
        );
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "[\\[\\]{}:,\"=\n0-9. a]{0,60}".prop_map(String::into_bytes),
        "(BinaryName|Root|ConfigPath|crun.path|io_uid) ?= ?(\"\\PC{0,9}\"|[0-9]{1,20})\n?"
            .prop_map(String::into_bytes),
    ]) {
        for format in [Format::Json, Format::Toml] {
            let applied = value::parse(&text, format)
                .and_then(|table| Merge::default().apply(table, Dialect::Containerd));
            if let Err(error) = applied {
                prop_assert!(!error.to_string().contains('\n'), "{}", error);
            }
        }
    }

    #[test]
    fn no_options_make_decoding_panic(value in prop::collection::vec(any::<u8>(), 0..200)) {
        for name in TYPES {
            if let Err(error) = from_any(&options::tests::any(name, value.clone())) {
                prop_assert!(!error.to_string().contains('\n'), "{}", error);
            }
        }
    }
}
