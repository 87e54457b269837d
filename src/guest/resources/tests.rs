//! What is written to which file, and what is said about values that cannot be had.

use super::*;
use crate::error::Kind;
use proptest::prelude::*;
use serde_json::json;

/// Every write as "file=value", with a question mark where the file may be missing.
fn written(resources: &Value, cgroup2: bool) -> Vec<String> {
    let line = |setting: Setting| {
        let mark = if setting.optional { "?" } else { "" };
        format!("{}{mark}={}", setting.file, setting.value)
    };
    settings(resources, cgroup2).unwrap().into_iter().map(line).collect()
}

fn refused(resources: &Value, cgroup2: bool) -> Error {
    let error = settings(resources, cgroup2).unwrap_err();
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

/// Checks each part against what is written for it in v1 and in v2.
fn check(table: &[(Value, &[&str], &[&str])]) {
    for (resources, v1, v2) in table {
        assert_eq!(written(resources, false), *v1, "v1: {resources}");
        assert_eq!(written(resources, true), *v2, "v2: {resources}");
    }
}

/// That these are refused with that pointer in front, in v1, v2 or both.
fn check_refused(kind: Kind, table: &[(Value, &[bool], &str)]) {
    for (resources, versions, start) in table {
        for cgroup2 in *versions {
            let error = refused(resources, *cgroup2);
            assert!(error.to_string().starts_with(start), "{resources}: {error}");
            assert_eq!(error.kind(), kind, "{resources}: {error}");
        }
    }
}

const V1: &[bool] = &[false];
const V2: &[bool] = &[true];
const BOTH: &[bool] = &[false, true];

#[test]
fn memory_is_written_in_the_units_of_each_version() {
    let memory = |memory: Value| json!({ "memory": memory });
    check(&[
        (
            memory(json!({"limit": 64 << 20})),
            &["memory.limit_in_bytes=67108864"],
            &["memory.max=67108864"],
        ),
        (
            memory(json!({"limit": 1000, "swap": 1500, "reservation": 500})),
            &[
                "memory.limit_in_bytes=1000",
                "memory.memsw.limit_in_bytes=1500",
                "memory.soft_limit_in_bytes=500",
            ],
            &["memory.max=1000", "memory.swap.max=500", "memory.low=500"],
        ),
        (
            memory(json!({"limit": 1000, "swap": 1000})),
            &["memory.limit_in_bytes=1000", "memory.memsw.limit_in_bytes=1000"],
            &["memory.max=1000", "memory.swap.max?=0"],
        ),
        (
            memory(json!({"limit": 1000, "swap": -1})),
            &["memory.limit_in_bytes=1000", "memory.memsw.limit_in_bytes?=-1"],
            &["memory.max=1000", "memory.swap.max?=max"],
        ),
        (
            memory(json!({"limit": -1, "reservation": -1})),
            &[
                "memory.limit_in_bytes=-1",
                "memory.memsw.limit_in_bytes?=-1",
                "memory.soft_limit_in_bytes=-1",
            ],
            &["memory.max=max", "memory.swap.max?=max", "memory.low=max"],
        ),
        (
            memory(json!({"kernelTCP": -1, "kernel": -1, "useHierarchy": true})),
            &["memory.kmem.tcp.limit_in_bytes?=-1"],
            &[],
        ),
        (
            memory(json!({"disableOOMKiller": false, "checkBeforeUpdate": false})),
            &["memory.oom_control?=0"],
            &[],
        ),
    ]);
    let legacy = json!({
        "kernelTCP": 9, "swappiness": 0, "disableOOMKiller": true, "checkBeforeUpdate": true,
        "limit": 5,
    });
    assert_eq!(
        written(&memory(legacy), false),
        [
            "memory.limit_in_bytes=5",
            "memory.kmem.tcp.limit_in_bytes=9",
            "memory.swappiness=0",
            "memory.oom_control=1",
        ]
    );
    // On an update, v1's own limit may already be set.
    let swap_only = memory(json!({"swap": 4096}));
    assert_eq!(written(&swap_only, false), ["memory.memsw.limit_in_bytes=4096"]);
}

#[test]
fn cpu_is_written_in_the_units_of_each_version() {
    let cpu = |cpu: Value| json!({ "cpu": cpu });
    check(&[
        (
            cpu(json!({"quota": 50_000, "period": 100_000})),
            &["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"],
            &["cpu.max=50000 100000"],
        ),
        (
            cpu(json!({"quota": -1, "period": 100_000, "burst": 7})),
            &["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=-1", "cpu.cfs_burst_us=7"],
            &["cpu.max=max 100000", "cpu.max.burst=7"],
        ),
        (cpu(json!({"quota": 50_000})), &["cpu.cfs_quota_us=50000"], &["cpu.max=50000"]),
        (cpu(json!({"quota": -1})), &["cpu.cfs_quota_us=-1"], &["cpu.max=max"]),
        (cpu(json!({"period": 9000})), &["cpu.cfs_period_us=9000"], &["cpu.max=max 9000"]),
        (cpu(json!({"burst": 0})), &["cpu.cfs_burst_us?=0"], &["cpu.max.burst?=0"]),
        (cpu(json!({"idle": 1, "shares": 512})), &["cpu.idle=1"], &["cpu.idle=1"]),
        (
            cpu(json!({"idle": 0, "shares": 512})),
            &["cpu.shares=512", "cpu.idle?=0"],
            &["cpu.weight=20", "cpu.idle?=0"],
        ),
        (
            cpu(json!({"cpus": "0-1,3", "mems": "0"})),
            &["cpuset.cpus=0-1,3", "cpuset.mems=0"],
            &["cpuset.cpus=0-1,3", "cpuset.mems=0"],
        ),
    ]);
    assert_eq!(
        written(&cpu(json!({"realtimePeriod": 1000, "realtimeRuntime": -1})), false),
        ["cpu.rt_period_us=1000", "cpu.rt_runtime_us=-1"]
    );
}

#[test]
fn shares_become_the_weight_that_crun_and_runc_give_them() {
    for (shares, weight) in [
        (1, 1),
        (2, 1),
        (102, 4),
        (256, 10),
        (512, 20),
        (1024, 39),
        (2048, 79),
        (262_144, 10_000),
        (u64::MAX, 10_000),
    ] {
        let resources = json!({"cpu": {"shares": shares}});
        assert_eq!(written(&resources, true), [format!("cpu.weight={weight}")]);
        assert_eq!(written(&resources, false), [format!("cpu.shares={shares}")]);
    }
}

#[test]
fn processes_are_limited_alike_in_both_versions() {
    check(&[
        (json!({"pids": {"limit": 32}}), &["pids.max=32"], &["pids.max=32"]),
        (json!({"pids": {"limit": -1}}), &["pids.max?=max"], &["pids.max?=max"]),
        (json!({"pids": {"limit": null}}), &[], &[]),
    ]);
}

#[test]
fn block_devices_are_weighed_and_throttled_one_write_at_a_time() {
    let throttle = |key: &str, rate: u64| {
        let mut value = json!({"blockIO": {}});
        value["blockIO"][key] = json!([
            {"major": 8, "minor": 0, "rate": rate},
            {"major": 259, "minor": 16, "rate": 1},
        ]);
        value
    };
    check(&[
        (
            json!({"blockIO": {"weight": 500}}),
            &["blkio.bfq.weight=500"],
            &["io.bfq.weight?=500", "io.weight=4950"],
        ),
        (
            json!({"blockIO": {"weight": 10}}),
            &["blkio.bfq.weight=10"],
            &["io.bfq.weight?=10", "io.weight=1"],
        ),
        (
            json!({"blockIO": {"weight": 1000}}),
            &["blkio.bfq.weight=1000"],
            &["io.bfq.weight?=1000", "io.weight=10000"],
        ),
        (
            json!({"blockIO": {"weightDevice": [
                {"major": 8, "minor": 0, "weight": 300, "leafWeight": 0},
                {"major": 8, "minor": 16},
            ]}}),
            &["blkio.bfq.weight_device=8:0 300"],
            &["io.bfq.weight=8:0 300"],
        ),
        (
            throttle("throttleReadBpsDevice", 600),
            &["blkio.throttle.read_bps_device=8:0 600", "blkio.throttle.read_bps_device=259:16 1"],
            &["io.max=8:0 rbps=600", "io.max=259:16 rbps=1"],
        ),
        (
            throttle("throttleWriteBpsDevice", 0),
            &["blkio.throttle.write_bps_device=8:0 0", "blkio.throttle.write_bps_device=259:16 1"],
            &["io.max=8:0 wbps=max", "io.max=259:16 wbps=1"],
        ),
        (
            throttle("throttleReadIOPSDevice", u64::MAX),
            &[
                "blkio.throttle.read_iops_device=8:0 18446744073709551615",
                "blkio.throttle.read_iops_device=259:16 1",
            ],
            &["io.max=8:0 riops=18446744073709551615", "io.max=259:16 riops=1"],
        ),
        (
            throttle("throttleWriteIOPSDevice", 3),
            &[
                "blkio.throttle.write_iops_device=8:0 3",
                "blkio.throttle.write_iops_device=259:16 1",
            ],
            &["io.max=8:0 wiops=3", "io.max=259:16 wiops=1"],
        ),
    ]);
}

#[test]
fn huge_pages_rdma_and_network_go_into_their_own_files() {
    check(&[
        (
            json!({"hugepageLimits": [
                {"pageSize": "2MB", "limit": 4_194_304},
                {"pageSize": "64KB", "limit": 0},
            ]}),
            &[
                "hugetlb.2MB.limit_in_bytes=4194304",
                "hugetlb.2MB.rsvd.limit_in_bytes?=4194304",
                "hugetlb.64KB.limit_in_bytes=0",
                "hugetlb.64KB.rsvd.limit_in_bytes?=0",
            ],
            &[
                "hugetlb.2MB.max=4194304",
                "hugetlb.2MB.rsvd.max?=4194304",
                "hugetlb.64KB.max=0",
                "hugetlb.64KB.rsvd.max?=0",
            ],
        ),
        (
            json!({"rdma": {
                "mlx5_1": {"hcaHandles": 3, "hcaObjects": 10_000},
                "mlx4_0": {"hcaObjects": 0},
                "unset": {},
                "null": null,
            }}),
            &["rdma.max=mlx4_0 hca_object=0", "rdma.max=mlx5_1 hca_handle=3 hca_object=10000"],
            &["rdma.max=mlx4_0 hca_object=0", "rdma.max=mlx5_1 hca_handle=3 hca_object=10000"],
        ),
        (json!({"network": {"classID": 0}}), &["net_cls.classid?=0"], &[]),
    ]);
    let network = json!({"network": {
        "classID": 1_048_577,
        "priorities": [{"name": "eth0", "priority": 500}, {"name": "lo", "priority": 0}],
    }});
    assert_eq!(
        written(&network, false),
        ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 500", "net_prio.ifpriomap=lo 0"]
    );
}

#[test]
fn unified_names_files_itself_and_is_written_last() {
    let resources = json!({
        "unified": {
            "memory.high": "1000",
            "io.max": "8:0 rbps=1\n8:16 wiops=2\n",
            "cgroup.max.depth": "3",
            "pids.max": "",
            "misc.max": null,
        },
        "memory": {"limit": 2000},
    });
    assert_eq!(
        written(&resources, true),
        [
            "memory.max=2000",
            "cgroup.max.depth=3",
            "io.max=8:0 rbps=1",
            "io.max=8:16 wiops=2",
            "memory.high=1000",
        ]
    );
    let settings = settings(&resources, true).unwrap();
    let io = settings.iter().find(|setting| setting.file == "io.max").unwrap();
    assert_eq!((io.controller, &*io.pointer), ("blkio", "/linux/resources/unified/io.max"));
}

#[test]
fn every_write_is_for_a_controller_of_v1_and_names_its_value() {
    let resources = json!({
        "memory": {"limit": 1, "swap": 1},
        "cpu": {"shares": 2, "quota": 1, "cpus": "0"},
        "pids": {"limit": 1},
        "blockIO": {"weightDevice": [{"major": 1, "minor": 2, "weight": 10}]},
        "hugepageLimits": [{"pageSize": "1GB", "limit": 1}],
        "rdma": {"a/b": {"hcaHandles": 1}},
        "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
    });
    let found: Vec<(&str, String)> = settings(&resources, false)
        .unwrap()
        .into_iter()
        .map(|setting| (setting.controller, setting.pointer.replace("/linux/resources", "")))
        .collect();
    let expected = [
        ("memory", "/memory/limit"),
        ("memory", "/memory/swap"),
        ("cpu", "/cpu/shares"),
        ("cpu", "/cpu/quota"),
        ("cpuset", "/cpu/cpus"),
        ("pids", "/pids/limit"),
        ("blkio", "/blockIO/weightDevice/0/weight"),
        ("hugetlb", "/hugepageLimits/0/limit"),
        ("hugetlb", "/hugepageLimits/0/limit"),
        ("rdma", "/rdma/a~1b"),
        ("net_cls", "/network/classID"),
        ("net_prio", "/network/priorities/0/priority"),
    ];
    assert_eq!(found, expected.map(|(controller, at)| (controller, at.to_owned())));
}

#[test]
fn null_and_empty_are_not_set() {
    let zeros = json!({
        "devices": "whatever",
        "memory": {"limit": 0, "reservation": 0, "swap": 0, "kernel": 0, "kernelTCP": 0},
        "cpu": {
            "shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0,
            "cpus": "", "mems": "",
        },
        "blockIO": {"weight": 0, "leafWeight": 0, "weightDevice": []},
    });
    let nulls = json!({
        "memory": {"limit": null, "swap": null, "swappiness": null, "disableOOMKiller": null},
        "cpu": {"shares": null, "idle": null, "cpus": null, "burst": null},
        "blockIO": {"weight": null, "weightDevice": null, "throttleReadBpsDevice": null},
        "network": {"classID": null, "priorities": null},
        "rdma": null,
        "unified": null,
        "hugepageLimits": null,
    });
    let empty = json!({
        "memory": {}, "cpu": {}, "pids": {}, "blockIO": {}, "network": {}, "rdma": {},
        "unified": {}, "hugepageLimits": [], "devices": [],
    });
    check(&[
        (Value::Null, &[], &[]),
        (json!({}), &[], &[]),
        (zeros, &[], &[]),
        (nulls, &[], &[]),
        (empty, &[], &[]),
    ]);
}

#[test]
fn a_field_that_is_not_known_is_refused() {
    check_refused(
        Kind::InvalidArgument,
        &[
            (json!({"disk": null}), BOTH, "/linux/resources/disk: not a field"),
            (json!({"a/b~\n": 1}), BOTH, r"/linux/resources/a~1b~0\n: not a field"),
            (json!({"memory": {"Limit": 1}}), BOTH, "/linux/resources/memory/Limit: not a field"),
            (json!({"cpu": {"share": 1}}), BOTH, "/linux/resources/cpu/share: not a field"),
            (json!({"pids": {"max": 1}}), BOTH, "/linux/resources/pids/max: not a field"),
            (json!({"blockIO": {"x": 1}}), BOTH, "/linux/resources/blockIO/x: not a field"),
            (
                json!({"blockIO": {"weightDevice": [{"rate": 1}]}}),
                BOTH,
                "/linux/resources/blockIO/weightDevice/0/rate: not a field",
            ),
            (
                json!({"blockIO": {"throttleReadBpsDevice": [{"weight": 1}]}}),
                BOTH,
                "/linux/resources/blockIO/throttleReadBpsDevice/0/weight: not a field",
            ),
            (
                json!({"hugepageLimits": [{"size": 1}]}),
                BOTH,
                "/linux/resources/hugepageLimits/0/size: not a field",
            ),
            (json!({"rdma": {"d": {"x": 1}}}), BOTH, "/linux/resources/rdma/d/x: not a field"),
            (json!({"network": {"x": 1}}), BOTH, "/linux/resources/network/x: not a field"),
            (
                json!({"network": {"priorities": [{"x": 1}]}}),
                BOTH,
                "/linux/resources/network/priorities/0/x: not a field",
            ),
        ],
    );
}

#[test]
fn a_value_of_the_wrong_kind_or_range_is_refused() {
    let at = |part: &str, key: &str, value: Value| json!({ part: { key: value } });
    let mut table = vec![
        (json!([]), BOTH, "/linux/resources: found a list, wanted an object".to_owned()),
        (json!({"memory": 1}), BOTH, "/linux/resources/memory: found 1, wanted".to_owned()),
        (
            json!({"hugepageLimits": {}}),
            BOTH,
            "/linux/resources/hugepageLimits: found an object, wanted a list".to_owned(),
        ),
        (
            json!({"hugepageLimits": [null]}),
            BOTH,
            "/linux/resources/hugepageLimits/0: found nothing, wanted an object".to_owned(),
        ),
        (
            json!({"blockIO": {"throttleReadBpsDevice": [{"major": 1, "minor": 2}]}}),
            BOTH,
            "/linux/resources/blockIO/throttleReadBpsDevice/0/rate: found nothing".to_owned(),
        ),
        (
            json!({"blockIO": {"weightDevice": [{"major": -1, "minor": 2, "weight": 10}]}}),
            BOTH,
            "/linux/resources/blockIO/weightDevice/0/major: found -1".to_owned(),
        ),
        (
            json!({"rdma": {"a b": {"hcaHandles": 1}}}),
            BOTH,
            "/linux/resources/rdma/a b: found \"a b\", wanted the name".to_owned(),
        ),
        (
            json!({"network": {"priorities": [{"name": "a b", "priority": 1}]}}),
            V1,
            "/linux/resources/network/priorities/0/name: found \"a b\"".to_owned(),
        ),
        (
            json!({"network": {"priorities": [{"priority": 1}]}}),
            V1,
            "/linux/resources/network/priorities/0/name: found \"\"".to_owned(),
        ),
    ];
    for (part, key, value) in [
        ("memory", "limit", json!("1G")),
        ("memory", "limit", json!(-2)),
        ("memory", "limit", json!(1.5)),
        ("memory", "limit", json!(u64::MAX)),
        ("memory", "swap", json!(true)),
        ("memory", "swappiness", json!(101)),
        ("memory", "disableOOMKiller", json!(1)),
        ("memory", "useHierarchy", json!("false")),
        ("cpu", "shares", json!(-1)),
        ("cpu", "quota", json!(-2)),
        ("cpu", "idle", json!(2)),
        ("cpu", "burst", json!("1")),
        ("cpu", "cpus", json!(1)),
        ("cpu", "cpus", json!("0\n1")),
        ("pids", "limit", json!(-2)),
        ("blockIO", "weight", json!(9)),
        ("blockIO", "weight", json!(1001)),
        ("blockIO", "weightDevice", json!("8:0")),
        ("network", "classID", json!(1_u64 << 32)),
    ] {
        let start = format!("/linux/resources/{part}/{key}: found ");
        table.push((at(part, key, value), BOTH, start));
    }
    for size in ["", "2M", "MB", "02MB", "2MB/../x", "../../x", "2 MB", "2MB\n", "1234567890KB"] {
        let value = json!({"hugepageLimits": [{"pageSize": size, "limit": 1}]});
        table.push((value, BOTH, "/linux/resources/hugepageLimits/0/pageSize: found ".to_owned()));
    }
    for (resources, versions, start) in table {
        check_refused(Kind::InvalidArgument, &[(resources, versions, &start)]);
    }
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    check_refused(
        Kind::InvalidArgument,
        &[
            (
                json!({"memory": {"limit": 2000, "swap": 1000}}),
                BOTH,
                "/linux/resources/memory/swap: found 1000, wanted no less than memory.limit",
            ),
            (
                json!({"memory": {"limit": -1, "swap": 1000}}),
                BOTH,
                "/linux/resources/memory/swap: found 1000, wanted no less than memory.limit",
            ),
            (
                json!({"memory": {"swap": 1000}}),
                V2,
                "/linux/resources/memory/swap: found 1000, which is memory and swap together",
            ),
            (json!({"pids": {"limit": 0}}), BOTH, "/linux/resources/pids/limit: 0 is no limit"),
        ],
    );
}

#[test]
fn what_a_hierarchy_has_nothing_for_is_refused() {
    let at = |part: &str, key: &str, value: Value| json!({ part: { key: value } });
    for (part, key, value, versions) in [
        ("memory", "kernel", json!(1), BOTH),
        ("memory", "kernelTCP", json!(1), V2),
        ("memory", "swappiness", json!(0), V2),
        ("memory", "disableOOMKiller", json!(true), V2),
        ("memory", "useHierarchy", json!(false), BOTH),
        ("cpu", "realtimePeriod", json!(1), V2),
        ("cpu", "realtimeRuntime", json!(1), V2),
        ("blockIO", "leafWeight", json!(10), BOTH),
        ("network", "classID", json!(1), V2),
        ("network", "priorities", json!([{"name": "lo", "priority": 1}]), V2),
        ("unified", "memory.max", json!("1"), V1),
    ] {
        let start = format!("/linux/resources/{part}/{key}: ");
        check_refused(Kind::Unimplemented, &[(at(part, key, value), versions, &start)]);
    }
    let leaf = json!({"blockIO": {"weightDevice": [{"major": 1, "minor": 1, "leafWeight": 10}]}});
    let start = "/linux/resources/blockIO/weightDevice/0/leafWeight: ";
    check_refused(Kind::Unimplemented, &[(leaf, BOTH, start)]);
    let checked = json!({"memory": {"limit": 1, "checkBeforeUpdate": true}});
    let start = "/linux/resources/memory/checkBeforeUpdate: ";
    check_refused(Kind::Unimplemented, &[(checked, V2, start)]);
}

#[test]
fn unified_reaches_no_file_that_is_not_a_limit() {
    for file in [
        "cgroup.procs",
        "cgroup.kill",
        "cgroup.subtree_control",
        "memory",
        "memory.",
        "memory/x.max",
        "memory.x/../../cgroup.procs",
        "../memory.max",
        "",
        "x.max",
        "memory.max\n",
        "cgroup.maximum",
    ] {
        let error = refused(&json!({"unified": {file: "1"}}), true);
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.to_string().contains("not a limit of cgroup v2"), "{error}");
    }
    for value in [json!(1), json!("a\tb"), json!("1\r\n2"), json!("\0"), json!(["1"])] {
        let error = refused(&json!({"unified": {"memory.max": value}}), true);
        let start = "/linux/resources/unified/memory.max: found ";
        assert!(error.to_string().starts_with(start), "{error}");
    }
}

