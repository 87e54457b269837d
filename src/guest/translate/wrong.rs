//! Tests of what is refused, and that no value can become a line of its own.

use super::tests::host;
use super::*;
use crate::error::Kind;
use proptest::prelude::*;
use serde_json::json;

fn spec() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": { "args": ["true"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs" },
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "network" },
            ],
        },
    })
}

/// The spec with a value put at a pointer, through objects that need not be there.
fn with(mut spec: Value, pointer: &str, value: Value) -> Value {
    let place = pointer.split('/').skip(1).fold(&mut spec, |at, key| {
        let key = key.replace("~1", "/").replace("~0", "~");
        match at {
            Value::Array(list) => {
                let number: usize = key.parse().unwrap();
                if list.len() == number {
                    list.push(Value::Null);
                }
                &mut list[number]
            }
            at => &mut at[key.as_str()],
        }
    });
    *place = value;
    spec
}

fn translated(spec: &Value) -> Result<Translation> {
    translate(spec, &host(false))
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let mut half = mount("/x", "bind", "/x", &["bind"]);
    half["uidMappings"] = json!([{ "containerID": 0, "hostID": 7, "size": 1 }]);
    let mut none = half.clone();
    none["gidMappings"] = json!([{ "containerID": 0, "hostID": 7, "size": 0 }]);
    for (pointer, value, said) in [
        ("/process/args", json!([]), "/process/args: is empty"),
        ("/process/args", json!(["a\0b"]), "/process/args: \"a\\0b\" has a NUL"),
        ("/process/cwd", json!("tmp"), "/process/cwd: found \"tmp\", wanted an absolute path"),
        ("/process/user/uid", json!(-1), "/process/user/uid: found \"-1\", wanted a whole number"),
        ("/process/user/uid", json!(1u64 << 32), "/process/user/uid: found"),
        ("/process/user/umask", json!(0o1000), "/process/user/umask: is no mask"),
        ("/process/oomScoreAdj", json!(1001), "/process/oomScoreAdj: is not between"),
        (
            "/process/rlimits",
            json!([{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }]),
            "/process/rlimits/0/type",
        ),
        (
            "/process/rlimits",
            json!([{ "type": "RLIMIT_AS", "soft": 2, "hard": 1 }]),
            "/process/rlimits/0: soft 2",
        ),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            "/process/ioPriority/priority",
        ),
        ("/process/scheduler", json!({ "policy": "SCHED_X" }), "/process/scheduler/policy"),
        ("/process/consoleSize", json!({ "height": 65536 }), "/process/consoleSize/height"),
        (
            "/linux/namespaces/5",
            json!({ "type": "pid" }),
            "/linux/namespaces/5/type: pid is there twice",
        ),
        ("/linux/namespaces/5", json!({ "type": "disk" }), "/linux/namespaces/5/type: \"disk\""),
        (
            "/linux/namespaces/5",
            json!({ "type": "cgroup", "path": "x" }),
            "/linux/namespaces/5/path",
        ),
        ("/linux/namespaces/5", json!({ "type": "user" }), "/linux/uidMappings: is missing"),
        (
            "/linux/uidMappings",
            json!([{ "containerID": 0, "hostID": 1, "size": 1 }]),
            "/linux/uidMappings: is there",
        ),
        (
            "/linux/timeOffsets",
            json!({ "boottime": { "secs": 1 } }),
            "/linux/timeOffsets/boottime: is there",
        ),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "x" }]), "/linux/devices/0/type"),
        ("/linux/devices", json!([{ "path": "x", "type": "c" }]), "/linux/devices/0/path"),
        ("/linux/maskedPaths", json!(["proc"]), "/linux/maskedPaths/0"),
        ("/linux/rootfsPropagation", json!("both"), "/linux/rootfsPropagation: \"both\""),
        ("/linux/personality", json!({ "domain": "SUN" }), "/linux/personality/domain"),
        ("/linux/memoryPolicy", json!({ "mode": "MPOL_X" }), "/linux/memoryPolicy/mode: \"MPOL_X"),
        (
            "/linux/memoryPolicy",
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_X"] }),
            "/linux/memoryPolicy/flags/0",
        ),
        (
            "/linux/memoryPolicy",
            json!({ "mode": "MPOL_BIND", "nodes": "1-0" }),
            "/linux/memoryPolicy/nodes: \"1-0\" is no list of memory nodes",
        ),
        ("/hooks/prestart", json!([{ "path": "x" }]), "/hooks/prestart/0/path"),
        ("/hooks/poststop", json!([{ "path": "/x", "timeout": 0 }]), "/hooks/poststop/0/timeout"),
        ("/hostname", json!("x".repeat(65)), "/hostname: is longer"),
        ("/hostname", json!("a\nlxc.hook.start-host = b"), "/hostname: \"a\\nlxc"),
        ("/mounts", json!([mount("/x", "", "x", &[])]), "/mounts/0/type: is missing"),
        (
            "/mounts",
            json!([mount("/x", "bind", "/x", &["size=1"])]),
            "/mounts/0/options: \"size=1\"",
        ),
        ("/mounts", json!([mount("/x", "tmpfs", "x", &["create=dir"])]), "/mounts/0/options/0"),
        ("/mounts", json!([mount("/x", "tmpfs", "x", &["a,optional"])]), "/mounts/0/options/0"),
        ("/mounts", json!([mount("/x", "tmpfs", "#x", &[])]), "/mounts/0: the source begins"),
        ("/mounts", json!([mount("/x\t", "tmpfs", "x", &[])]), "/mounts/0/destination"),
        (
            "/mounts",
            json!([mount("/x", "overlay", "x", &[&"l".repeat(4096)])]),
            "/mounts/0/options: is longer",
        ),
        (
            "/mounts",
            json!([mount("/x", "tmpfs", &"x".repeat(4000), &[])]),
            "/mounts/0: LXC reads no mount",
        ),
        ("/mounts", json!({ "a": 1 }), "/mounts/a: found"),
        ("/mounts", json!([mount("/x", "bind", "/x", &["idmap"])]), "/mounts/0/options: the guest"),
        ("/mounts", json!([half]), "/mounts/0/gidMappings: is missing"),
        ("/mounts", json!([none]), "/mounts/0/gidMappings/0: is no range"),
    ] {
        let error = translated(&with(spec(), pointer, value)).err().expect(said);
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        assert!(error.to_string().starts_with(said), "{error}\nis not\n{said}");
    }
}

