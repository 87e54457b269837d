use super::abi::{ARM, X86};
use super::*;
use crate::error::Kind;
use proptest::prelude::*;
use serde_json::json;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM32: u32 = 0x4000_0028;
const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

/// What a program decides, and in how many instructions.
fn interpret(program: &[u64], arch: u32, number: u32, args: [u64; 6]) -> (u32, usize) {
    let mut data = vec![number, arch, 0, 0];
    data.extend(args.iter().flat_map(|arg| [*arg as u32, (*arg >> 32) as u32]));
    let (mut at, mut accumulator) = (0, 0);
    for steps in 1.. {
        let instruction = program[at];
        let operand = (instruction >> 32) as u32;
        let jump = |taken| (instruction >> if taken { 16 } else { 24 }) as usize & 0xff;
        at += 1;
        match instruction as u16 {
            0x20 => accumulator = data[operand as usize / 4],
            0x54 => accumulator &= operand,
            0x05 => at += operand as usize,
            0x06 => return (operand, steps),
            0x15 => at += jump(accumulator == operand),
            0x25 => at += jump(accumulator > operand),
            0x35 => at += jump(accumulator >= operand),
            code => panic!("instruction {code:#x}"),
        }
    }
    unreachable!()
}

struct Filter(Vec<u64>);

impl Filter {
    fn on(machine: Machine, seccomp: Value) -> Self {
        Self(compile_for(machine, &seccomp).unwrap().unwrap().program)
    }

    /// A profile that lets through what is not in `syscalls`.
    fn forbidding(syscalls: Value) -> Self {
        Self::on(
            X86,
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": syscalls,
            }),
        )
    }

    /// A profile that lets through nothing but what is in `syscalls`.
    fn allowing(syscalls: Value) -> Self {
        Self::on(
            X86,
            json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": syscalls,
            }),
        )
    }

    fn decide(&self, arch: u32, number: u32, args: &[u64]) -> u32 {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        interpret(&self.0, arch, number, all).0
    }
}

fn refusal(seccomp: Value) -> Error {
    compile_for(X86, &seccomp).unwrap_err()
}

/// A rule for socket(2), which is 41 on x86-64, with conditions (argument, operator, value, second
/// value).
fn socket(action: &str, conditions: &[(u32, &str, u64, u64)]) -> Value {
    let args: Vec<Value> = conditions
        .iter()
        .map(|(index, op, value, second)| {
            json!({"index": index, "op": op, "value": value, "valueTwo": second})
        })
        .collect();
    json!({"names": ["socket"], "action": action, "args": args})
}

#[test]
fn each_action_becomes_the_kernels_with_its_error() {
    let decide = |action: &str, errno: Value| {
        let rule = json!({"names": ["mkdir"], "action": action, "errnoRet": errno});
        Filter::forbidding(json!([rule])).decide(X86_64, 83, &[])
    };
    assert_eq!(decide("SCMP_ACT_KILL", Value::Null), 0);
    assert_eq!(decide("SCMP_ACT_KILL_THREAD", Value::Null), 0);
    assert_eq!(decide("SCMP_ACT_KILL_PROCESS", Value::Null), 0x8000_0000);
    assert_eq!(decide("SCMP_ACT_TRAP", Value::Null), 0x0003_0000);
    assert_eq!(decide("SCMP_ACT_ERRNO", Value::Null), 0x0005_0001);
    assert_eq!(decide("SCMP_ACT_ERRNO", json!(0)), 0x0005_0000);
    assert_eq!(decide("SCMP_ACT_ERRNO", json!(4095)), 0x0005_0fff);
    assert_eq!(decide("SCMP_ACT_TRACE", Value::Null), 0x7ff0_0001);
    assert_eq!(decide("SCMP_ACT_TRACE", json!(65535)), 0x7ff0_ffff);
    assert_eq!(decide("SCMP_ACT_LOG", Value::Null), 0x7ffc_0000);
    assert_eq!(decide("SCMP_ACT_ALLOW", Value::Null), 0x7fff_0000);
}

