//! A cluster file system whose daemon hangs: no call on /etc/pve comes back, and nobody waits for
//! it who does not need it.

use crate::bed::{Bed, Pair, eventually};
use std::time::{Duration, Instant};

const PCT: Pair = Pair { containerd: "2.1", runtime: "pct" };

/// What is said, on which file system, and where to look.
const SAID: [&str; 3] = ["/etc/pve does not answer", "within", "`systemctl status pve-cluster"];

#[track_caller]
fn within<T>(seconds: u64, what: &str, call: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = call();
    assert!(begun.elapsed() < Duration::from_secs(seconds), "{what} took {:?}", begun.elapsed());
    done
}

#[test]
fn what_runs_is_served_and_what_needs_it_fails_in_time() {
    let bed = Bed::new(PCT);
    for id in ["c", "d"] {
        bed.run_detached(&[], id, &["sleep", "1000"]);
    }
    bed.suffer("pmxcfs-hangs", "");
    let mut other = bed.run(&[], "e", &["true"]);
    eventually("it is being made", || {
        bed.processes().iter().any(|process| process.contains("-id e ")).then_some(())
    });
    for id in ["c", "d"] {
        within(2, "State", || assert_eq!(bed.status(id).as_deref(), Some("RUNNING")));
        within(2, "Pids", || bed.ctr(&["task", "ps", id]).good());
        within(2, "an exec", || bed.exec(id, "x", &["true"]).finish().good());
        within(2, "pause", || bed.ctr(&["task", "pause", id]).good());
        within(2, "resume", || bed.ctr(&["task", "resume", id]).good());
    }
    assert!(!other.has_ended(), "the Create does not wait");
    within(8, "Create", || other.finish().refused(&SAID));
    bed.kill("c", "KILL").good();
    bed.until_status("c", "STOPPED");
    // The one supervisor's removal does not come through, and the other's State does not wait.
    within(5, "Delete", || bed.ctr(&["task", "rm", "c"]).refused(&SAID));
    within(2, "State", || assert_eq!(bed.status("c").as_deref(), Some("STOPPED")));
    within(8, "vmid list", || {
        let listed = bed.start("nexcage", &["vmid", "list"]).finish().good().stdout;
        assert!(listed.contains("unknown"), "{listed}");
    });
    within(8, "vmid reconcile", || {
        let said = bed.start("nexcage", &["vmid", "reconcile"]).finish();
        assert!(said.code == 1 && said.stderr.contains(SAID[0]), "{said:?}");
    });

    bed.recover("pmxcfs-hangs");
    assert_eq!(bed.remove_stopped("c"), 137);
    assert_eq!(bed.kill_and_remove("d"), 137);
    bed.ctr(&["containers", "rm", "e"]).good();
    eventually("nothing is left in the ledger", || bed.vmids().is_empty().then_some(()));
    bed.leave_nothing();
}

#[test]
fn one_that_begins_to_hang_in_the_middle_of_a_create_ends_it_and_is_tidied_later() {
    let bed = Bed::new(PCT);
    for (direct, slow) in [(false, "latency-create-locked"), (true, "latency-start")] {
        bed.set_pct("direct_config", direct);
        bed.suffer(slow, "1500");
        let run = bed.run(&[], "c", &["sleep", "1000"]);
        let vmid = eventually("it is being made", || bed.vmids().first().copied());
        bed.until_file_says(
            &format!("/etc/pve/lxc/{vmid}.conf"),
            if direct { "lxc.include" } else { "lock" },
        );
        bed.suffer("pmxcfs-hangs", "");
        within(20, "Create", || run.finish().refused(&SAID));
        bed.recover("pmxcfs-hangs");
        bed.recover(slow);
        bed.ctr(&["containers", "rm", "c"]).good();
        eventually("it is finished by whoever comes next", || {
            bed.start("nexcage", &["vmid", "reconcile"]).finish();
            let guests = bed.start("ls", &["/etc/pve/lxc"]).finish().stdout;
            (bed.vmids().is_empty() && guests.is_empty()).then_some(())
        });
    }
    bed.leave_nothing();
}

/// The supervisor is killed meanwhile, and containerd has its `delete` clean up.
#[test]
fn a_supervisor_that_is_killed_meanwhile_keeps_nobody_from_a_delete() {
    let bed = Bed::new(PCT);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    let supervisor = bed.supervisor("c");
    bed.suffer("pmxcfs-hangs", "");
    bed.signal(supervisor, "KILL");
    eventually("the supervisor is gone", || (!bed.is_alive(supervisor)).then_some(()));
    bed.recover("pmxcfs-hangs");
    eventually("the task can be removed", || {
        bed.ctr(&["task", "rm", "--force", "c"]);
        (bed.ctr(&["containers", "rm", "c"]).code == 0).then_some(())
    });
    eventually("it is finished by whoever comes next", || {
        bed.start("nexcage", &["vmid", "reconcile", "--destroy"]).finish();
        bed.vmids().is_empty().then_some(())
    });
    // Its name is free, and its socket goes with the next of that name.
    assert_eq!(bed.run(&["--rm"], "c", &["sh", "-c", "exit 4"]).finish().code, 4);
    bed.leave_nothing();
}