#[test]
fn what_lxc_cannot_have_is_refused_with_its_place() {
    let mapping = json!([{ "containerID": 0, "hostID": 7, "size": 1 }]);
    let mut mapped = mount("/x", "tmpfs", "x", &[]);
    mapped["uidMappings"] = mapping.clone();
    for (pointer, value, said) in [
        ("/linux/namespaces/3", json!({ "type": "cgroup" }), "/linux/namespaces: there is none"),
        (
            "/linux/namespaces/3",
            json!({ "type": "mount", "path": "/x" }),
            "/linux/namespaces/3/path",
        ),
        ("/linux/mountLabel", json!("x"), "/linux/mountLabel: "),
        ("/linux/seccomp/listenerPath", json!("/x"), "/linux/seccomp/listenerPath: "),
        (
            "/linux/sysctl",
            json!({ "vm.swappiness": "1" }),
            "/linux/sysctl/vm.swappiness: it is the",
        ),
        ("/linux/sysctl", json!({ "net/../vm/x": "1" }), "/linux/sysctl/net~1..~1vm~1x: "),
        ("/linux/sysctl", json!({ "net.a b": "1" }), "/linux/sysctl/net.a b: "),
        (
            "/linux/sysctl",
            json!({ "net/ipv4/conf/e.1/x": "1" }),
            "/linux/sysctl/net~1ipv4~1conf~1e.1~1x: ",
        ),
        ("/linux/personality", json!({ "flags": ["x"] }), "/linux/personality/flags: "),
        ("/mounts", json!([mount("/", "tmpfs", "x", &[])]), "/mounts/0/destination: nothing"),
        (
            "/mounts",
            json!([mount("/a/../..", "tmpfs", "x", &[])]),
            "/mounts/0/destination: nothing",
        ),
        (
            "/mounts",
            json!([mount("/dev", "bind", "/dev", &["rbind"])]),
            "/mounts/0/destination: a /dev",
        ),
        (
            "/mounts",
            json!([mount("/dev", "devtmpfs", "dev", &[])]),
            "/mounts/0/destination: the guest's",
        ),
        (
            "/mounts",
            json!([mount("/dev/.nexcage/x", "tmpfs", "x", &[])]),
            "/mounts/0/destination: the init's",
        ),
        ("/mounts", json!([mount("/dev", "tmpfs", "x", &["mode=1777"])]), "/mounts/0/options: LXC"),
        ("/mounts", json!([mount("/dev", "tmpfs", "x", &["size=2g"])]), "/mounts/0/options: LXC"),
        (
            "/mounts",
            json!([mount("/dev/pts", "devpts", "x", &["gid=6"])]),
            "/mounts/0/options: LXC",
        ),
        ("/mounts", json!([mount("/pts", "devpts", "x", &[])]), "/mounts/0/destination: LXC"),
        ("/mounts", json!([mount("/cg", "cgroup", "x", &[])]), "/mounts/0/destination: LXC"),
        (
            "/mounts",
            json!([
                mount("/sys/fs/cgroup", "cgroup", "x", &[]),
                mount("/sys/fs/cgroup/a", "tmpfs", "x", &[])
            ]),
            "/mounts/1/destination: LXC",
        ),
        ("/mounts", json!([mount("/x", "tmpfs", "x", &["tmpcopyup"])]), "/mounts/0/options/0: LXC"),
        ("/mounts", json!([mount("/x", "tmpfs", "x", &["idmap"])]), "/mounts/0/options: only"),
        (
            "/mounts",
            json!([mount("/x", "tmpfs", "x", &["sync"])]),
            "/mounts/0/options/0: LXC mounts",
        ),
        ("/mounts", json!([mapped]), "/mounts/0/uidMappings: only"),
    ] {
        let found = translated(&with(spec(), pointer, value));
        let error = found.err().expect(said);
        assert_eq!(error.kind(), Kind::Unimplemented, "{error}");
        assert!(error.to_string().starts_with(said), "{error}\nis not\n{said}");
    }
    let inside = [mount("/x", "bind", "/x", &["rshared"]), mount("/x/y", "tmpfs", "y", &[])];
    let inside = with(spec(), "/mounts", json!(inside));
    translated(&inside).unwrap();
    let error = translated(&with(inside, "/linux/rootfsPropagation", json!("rshared")));
    let error = error.err().unwrap().to_string();
    assert!(error.starts_with("/mounts/1/destination: LXC mounts it before"), "{error}");
    let mut inside = vec![
        mount("/v", "bind", "/var/lib/kubelet/pods/0a/volumes/data", &["rbind"]),
        mount("/v/t", "tmpfs", "x", &[]),
    ];
    assert!(translated(&with(spec(), "/mounts", json!(inside))).is_ok());
    inside.push(mount("/v/t/t", "tmpfs", "x", &[]));
    let error = translated(&with(spec(), "/mounts", json!(inside))).err().unwrap().to_string();
    let said = "/mounts/2/destination: \"/v/t\" is in a volume";
    assert!(error.starts_with(said), "{error}");
    let missing = with(spec(), "/mounts", json!([mount("/x", "bind", "/missing", &[])]));
    assert_eq!(translated(&missing).err().unwrap().kind(), Kind::NotFound);
}