fn rules(devices_list: Value) -> Vec<String> {
    let line = |rule: DeviceRule| format!("{}{}", if rule.allow { "+" } else { "-" }, rule.text);
    devices(&json!({ "devices": devices_list })).unwrap().into_iter().map(line).collect()
}

#[test]
fn device_rules_are_in_the_kernels_form_and_in_order() {
    let found = rules(json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": true, "type": "b", "major": 8, "access": "mr"},
        {"allow": false, "type": "c", "major": 136, "minor": -1, "access": "w"},
        {"allow": true, "type": "c", "major": null, "minor": 0, "access": "rrr"},
        {"allow": true, "type": "a", "major": -1, "minor": -1, "access": "rwm"},
        {"allow": true},
        {"allow": true, "type": "a", "major": 7, "access": "r"},
        {"allow": false, "type": "", "access": "m"},
    ]));
    assert_eq!(
        found,
        [
            "-a",
            "+c 1:3 rwm",
            "+b 8:* rm",
            "-c 136:* w",
            "+c *:0 r",
            "+a",
            "+a",
            "+b 7:* r",
            "+c 7:* r",
            "-b *:* m",
            "-c *:* m",
        ]
    );
    assert!(rules(Value::Null).is_empty() && rules(json!([])).is_empty());
    assert!(devices(&Value::Null).unwrap().is_empty());
}