#[test]
fn what_no_rule_is_for_gets_the_default() {
    let filter = Filter::allowing(json!([{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}]));
    assert_eq!(filter.decide(X86_64, 83, &[]), ALLOW);
    assert_eq!(filter.decide(X86_64, 82, &[]), EPERM);
    assert_eq!(filter.decide(X86_64, 84, &[]), EPERM);
    let filter = Filter::on(
        X86,
        json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 7, "syscalls": [],
        }),
    );
    assert_eq!(filter.decide(X86_64, 83, &[]), ERRNO | 7);
}

#[test]
fn every_operator_compares_all_64_bits() {
    const BIG: u64 = 0x1234_5678_9abc_def0;
    let near = [
        0,
        1,
        BIG - 1,
        BIG,
        BIG + 1,
        BIG - (1 << 32),
        BIG + (1 << 32),
        BIG & 0xffff_ffff,
        BIG | 0xffff_ffff,
        BIG & !0xffff_ffff,
        u64::MAX,
    ];
    type Holds = fn(u64) -> bool;
    let operators: [(&str, Holds); 6] = [
        ("SCMP_CMP_NE", |arg| arg != BIG),
        ("SCMP_CMP_LT", |arg| arg < BIG),
        ("SCMP_CMP_LE", |arg| arg <= BIG),
        ("SCMP_CMP_EQ", |arg| arg == BIG),
        ("SCMP_CMP_GE", |arg| arg >= BIG),
        ("SCMP_CMP_GT", |arg| arg > BIG),
    ];
    for (op, holds) in operators {
        for index in 0..6 {
            let rule = socket("SCMP_ACT_ERRNO", &[(index, op, BIG, 0)]);
            let filter = Filter::forbidding(json!([rule]));
            for arg in near {
                let mut args = [BIG ^ 1; 6];
                args[index as usize] = arg;
                let expected = if holds(arg) { EPERM } else { ALLOW };
                assert_eq!(filter.decide(X86_64, 41, &args), expected, "{op} {index} {arg:#x}");
            }
        }
    }
}

#[test]
fn a_mask_leaves_the_bits_that_count() {
    let filter = |mask, value| {
        let rule = socket("SCMP_ACT_ERRNO", &[(0, "SCMP_CMP_MASKED_EQ", mask, value)]);
        Filter::forbidding(json!([rule]))
    };
    let high = filter(0xf000_0000_0000_000f, 0x5000_0000_0000_0003);
    assert_eq!(high.decide(X86_64, 41, &[0x5abc_def0_1234_5673]), EPERM);
    assert_eq!(high.decide(X86_64, 41, &[0x5abc_def0_1234_5674]), ALLOW);
    assert_eq!(high.decide(X86_64, 41, &[0x6abc_def0_1234_5673]), ALLOW);
    // Bits of the value that do not count cannot keep the rule from ever being used.
    assert_eq!(filter(0xf0, 0x1f).decide(X86_64, 41, &[0x10]), EPERM);
}

#[test]
fn conditions_on_different_arguments_must_all_hold() {
    let rule = socket(
        "SCMP_ACT_ERRNO",
        &[(0, "SCMP_CMP_EQ", 16, 0), (1, "SCMP_CMP_NE", 2, 0), (2, "SCMP_CMP_GE", 9, 0)],
    );
    let filter = Filter::forbidding(json!([rule]));
    assert_eq!(filter.decide(X86_64, 41, &[16, 1, 9]), EPERM);
    assert_eq!(filter.decide(X86_64, 41, &[17, 1, 9]), ALLOW);
    assert_eq!(filter.decide(X86_64, 41, &[16, 2, 9]), ALLOW);
    assert_eq!(filter.decide(X86_64, 41, &[16, 1, 8]), ALLOW);
}

#[test]
fn conditions_on_the_same_argument_are_alternatives() {
    let rule = socket(
        "SCMP_ACT_ALLOW",
        &[(0, "SCMP_CMP_EQ", 1, 0), (0, "SCMP_CMP_EQ", 2, 0), (1, "SCMP_CMP_EQ", 7, 0)],
    );
    let filter = Filter::allowing(json!([rule]));
    for (args, expected) in
        [([1, 0], ALLOW), ([2, 0], ALLOW), ([3, 7], ALLOW), ([3, 0], EPERM), ([0, 0], EPERM)]
    {
        assert_eq!(filter.decide(X86_64, 41, &args), expected, "{args:?}");
    }
}