#[test]
fn names_and_sysctls_of_the_host_are_not_changed() {
    for (without, pointer, value) in [
        ("uts", "/hostname", json!("x")),
        ("uts", "/domainname", json!("x")),
        ("uts", "/linux/sysctl", json!({ "kernel.hostname": "x" })),
        ("ipc", "/linux/sysctl", json!({ "kernel.shmmax": "1" })),
        ("ipc", "/linux/sysctl", json!({ "fs.mqueue.msg_max": "1" })),
        ("network", "/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" })),
    ] {
        let mut spec = with(spec(), pointer, value);
        translated(&spec).unwrap();
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != without);
        let error = translated(&spec).err().unwrap();
        assert_eq!(error.kind(), Kind::Unimplemented);
        assert!(error.to_string().starts_with(pointer), "{error}");
    }
}

#[test]
fn a_namespace_that_is_absent_is_the_hosts_and_one_with_a_path_is_shared() {
    let mut spec = spec();
    spec["linux"]["namespaces"] = json!([
        { "type": "mount", "path": "" }, { "type": "pid", "path": "/proc/1/ns/pid" },
        { "type": "uts" }, { "type": "network", "path": "/run/netns/a b" },
    ]);
    let found = translated(&spec).unwrap();
    let lines: Vec<&str> =
        found.config.lines().filter(|line| line.starts_with("lxc.name")).collect();
    assert_eq!(
        lines,
        [
            "lxc.namespace.share.pid = /proc/1/ns/pid",
            "lxc.namespace.share.net = /run/netns/a b",
            "lxc.namespace.keep = user ipc cgroup time",
        ]
    );
    assert!(!found.config.contains("lxc.net."));
}