#[test]
fn a_device_rule_that_is_not_clear_is_refused() {
    for (rule, start) in [
        (json!({"type": "c", "access": "r"}), "/allow: found nothing, wanted true or false"),
        (json!({"allow": "yes"}), "/allow: found \"yes\""),
        (json!({"allow": true, "type": "p", "access": "r"}), "/type: found \"p\""),
        (json!({"allow": true, "type": "c"}), "/access: found \"\""),
        (json!({"allow": true, "type": "a", "major": 1}), "/access: found \"\""),
        (json!({"allow": true, "type": "c", "access": "rwx"}), "/access: found \"rwx\""),
        (json!({"allow": true, "type": "c", "access": "r\nw"}), "/access: found \"r\\nw\""),
        (json!({"allow": true, "major": -2}), "/major: found -2"),
        (json!({"allow": true, "minor": 1_u64 << 32}), "/minor: found 4294967296"),
        (json!({"allow": true, "path": "/dev/null"}), "/path: not a field"),
    ] {
        let error = devices(&json!({"devices": [{"allow": true}, rule]})).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        let start = format!("/linux/resources/devices/1{start}");
        assert!(error.to_string().starts_with(&start), "{error}");
    }
    let error = devices(&json!({"devices": {}})).unwrap_err().to_string();
    assert!(error.starts_with("/linux/resources/devices: found an object"), "{error}");
}

