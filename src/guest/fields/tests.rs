use super::*;
use crate::error::Kind;
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// runtime-spec 1.3: config.md, config-linux.md and its schema. `*` is any key or number.
const SPEC: &str = "
ociVersion hostname domainname annotations/*
root/path root/readonly
mounts/*/destination mounts/*/type mounts/*/source mounts/*/options/*
mounts/*/uidMappings/*/containerID mounts/*/uidMappings/*/hostID mounts/*/uidMappings/*/size
mounts/*/gidMappings/*/containerID mounts/*/gidMappings/*/hostID mounts/*/gidMappings/*/size
process/terminal process/consoleSize/height process/consoleSize/width process/cwd process/env/*
process/args/* process/commandLine process/rlimits/*/type process/rlimits/*/soft
process/rlimits/*/hard process/apparmorProfile process/capabilities/effective/*
process/capabilities/bounding/* process/capabilities/inheritable/*
process/capabilities/permitted/* process/capabilities/ambient/* process/noNewPrivileges
process/oomScoreAdj process/scheduler/policy process/scheduler/nice process/scheduler/priority
process/scheduler/flags/* process/scheduler/runtime process/scheduler/deadline
process/scheduler/period process/selinuxLabel process/ioPriority/class
process/ioPriority/priority process/execCPUAffinity/initial process/execCPUAffinity/final
process/user/uid process/user/gid process/user/umask process/user/additionalGids/*
process/user/username
hooks/prestart/*/path hooks/prestart/*/args/* hooks/prestart/*/env/* hooks/prestart/*/timeout
hooks/createRuntime/*/path hooks/createRuntime/*/args/* hooks/createRuntime/*/env/*
hooks/createRuntime/*/timeout hooks/createContainer/*/path hooks/createContainer/*/args/*
hooks/createContainer/*/env/* hooks/createContainer/*/timeout hooks/startContainer/*/path
hooks/startContainer/*/args/* hooks/startContainer/*/env/* hooks/startContainer/*/timeout
hooks/poststart/*/path hooks/poststart/*/args/* hooks/poststart/*/env/*
hooks/poststart/*/timeout hooks/poststop/*/path hooks/poststop/*/args/* hooks/poststop/*/env/*
hooks/poststop/*/timeout
linux/namespaces/*/type linux/namespaces/*/path
linux/uidMappings/*/containerID linux/uidMappings/*/hostID linux/uidMappings/*/size
linux/gidMappings/*/containerID linux/gidMappings/*/hostID linux/gidMappings/*/size
linux/timeOffsets/monotonic/secs linux/timeOffsets/monotonic/nanosecs
linux/timeOffsets/boottime/secs linux/timeOffsets/boottime/nanosecs
linux/devices/*/type linux/devices/*/path linux/devices/*/major linux/devices/*/minor
linux/devices/*/fileMode linux/devices/*/uid linux/devices/*/gid
linux/netDevices/*/name linux/cgroupsPath linux/rootfsPropagation linux/maskedPaths/*
linux/readonlyPaths/* linux/mountLabel linux/personality/domain linux/personality/flags/*
linux/sysctl/* linux/memoryPolicy/mode linux/memoryPolicy/nodes linux/memoryPolicy/flags/*
linux/intelRdt/closID linux/intelRdt/schemata/* linux/intelRdt/l3CacheSchema
linux/intelRdt/memBwSchema linux/intelRdt/enableMonitoring linux/intelRdt/enableCMT
linux/intelRdt/enableMBM
linux/seccomp/defaultAction linux/seccomp/defaultErrnoRet linux/seccomp/architectures/*
linux/seccomp/flags/* linux/seccomp/listenerPath linux/seccomp/listenerMetadata
linux/seccomp/syscalls/*/names/* linux/seccomp/syscalls/*/action
linux/seccomp/syscalls/*/errnoRet linux/seccomp/syscalls/*/args/*/index
linux/seccomp/syscalls/*/args/*/value linux/seccomp/syscalls/*/args/*/valueTwo
linux/seccomp/syscalls/*/args/*/op
linux/resources/devices/*/allow linux/resources/devices/*/type linux/resources/devices/*/major
linux/resources/devices/*/minor linux/resources/devices/*/access
linux/resources/memory/limit linux/resources/memory/reservation linux/resources/memory/swap
linux/resources/memory/kernel linux/resources/memory/kernelTCP
linux/resources/memory/swappiness linux/resources/memory/disableOOMKiller
linux/resources/memory/useHierarchy linux/resources/memory/checkBeforeUpdate
linux/resources/cpu/shares linux/resources/cpu/quota linux/resources/cpu/burst
linux/resources/cpu/period linux/resources/cpu/realtimeRuntime
linux/resources/cpu/realtimePeriod linux/resources/cpu/cpus linux/resources/cpu/mems
linux/resources/cpu/idle linux/resources/pids/limit
linux/resources/blockIO/weight linux/resources/blockIO/leafWeight
linux/resources/blockIO/weightDevice/*/major linux/resources/blockIO/weightDevice/*/minor
linux/resources/blockIO/weightDevice/*/weight linux/resources/blockIO/weightDevice/*/leafWeight
linux/resources/blockIO/throttleReadBpsDevice/*/major
linux/resources/blockIO/throttleReadBpsDevice/*/minor
linux/resources/blockIO/throttleReadBpsDevice/*/rate
linux/resources/blockIO/throttleWriteBpsDevice/*/major
linux/resources/blockIO/throttleWriteBpsDevice/*/minor
linux/resources/blockIO/throttleWriteBpsDevice/*/rate
linux/resources/blockIO/throttleReadIOPSDevice/*/major
linux/resources/blockIO/throttleReadIOPSDevice/*/minor
linux/resources/blockIO/throttleReadIOPSDevice/*/rate
linux/resources/blockIO/throttleWriteIOPSDevice/*/major
linux/resources/blockIO/throttleWriteIOPSDevice/*/minor
linux/resources/blockIO/throttleWriteIOPSDevice/*/rate
linux/resources/hugepageLimits/*/pageSize linux/resources/hugepageLimits/*/limit
linux/resources/network/classID linux/resources/network/priorities/*/name
linux/resources/network/priorities/*/priority linux/resources/rdma/*/hcaHandles
linux/resources/rdma/*/hcaObjects linux/resources/unified/*
solaris/milestone windows/layerFolders/* vm/hypervisor/path zos/namespaces/*/type
freebsd/jail/parent
";

