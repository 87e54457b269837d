//! `nexcage bundle validate` against what crun 1.8, crun 1.28 and runc 1.1 do with the same
//! bundles.

use crate::support::bed;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What each runtime does with a bundle, in the order of [`runtimes`]: `+` runs it, `-` refuses.
/// In front of that, what nexcage says of it: `+` valid, `?` valid with a warning, `-` invalid.
/// Where a runtime does not do what nexcage says, the last part is the reason why nexcage says it.
type Case = (&'static str, Value, &'static str, &'static str);

fn runtimes() -> [PathBuf; 3] {
    [bed::crun(), bed::folder().join("crun-1.28/crun"), bed::runc()]
}

const TYPES: &str = "crun takes a value of a wrong type for one that is missing";
const SPEC: &str = "runtime-spec forbids it, and the runtimes do not look";
const OLD: &str = "the field is newer than this runtime, which passes it over";
const RUNC: &str = "runc refuses, and crun does not mind";
const CRUN: &str = "crun refuses, and runc does not mind";
const GO: &str = "Go takes what is missing for an empty value";
const VERSIONS: &str = "nexcage takes 1.0.0 and later 1.x; crun dropped its check, runc has none";
const IDS: &str = "runc 1.2 and newer refuse: the ids are the host's, and were to be mapped";
const TEXT: &str = "nexcage reads annotations itself, and a value must be a text";

/// Why `create` and `run` refuse what both runtimes run: these reasons, and no others.
const REFUSED: [&str; 3] = [VERSIONS, IDS, TEXT];

/// A root of its own for each test: runtimes make places for mounts in it.
fn root(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    let status = Command::new("cp").arg("-a").arg(bed::rootfs()).arg(&root).status().unwrap();
    assert!(status.success());
    root
}

fn good(root: &Path, cgroup: &str) -> Value {
    let caps = json!(["CAP_CHOWN", "CAP_KILL"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": ["/bin/true"],
            "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true,
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
        },
        "root": { "path": root, "readonly": true },
        "hostname": "web-1",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            {
                "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "mode=755"],
            },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" },
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "network" },
            ],
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
        },
    })
}

/// Puts a value at a pointer, through objects that need not be there; `Null` takes one away.
fn put(spec: &mut Value, pointer: &str, value: &Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let place = parent.split('/').skip(1).fold(spec, |at, key| match at {
        Value::Array(list) => &mut list[key.parse::<usize>().unwrap()],
        at => &mut at[key],
    });
    match place {
        Value::Array(list) if key == "-" => list.push(value.clone()),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value.clone(),
        Value::Object(map) if value.is_null() => {
            map.remove(key);
        }
        place => place[key] = value.clone(),
    }
}

/// `nexcage bundle validate`: exit status and report.
fn validate(bundle: &Path, more: &[&str]) -> (i32, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_nexcage"))
        .args(["bundle", "validate", "--format", "json"])
        .args(more)
        .arg(bundle)
        .output()
        .unwrap();
    let status = output.status.code().unwrap();
    (status, serde_json::from_slice(&output.stdout).unwrap_or_default())
}

/// What `nexcage bundle validate` thinks of it: `-` wrong, `?` with a warning, `+` good; and its
/// report.
fn verdict(bundle: &Path) -> (char, Value) {
    let (status, report) = validate(bundle, &[]);
    assert_eq!(status, i32::from(report["valid"] != true), "{report}");
    let warned = report["warnings"].as_u64().unwrap() > 0;
    let verdict = match (status, warned) {
        (1, _) => '-',
        (_, true) => '?',
        (_, false) => '+',
    };
    (verdict, report)
}

