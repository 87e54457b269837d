//! A supervisor that is killed at any step of a creation: no guest stays, no vmid is lost, and
//! none is used twice.

use crate::bed::{Bed, Pair, eventually};

const PCT: Pair = Pair { containerd: "2.1", runtime: "pct" };

/// Where pct is slow, and what the guest's configuration and LXC's say when it is there.
const STEPS: [(&str, &str); 5] = [
    ("latency-create", ""),
    ("latency-create-locked", "lock: create"),
    ("latency-start", "lxc.include"),
    ("latency-pre-start", "lxc.include"),
    ("latency-start-pid", "lxc.include"),
];

fn killed_in(bed: &Bed, step: &str, says: &str) {
    bed.suffer(step, "1500");
    let run = bed.run(&[], "c", &["sleep", "1000"]);
    let vmid = eventually("it is being made", || bed.vmids().first().copied());
    eventually("pct is at work", || {
        let guest = bed.read(&format!("/etc/pve/lxc/{vmid}.conf"));
        let verb = if says.contains("include") { "start" } else { "create" };
        let call = format!("/pct {verb} {vmid}");
        let at_work = bed.processes().iter().any(|process| process.contains(&call));
        (guest.contains(says) && at_work).then_some(())
    });
    if step == "latency-start-pid" {
        bed.until_status("c", "RUNNING");
    }
    bed.signal(bed.supervisor("c"), "KILL");
    bed.recover(step);
    // An id that is still in somebody's hands is nobody else's.
    bed.run_detached(&[], "d", &["sleep", "1000"]);
    assert_ne!(bed.vmid("d"), vmid, "{step}: used twice");
    if step == "latency-start-pid" {
        drop(run);
        bed.ctr(&["task", "rm", "--force", "c"]);
    } else {
        assert_ne!(run.finish().code, 0, "{step}");
    }
    eventually("the record can be removed", || {
        (bed.ctr(&["containers", "rm", "c"]).code == 0).then_some(())
    });
    assert_eq!(bed.kill_and_remove("d"), 137);
    // Its name is free, too.
    // containerd forgets a task whose supervisor died in its own time.
    let again = eventually("the name is free", || {
        let again = bed.run(&["--rm"], "c", &["sh", "-c", "exit 4"]).finish();
        bed.ctr(&["containers", "rm", "c"]);
        (!again.stderr.contains("already exists")).then_some(again)
    });
    assert_eq!(again.code, 4, "{step}: {again:?}");
    eventually("everything fits together", || {
        bed.start("nexcage", &["vmid", "reconcile"]).finish();
        let guests = bed.start("ls", &["/etc/pve/lxc"]).finish().stdout;
        (bed.vmids().is_empty() && guests.is_empty()).then_some(())
    });
}

#[test]
fn nothing_is_left_of_a_guest_that_pct_made() {
    let bed = Bed::new(PCT);
    for (step, says) in STEPS {
        killed_in(&bed, step, says);
    }
    bed.leave_nothing();
}

#[test]
fn nothing_is_left_of_a_guest_whose_configuration_was_written() {
    let bed = Bed::new(PCT);
    bed.set_pct("direct_config", true);
    for (step, says) in &STEPS[2..] {
        killed_in(&bed, step, says);
    }
    bed.leave_nothing();
}

/// What pct leaves of itself then is a guest that says nothing but that it is locked.
#[test]
fn nothing_is_left_of_a_guest_whose_pct_was_killed() {
    let bed = Bed::new(PCT);
    for with_supervisor in [false, true] {
        bed.suffer("latency-create-locked", "60000");
        let mut run = Some(bed.run(&[], "c", &["sleep", "1000"]));
        let vmid = eventually("it is being made", || bed.vmids().first().copied());
        let guest = format!("/etc/pve/lxc/{vmid}.conf");
        bed.until_file_says(&guest, "lock: create");
        let supervisor = bed.supervisor("c");
        if with_supervisor {
            bed.signal(supervisor, "KILL");
            drop(run.take().map(crate::bed::Started::finish));
            // Whoever makes the guest goes on, and is waited for.
            let waits = bed.start("nexcage", &["vmid", "reconcile", "--destroy"]).finish().good();
            assert!(!waits.stdout.contains("locked"), "{waits:?}");
            assert_eq!(bed.read(&guest), "lock: create\n");
        }
        for process in bed.processes() {
            let (pid, line) = process.trim_start_matches("process ").split_once(": ").unwrap();
            if line.contains(&format!("create {vmid}")) {
                nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid.parse().unwrap()),
                    nix::sys::signal::Signal::SIGKILL,
                )
                .unwrap();
            }
        }
        bed.recover("latency-create-locked");
        match run {
            Some(run) => drop(run.finish().refused(&["pct create"])),
            None => eventually("it is destroyed", || {
                bed.start("nexcage", &["vmid", "reconcile", "--destroy"]).finish();
                bed.vmids().is_empty().then_some(())
            }),
        }
        eventually("the record can be removed", || {
            bed.ctr(&["task", "rm", "--force", "c"]);
            (bed.ctr(&["containers", "rm", "c"]).code == 0).then_some(())
        });
        eventually("the guest is gone", || bed.vmids().is_empty().then_some(()));
        assert_eq!(bed.read(&guest), "");
        // Its name is free, too.
        eventually("the name is free", || {
            let again = bed.run(&["--rm"], "c", &["sh", "-c", "exit 4"]).finish();
            bed.ctr(&["containers", "rm", "c"]);
            (again.code == 4).then_some(())
        });
    }
    bed.leave_nothing();
}