/// All pointers that a pattern with braces means.
fn expand(pattern: &str) -> Vec<String> {
    let Some((head, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let (words, tail) = rest.split_once('}').unwrap();
    let tails = expand(tail);
    words
        .split(',')
        .flat_map(|word| tails.iter().map(move |tail| format!("{head}{word}{tail}")))
        .collect()
}

#[test]
fn every_field_of_runtime_spec_is_in_the_table_and_nothing_else() {
    let spec: BTreeSet<String> = SPEC.split_whitespace().map(|word| format!("/{word}")).collect();
    for pointer in &spec {
        assert!(find(pointer).is_some(), "{pointer} is missing");
    }
    let table: Vec<String> = FIELDS.iter().flat_map(|field| expand(field.pointer)).collect();
    let unique: BTreeSet<&String> = table.iter().collect();
    assert_eq!(unique.len(), table.len(), "something is there twice");
    for pattern in &table {
        let whole = pattern.strip_suffix("/**");
        let known = match whole {
            Some(whole) => spec.iter().any(|pointer| pointer.starts_with(whole)),
            None => spec.contains(pattern),
        };
        assert!(known, "{pattern} is no field of runtime-spec");
    }
}

/// The table of ARCHITECTURE.md.
fn markdown() -> String {
    let mut out = "| field | by | how, or why not |\n|---|---|---|\n".to_owned();
    for Field { pointer, how } in FIELDS {
        let (by, text) = match how {
            How::Lxc(text) => ("LXC", text),
            How::Init(text) => ("init", text),
            How::Supervisor(text) => ("supervisor", text),
            How::Refused(text) => ("refused", text),
        };
        out.push_str(&format!("| `{pointer}` | {by} | {text} |\n"));
    }
    out
}

#[test]
fn the_architecture_shows_this_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ARCHITECTURE.md");
    let text = fs::read_to_string(&path).unwrap();
    let heading = "### With lxc and pct\n";
    let (before, after) = text.split_once(heading).expect("the heading is there");
    let start = after.find("| field |").expect("the table is there");
    let end = after[start..].find("\n\n").map_or(after.len(), |end| start + end + 1);
    if std::env::var_os("NEXCAGE_GOLDEN").is_some_and(|value| value == "write") {
        let (intro, rest) = (&after[..start], &after[end..]);
        fs::write(&path, format!("{before}{heading}{intro}{}{rest}", markdown())).unwrap();
        return;
    }
    assert_eq!(after[start..end], markdown(), "NEXCAGE_GOLDEN=write writes it anew");
}

#[test]
fn a_field_that_is_not_known_is_refused_with_its_place() {
    let said = |spec: Value| check(&spec, "").unwrap_err();
    for (spec, pointer) in [
        (json!({ "linux": { "futureLimit": 1 } }), "/linux/futureLimit: "),
        (json!({ "process": { "args": ["a", { "b": false }] } }), "/process/args/1/b: "),
        (json!({ "mounts": [{}, { "flags": ["x"] }] }), "/mounts/1/flags/0: "),
        (json!({ "x/y~": { "z\n": 0 } }), "/x~1y~0/z\\n: "),
        (json!({ "process": { "user": { "uid": [0] } } }), "/process/user/uid/0: "),
        (json!({ "hostname": { "a": 1 } }), "/hostname/a: "),
        (json!(["a"]), "/0: "),
    ] {
        let error = said(spec);
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.to_string().starts_with(pointer), "{error}");
    }
}

#[test]
fn what_cannot_be_had_is_refused_only_where_it_is_wanted() {
    for (spec, pointer) in [
        (json!({ "windows": { "servicing": true } }), "/windows: "),
        (json!({ "linux": { "intelRdt": { "closID": "a" } } }), "/linux/intelRdt: "),
        (json!({ "linux": { "mountLabel": "a" } }), "/linux/mountLabel: "),
        (json!({ "process": { "user": { "username": "a" } } }), "/process/user/username: "),
    ] {
        let error = check(&spec, "").unwrap_err();
        assert_eq!(error.kind(), Kind::Unimplemented);
        assert!(error.to_string().starts_with(pointer), "{error}");
    }
    for spec in [
        json!({ "windows": {}, "linux": { "intelRdt": null, "mountLabel": "" } }),
        json!({ "future": null, "linux": { "more": [], "still": {}, "words": "" } }),
    ] {
        check(&spec, "").unwrap();
    }
}
