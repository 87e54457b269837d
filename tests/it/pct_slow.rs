//! pct takes most of a second and may take many: nobody waits for it who need not.

use crate::bed::{Bed, Pair, eventually};
use std::time::{Duration, Instant};

const PCT: Pair = Pair { containerd: "2.1", runtime: "pct" };

/// What pct is made to take, and what may not take as long.
const SLOW: &str = "6000";
const LIMIT: Duration = Duration::from_secs(5);

#[track_caller]
fn at_once<T>(what: &str, call: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = call();
    assert!(begun.elapsed() < LIMIT, "{what} took {:?}", begun.elapsed());
    done
}

#[test]
fn while_one_container_is_made_the_others_are_served() {
    let bed = Bed::new(PCT);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    for slow in ["latency-create", "latency-start"] {
        bed.suffer(slow, SLOW);
        let id = &slow[8..];
        let mut other = bed.run(&[], id, &["sh", "-c", "exit 3"]);
        eventually("it is being made", || (bed.vmids().len() == 2).then_some(()));
        at_once("task ls", || bed.tasks());
        at_once("an exec", || bed.exec("c", "x", &["true"]).finish().good());
        assert!(!other.has_ended());
        bed.recover(slow);
        assert_eq!(other.finish().code, 3);
        bed.ctr(&["containers", "rm", id]).good();
    }
    assert_eq!(bed.kill_and_remove("c"), 137);
    bed.leave_nothing();
}

#[test]
fn a_creation_that_hangs_in_pct_can_be_killed() {
    let bed = Bed::new(PCT);
    for slow in ["latency-create", "latency-create-locked", "latency-start"] {
        bed.suffer(slow, SLOW);
        bed.ctr(&[&["containers", "create"], &bed.run_args(&[], "c", &["true"])[1..]].concat())
            .good();
        let start = bed.start("ctr", &["task", "start", "c"]);
        eventually("it is being made", || (bed.vmids().len() == 1).then_some(()));
        eventually("it is killed", || (bed.kill("c", "KILL").code == 0).then_some(()));
        at_once("the end", || start.finish().refused(&["killed while it was being created"]));
        bed.recover(slow);
        bed.ctr(&["containers", "rm", "c"]).good();
        // The supervisor stays for what pct still does.
        eventually("the guest is gone", || bed.vmids().is_empty().then_some(()));
    }
    bed.leave_nothing();
}

#[test]
fn a_delete_does_not_wait_for_the_destroy_and_the_supervisor_does() {
    let bed = Bed::new(PCT);
    for slow in ["latency-destroy", "latency-destroy-locked"] {
        bed.suffer(slow, SLOW);
        bed.run_detached(&[], "c", &["sleep", "1000"]);
        let first = bed.vmid("c");
        bed.kill("c", "KILL").good();
        bed.until_status("c", "STOPPED");
        assert_eq!(at_once("the Delete", || bed.remove_stopped("c")), 137);
        assert!(bed.vmids().contains(&first), "{slow}: the destroy was not slow");
        bed.recover(slow);
        // The name is free, and the number is not.
        bed.run_detached(&[], "c", &["sleep", "1000"]);
        assert_ne!(bed.vmid("c"), first);
        assert_eq!(bed.kill_and_remove("c"), 137);
        eventually("the destroy was finished", || bed.vmids().is_empty().then_some(()));
    }
    bed.leave_nothing();
}

#[test]
fn a_guest_that_has_ended_before_its_start_did_is_removed_after_that() {
    let bed = Bed::new(PCT);
    bed.suffer("latency-start-pid", SLOW);
    let job = || bed.run(&["--rm"], "c", &["sh", "-c", "exit 4"]).finish().code;
    assert_eq!(at_once("the container", job), 4);
    assert_eq!(bed.vmids().len(), 1);
    eventually("the guest is gone", || bed.vmids().is_empty().then_some(()));
    bed.leave_nothing();
}

#[test]
fn a_destroy_that_nobody_finished_is_finished_by_the_next_nexcage() {
    let bed = Bed::new(PCT);
    for by_hand in [true, false] {
        bed.suffer("latency-start-pid", SLOW);
        bed.run_detached(&[], "c", &["sleep", "1000"]);
        let (first, supervisor) = (bed.vmid("c"), bed.supervisor("c"));
        bed.kill("c", "KILL").good();
        bed.until_status("c", "STOPPED");
        bed.remove_stopped("c");
        // It waits for the start to end, and has not begun to destroy.
        bed.signal(supervisor, "KILL");
        eventually("it is gone", || {
            bed.start("kill", &["-0", &supervisor.to_string()]).finish().code.ne(&0).then_some(())
        });
        bed.recover("latency-start-pid");
        let guest = format!("/etc/pve/lxc/{first}.conf");
        assert!(!bed.read(&guest).is_empty() && bed.vmids() == [first]);
        if by_hand {
            bed.start("nexcage", &["vmid", "reconcile"]).finish().good();
        } else {
            assert_eq!(bed.run(&["--rm"], "d", &["sh", "-c", "exit 4"]).finish().code, 4);
        }
        eventually("the guest is gone", || bed.vmids().is_empty().then_some(()));
        assert_eq!(bed.read(&guest), "");
    }
    bed.leave_nothing();
}

/// containerd gives `delete` 5 s, and a destroy may take longer.
#[test]
fn a_delete_after_a_killed_supervisor_does_not_wait_for_the_destroy() {
    let mut bed = Bed::new(PCT);
    for slow in ["latency-destroy", "latency-destroy-locked"] {
        bed.run_detached(&[], "c", &["sleep", "1000"]);
        let (first, supervisor, pid) = (bed.vmid("c"), bed.supervisor("c"), bed.pid("c"));
        bed.suffer(slow, SLOW);
        // It would have deleted the container by itself.
        bed.stop_containerd("KILL");
        bed.signal(supervisor, "KILL");
        let bundle = bed.bundle("c");
        let script = format!(
            "cd {bundle} && exec containerd-shim-nexcage-v1 -namespace {} -address /run/b/c.sock \
             -id c -bundle {bundle} delete",
            bed.namespace
        );
        at_once("delete", || bed.start("sh", &["-c", &script]).finish().good());
        assert!(!bed.is_alive(pid), "{slow}: it lives");
        assert_eq!(bed.vmids(), [first], "{slow}: the destroy was not slow");
        assert!(bed.read(&format!("/var/lib/nexcage/vmids/{first}")).contains("destroying"));
        bed.recover(slow);
        bed.start_containerd();
        eventually("containerd knows", || bed.tasks().is_empty().then_some(()));
        bed.ctr(&["containers", "rm", "c"]).good();
        // Whoever comes next finishes it.
        eventually("the guest is gone", || {
            assert_eq!(bed.run(&["--rm"], "d", &["sh", "-c", "exit 4"]).finish().code, 4);
            bed.vmids().is_empty().then_some(())
        });
        assert_eq!(bed.read(&format!("/etc/pve/lxc/{first}.conf")), "");
    }
    // The socket of a supervisor that was killed goes with the next of that name.
    assert_eq!(bed.run(&["--rm"], "c", &["sh", "-c", "exit 4"]).finish().code, 4);
    bed.leave_nothing();
}