#[test]
fn of_several_rules_for_a_call_the_strictest_counts_in_any_order() {
    let rules = [
        json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW"}),
        socket("SCMP_ACT_ERRNO", &[(0, "SCMP_CMP_EQ", 40, 0)]),
        socket("SCMP_ACT_KILL_PROCESS", &[(1, "SCMP_CMP_EQ", 3, 0)]),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
        let filter = Filter::allowing(order.iter().map(|&at| rules[at].clone()).collect());
        assert_eq!(filter.decide(X86_64, 41, &[1, 1]), ALLOW);
        assert_eq!(filter.decide(X86_64, 41, &[40, 1]), EPERM);
        assert_eq!(filter.decide(X86_64, 41, &[40, 3]), KILL_PROCESS);
    }
}

#[test]
fn each_convention_has_its_own_numbers() {
    let names = json!([{"names": ["execve", "waitpid"], "action": "SCMP_ACT_ERRNO"}]);
    let filter = Filter::forbidding(names.clone());
    assert_eq!(filter.decide(X86_64, 59, &[]), EPERM);
    assert_eq!(filter.decide(X86_64, 11, &[]), ALLOW);
    assert_eq!(filter.decide(I386, 11, &[]), EPERM);
    assert_eq!(filter.decide(I386, 7, &[]), EPERM);
    assert_eq!(filter.decide(I386, 59, &[]), ALLOW);
    // x32: its own number, and x86-64's, which old kernels take too.
    assert_eq!(filter.decide(X86_64, 0x4000_0000 | 520, &[]), EPERM);
    assert_eq!(filter.decide(X86_64, 0x4000_0000 | 59, &[]), EPERM);
    assert_eq!(filter.decide(X86_64, 0x4000_0000 | 60, &[]), ALLOW);

    let filter = Filter::on(
        ARM,
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
            "syscalls": [
            {"names": ["execve", "newfstatat", "set_tls"], "action": "SCMP_ACT_ERRNO"},
        ],
        }),
    );
    assert_eq!(filter.decide(AARCH64, 221, &[]), EPERM);
    assert_eq!(filter.decide(AARCH64, 79, &[]), EPERM);
    assert_eq!(filter.decide(AARCH64, 11, &[]), ALLOW);
    assert_eq!(filter.decide(ARM32, 11, &[]), EPERM);
    assert_eq!(filter.decide(ARM32, 0xf_0005, &[]), EPERM);
    assert_eq!(filter.decide(X86_64, 59, &[]), KILL_THREAD);
}

#[test]
fn a_convention_that_is_not_listed_kills_and_the_kernels_own_need_not_be() {
    for architectures in [json!(null), json!([]), json!(["SCMP_ARCH_MIPS64", "SCMP_ARCH_ARM"])] {
        let filter = Filter::on(
            X86,
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": architectures,
                "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ERRNO"}],
            }),
        );
        assert_eq!(filter.decide(X86_64, 59, &[]), EPERM);
        assert_eq!(filter.decide(X86_64, 60, &[]), ALLOW);
        assert_eq!(filter.decide(I386, 20, &[]), KILL_THREAD);
        assert_eq!(filter.decide(X86_64, 0x4000_0000, &[]), KILL_THREAD);
        // What a tracer makes of a call that is not to be made.
        assert_eq!(filter.decide(X86_64, u32::MAX, &[]), ALLOW);
    }
}

#[test]
fn names_that_nobody_knows_are_passed_over() {
    let rule = json!({"names": ["no_such_call", "mkdir", ""], "action": "SCMP_ACT_ALLOW"});
    let filter = Filter::allowing(json!([rule]));
    assert_eq!(filter.decide(X86_64, 83, &[]), ALLOW);
    assert_eq!(filter.decide(X86_64, 0, &[]), EPERM);
}

