use super::*;
use crate::guest::fields::FIELDS;
use proptest::prelude::*;
use schema::{Field, Shape};
use serde_json::json;
use std::fs;

/// A host where nearly everything is: what has `missing` in its path is not.
struct Anywhere;

impl Files for Anywhere {
    fn kind(&self, path: &Path) -> Option<FileKind> {
        let text = path.to_str()?;
        let name = text.rsplit('/').next()?;
        match text {
            _ if text.contains("missing") => None,
            "/dev/fuse" => Some(FileKind::Char { major: 10, minor: 229 }),
            _ if text.starts_with("/proc/") || name.contains('.') => Some(FileKind::File),
            _ if name.starts_with("host") => Some(FileKind::File),
            _ => Some(FileKind::Dir),
        }
    }

    fn real(&self, path: &Path) -> Option<PathBuf> {
        Some(match path.to_str()? {
            "/b/link" => "/b/rootfs".into(),
            "/b/out" => "/srv".into(),
            _ => path.to_owned(),
        })
    }

    fn has_filesystem(&self, name: &str) -> bool {
        name != "nosuchfs"
    }
}

fn host(cgroup2: bool) -> Host<'static> {
    Host { bundle: Path::new("/b"), cgroup2, files: &Anywhere }
}

fn good() -> Value {
    let caps = json!(["CAP_CHOWN", "CAP_KILL"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "args": ["sh"], "env": ["PATH=/bin"], "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }],
        },
        "root": { "path": "rootfs" },
        "hostname": "web-1",
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "network" },
            ],
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
        },
    })
}

/// Puts a value at a pointer, through objects that need not be there; `Null` takes one away.
fn with(mut spec: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let place = parent.split('/').skip(1).fold(&mut spec, |at, key| match at {
        Value::Array(list) => &mut list[key.parse::<usize>().unwrap()],
        at => &mut at[key],
    });
    match place {
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        Value::Object(map) if value.is_null() => {
            map.remove(key);
        }
        place => place[key] = value,
    }
    spec
}

fn found(spec: &Value, backend: Option<BackendName>) -> Vec<Finding> {
    let text = serde_json::to_string_pretty(spec).unwrap();
    check_text(text.as_bytes(), &host(false), backend).0
}

/// Levels and pointers of all but notes.
fn heads(findings: &[Finding]) -> Vec<String> {
    let serious = findings.iter().filter(|finding| finding.level != Level::Note);
    serious.map(|finding| format!("{} {}", finding.level, finding.pointer)).collect()
}

#[track_caller]
fn all_are_found(cases: &[(&str, Value, &str)]) {
    let mut problems = String::new();
    for (pointer, value, wanted) in cases {
        let found = found(&with(good(), pointer, value.clone()), None);
        let wanted: Vec<&str> = wanted.split(", ").filter(|word| !word.is_empty()).collect();
        if heads(&found) != wanted {
            problems += &format!("{pointer} {value}\n  wanted {wanted:?}\n  found {found:?}\n");
        }
        for Finding { problem, mend, .. } in &found {
            let bad = [problem, mend].iter().any(|text| text.is_empty() || text.contains('\n'));
            assert!(!bad, "{problem:?} {mend:?}");
        }
    }
    assert!(problems.is_empty(), "{problems}");
}

#[test]
fn a_good_config_has_nothing_wrong_with_it() {
    assert_eq!(found(&good(), None), []);
}

#[test]
fn many_mistakes_that_are_let_pass_do_not_hide_one_that_is_not() {
    let spec = with(good(), "/process/env", json!(vec!["A"; 600]));
    let spec = with(spec, "/process/rlimits/0/soft", json!(30));
    let found = found(&spec, None);
    let refused: Vec<&str> =
        found.iter().filter(|finding| finding.refused).map(|finding| &*finding.pointer).collect();
    assert_eq!((refused, found.len()), (vec!["/process/rlimits/0/soft"], 501));
}