#[test]
fn cgroups_of_version_2_are_mounted_in_whichever_namespace_they_are_seen_from() {
    let seen = |own: bool, cgroup2: bool| {
        let mut spec = spec();
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "cgroup");
        if own {
            namespaces.push(json!({ "type": "cgroup" }));
        }
        spec["mounts"] = json!([
            { "destination": "/sys", "type": "sysfs", "source": "sysfs" },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["ro", "nosuid"] },
        ]);
        let mut host = super::tests::host(false);
        host.cgroup2 = cgroup2;
        translate(&spec, &host).unwrap().config
    };
    let line = "lxc.mount.entry = cgroup2 sys/fs/cgroup cgroup2 ro,nosuid 0 0\n";
    for (own, cgroup2) in [(true, true), (true, false), (false, false)] {
        let config = seen(own, cgroup2);
        assert!(config.contains("lxc.mount.auto = cgroup:ro:force"), "{config}");
        assert!(!config.contains(line), "{config}");
    }
    let config = seen(false, true);
    assert!(config.contains(line) && !config.contains("lxc.mount.auto"), "{config}");
}

#[test]
fn an_exec_has_the_containers_confinement_unless_it_says_otherwise() {
    let container = with(spec(), "/linux/personality", json!({ "domain": "LINUX32" }));
    let container = with(container, "/process/apparmorProfile", json!("a"));
    let container = with(container, "/process/execCPUAffinity", json!({ "final": "1,3-4" }));
    let own = json!({ "args": ["sh"], "cwd": "/", "user": { "uid": 5 } });
    let (found, _) = exec_process(&own, &container).unwrap();
    assert_eq!(found.apparmor.as_deref(), Some("a"));
    assert_eq!(found.personality, Some(8));
    assert_eq!((found.cpus_initial, found.cpus_final), (vec![], vec![1, 3, 4]));
    assert_eq!((found.uid, found.capabilities), (5, None));
    let other = json!({ "args": ["sh"], "cwd": "/", "apparmorProfile": "b",
        "execCPUAffinity": { "initial": "0" } });
    let (found, _) = exec_process(&other, &container).unwrap();
    assert_eq!(found.apparmor.as_deref(), Some("b"));
    assert_eq!((found.cpus_initial, found.cpus_final), (vec![0], vec![]));
    // Only execs have it.
    assert!(translated(&container).unwrap().process.cpus_final.is_empty());
    let unknown = json!({ "args": ["sh"], "cwd": "/", "future": 1 });
    assert!(exec_process(&unknown, &container).unwrap_err().to_string().starts_with("/process/fu"));
    for cpus in ["a", "3-1", "1-", "9999"] {
        let own = with(own.clone(), "/execCPUAffinity", json!({ "final": cpus }));
        let error = exec_process(&own, &container).unwrap_err().to_string();
        assert!(error.starts_with("/process/execCPUAffinity/final: "), "{error}");
    }
}

