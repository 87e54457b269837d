use super::*;
use clap::Parser;
use std::fs;

fn global() -> Global {
    crate::cli::args::Cli::try_parse_from(["nexcage", "version"]).unwrap().global
}

const CONFIG: &str = r#"{
  "ociVersion": "1.0.2",
  "process": {
    "args": ["sh"],
    "cwd": "tmp",
    "user": { "uid": 0, "gid": 0 },
    "env": ["PATH=/bin", "\u001b[31mred"]
  },
  "root": { "path": "rootfs" },
  "hostname": "my_host",
  "mounts": [],
  "linux": {
    "namespaces": [{ "type": "uts" }, { "type": "mount" }, { "type": "disk" }],
    "colour": "\u001b[31mred"
  }
}"#;

fn bundle(config: &str) -> tempfile::TempDir {
    let bundle = tempfile::tempdir().unwrap();
    fs::create_dir(bundle.path().join("rootfs")).unwrap();
    fs::write(bundle.path().join("config.json"), config).unwrap();
    bundle
}

#[test]
fn the_report_for_people() {
    let bundle = bundle(CONFIG);
    let said = validate(&global(), bundle.path(), None, ReportFormat::Text);
    let folder = bundle.path().canonicalize().unwrap();
    let out = said.out.replace(folder.to_str().unwrap(), "/b");
    assert_eq!(
        out,
        "/b/config.json:5:12: error: /process/cwd: found \"tmp\", wanted an absolute path\n    \
             give the path as the container sees it, such as /\n\
         /b/config.json:7:26: error: /process/env/1: \"\\u{1b}[31mred\" is no NAME=VALUE: runc \
             refuses it\n    write \"\\u{1b}[31mred=\", or remove it\n\
         /b/config.json:10:15: warning: /hostname: \"my_host\" is no label of RFC 1123; crun and \
             runc take it, for the kernel does, but other programs need not\n    use letters, \
             digits and hyphens, 1 to 63 of them between two dots, no hyphen first or last\n\
         /b/config.json:13:70: error: /linux/namespaces/2/type: \"disk\" is not known\n    there \
             are pid, network, mount, ipc, uts, user, cgroup and time\n\
         /b/config.json:14:15: note: /linux/colour: is no field of runtime-spec 1.3: runtimes pass \
             it over\n    it does no harm, and nothing else\n\
         /b/config.json: invalid: 3 errors, 1 warning, 1 note\n"
    );
    assert_eq!((said.status, said.err.as_str()), (1, ""));
}

#[test]
fn the_report_for_programs() {
    let bundle = bundle(CONFIG);
    let said = validate(&global(), bundle.path(), Some("runc"), ReportFormat::Json);
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.status, &report["valid"]), (1, &json!(false)));
    assert_eq!(
        (&report["errors"], &report["warnings"], &report["notes"], &report["notListed"]),
        (&json!(3), &json!(1), &json!(1), &json!(0))
    );
    assert_eq!(report["backend"], "runc");
    assert_eq!(
        report["findings"][0],
        json!({
            "level": "error", "refused": true, "pointer": "/process/cwd", "line": 5, "column": 12,
            "problem": "found \"tmp\", wanted an absolute path",
            "mend": "give the path as the container sees it, such as /",
        })
    );
}

#[test]
fn a_valid_bundle_is_status_0_and_what_cannot_be_read_is_2() {
    let good = CONFIG
        .replace("\"tmp\"", "\"/\"")
        .replace(", \"\\u001b[31mred\"]", "]")
        .replace(", { \"type\": \"disk\" }", "");
    let bundle = bundle(&good);
    let said = validate(&global(), bundle.path(), None, ReportFormat::Text);
    assert_eq!(said.status, 0, "{}", said.out);
    assert!(said.out.ends_with("config.json: valid: 1 warning, 1 note\n"), "{}", said.out);
    for (path, backend, wanted) in [
        (bundle.path().join("rootfs"), None, "config.json: no such file"),
        (bundle.path().join("none"), None, "none: a bundle is a folder"),
        (bundle.path().to_owned(), Some("docker"), "unknown backend \"docker\""),
    ] {
        let said = validate(&global(), &path, backend, ReportFormat::Text);
        assert_eq!((said.status, said.out.as_str()), (2, ""));
        assert!(said.err.contains(wanted), "{}", said.err);
    }
}

#[test]
fn colours_are_only_where_they_are_wanted() {
    let report = crate::bundle::validate::check(bundle(CONFIG).path(), None).unwrap();
    assert!(as_text(&report, true).contains("\x1b[1;31merror\x1b[0m"));
    assert!(!as_text(&report, false).contains('\x1b'));
}