#[test]
fn the_top() {
    let long = "a".repeat(64);
    all_are_found(&[
        ("/ociVersion", Value::Null, "error /ociVersion"),
        ("/ociVersion", json!("2.0.0"), "error /ociVersion"),
        ("/ociVersion", json!(1), "error /ociVersion"),
        ("/ociVersion", json!("1.9.0"), ""),
        ("/root", Value::Null, "error /root"),
        ("/root/path", json!(""), "error /root/path"),
        ("/root/path", json!("missing"), "error /root/path"),
        ("/root/path", json!("config.json"), "error /root/path"),
        ("/root/path", json!("../x"), "error /root/path"),
        ("/root/path", json!("a/../../x"), "error /root/path"),
        ("/root/path", json!("a/../x"), ""),
        ("/root/path", json!("/srv/rootfs"), ""),
        ("/root/path", json!("/"), "error /root/path"),
        ("/root/path", json!("link"), "warning /root/path"),
        ("/root/path", json!("out"), "error /root/path"),
        ("/root/readonly", json!("true"), "error /root/readonly"),
        ("/hostname", json!("a_b"), "warning /hostname"),
        ("/hostname", json!("-a"), "warning /hostname"),
        ("/hostname", json!("a..b"), "warning /hostname"),
        ("/hostname", json!("web-1.example.org"), ""),
        ("/hostname", json!(long.clone()), "warning /hostname"),
        ("/hostname", json!(format!("{long}a")), "error /hostname, warning /hostname"),
        ("/domainname", json!("a_b"), "warning /domainname"),
        ("/domainname", json!("(none)"), ""),
        ("/annotations", json!({ "": "x" }), "error /annotations/"),
        ("/annotations", json!({ "a": 1 }), "error /annotations/a"),
        ("/Process", json!({}), "warning /Process"),
        ("/hooks", json!({ "prestart": [{ "path": "x" }] }), "error /hooks/prestart/0/path"),
        ("/hooks", json!({ "prestart": [{}] }), "error /hooks/prestart/0/path"),
        (
            "/hooks",
            json!({ "poststop": [{ "path": "/missing" }] }),
            "warning /hooks/poststop/0/path",
        ),
        (
            "/hooks",
            json!({ "poststop": [{ "path": "/x", "timeout": 0 }] }),
            "error /hooks/poststop/0/timeout",
        ),
        (
            "/hooks",
            json!({ "poststop": [{ "path": "/x", "env": ["A"] }] }),
            "warning /hooks/poststop/0/env/0",
        ),
        ("/linux", Value::Null, "warning /linux, warning /linux/namespaces, error /hostname"),
    ]);
}

#[test]
fn the_process() {
    let limit = |soft: i64, kind: &str| json!({ "type": kind, "soft": soft, "hard": 5 });
    all_are_found(&[
        ("/process", Value::Null, "error /process"),
        ("/process", json!([]), "error /process"),
        ("/process/args", Value::Null, "error /process/args"),
        ("/process/args", json!([]), "error /process/args"),
        ("/process/args", json!("sh"), "error /process/args"),
        ("/process/args", json!([""]), "error /process/args/0"),
        ("/process/args", json!(["a\0b"]), "error /process/args/0"),
        ("/process/args", json!(["a", 1]), "error /process/args/1"),
        ("/process/cwd", Value::Null, "error /process/cwd"),
        ("/process/cwd", json!("tmp"), "error /process/cwd"),
        ("/process/env", json!(["A"]), "error /process/env/0"),
        ("/process/env", json!(["A=", "=x"]), "error /process/env/1"),
        ("/process/env", json!(["A=\0"]), "error /process/env/0"),
        ("/process/env", json!([null]), "error /process/env/0"),
        ("/process/user", Value::Null, "warning /process/user"),
        ("/process/user", json!({ "gid": 0 }), "error /process/user/uid"),
        ("/process/user/uid", json!(-1), "error /process/user/uid"),
        ("/process/user/uid", json!(1u64 << 32), "error /process/user/uid"),
        ("/process/user/uid", json!(u32::MAX), "error /process/user/uid"),
        ("/process/user/uid", json!(1u64 << 31), "warning /process/user/uid"),
        ("/process/user/uid", json!(1.5), "error /process/user/uid"),
        ("/process/user/uid", json!("0"), "error /process/user/uid"),
        ("/process/user/umask", json!(0o1000), "warning /process/user/umask"),
        ("/process/user/additionalGids", json!([1, -1]), "error /process/user/additionalGids/1"),
        ("/process/rlimits/0", limit(1, "RLIMIT_X"), "error /process/rlimits/0/type"),
        ("/process/rlimits/0", limit(1, "NOFILE"), "error /process/rlimits/0/type"),
        ("/process/rlimits/-", limit(1, "RLIMIT_NOFILE"), "error /process/rlimits/1/type"),
        ("/process/rlimits/0", limit(6, "RLIMIT_CORE"), "error /process/rlimits/0/soft"),
        ("/process/rlimits/0", limit(-1, "RLIMIT_CORE"), "error /process/rlimits/0/soft"),
        (
            "/process/rlimits/0",
            json!({ "type": "RLIMIT_CORE" }),
            "error /process/rlimits/0/soft, error /process/rlimits/0/hard",
        ),
        (
            "/process/capabilities/bounding/-",
            json!("CAP_FLY"),
            "warning /process/capabilities/bounding/2",
        ),
        (
            "/process/capabilities/bounding/-",
            json!("KILL"),
            "warning /process/capabilities/bounding/2",
        ),
        (
            "/process/capabilities/effective/-",
            json!("CAP_SYS_ADMIN"),
            "error /process/capabilities/effective/2",
        ),
        (
            "/process/capabilities/inheritable",
            json!(["CAP_SYS_ADMIN"]),
            "error /process/capabilities/inheritable/0",
        ),
        ("/process/capabilities", json!(["CAP_KILL"]), "error /process/capabilities"),
        ("/process/oomScoreAdj", json!(1001), "error /process/oomScoreAdj"),
        ("/process/terminal", json!("yes"), "error /process/terminal"),
        (
            "/process/consoleSize",
            json!({ "height": 65536, "width": 1 }),
            "warning /process/consoleSize/height",
        ),
        ("/process/consoleSize", json!({ "height": 1 }), "error /process/consoleSize/width"),
        ("/process/ioPriority", json!({ "class": "X" }), "error /process/ioPriority/class"),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            "error /process/ioPriority/priority",
        ),
        ("/process/scheduler", json!({}), "error /process/scheduler/policy"),
        ("/process/scheduler", json!({ "policy": "SCHED_X" }), "error /process/scheduler/policy"),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_OTHER", "nice": 20 }),
            "error /process/scheduler/nice",
        ),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_OTHER", "priority": 1 }),
            "error /process/scheduler/priority",
        ),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_FIFO" }),
            "error /process/scheduler/priority",
        ),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_OTHER", "runtime": 1 }),
            "error /process/scheduler/runtime",
        ),
        ("/process/scheduler", json!({ "policy": "SCHED_DEADLINE" }), "error /process/scheduler"),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_BATCH", "flags": ["X"] }),
            "error /process/scheduler/flags/0",
        ),
        (
            "/process/execCPUAffinity",
            json!({ "initial": "3-1", "final": "0-1,7" }),
            "error /process/execCPUAffinity/initial",
        ),
    ]);
}