/// A line as LXC reads it: key and value.
fn read_line(line: &str) -> (&str, &str) {
    let (key, value) = line.split_once('=').unwrap();
    let blank = |char: char| " \t".contains(char);
    let value = value.trim_matches(blank);
    let quote = value.chars().next().filter(|char| "'\"".contains(*char));
    let inner = quote.and_then(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    (key.trim_matches(blank), inner.unwrap_or(value))
}

/// A word of fstab(5) as glibc reads it.
fn read_word(word: &str) -> String {
    word.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// What writers of traps would write, beside anything else.
fn text() -> impl Strategy<Value = String> {
    let trap = prop_oneof![
        Just("\nlxc.hook.start-host = x".to_owned()),
        Just("\rlxc.init.cmd = x".to_owned()),
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just(" ".to_owned()),
        Just("\t".to_owned()),
        Just("\\040".to_owned()),
        Just("#".to_owned()),
        Just("=".to_owned()),
        Just(",ro".to_owned()),
        Just("\0".to_owned()),
        "[a-z/.]{1,6}",
        any::<char>().prop_map(|char| char.to_string()),
    ];
    proptest::collection::vec(trap, 1..5).prop_map(|parts| parts.concat())
}

/// A spec with texts in all places that LXC's configuration has a value of.
fn of_texts(texts: &[String]) -> Value {
    let [name, source, destination, kind, data, path, sysctl, halt] = texts else { panic!() };
    let mut spec = spec();
    spec["hostname"] = json!(name);
    spec["linux"]["namespaces"][0]["path"] = json!(format!("/{path}"));
    spec["linux"]["sysctl"] = json!({ "net.x": sysctl });
    spec["annotations"] = json!({ STOP_SIGNAL: halt });
    spec["mounts"] = json!([
        mount(&format!("/m/{destination}"), kind, source, &[data]),
        mount(&format!("/n/{destination}"), "bind", &format!("/{source}"), &["rbind"]),
    ]);
    spec
}

proptest! {
    #[test]
    fn no_text_adds_or_changes_a_line(texts in proptest::collection::vec(text(), 8)) {
        let plain = ["a", "b", "c", "d", "e", "f", "g", "h"].map(str::to_owned);
        let usual = translated(&of_texts(&plain)).unwrap().config;
        // One place alone, so that one that is refused does not hide the others.
        for place in 0..texts.len() {
            let mut some = plain.clone();
            some[place].clone_from(&texts[place]);
            let Ok(found) = translated(&of_texts(&some)) else { continue };
            let found = found.config;
            prop_assert!(!found.chars().any(|char| char.is_control() && char != '\n'));
            let keys = |text: &str| -> Vec<String> {
                text.lines().map(|line| read_line(line).0.to_owned()).collect()
            };
            prop_assert_eq!(keys(&found), keys(&usual));
            let value = |key: &str| found.lines().map(read_line).find(|line| line.0 == key).unwrap().1;
            let [name, source, _, kind, data, path, sysctl, _] = &some;
            prop_assert_eq!(value("lxc.uts.name"), name);
            prop_assert_eq!(value("lxc.sysctl.net.x"), sysctl);
            prop_assert_eq!(value("lxc.namespace.share.pid"), format!("/{path}"));
            let entries: Vec<&str> = found.lines().map(read_line)
                .filter(|line| line.0 == "lxc.mount.entry").map(|line| line.1).collect();
            for (entry, source, kind) in [
                (entries[0], source.clone(), kind.as_str()),
                (entries[1], format!("/{source}"), "none"),
            ] {
                let words: Vec<String> = entry.split(' ').map(read_word).collect();
                prop_assert_eq!(words.len(), 6, "{}", entry);
                prop_assert_eq!(&words[0], &source);
                prop_assert!(!words[0].starts_with('#'));
                prop_assert_eq!(&words[2], kind);
            }
            let options = entries[0].split(' ').map(read_word).nth(3).unwrap();
            prop_assert_eq!(&options, data);
        }
    }

    #[test]
    fn no_name_of_a_sysctl_is_another_key(name in text()) {
        let mut spec = spec();
        spec["linux"]["sysctl"] = json!({ format!("net.{name}"): "1" });
        if let Ok(found) = translated(&spec) {
            let key = format!("lxc.sysctl.net.{name} = 1");
            prop_assert_eq!(found.config.lines().filter(|line| *line == key).count(), 1);
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
        }
    }
}