#[test]
fn arguments_of_32_bits_are_compared_as_such() {
    let decide = |op: &str, value: u64, second: u64, arg: u64| {
        let rule = json!({
            "names": ["personality"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "op": op, "value": value, "valueTwo": second}],
        });
        let filter = Filter::forbidding(json!([rule]));
        let decision = filter.decide(I386, 136, &[arg]);
        assert_eq!(filter.decide(X86_64, 0x4000_0000 | 135, &[arg]), decision, "x32");
        decision
    };
    assert_eq!(decide("SCMP_CMP_EQ", 0x2_0008, 0, 0x2_0008), EPERM);
    // The upper half is whatever the kernel's entry has left there.
    assert_eq!(decide("SCMP_CMP_EQ", 0x2_0008, 0, 0xdead_0002_0008), EPERM);
    // A negative number, written with 64 bits.
    assert_eq!(decide("SCMP_CMP_EQ", u64::MAX, 0, 0xffff_ffff), EPERM);
    assert_eq!(decide("SCMP_CMP_MASKED_EQ", u64::MAX, u64::MAX - 1, 0xffff_fffe), EPERM);
    // What no argument of 32 bits can be.
    assert_eq!(decide("SCMP_CMP_EQ", 1 << 32, 0, 0), ALLOW);
    assert_eq!(decide("SCMP_CMP_NE", 1 << 32, 0, 0), EPERM);
    assert_eq!(decide("SCMP_CMP_GE", 1 << 32, 0, 0xffff_ffff), ALLOW);
    assert_eq!(decide("SCMP_CMP_LT", 1 << 32, 0, 0xffff_ffff), EPERM);
}

#[test]
fn calls_of_32_bit_x86_that_share_a_number_are_told_apart() {
    let filter = Filter::forbidding(json!([
        {"names": ["connect", "shmat"], "action": "SCMP_ACT_ERRNO"},
    ]));
    assert_eq!(filter.decide(I386, 362, &[]), EPERM);
    assert_eq!(filter.decide(I386, 102, &[3]), EPERM);
    assert_eq!(filter.decide(I386, 102, &[2]), ALLOW);
    assert_eq!(filter.decide(I386, 117, &[21]), EPERM);
    // With a version in the upper half.
    assert_eq!(filter.decide(I386, 117, &[0x1_0015]), EPERM);
    assert_eq!(filter.decide(I386, 117, &[22]), ALLOW);
}

#[test]
fn conditions_on_arguments_that_a_filter_cannot_see_never_loosen() {
    let filter = Filter::allowing(json!([socket("SCMP_ACT_ALLOW", &[(0, "SCMP_CMP_NE", 40, 0)])]));
    assert_eq!(filter.decide(I386, 359, &[1]), ALLOW);
    assert_eq!(filter.decide(I386, 102, &[1]), EPERM);
    let filter =
        Filter::forbidding(json!([socket("SCMP_ACT_ERRNO", &[(0, "SCMP_CMP_EQ", 40, 0)])]));
    assert_eq!(filter.decide(I386, 359, &[1]), ALLOW);
    assert_eq!(filter.decide(I386, 102, &[1]), EPERM);
}

#[test]
fn calls_newer_than_a_profile_that_fails_them_are_said_not_to_exist() {
    let profile = |default: &str, names: &[&str]| {
        Filter::on(
            X86,
            json!({
                "defaultAction": default,
                "architectures": ["SCMP_ARCH_X86"],
                "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
            }),
        )
    };
    let filter = profile("SCMP_ACT_ERRNO", &["read", "openat2"]);
    for arch in [X86_64, I386] {
        assert_eq!(filter.decide(arch, 436, &[]), EPERM, "close_range, older than openat2");
        assert_eq!(filter.decide(arch, 437, &[]), ALLOW);
        assert_eq!(filter.decide(arch, 438, &[]), ENOSYS);
        assert_eq!(filter.decide(arch, 0x3fff_ffff, &[]), ENOSYS);
        assert_eq!(filter.decide(arch, u32::MAX, &[]), EPERM);
    }
    let short = profile("SCMP_ACT_ERRNO", &["read"]);
    assert_eq!(short.decide(X86_64, 83, &[]), EPERM, "mkdir, which everybody has");
    assert_eq!(short.decide(X86_64, 435, &[]), ENOSYS, "clone3");
    assert_eq!(profile("SCMP_ACT_KILL", &["read"]).decide(X86_64, 435, &[]), KILL_THREAD);
    let arm = Filter::on(
        ARM,
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_ARM"],
            "syscalls": [{"names": ["read", "set_tls"], "action": "SCMP_ACT_ALLOW"}],
        }),
    );
    assert_eq!(arm.decide(ARM32, 435, &[]), ENOSYS);
    assert_eq!(arm.decide(ARM32, 0xf_0005, &[]), ALLOW);
    assert_eq!(arm.decide(ARM32, 0xf_0004, &[]), EPERM);
}