#[test]
fn the_mounts() {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        json!({
            "destination": destination, "type": kind, "source": source, "options": options,
        })
    };
    let mut mapped = mount("/x", "bind", "/x", &["bind"]);
    mapped["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    let add = |value: Value, wanted: &'static str| ("/mounts/-", value, wanted);
    all_are_found(&[
        ("/mounts", Value::Null, "warning /mounts"),
        ("/mounts", json!({}), "error /mounts"),
        add(json!(7), "error /mounts/1"),
        add(json!({ "type": "tmpfs" }), "error /mounts/1/destination"),
        add(mount("", "tmpfs", "t", &[]), "error /mounts/1/destination"),
        add(mount("x", "tmpfs", "t", &[]), "warning /mounts/1/destination"),
        add(mount("/", "tmpfs", "t", &[]), "error /mounts/1/destination"),
        add(mount("/a/..", "tmpfs", "t", &[]), "error /mounts/1/destination"),
        add(mount("/../x", "tmpfs", "t", &[]), "warning /mounts/1/destination"),
        add(mount("/proc/..//./proc/", "tmpfs", "t", &[]), ""),
        add(mount("/x", "", "/x", &[]), "error /mounts/1/type"),
        add(mount("/x", "none", "/x", &[]), "error /mounts/1/type"),
        add(mount("/x", "bind", "/x", &["ro"]), "error /mounts/1/options"),
        add(mount("/x", "nosuchfs", "t", &[]), "warning /mounts/1/type"),
        add(mount("/x", "bind", "/missing", &["rbind"]), "error /mounts/1/source"),
        add(mount("/x", "none", "missing", &["bind"]), "error /mounts/1/source"),
        add(mount("/x", "bind", "", &["bind"]), "error /mounts/1/source"),
        add(mount("/x", "bind", "/x", &["bind", "rro", "rprivate", "nosymfollow"]), ""),
        add(mount("/x", "bind", "/x", &["bind", "size=1"]), "warning /mounts/1/options/1"),
        add(mount("/x", "tmpfs", "t", &["size=64m", "mode=1777", "noswap"]), ""),
        add(mount("/x", "tmpfs", "t", &["banana"]), "warning /mounts/1/options/0"),
        add(mount("/x", "tmpfs", "t", &["size=abc"]), "error /mounts/1/options/0"),
        add(mount("/x", "tmpfs", "t", &["size=10%"]), ""),
        add(mount("/x", "tmpfs", "t", &["size=0x1000"]), ""),
        add(mount("/x", "sysfs", "t", &["gid=5"]), "warning /mounts/1/options/0"),
        add(mount("/x", "overlay", "o", &["lowerdir=/a:/b", "whatever"]), ""),
        add(mount("/x", "tmpfs", "t", &["ro", "rw"]), "warning /mounts/1/options"),
        add(mount("/x", "tmpfs", "t", &["shared", "private"]), "warning /mounts/1/options"),
        add(mapped, "error /mounts/1/gidMappings, warning /mounts/1"),
    ]);
    let mut spec = with(good(), "/mounts/-", mount("/dev/shm", "tmpfs", "t", &[]));
    spec = with(spec, "/mounts/-", mount("/dev", "tmpfs", "t", &[]));
    assert_eq!(heads(&found(&spec, None)), ["warning /mounts/2/destination"]);
}