/// Whether a runtime runs the bundle to its end.
fn runs(runtime: &Path, state: &Path, bundle: &Path, id: &str) -> (bool, String) {
    let command = |args: &[&str]| {
        let mut command = Command::new(runtime);
        command.arg("--root").arg(state).args(args).stdin(Stdio::null());
        command.output().unwrap()
    };
    let output = command(&["run", "--bundle", bundle.to_str().unwrap(), id]);
    command(&["delete", "--force", id]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Whether `nexcage run` on that crun does so, too.
fn made(crun: &Path, bundle: &Path, id: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexcage"));
    command.args(["--runtime-type", "crun", "run", "--bundle"]).arg(bundle).arg(id);
    command.env("PATH", crun.parent().unwrap()).stdin(Stdio::null());
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Removes the empty folders of a cgroup in every hierarchy.
fn remove_cgroups(name: &str) {
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let tops = hierarchies.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
    for top in tops {
        for inner in fs::read_dir(top.join(name)).into_iter().flatten().flatten() {
            // Files of a cgroup cannot be removed, and go with it.
            drop(fs::remove_dir(inner.path()));
        }
        drop(fs::remove_dir(top.join(name)));
    }
}

/// Runs every case, and tells all that is not as the table has it.
#[track_caller]
fn hold(name: &str, cases: &[Case]) {
    bed::check();
    let folder = tempfile::tempdir_in("/run").unwrap();
    let root = root(folder.path());
    let cgroup = format!("nexcage-{name}-{}", std::process::id());
    let mut problems = String::new();
    for (number, (pointer, value, wanted, why)) in cases.iter().enumerate() {
        let mut found = String::new();
        let mut told = String::new();
        let mut admitted = false;
        for (which, runtime) in runtimes().iter().enumerate() {
            let id = format!("{name}-{number}-{which}");
            let bundle = folder.path().join(&id);
            fs::create_dir(&bundle).unwrap();
            let mut spec = good(&root, &format!("/{cgroup}/{id}"));
            put(&mut spec, pointer, value);
            fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
            if which == 0 {
                let (verdict, report) = verdict(&bundle);
                found.push(verdict);
                let findings = report["findings"].as_array().unwrap();
                admitted = findings.iter().all(|finding| finding["refused"] == false);
            }
            let (ran, said) = runs(runtime, &folder.path().join(format!("s{which}")), &bundle, &id);
            found.push(if ran { '+' } else { '-' });
            told += &said;
            if which == 1 {
                let (ours, said) = made(runtime, &bundle, &id);
                if ours != (ran && admitted) {
                    problems += &format!("{pointer} {value}: run {ours}, crun {ran}: {said}\n");
                }
            }
        }
        if found.ends_with("++") && admitted == REFUSED.contains(why) {
            problems += &format!("{pointer} {value}: admitted {admitted}, and {found}\n");
        }
        if found != *wanted {
            problems += &format!("{pointer} {value}: wanted {wanted}, found {found}\n{told}\n");
        }
        let (ours, theirs) = wanted.split_at(1);
        let agrees = theirs.chars().all(|verdict| (verdict == '-') == (ours == "-"));
        assert_eq!(why.is_empty(), agrees, "{pointer} {value}: {wanted} {why}");
    }
    remove_cgroups(&cgroup);
    assert!(problems.is_empty(), "nexcage, crun 1.8, crun 1.28, runc 1.1:\n{problems}");
}

#[test]
fn the_top_and_the_process_are_judged_as_the_runtimes_do() {
    let cut = "crun cuts the text at the NUL";
    let limit =
        |soft: i64, hard: i64, kind: &str| json!([{ "type": kind, "soft": soft, "hard": hard }]);
    hold(
        "process",
        &[
            ("/ociVersion", json!("1.0.0"), "++++", ""),
            ("/ociVersion", json!("1.2.0"), "+-++", "crun before 1.14.3 takes 1.0 alone"),
            ("/ociVersion", Value::Null, "---+", GO),
            ("/ociVersion", json!("0.9"), "--++", VERSIONS),
            ("/ociVersion", json!("2.0.0"), "--++", VERSIONS),
            ("/ociVersion", json!("banana"), "--++", VERSIONS),
            ("/ociVersion", json!(1), "----", ""),
            ("/process", Value::Null, "----", ""),
            ("/process/args", Value::Null, "----", ""),
            ("/process/args", json!([]), "----", ""),
            ("/process/args", json!([""]), "----", ""),
            ("/process/args", json!("true"), "----", ""),
            ("/process/args", json!(["/bin/true", 1]), "-++-", TYPES),
            ("/process/args", json!(["/bin/true\0x"]), "-++-", cut),
            ("/process/cwd", Value::Null, "----", ""),
            ("/process/cwd", json!(""), "----", ""),
            ("/process/cwd", json!("tmp"), "-++-", SPEC),
            ("/process/env", json!(["A"]), "-++-", RUNC),
            ("/process/env", json!(["=x"]), "-++-", RUNC),
            ("/process/env", json!(["A=\0x"]), "-++-", cut),
            ("/process/env", json!(["A=1", "A=2"]), "++++", ""),
            ("/process/user", Value::Null, "?+++", ""),
            ("/process/user", json!({ "gid": 0 }), "-+++", SPEC),
            ("/process/user/uid", json!(-1), "----", ""),
            ("/process/user/uid", json!(u32::MAX), "-++-", "the kernel takes it for no change"),
            ("/process/user/uid", json!(3_000_000_000u32), "?++-", RUNC),
            ("/process/user/uid", json!(1u64 << 32), "----", ""),
            ("/process/user/uid", json!(1.5), "----", ""),
            ("/process/user/uid", json!("0"), "-++-", TYPES),
            ("/process/user/umask", json!(512), "?+++", ""),
            ("/process/rlimits", limit(1, 1, "RLIMIT_X"), "----", ""),
            ("/process/rlimits", limit(100, 100, "NOFILE"), "----", ""),
            ("/process/rlimits", limit(102, 100, "RLIMIT_NOFILE"), "----", ""),
            ("/process/capabilities/bounding", json!(["CAP_FLY"]), "?+++", ""),
            ("/process/capabilities/bounding/0", json!("chown"), "?+++", ""),
            ("/process/capabilities/ambient", json!(["CAP_CHOWN"]), "++++", ""),
            ("/process/capabilities/effective", json!(["CAP_SYS_ADMIN"]), "----", ""),
            ("/process/capabilities/inheritable", json!(["CAP_SYS_ADMIN"]), "----", ""),
            ("/process/capabilities", json!(["CAP_CHOWN"]), "-++-", TYPES),
            ("/process/capabilities", json!({}), "++++", ""),
            ("/process/oomScoreAdj", json!(1001), "----", ""),
            ("/process/terminal", json!("yes"), "-++-", TYPES),
            ("/process/ioPriority", json!({ "class": "X" }), "-+-+", OLD),
            ("/process/scheduler", json!({ "policy": "SCHED_X" }), "-+-+", OLD),
            ("/process/scheduler", json!({ "policy": "SCHED_OTHER", "priority": 4 }), "-+-+", OLD),
            ("/root", Value::Null, "----", ""),
            ("/root/path", Value::Null, "----", ""),
            ("/root/path", json!("rootfs"), "----", ""),
            ("/root/path", json!("config.json"), "----", ""),
            ("/root/path", json!("/"), "----", ""),
            ("/hostname", json!("a_b"), "?+++", ""),
            ("/hostname", json!("-a"), "?+++", ""),
            ("/hostname", json!(7), "-++-", TYPES),
            ("/hostname", json!("a".repeat(64)), "?+++", ""),
            ("/hostname", json!("a".repeat(65)), "----", ""),
            ("/domainname", json!("a_b"), "?+++", ""),
            ("/domainname", json!("a".repeat(65)), "---+", OLD),
            ("/hooks", json!({ "prestart": [{ "path": "true" }] }), "-++-", SPEC),
            (
                "/hooks",
                json!({ "prestart": [{ "path": "/none" }] }),
                "?---",
                "the hook may be there by the time it is run",
            ),
            ("/hooks", json!({ "prestart": [{}] }), "----", ""),
            ("/hooks", json!({ "nosuch": [{}] }), "++++", ""),
            ("/annotations", json!({ "": "x" }), "-+++", SPEC),
            ("/annotations", json!({ "a": 1 }), "----", ""),
            ("/annotations", json!({ "a": null }), "--++", TEXT),
            ("/nosuch", json!(1), "++++", ""),
            ("/process/Args", json!(["/bin/false"]), "?+++", ""),
            ("/vm", json!({ "kernel": { "path": "/x" } }), "++++", ""),
        ],
    );
}

#[test]
fn mounts_are_judged_as_the_runtimes_do() {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": destination, "type": kind, "source": source, "options": options });
    let tmpfs = |options: Value| json!({ "destination": "/tmp/x", "type": "tmpfs", "source": "t", "options": options });
    let at = "/mounts/-";
    let module = "the kernel may load a module for it";
    hold(
        "mounts",
        &[
            (
                "/mounts",
                Value::Null,
                "?---",
                "runtime-spec lets them be missing, and runc only fails for want of /dev",
            ),
            ("/mounts", json!({}), "----", ""),
            (at, json!(7), "----", ""),
            (at, json!({ "type": "tmpfs" }), "----", ""),
            (at, mount("tmp/x", "tmpfs", "t", &[]), "?+++", ""),
            (at, mount("", "tmpfs", "t", &[]), "----", ""),
            (at, mount("/", "tmpfs", "t", &[]), "----", ""),
            (at, mount("/tmp/../../tmp/x", "tmpfs", "t", &[]), "?+++", ""),
            (at, mount("/tmp", "tmpfs", "t", &[]), "++++", ""),
            (at, mount("/tmp/x", "nosuchfs", "t", &[]), "?---", module),
            (at, json!({ "destination": "/tmp/x", "source": "/etc" }), "----", ""),
            (
                at,
                mount("/tmp/x", "", "/etc", &[]),
                "-++-",
                "crun tells an empty type from a missing one, and its users cannot mean it",
            ),
            (at, mount("/tmp/x", "none", "/etc", &[]), "----", ""),
            (at, mount("/tmp/x", "bind", "/etc", &[]), "----", ""),
            (at, mount("/tmp/x", "none", "/etc", &["bind"]), "++++", ""),
            (at, mount("/tmp/x", "bind", ".", &["bind"]), "++++", ""),
            (at, mount("/tmp/x", "bind", "/none", &["bind"]), "----", ""),
            (at, mount("/tmp/x", "bind", "/etc", &["bind", "banana"]), "?+++", ""),
            (at, mount("/tmp/x", "bind", "/etc", &["rbind", "rro", "rprivate"]), "++++", ""),
            (at, tmpfs(json!(["banana"])), "?---", "a newer kernel may know the option"),
            (at, tmpfs(json!(["size=abc"])), "----", ""),
            (at, tmpfs(json!(["ro", "rw"])), "?+++", ""),
            (at, tmpfs(json!([""])), "++++", ""),
            (at, tmpfs(json!("ro")), "-++-", TYPES),
            (at, tmpfs(json!(["shared", "private"])), "?--+", CRUN),
        ],
    );
}

#[test]
fn linux_is_judged_as_the_runtimes_do() {
    let range = |inside: u32, outside: u32, size: u32| json!([{ "containerID": inside, "hostID": outside, "size": size }]);
    let device = |path: &str, kind: &str, major: i32, mode: u32| json!([{ "path": path, "type": kind, "major": major, "minor": 3, "fileMode": mode }]);
    let rule = |key: &str, value: Value| {
        let mut rule = json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" });
        put(&mut rule, &format!("/{key}"), &value);
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })
    };
    let condition =
        |index: u32, op: &str| rule("args", json!([{ "index": index, "value": 1, "op": op }]));
    let filter = |key: &str, value: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", key: value });
    let (namespace, seccomp) = ("/linux/namespaces/-", "/linux/seccomp");
    hold(
        "linux",
        &[
            (namespace, json!({ "type": "disk" }), "----", ""),
            (namespace, json!({}), "----", ""),
            (namespace, json!({ "type": "pid" }), "-+--", "crun before 1.18 takes the last one"),
            (namespace, json!({ "type": "user" }), "?++-", RUNC),
            ("/linux/namespaces/4/path", json!("/none"), "----", ""),
            ("/linux/namespaces/4/path", json!("proc/self/ns/net"), "----", ""),
            ("/linux/namespaces/4/path", json!("/proc/self/ns/uts"), "----", ""),
            ("/linux/namespaces/4/path", json!(""), "?--+", CRUN),
            ("/linux/namespaces/2", json!({ "type": "cgroup" }), "----", ""),
            ("/linux/uidMappings", range(0, 0, 1), "-+++", IDS),
            ("/linux/timeOffsets", json!({ "boottime": { "secs": 1 } }), "-+-+", OLD),
            ("/linux/cgroupsPath", json!(7), "-++-", TYPES),
            ("/linux/devices", device("/dev/q", "c", 1, 0o666), "++++", ""),
            ("/linux/devices", device("/dev/q", "x", 1, 0o666), "-++-", SPEC),
            ("/linux/devices", device("/dev/q", "c", -1, 0o666), "----", ""),
            ("/linux/devices", device("dev/q", "c", 1, 0o666), "---+", SPEC),
            ("/linux/devices", device("/dev/q", "c", 1, 0o10_000), "---+", "runc drops the bits"),
            ("/linux/devices", device("/dev/q", "c", 1, 0o20_666), "++++", ""),
            ("/linux/devices", json!([{ "path": "/dev/q", "type": "c" }]), "-+++", SPEC),
            ("/linux/devices", json!([{ "path": "/dev/q", "type": "p" }]), "++++", ""),
            ("/linux/devices", json!([{ "type": "c", "major": 1, "minor": 3 }]), "---+", GO),
            ("/linux/maskedPaths", json!(["proc/kcore"]), "-+++", SPEC),
            ("/linux/readonlyPaths", json!(["proc/sys"]), "-+++", SPEC),
            ("/linux/rootfsPropagation", json!("both"), "-++-", SPEC),
            ("/linux/personality", json!({ "domain": "SUN" }), "---+", OLD),
            ("/linux/sysctl", json!({ "vm.swappiness": "1" }), "----", ""),
            ("/linux/sysctl", json!({ "kernel.hostname": "x" }), "----", ""),
            ("/linux/sysctl", json!({ "net.ipv4.ip_forward": 1 }), "----", ""),
            ("/linux/sysctl", json!({ "net/ipv4/ip_forward": "1" }), "++++", ""),
            (seccomp, json!({}), "---+", GO),
            (seccomp, json!({ "defaultAction": "SCMP_ACT_X" }), "----", ""),
            (seccomp, filter("architectures", json!(["SCMP_ARCH_X"])), "----", ""),
            (seccomp, filter("architectures", json!(["x86_64"])), "-++-", SPEC),
            (seccomp, filter("flags", json!(["X"])), "----", ""),
            (seccomp, filter("defaultErrnoRet", json!(1)), "---+", SPEC),
            (seccomp, rule("names", json!(["nosuch"])), "++++", ""),
            (seccomp, rule("names", json!(["MKDIR "])), "?+++", ""),
            (seccomp, rule("names", json!([])), "-+++", SPEC),
            (seccomp, rule("names", Value::Null), "---+", GO),
            (seccomp, rule("action", Value::Null), "----", ""),
            (seccomp, rule("action", json!("SCMP_ACT_X")), "----", ""),
            (
                seccomp,
                rule("action", json!("SCMP_ACT_NOTIFY")),
                "-++-",
                "the call would fail for ever",
            ),
            (seccomp, rule("errnoRet", json!(4096)), "----", ""),
            (
                seccomp,
                json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 1 }],
                }),
                "---+",
                SPEC,
            ),
            (seccomp, condition(6, "SCMP_CMP_EQ"), "----", ""),
            (seccomp, condition(5, "EQ"), "----", ""),
            ("/linux/resources/memory", json!({ "limit": -2 }), "----", ""),
            ("/linux/resources/memory", json!({ "limit": "1g" }), "-++-", TYPES),
            ("/linux/resources/memory", json!({ "limit": 100_000_000.5 }), "----", ""),
            (
                "/linux/resources/memory",
                json!({ "limit": 100_000_000, "swap": 50_000_000 }),
                "----",
                "",
            ),
            ("/linux/resources/cpu", json!({ "quota": 1 }), "----", ""),
            ("/linux/resources/cpu", json!({ "period": 1 }), "----", ""),
            ("/linux/resources/cpu", json!({ "cpus": "x" }), "----", ""),
            (
                "/linux/resources/devices",
                json!([{ "allow": true, "type": "c", "access": "" }]),
                "----",
                "",
            ),
            ("/linux/resources/nosuch", json!({}), "++++", ""),
        ],
    );
}