/// All names of 64-bit and 32-bit x86.
fn all_names() -> Vec<&'static str> {
    let wide = syscalls::x86_64::Sysno::iter().map(|call| call.name());
    let narrow = syscalls::x86::Sysno::iter().map(|call| call.name());
    let names: std::collections::BTreeSet<_> = wide.chain(narrow).collect();
    names.into_iter().collect()
}

/// A profile with the size and shape of containerd's own.
fn like_containerds() -> Value {
    const FORBIDDEN: &[&str] = &[
        "acct",
        "bpf",
        "chroot",
        "clone",
        "clone3",
        "delete_module",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "init_module",
        "ioperm",
        "iopl",
        "kexec_load",
        "mount",
        "mount_setattr",
        "move_mount",
        "name_to_handle_at",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "personality",
        "pivot_root",
        "process_vm_readv",
        "quotactl",
        "reboot",
        "setdomainname",
        "sethostname",
        "setns",
        "socket",
        "swapoff",
        "swapon",
        "syslog",
        "umount",
        "umount2",
        "unshare",
        "vhangup",
    ];
    let allowed: Vec<&str> =
        all_names().into_iter().filter(|name| !FORBIDDEN.contains(name)).collect();
    let personality = |value: u64| {
        json!({
            "names": ["personality"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}],
        })
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": allowed, "action": "SCMP_ACT_ALLOW"},
            socket("SCMP_ACT_ALLOW", &[(0, "SCMP_CMP_NE", 40, 0)]),
            personality(0), personality(8), personality(0x2_0000), personality(0x2_0008),
            personality(0xffff_ffff),
            {
                "names": ["clone"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 0x7e02_0000, "op": "SCMP_CMP_MASKED_EQ"}],
            },
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ],
    })
}

#[test]
fn a_profile_like_containerds_is_short_and_quickly_run() {
    let filter = Filter::on(X86, like_containerds());
    assert!(filter.0.len() < 1000, "{} instructions", filter.0.len());
    for (number, args, expected) in [
        (0, [0, 0], ALLOW),
        (165, [0, 0], EPERM),
        (41, [2, 0], ALLOW),
        (41, [40, 0], EPERM),
        (135, [0x2_0008, 0], ALLOW),
        (135, [0x2_0009, 0], EPERM),
        (56, [0x11, 0], ALLOW),
        (56, [0x1000_0011, 0], EPERM),
        (435, [0, 0], ENOSYS),
        (468, [0, 0], ALLOW),
        (700, [0, 0], ENOSYS),
    ] {
        assert_eq!(filter.decide(X86_64, number, &args), expected, "{number} {args:?}");
    }
    let slowest = (0..700).map(|number| interpret(&filter.0, X86_64, number, [0; 6]).1).max();
    assert!(slowest < Some(40), "{slowest:?}");
}

#[test]
fn a_filter_may_be_much_longer_than_a_jump_on_a_condition() {
    let names = all_names();
    let rules: Vec<Value> = names
        .iter()
        .enumerate()
        .map(
            |(at, name)| json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": at + 100}),
        )
        .collect();
    let filter = Filter::forbidding(rules.into());
    assert!(filter.0.len() > 2000);
    for (at, name) in (100..).zip(names) {
        if let Ok(call) = name.parse::<syscalls::x86_64::Sysno>() {
            let number = call.id().unsigned_abs();
            assert_eq!(filter.decide(X86_64, number, &[]), ERRNO | at, "{name}");
            assert_eq!(filter.decide(X86_64, number | abi::X32_BIT, &[]), ERRNO | at, "{name}");
        }
        if let Ok(call) = name.parse::<syscalls::x86::Sysno>() {
            assert_eq!(filter.decide(I386, call.id().unsigned_abs(), &[]), ERRNO | at, "{name}");
        }
    }
}