#[test]
fn namespaces_and_what_depends_on_them() {
    let range = |inside: u64, outside: u64, size: u64| json!({ "containerID": inside, "hostID": outside, "size": size });
    let path = |kind: &str, path: &str| json!({ "type": kind, "path": path });
    let add = |value: Value, wanted: &'static str| ("/linux/namespaces/-", value, wanted);
    all_are_found(&[
        add(json!({}), "error /linux/namespaces/5/type"),
        add(json!({ "type": "disk" }), "error /linux/namespaces/5/type"),
        add(json!({ "type": "pid" }), "error /linux/namespaces/5/type"),
        add(json!({ "type": "cgroup" }), ""),
        add(path("cgroup", "/missing"), "error /linux/namespaces/5/path"),
        add(path("cgroup", "x"), "error /linux/namespaces/5/path"),
        add(path("cgroup", ""), "warning /linux/namespaces/5/path"),
        add(path("cgroup", "/proc/1/ns/uts"), "error /linux/namespaces/5/path"),
        add(path("cgroup", "/proc/1/ns/cgroup"), ""),
        add(path("cgroup", "/srv"), "error /linux/namespaces/5/path"),
        add(json!({ "type": "user" }), "warning /linux/uidMappings, warning /linux/gidMappings"),
        ("/linux/namespaces/3", json!({ "type": "cgroup" }), "warning /linux/namespaces"),
        ("/linux/namespaces/2", json!({ "type": "cgroup" }), "error /hostname"),
        ("/linux/uidMappings", json!([range(0, 0, 1)]), "error /linux/uidMappings"),
        ("/linux/timeOffsets", json!({ "boottime": { "secs": 1 } }), "error /linux/timeOffsets"),
        ("/linux/sysctl", json!({ "vm.x": "1" }), "error /linux/sysctl/vm.x"),
        ("/linux/sysctl", json!({ "net.a": 1 }), "error /linux/sysctl/net.a"),
        ("/linux/sysctl", json!({ "net.a": "1", "kernel/shmmax": "1" }), ""),
        ("/linux/sysctl", json!({ "kernel.hostname": "a" }), "error /linux/sysctl/kernel.hostname"),
        ("/linux/sysctl", json!({ "../x": "a" }), "error /linux/sysctl/..~1x"),
    ]);
    let mut spec = with(good(), "/linux/namespaces/4", json!({ "type": "user" }));
    spec = with(spec, "/linux/sysctl", json!({ "net.a": "1" }));
    spec = with(spec, "/linux/uidMappings", json!([range(0, 0, 10), range(5, 100, 1)]));
    spec = with(spec, "/linux/gidMappings", json!([range(0, 5, 10), range(10, 0, 6)]));
    assert_eq!(
        heads(&found(&spec, None)),
        [
            "error /linux/gidMappings/1/hostID",
            "error /linux/sysctl/net.a",
            "error /linux/uidMappings/1/containerID",
        ]
    );
    spec = with(spec, "/linux/sysctl", Value::Null);
    spec = with(spec, "/linux/uidMappings", json!([range(0, 0, 0)]));
    spec = with(spec, "/linux/gidMappings", json!([range(1, u64::from(u32::MAX), 2)]));
    assert_eq!(
        heads(&found(&spec, None)),
        ["error /linux/gidMappings/0/size", "error /linux/uidMappings/0/size"]
    );
}

#[test]
fn devices_and_paths() {
    let device = |path: &str, kind: &str, major: i64, mode: u32| json!([{ "path": path, "type": kind, "major": major, "minor": 3, "fileMode": mode }]);
    all_are_found(&[
        ("/linux/devices", device("/dev/x", "c", 1, 0o666), ""),
        ("/linux/devices", device("/dev/x", "c", 1, 0o20_666), ""),
        ("/linux/devices", device("/dev/x", "c", 1, 0o60_666), "error /linux/devices/0/fileMode"),
        ("/linux/devices", device("/dev/x", "x", 1, 0), "error /linux/devices/0/type"),
        ("/linux/devices", device("dev/x", "c", 1, 0), "error /linux/devices/0/path"),
        ("/linux/devices", device("/dev/x", "c", -1, 0), "error /linux/devices/0/major"),
        (
            "/linux/devices",
            json!([{ "path": "/dev/x", "type": "b", "minor": 1 }]),
            "error /linux/devices/0/major",
        ),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "p" }]), ""),
        (
            "/linux/devices",
            json!([{ "path": "/dev/x", "type": "p" }, { "path": "/dev/x", "type": "p" }]),
            "warning /linux/devices/1/path",
        ),
        (
            "/linux/devices",
            json!([{ "path": "/x", "type": "p" }, { "path": "/x", "type": "p", "uid": 1 }]),
            "error /linux/devices/1/path",
        ),
        ("/linux/maskedPaths", json!(["proc/x"]), "error /linux/maskedPaths/0"),
        ("/linux/readonlyPaths", json!(["/x", ""]), "error /linux/readonlyPaths/1"),
        ("/linux/rootfsPropagation", json!("both"), "error /linux/rootfsPropagation"),
        ("/linux/cgroupsPath", json!("/a/../b"), "error /linux/cgroupsPath"),
        ("/linux/cgroupsPath", json!("a.slice:b:c"), ""),
        ("/linux/personality", json!({ "domain": "SUN" }), "error /linux/personality/domain"),
        (
            "/linux/personality",
            json!({ "domain": "LINUX", "flags": ["X"] }),
            "warning /linux/personality/flags/0",
        ),
        ("/linux/intelRdt", json!({ "closID": "a/b" }), "error /linux/intelRdt/closID"),
        ("/linux/memoryPolicy", json!({ "mode": "MPOL_X" }), "error /linux/memoryPolicy/mode"),
    ]);
}

