//! What is encoded is what is decoded, and nothing else is decoded.

use super::description::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    any::<String>()
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..4)
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    any::<[u64; 5]>().prop_map(|[bounding, effective, inheritable, permitted, ambient]| {
        Capabilities { bounding, effective, inheritable, permitted, ambient }
    })
}

fn scheduler() -> impl Strategy<Value = Scheduler> {
    (any::<[u32; 2]>(), any::<[u64; 4]>(), any::<i32>()).prop_map(
        |([policy, priority], [flags, runtime, deadline, period], nice)| Scheduler {
            policy,
            flags,
            nice,
            priority,
            runtime,
            deadline,
            period,
        },
    )
}

prop_compose! {
    fn words()(
        args in texts(),
        env in texts(),
        cwd in text(),
        apparmor in of(text()),
        selinux in of(text()),
    ) -> Process {
        Process { args, env, cwd, apparmor, selinux, ..Process::default() }
    }
}

prop_compose! {
    fn process()(
        words in words(),
        [terminal, no_new_privileges] in any::<[bool; 2]>(),
        [uid, gid] in any::<[u32; 2]>(),
        [umask, io_priority, personality] in any::<[Option<u32>; 3]>(),
        [groups, cpus_initial, cpus_final] in any::<[Vec<u32>; 3]>(),
        oom_score_adj in any::<Option<i32>>(),
        capabilities in of(capabilities()),
        scheduler in of(scheduler()),
        memory_policy in of(any::<(u32, Vec<u32>)>()),
        rlimits in vec(any::<(u32, u64, u64)>(), 0..3),
        seccomp in of(any::<(u32, Vec<u64>)>()),
    ) -> Process {
        let rlimits = rlimits
            .into_iter()
            .map(|(resource, soft, hard)| Rlimit { resource, soft, hard })
            .collect();
        Process {
            terminal, no_new_privileges, uid, gid, umask, io_priority, personality, groups,
            cpus_initial, cpus_final, oom_score_adj, capabilities, scheduler, rlimits,
            memory_policy: memory_policy.map(|(mode, nodes)| MemoryPolicy { mode, nodes }),
            seccomp: seccomp.map(|(flags, program)| Seccomp { flags, program }),
            ..words
        }
    }
}

fn node() -> impl Strategy<Value = Node> {
    let kind = prop_oneof![Just(NodeKind::Char), Just(NodeKind::Block), Just(NodeKind::Fifo)];
    (text(), kind, any::<[u32; 5]>()).prop_map(|(path, kind, [major, minor, mode, uid, gid])| {
        Node { path, kind, major, minor, mode, uid, gid }
    })
}

fn mount_point() -> impl Strategy<Value = MountPoint> {
    (text(), any::<bool>(), vec(attributes(), 0..3))
        .prop_map(|(path, folder, attributes)| MountPoint { path, folder, attributes })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (text(), any::<[u64; 3]>(), any::<bool>()).prop_map(
        |(path, [set, clear, propagation], recursive)| Attributes {
            path,
            set,
            clear,
            propagation,
            recursive,
        },
    )
}

fn hook() -> impl Strategy<Value = Hook> {
    (text(), texts(), texts(), any::<u32>()).prop_map(|(path, args, env, timeout)| Hook {
        path,
        args,
        env,
        timeout,
    })
}

prop_compose! {
    fn first()(
        domainname in of(text()),
        mounts in vec(mount_point(), 0..3),
        devices in vec(node(), 0..3),
        links in vec((text(), text()), 0..3),
        attributes in vec(attributes(), 0..3),
        [masked, readonly] in [texts(), texts()],
        [readonly_root, console] in any::<[bool; 2]>(),
        start_hooks in vec(hook(), 0..3),
        state in text(),
    ) -> First {
        First {
            domainname, mounts, devices, links, attributes, masked, readonly,
            readonly_root, console, start_hooks, state,
        }
    }
}

fn exec() -> impl Strategy<Value = Exec> {
    (any::<i32>(), any::<[u64; 2]>(), texts()).prop_map(
        |(init, [init_started, namespaces], cgroups)| Exec {
            init,
            init_started,
            namespaces,
            cgroups,
        },
    )
}

fn description() -> impl Strategy<Value = Description> {
    (process(), of(first()), of(exec())).prop_map(|(process, first, exec)| Description {
        process,
        first,
        exec,
    })
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(description in description()) {
        prop_assert_eq!(decode(&encode(&description)), Some(description));
    }

    #[test]
    fn a_description_with_more_or_less_behind_it_is_none(
        description in description(),
        more in vec(any::<u8>(), 1..9),
        less in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&description);
        let cut = less.index(bytes.len());
        prop_assert_eq!(decode(&bytes[..cut]), None);
        bytes.extend(more);
        prop_assert_eq!(decode(&bytes), None);
    }

    #[test]
    fn anything_may_be_decoded(bytes in vec(any::<u8>(), 0..400)) {
        drop(decode(&bytes));
    }

    #[test]
    fn a_byte_that_is_wrong_does_no_harm(
        description in description(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(&description);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        // What it is taken for is what it would be written as.
        if let Some(other) = decode(&bytes) {
            prop_assert_eq!(encode(&other), bytes);
        }
    }
}