#[test]
fn a_filter_longer_than_the_kernel_takes_is_refused() {
    let rule = |(value, name): (u32, _)| {
        json!({
            "names": [name], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "value": value, "op": "SCMP_CMP_GT"}],
        })
    };
    let error = refusal(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": (0..).zip(all_names()).map(rule).collect::<Vec<Value>>(),
    }));
    assert_eq!(error.kind(), Kind::InvalidArgument);
    assert!(error.to_string().starts_with("/linux/seccomp/syscalls: the filter needs "), "{error}");
}

#[test]
fn what_is_unset_or_names_nothing_filters_nothing() {
    for unset in [
        json!(null),
        json!({}),
        json!({"defaultAction": "", "architectures": null, "syscalls": [], "listenerPath": ""}),
    ] {
        assert!(compile_for(X86, &unset).unwrap().is_none(), "{unset}");
    }
}

#[test]
fn flags_are_the_kernels() {
    let flags = |names: Value| {
        let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": names});
        compile_for(X86, &seccomp).unwrap().unwrap().flags
    };
    assert_eq!(flags(json!(null)), 0);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_TSYNC"])), 1);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])), 6);
    assert_eq!(flags(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), 0);
}

#[test]
fn what_is_wrong_is_named_by_its_json_pointer() {
    type Change = fn(&mut Value);
    let with = |change: Change| {
        let mut seccomp = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{
                "names": ["socket"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}],
            }],
        });
        change(&mut seccomp);
        refusal(seccomp)
    };
    let wrong: [(&str, Change); 15] = [
        ("/defaultAction", |it| it["defaultAction"] = json!("SCMP_ACT_NO")),
        ("/defaultAction", |it| it["defaultAction"] = json!(null)),
        ("/defaultErrnoRet", |it| it["defaultErrnoRet"] = json!(1)),
        ("/architectures/0", |it| it["architectures"] = json!(["SCMP_ARCH_VAX"])),
        ("/flags/1", |it| it["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG", "LOG"])),
        ("/syscalls", |it| it["syscalls"] = json!({})),
        ("/syscalls/0/names/0", |it| it["syscalls"][0]["names"][0] = json!(7)),
        ("/syscalls/0/action", |it| it["syscalls"][0]["action"] = json!("errno")),
        ("/syscalls/0/errnoRet", |it| it["syscalls"][0]["errnoRet"] = json!(4096)),
        ("/syscalls/0/errnoRet", |it| it["syscalls"][0]["errnoRet"] = json!(-1)),
        ("/syscalls/0/args/0/index", |it| it["syscalls"][0]["args"][0]["index"] = json!(6)),
        ("/syscalls/0/args/0/index", |it| it["syscalls"][0]["args"][0]["index"] = json!(null)),
        ("/syscalls/0/args/0/value", |it| it["syscalls"][0]["args"][0]["value"] = json!(-1)),
        ("/syscalls/0/args/0/valueTwo", |it| it["syscalls"][0]["args"][0]["valueTwo"] = json!("")),
        ("/syscalls/0/args/0/op", |it| it["syscalls"][0]["args"][0]["op"] = json!("EQ")),
    ];
    for (pointer, change) in wrong {
        let error = with(change);
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
        assert!(error.to_string().starts_with(&format!("{POINTER}{pointer}: ")), "{error}");
    }
    let refused: [(&str, Change); 4] = [
        ("/defaultAction", |it| it["defaultAction"] = json!("SCMP_ACT_NOTIFY")),
        ("/syscalls/0/action", |it| it["syscalls"][0]["action"] = json!("SCMP_ACT_NOTIFY")),
        ("/listenerPath", |it| it["listenerPath"] = json!("/run/agent")),
        ("/listenerMetadata", |it| it["listenerMetadata"] = json!("x")),
    ];
    for (pointer, change) in refused {
        let error = with(change);
        assert_eq!(error.kind(), Kind::Unimplemented, "{error}");
        assert!(error.to_string().starts_with(&format!("{POINTER}{pointer}: ")), "{error}");
    }
}