#[test]
fn filters_of_system_calls() {
    let rule = |extra: Value| {
        let mut rule = json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" });
        rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })
    };
    let condition =
        |index: u32, op: &str| rule(json!({ "args": [{ "index": index, "value": 1, "op": op }] }));
    let all = |value: Value| value;
    let at = "/linux/seccomp";
    all_are_found(&[
        (at, rule(json!({})), ""),
        (at, json!({}), "error /linux/seccomp/defaultAction"),
        (at, json!({ "defaultAction": "ALLOW" }), "error /linux/seccomp/defaultAction"),
        (
            at,
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x86_64"] }),
            "error /linux/seccomp/architectures/0",
        ),
        (
            at,
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"] }),
            "error /linux/seccomp/flags/0",
        ),
        (
            at,
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 }),
            "error /linux/seccomp/defaultErrnoRet",
        ),
        (
            at,
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096 }),
            "error /linux/seccomp/defaultErrnoRet",
        ),
        (
            at,
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x" }),
            "error /linux/seccomp/listenerMetadata",
        ),
        (at, all(rule(json!({ "names": [] }))), "error /linux/seccomp/syscalls/0/names"),
        (at, rule(json!({ "names": null })), "error /linux/seccomp/syscalls/0/names"),
        (at, rule(json!({ "names": ["MKDIR"] })), "warning /linux/seccomp/syscalls/0/names/0"),
        (at, rule(json!({ "names": ["s390_runtime_instr"] })), ""),
        (at, rule(json!({ "action": null })), "error /linux/seccomp/syscalls/0/action"),
        (
            at,
            rule(json!({ "action": "SCMP_ACT_NOTIFY" })),
            "error /linux/seccomp/syscalls/0/action",
        ),
        (
            at,
            rule(json!({ "action": "SCMP_ACT_KILL", "errnoRet": 1 })),
            "error /linux/seccomp/syscalls/0/errnoRet",
        ),
        (at, condition(6, "SCMP_CMP_EQ"), "error /linux/seccomp/syscalls/0/args/0/index"),
        (at, condition(5, "EQ"), "error /linux/seccomp/syscalls/0/args/0/op"),
        (
            at,
            condition(0, "SCMP_CMP_MASKED_EQ"),
            "warning /linux/seccomp/syscalls/0/args/0/valueTwo",
        ),
    ]);
}