#[test]
fn roots_that_lead_elsewhere_and_keys_that_are_there_twice() {
    bed::check();
    let folder = tempfile::tempdir_in("/run").unwrap();
    let root = root(folder.path());
    let cgroup = format!("nexcage-roots-{}", std::process::id());
    // What is done to the bundle, the root it names, and the verdicts as in a case.
    let within: fn(&Path, &Path) = |bundle, root| {
        fs::rename(root, bundle.join("rootfs")).unwrap();
    };
    let link: fn(&Path, &Path) = |bundle, root| {
        fs::rename(root, bundle.join("real")).unwrap();
        std::os::unix::fs::symlink("real", bundle.join("rootfs")).unwrap();
    };
    let out: fn(&Path, &Path) = |bundle, root| {
        std::os::unix::fs::symlink(root, bundle.join("rootfs")).unwrap();
    };
    let nothing: fn(&Path, &Path) = |_, _| {};
    for (number, (prepare, path, wanted)) in [
        (within, "rootfs", "++++"),
        // runc takes no link at all.
        (link, "rootfs", "?++-"),
        (out, "rootfs", "-++-"),
        // The runtimes do not mind where a root is; a bundle that names a root outside of it is
        // not what was handed over.
        (nothing, "../root", "-+++"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut found = String::new();
        for (which, runtime) in runtimes().iter().enumerate() {
            let id = format!("roots-{number}-{which}");
            let bundle = folder.path().join(&id);
            fs::create_dir(&bundle).unwrap();
            let spec = good(Path::new(path), &format!("/{cgroup}/{id}"));
            fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
            prepare(&bundle, &root);
            if which == 0 {
                found.push(verdict(&bundle).0);
            }
            let (ran, _) = runs(runtime, &folder.path().join(format!("s{which}")), &bundle, &id);
            found.push(if ran { '+' } else { '-' });
            for place in ["rootfs", "real"] {
                let place = bundle.join(place);
                if !place.is_symlink() && place.exists() {
                    fs::rename(place, &root).unwrap();
                }
            }
        }
        assert_eq!(found, wanted, "{number}: {path}");
    }
    // The parsers of JSON do not agree on a key that is there twice.
    let mut ran = Vec::new();
    for (which, runtime) in runtimes().iter().enumerate() {
        let id = format!("twice-{which}");
        let bundle = folder.path().join(&id);
        fs::create_dir(&bundle).unwrap();
        let spec = good(&root, &format!("/{cgroup}/{id}")).to_string();
        let twice = spec.replacen(
            "\"noNewPrivileges\"",
            "\"cwd\": \"/tmp/none/x\", \"noNewPrivileges\"",
            1,
        );
        fs::write(
            bundle.join("config.json"),
            twice.replace("/bin/true\"", "/bin/sh\",\"-c\",\"pwd\""),
        )
        .unwrap();
        let (status, report) = validate(&bundle, &[]);
        assert_eq!((status, &report["findings"][0]["pointer"]), (0, &json!("/process/cwd")));
        assert_eq!(report["warnings"], 1, "{report}");
        let (_, said) = runs(runtime, &folder.path().join(format!("s{which}")), &bundle, &id);
        ran.push(said.trim().to_owned());
    }
    assert_ne!(ran[0], ran[1], "{ran:?}");
    assert_eq!(ran[1], ran[2], "{ran:?}");
    remove_cgroups(&cgroup);
}

#[test]
fn what_the_runtimes_themselves_write_is_valid_without_warnings() {
    for runtime in runtimes() {
        let bundle = tempfile::tempdir().unwrap();
        fs::create_dir(bundle.path().join("rootfs")).unwrap();
        let status =
            Command::new(&runtime).arg("spec").current_dir(bundle.path()).status().unwrap();
        assert!(status.success());
        for backend in [&[][..], &["--backend", "crun"], &["--backend", "runc"]] {
            let (status, report) = validate(bundle.path(), backend);
            assert_eq!(status, 0, "{}: {report:#}", runtime.display());
            assert_eq!(report["warnings"], 0, "{}: {report:#}", runtime.display());
        }
    }
}

#[test]
fn the_verdict_is_the_exit_status() {
    let bundle = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexcage"));
        let output = command.args(["bundle", "validate"]).args(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let path = bundle.path().to_str().unwrap();
    let (status, out, err) = run(&[path]);
    assert!(status == 2 && out.is_empty() && err.contains("config.json: no such file"), "{err}");
    assert_eq!(run(&[path, "--backend", "docker"]).0, 2);
    assert_eq!(run(&[]).0, 2);
    fs::write(bundle.path().join("config.json"), "{\n \"ociVersion\": \"1.0.2\",\n}").unwrap();
    let (status, out, _) = run(&[path]);
    assert_eq!(status, 1);
    assert!(out.contains("config.json:3:1: error: this is no JSON: trailing comma"), "{out}");
    fs::create_dir(bundle.path().join("rootfs")).unwrap();
    let spec = good(Path::new("rootfs"), "/x");
    fs::write(bundle.path().join("config.json"), spec.to_string()).unwrap();
    let (status, out, err) = run(&[path]);
    assert!(status == 0 && out.ends_with("/config.json: valid\n") && err.is_empty(), "{out}{err}");
    // Nobody looks at colours in a pipe.
    assert!(!out.contains('\u{1b}'));
}