/// One condition on an argument of a call, as config.json has it.
type Asked = (u32, &'static str, u64, u64);

fn holds((index, op, value, second): &Asked, args: &[u64; 6]) -> bool {
    let arg = args[*index as usize];
    match *op {
        "SCMP_CMP_NE" => arg != *value,
        "SCMP_CMP_LT" => arg < *value,
        "SCMP_CMP_LE" => arg <= *value,
        "SCMP_CMP_EQ" => arg == *value,
        "SCMP_CMP_GE" => arg >= *value,
        "SCMP_CMP_GT" => arg > *value,
        _ => arg & value == second & value,
    }
}

fn number() -> impl Strategy<Value = u64> {
    const WORDS: [u64; 5] = [0, 1, 2, 0x8000_0000, 0xffff_ffff];
    (0..WORDS.len(), 0..WORDS.len()).prop_map(|(high, low)| WORDS[high] << 32 | WORDS[low])
}

/// Conditions on up to three arguments, none of them twice.
fn conditions() -> impl Strategy<Value = Vec<Asked>> {
    const OPERATORS: [&str; 7] = [
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    ];
    let one = (0..OPERATORS.len(), number(), number());
    proptest::collection::vec(one, 0..4).prop_map(|all| {
        (0..).zip(all).map(|(at, (op, value, second))| (at, OPERATORS[op], value, second)).collect()
    })
}

proptest! {
    #[test]
    fn a_program_decides_as_its_profile_says(
        rules in proptest::collection::vec((0..6_usize, conditions()), 0..5),
        default in 0..6_usize,
        calls in proptest::collection::vec([number(), number(), number()], 20),
    ) {
        // The strictest first.
        const ACTIONS: [(&str, u32); 6] = [
            ("SCMP_ACT_KILL_PROCESS", KILL_PROCESS),
            ("SCMP_ACT_KILL", KILL_THREAD),
            ("SCMP_ACT_TRAP", TRAP),
            ("SCMP_ACT_ERRNO", EPERM),
            ("SCMP_ACT_LOG", LOG),
            ("SCMP_ACT_ALLOW", ALLOW),
        ];
        let syscalls: Vec<Value> =
            rules.iter().map(|(action, asked)| socket(ACTIONS[*action].0, asked)).collect();
        let filter = Filter::on(
            X86,
            json!({"defaultAction": ACTIONS[default].0, "syscalls": syscalls}),
        );
        for [first, second, third] in calls {
            let args = [first, second, third, 0, 0, 0];
            let strictest = rules
                .iter()
                .filter(|(_, asked)| asked.iter().all(|asked| holds(asked, &args)))
                .map(|(action, _)| *action)
                .min();
            let expected = ACTIONS[strictest.unwrap_or(default)].1;
            prop_assert_eq!(filter.decide(X86_64, 41, &args), expected, "{:x?}", args);
        }
    }
}

/// A filter is a thread's own, and the thread ends with the test.
#[test]
#[expect(unsafe_code, reason = "only the init installs filters, in another program")]
fn the_kernel_takes_a_program_and_does_what_it_says() {
    fn install(seccomp: &Value) {
        let init::Seccomp { flags, program } = compile(seccomp).unwrap().unwrap();
        let mut program: Vec<libc::sock_filter> = program
            .iter()
            .map(|instruction| libc::sock_filter {
                code: *instruction as u16,
                jt: (instruction >> 16) as u8,
                jf: (instruction >> 24) as u8,
                k: (instruction >> 32) as u32,
            })
            .collect();
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        nix::sys::prctl::set_no_new_privs().unwrap();
        // SAFETY: the kernel copies the program, which lives until it has.
        let status = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        };
        assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    }
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;

    let forbidding = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EXDEV},
            socket("SCMP_ACT_ERRNO", &[(0, "SCMP_CMP_EQ", libc::AF_UNIX as u64, 0)]),
        ],
    });
    let in_a_thread = |seccomp: Value, check: fn()| {
        std::thread::spawn(move || {
            install(&seccomp);
            check();
        })
        .join()
        .unwrap();
    };
    in_a_thread(forbidding, || {
        let error = std::fs::create_dir("/").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EXDEV));
        let error = UnixDatagram::unbound().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        UdpSocket::bind("127.0.0.1:0").unwrap();
    });
    in_a_thread(like_containerds(), || {
        let error = nix::unistd::chroot("/nowhere").unwrap_err();
        assert_eq!(error, nix::Error::EPERM);
        UnixDatagram::unbound().unwrap();
    });
}