#[test]
fn resources() {
    let (memory, cpu) = ("/linux/resources/memory", "/linux/resources/cpu");
    let huge = |size: &str| json!([{ "pageSize": size, "limit": 1 }]);
    let rule = |value: Value| json!([value]);
    let devices = "/linux/resources/devices";
    all_are_found(&[
        (memory, json!({ "limit": -2 }), "error /linux/resources/memory/limit"),
        (memory, json!({ "limit": -1, "swap": -1 }), ""),
        (memory, json!({ "limit": 0 }), "warning /linux/resources/memory/limit"),
        (memory, json!({ "limit": 4096 }), "warning /linux/resources/memory/limit"),
        (memory, json!({ "limit": "1g" }), "error /linux/resources/memory/limit"),
        (memory, json!({ "swap": 1_000_000 }), "error /linux/resources/memory/swap"),
        (
            memory,
            json!({ "limit": 2_000_000, "swap": 1_000_000 }),
            "error /linux/resources/memory/swap",
        ),
        (
            memory,
            json!({ "limit": 1_000_000, "reservation": 2_000_000 }),
            "warning /linux/resources/memory/reservation",
        ),
        (memory, json!({ "swappiness": 101 }), "error /linux/resources/memory/swappiness"),
        (memory, json!({ "kernel": 1 }), "warning /linux/resources/memory/kernel"),
        (cpu, json!({ "shares": -1 }), "error /linux/resources/cpu/shares"),
        (cpu, json!({ "shares": 1 }), "warning /linux/resources/cpu/shares"),
        (cpu, json!({ "quota": 1 }), "error /linux/resources/cpu/quota"),
        (cpu, json!({ "quota": -1, "period": 100_000 }), ""),
        (cpu, json!({ "period": 1 }), "error /linux/resources/cpu/period"),
        (cpu, json!({ "quota": 1000, "burst": 1001 }), "error /linux/resources/cpu/burst"),
        (cpu, json!({ "idle": 2 }), "error /linux/resources/cpu/idle"),
        (cpu, json!({ "cpus": "0-x" }), "error /linux/resources/cpu/cpus"),
        (
            cpu,
            json!({ "realtimeRuntime": 2, "realtimePeriod": 1 }),
            "error /linux/resources/cpu/realtimeRuntime",
        ),
        ("/linux/resources/pids", json!({ "limit": "x" }), "error /linux/resources/pids/limit"),
        (
            "/linux/resources/blockIO",
            json!({ "weight": 5 }),
            "warning /linux/resources/blockIO/weight",
        ),
        (
            "/linux/resources/blockIO",
            json!({ "weight": 1001 }),
            "error /linux/resources/blockIO/weight",
        ),
        (
            "/linux/resources/blockIO",
            json!({ "throttleReadBpsDevice": [{ "major": 8, "rate": 1 }] }),
            "error /linux/resources/blockIO/throttleReadBpsDevice/0/minor",
        ),
        ("/linux/resources/hugepageLimits", huge("2MB"), ""),
        (
            "/linux/resources/hugepageLimits",
            huge("2M"),
            "error /linux/resources/hugepageLimits/0/pageSize",
        ),
        (devices, rule(json!({ "access": "r" })), "error /linux/resources/devices/0/allow"),
        (devices, rule(json!({ "allow": true })), "error /linux/resources/devices/0/access"),
        (
            devices,
            rule(json!({ "allow": true, "access": "rx" })),
            "error /linux/resources/devices/0/access",
        ),
        (
            devices,
            rule(json!({ "allow": true, "access": "r", "type": "u" })),
            "error /linux/resources/devices/0/type",
        ),
        (
            devices,
            rule(json!({ "allow": true, "access": "r", "major": -1 })),
            "warning /linux/resources/devices/0/major",
        ),
        (
            "/linux/resources/network",
            json!({ "classID": 1u64 << 32 }),
            "error /linux/resources/network/classID",
        ),
        (
            "/linux/resources/unified",
            json!({ "memory.max": "1" }),
            "error /linux/resources/unified",
        ),
    ]);
    let spec = with(good(), "/linux/resources/unified", json!({ "memory.max": "1", "../x": "1" }));
    let (found, _) = check_text(spec.to_string().as_bytes(), &host(true), None);
    assert_eq!(heads(&found), ["error /linux/resources/unified/..~1x"]);
}

#[test]
fn what_no_runtime_minds_is_a_note() {
    for (pointer, value, wanted) in [
        ("/nosuch", json!(1), "/nosuch"),
        ("/process/argz", json!([]), "/process/argz"),
        ("/process/scheduler", json!({ "policy": "SCHED_OTHER" }), "/process/scheduler"),
        ("/process/env", json!(["A=1", "A=2"]), "/process/env/1"),
        ("/process/consoleSize", json!({ "height": 1, "width": 1 }), "/process/consoleSize"),
        ("/process/capabilities/ambient", json!(["CAP_KILL"]), "/process/capabilities/ambient"),
        ("/windows", json!({ "a": 1 }), "/windows"),
        (
            "/mounts/-",
            json!({ "destination": "/proc/", "type": "proc", "source": "p" }),
            "/mounts/1/destination",
        ),
    ] {
        let found = found(&with(good(), pointer, value), None);
        assert!(heads(&found).is_empty(), "{found:?}");
        assert!(found.iter().any(|finding| finding.pointer == wanted), "{pointer}: {found:?}");
    }
    let found = found(&with(good(), "/process/argz", json!([])), None);
    assert!(found[0].mend.contains("args may be meant"), "{found:?}");
}

#[test]
fn a_finding_names_line_and_column_of_the_value() {
    let text = "{\n  \"ociVersion\": \"1.0.2\",\n  \"ü\": 1, \"process\": {\n\t\"args\": [],\n\t\"cwd\": \
                7, \"a~b/c\": 1\n},\n \"root\": {\"path\": \"rootfs\"}, \"mounts\": [], \"linux\": {}}";
    let (found, _) = check_text(text.as_bytes(), &host(false), None);
    let place = |pointer: &str| {
        let finding = found.iter().find(|finding| finding.pointer == pointer).expect(pointer);
        (finding.line, finding.column)
    };
    assert_eq!(place("/ü"), (3, 8));
    assert_eq!(place("/process/args"), (4, 10));
    assert_eq!(place("/process/cwd"), (5, 9));
    assert_eq!(place("/process/a~0b~1c"), (5, 21));
    // What is missing is missing in there.
    assert_eq!(place("/process/user"), (3, 22));
    assert!(found.is_sorted_by_key(|finding| (finding.line, finding.column)));
}