/// Resources in which every field is set.
fn full() -> Value {
    let throttle = json!([{"major": 8, "minor": 0, "rate": 1}]);
    json!({
        "devices": [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
        "memory": {
            "limit": 1000, "reservation": 500, "swap": 2000, "kernel": -1, "kernelTCP": -1,
            "swappiness": null, "disableOOMKiller": false, "useHierarchy": true,
            "checkBeforeUpdate": false,
        },
        "cpu": {
            "shares": 1024, "quota": 1000, "burst": 0, "period": 2000, "realtimeRuntime": 0,
            "realtimePeriod": 0, "cpus": "0-1", "mems": "0", "idle": 0,
        },
        "pids": {"limit": 10},
        "blockIO": {
            "weight": 10, "leafWeight": 0,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 0}],
            "throttleReadBpsDevice": throttle, "throttleWriteBpsDevice": throttle,
            "throttleReadIOPSDevice": throttle, "throttleWriteIOPSDevice": throttle,
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        "network": {"classID": 0, "priorities": []},
        "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10_000}},
        "unified": {},
    })
}

/// The pointers of a value and of all that is in it.
fn pointers(at: String, value: &Value, found: &mut Vec<String>) {
    let parts: Vec<(String, &Value)> = match value {
        Value::Array(list) => {
            list.iter().enumerate().map(|(index, part)| (index.to_string(), part)).collect()
        }
        Value::Object(map) => map.iter().map(|(key, part)| (key.clone(), part)).collect(),
        _ => Vec::new(),
    };
    for (key, part) in parts {
        pointers(format!("{at}/{key}"), part, found);
    }
    found.push(at);
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!({"a\nb": "c\nd"})),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2..1100).prop_map(Value::from),
        "[\\x00-\\x7f]{0,8}".prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ]
}