#[test]
fn a_key_that_is_there_twice_is_told_with_both_places() {
    let text = good().to_string().replacen('{', "{\n\"hostname\": \"a\",\n", 1);
    let (found, _) = check_text(text.as_bytes(), &host(false), None);
    assert_eq!(heads(&found), ["warning /hostname"]);
    assert!(found[0].line == 3 && found[0].problem.contains("first in line 2"), "{found:?}");
    let text = good().to_string().replacen('{', "{\n\"process\": {},\n", 1);
    let (found, _) = check_text(text.as_bytes(), &host(false), None);
    assert_eq!(heads(&found), ["error /process"]);
}

#[test]
fn what_is_no_json_is_one_finding_with_its_place() {
    for (text, place) in [
        (&b""[..], (1, 1)),
        (b"{\n  \"a\": 1,\n}", (3, 1)),
        ("{\"\u{fc}\": x}".as_bytes(), (1, 7)),
        (b"{\"a\":\n \xff}", (2, 2)),
        (b"\xef\xbb\xbf{}", (1, 1)),
    ] {
        let (found, more) = check_text(text, &host(false), None);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!((finding.line, finding.column), place, "{finding:?}");
        assert_eq!((finding.level, finding.pointer.as_str(), more), (Level::Error, "", 0));
        assert!(!finding.problem.contains(" at line "), "{finding:?}");
    }
    for text in ["[]", "7", "null", "\"x\""] {
        let (found, _) = check_text(text.as_bytes(), &host(false), None);
        assert_eq!(heads(&found), ["error "], "{text}");
    }
}

#[test]
fn very_many_findings_are_counted_and_do_not_hide_an_error() {
    let mut spec = good();
    for number in 0..2000 {
        spec[format!("x{number}")] = json!(1);
    }
    spec["linux"]["sysctl"] = json!({ "vm.x": "1" });
    let (found, more) = check_text(spec.to_string().as_bytes(), &host(false), None);
    assert_eq!((found.len(), more), (501, 1500));
    assert_eq!(heads(&found), ["error /linux/sysctl/vm.x"]);
}

#[test]
fn what_the_supervisor_refuses_is_an_error_here() {
    for (pointer, value) in [
        ("/ociVersion", json!("0.9")),
        ("/process/args", json!([1])),
        ("/process/terminal", json!(1)),
        ("/root/path", json!(1)),
        ("/annotations", json!({ "a": 1 })),
        ("/linux/namespaces/0", json!({ "type": 1 })),
        ("/linux/cgroupsPath", json!([])),
    ] {
        let spec = with(good(), pointer, value);
        assert!(spec::parse(spec.to_string().as_bytes()).is_err(), "{pointer}");
        assert!(!heads(&found(&spec, None)).is_empty(), "{pointer}");
    }
}

#[test]
fn configs_that_containerd_and_kubernetes_have_written_are_valid_without_warnings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = 0;
    for case in fs::read_dir(folder).unwrap() {
        let case = case.unwrap().path();
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        // Made by hand, of all that there is.
        if ["everything-else", "mounts", "shared-and-mapped"].contains(&name.as_str()) {
            continue;
        }
        let text = fs::read(case.join("config.json")).unwrap();
        for backend in std::iter::once(None).chain(BackendName::ALL.map(Some)) {
            let host = host(name.ends_with("-v2"));
            let (found, _) = check_text(&text, &host, backend);
            // Somebody gave that one a name of his own.
            let wanted: &[&str] = if name == "pct-alone" { &["warning /hostname"] } else { &[] };
            assert_eq!(heads(&found), wanted, "{name} {backend:?}: {found:#?}");
        }
        seen += 1;
    }
    assert!(seen >= 10);
}

#[test]
fn a_backend_tells_all_that_it_refuses_and_what_it_makes_of_the_rest() {
    let mut spec = with(good(), "/linux/netDevices", json!({ "eth0": { "name": "e" } }));
    spec = with(spec, "/linux/mountLabel", json!("x"));
    spec = with(spec, "/process/cwd", json!("tmp"));
    for backend in [BackendName::Lxc, BackendName::Pct] {
        let all = found(&spec, Some(backend));
        assert_eq!(
            heads(&all),
            ["error /linux/mountLabel", "error /linux/netDevices", "error /process/cwd",],
            "{all:#?}"
        );
        let told = |pointer: &str| all.iter().find(|finding| finding.pointer == pointer).unwrap();
        assert!(told("/linux/mountLabel").problem.starts_with(&format!("{backend} refuses: LXC")));
        assert!(told("/hostname").problem.contains("`lxc.uts.name`"));
        // One complaint of the same thing.
        assert!(!told("/process/cwd").problem.contains("refuses"));
    }
    let mut spec = with(good(), "/ociVersion", json!("1.2.0"));
    spec = with(spec, "/process/scheduler", json!({ "policy": "SCHED_OTHER" }));
    for (backend, wanted) in
        [(BackendName::Crun, "crun before 1.8.5"), (BackendName::Runc, "runc before 1.2")]
    {
        let all = found(&spec, Some(backend));
        assert!(heads(&all).is_empty(), "{all:?}");
        assert!(all.iter().any(|finding| finding.problem.starts_with(wanted)), "{all:?}");
    }
    let spec = with(good(), "/root/path", json!("/a,b"));
    assert_eq!(heads(&found(&spec, Some(BackendName::Pct))), ["error /root/path"]);
}

/// The pointers of a shape's leaves, as patterns.
fn patterns(shape: &Shape, pointer: &str, out: &mut Vec<String>) {
    match shape {
        Shape::List(shape) | Shape::Map(shape) => patterns(shape, &format!("{pointer}/*"), out),
        Shape::Object(fields) => {
            for Field { name, shape, .. } in *fields {
                patterns(shape, &format!("{pointer}/{name}"), out);
            }
        }
        _ => out.push(pointer.to_owned()),
    }
}

#[test]
fn the_fields_are_those_of_the_table_for_guests() {
    let mut own = Vec::new();
    patterns(&schema::TOP, "", &mut own);
    for pattern in &own {
        let known = FIELDS.iter().any(|field| crate::guest::fields::fits(field.pointer, pattern));
        assert!(known, "{pattern} is not in guest::fields");
    }
    for field in FIELDS {
        let hit = own.iter().any(|pattern| crate::guest::fields::fits(field.pointer, pattern));
        assert!(hit, "{} is not in the schema", field.pointer);
    }
    assert!(own.len() > 180, "{}", own.len());
}

/// Any JSON, with the keys of runtime-spec at any place.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[-/.:=,~*a-c0-9\0]{0,8}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        "[-/.~a-c]{0,4}".prop_map(String::from),
        prop::sample::select(vec![
            "process",
            "args",
            "env",
            "linux",
            "namespaces",
            "type",
            "path",
            "mounts",
            "options",
            "destination",
            "resources",
            "memory",
            "limit",
            "seccomp",
            "syscalls",
            "names",
            "hooks",
        ])
        .prop_map(String::from),
    ];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every pointer of the schema, with a place in it for a list's item.
fn any_pointer() -> impl Strategy<Value = String> {
    let mut all = Vec::new();
    patterns(&schema::TOP, "", &mut all);
    (prop::sample::select(all), 0usize..4).prop_map(|(pattern, cut)| {
        let words: Vec<&str> = pattern.split('/').collect();
        words[..words.len().saturating_sub(cut).max(2)].join("/").replace('*', "-")
    })
}

/// Puts a value at a pointer and makes what it needs on the way.
fn force(spec: &mut Value, pointer: &str, value: Value) {
    let mut at = spec;
    for key in pointer.split('/').skip(1) {
        if key == "-" {
            if !at.is_array() {
                *at = json!([]);
            }
            let list = at.as_array_mut().unwrap();
            list.push(Value::Null);
            at = list.last_mut().unwrap();
        } else {
            if !at.is_object() {
                *at = json!({});
            }
            at = &mut at[key];
        }
    }
    *at = value;
}

proptest! {
    #[test]
    fn no_json_makes_it_panic_and_what_is_refused_elsewhere_is_an_error(
        pointer in any_pointer(),
        value in any_value(),
        backend in prop::option::of(prop::sample::select(BackendName::ALL.to_vec())),
    ) {
        let mut spec = good();
        force(&mut spec, &pointer, value);
        let text = spec.to_string();
        let (found, _) = check_text(text.as_bytes(), &host(false), backend);
        for finding in &found {
            prop_assert!(finding.line >= 1 && finding.column >= 1);
        }
        if spec::parse(text.as_bytes()).is_err() {
            prop_assert!(found.iter().any(|finding| finding.level == Level::Error), "{text}");
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[\\[\\]{}:,\"0-9.a\\\\\n ]{0,60}".prop_map(String::into_bytes),
    ]) {
        check_text(&text, &host(true), Some(BackendName::Lxc));
    }
}

#[test]
fn a_bundle_is_read_from_its_folder() {
    let bundle = tempfile::tempdir().unwrap();
    let error = check(bundle.path(), None).unwrap_err().to_string();
    assert!(error.contains("config.json: no such file"), "{error}");
    assert!(check(&bundle.path().join("none"), None).is_err());
    let config = bundle.path().join("config.json");
    fs::write(&config, good().to_string()).unwrap();
    let report = check(bundle.path(), None).unwrap();
    assert_eq!(heads(&report.findings), ["error /root/path"]);
    assert!(!report.is_valid());
    fs::create_dir(bundle.path().join("rootfs")).unwrap();
    let report = check(bundle.path(), None).unwrap();
    assert!(report.is_valid() && report.findings.is_empty(), "{report:?}");
    fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &config).unwrap();
    assert!(check(bundle.path(), None).unwrap_err().to_string().contains("symbolic link"));
}

#[test]
fn a_config_of_nothing_but_brackets_takes_no_time() {
    let text = format!("{{\"a\": {}{}}}", "[".repeat(100), "]".repeat(100));
    let (found, _) = check_text(text.as_bytes(), &host(false), None);
    assert!(found.iter().any(|finding| finding.pointer == "/a"));
}