/// Full resources with some of their parts replaced.
fn resources_of_any_kind() -> impl Strategy<Value = Value> {
    let mut places = Vec::new();
    pointers(String::new(), &full(), &mut places);
    let change = (prop::sample::select(places), any_value());
    prop::collection::vec(change, 0..4).prop_map(|changes| {
        let mut resources = full();
        for (place, value) in changes {
            // An earlier change may have taken the place away.
            if let Some(part) = resources.pointer_mut(&place) {
                *part = value;
            }
        }
        resources
    })
}

/// Whether this can be one write to one file of one folder.
fn is_one_write(setting: &Setting) -> bool {
    let plain = |text: &str| !text.is_empty() && !text.contains(char::is_control);
    plain(&setting.value)
        && plain(&setting.file)
        && plain(&setting.pointer)
        && !setting.file.contains('/')
        && !setting.file.starts_with("cgroup.procs")
        && setting.pointer.starts_with("/linux/resources/")
}

#[test]
fn full_resources_are_fit_for_both_versions() {
    // Else the property below would hold for nothing but refusals.
    assert_eq!(written(&full(), false).len(), 23);
    assert_eq!(written(&full(), true).len(), 20);
    assert_eq!(devices(&full()).unwrap().len(), 1);
}

fn check_any(resources: &Value) -> Result<(), TestCaseError> {
    for cgroup2 in [false, true] {
        match settings(resources, cgroup2) {
            Ok(list) => prop_assert!(list.iter().all(is_one_write), "{:?}", list),
            Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
        }
    }
    match devices(resources) {
        Ok(rules) => {
            let fits = |rule: &DeviceRule| {
                let plain = |byte: u8| b"0123456789abcmrw*: ".contains(&byte);
                rule.text.len() <= 27 && rule.text.bytes().all(plain)
            };
            prop_assert!(rules.iter().all(fits), "{:?}", rules);
        }
        Err(error) => prop_assert!(!error.to_string().contains(char::is_control)),
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_json_panics_or_becomes_more_than_one_write(resources in resources_of_any_kind()) {
        check_any(&resources)?;
    }

    #[test]
    fn no_text_becomes_more_than_one_write(
        key in prop::sample::select(&["memory.max", "io.max", "hugetlb.2MB.max", "cpu.x y"][..]),
        text in "[\\x00-\\x7f\u{85}\u{2028}]{0,12}",
    ) {
        check_any(&json!({"cpu": {"cpus": text}}))?;
        check_any(&json!({"cpu": {"mems": text}}))?;
        check_any(&json!({"unified": {key: text}}))?;
        check_any(&json!({"unified": {format!("memory.{text}"): "1"}}))?;
        check_any(&json!({"rdma": {text.as_str(): {"hcaHandles": 1}}}))?;
        check_any(&json!({"hugepageLimits": [{"pageSize": text, "limit": 1}]}))?;
        check_any(&json!({"network": {"priorities": [{"name": text, "priority": 1}]}}))?;
        check_any(&json!({"devices": [{"allow": true, "type": text, "access": "r"}]}))?;
        check_any(&json!({"devices": [{"allow": true, "type": "c", "access": text}]}))?;
    }
}
