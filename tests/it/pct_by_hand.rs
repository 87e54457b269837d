//! What people and reboots do to guests behind nexcage's back.

use crate::bed::{Bed, Pair, eventually};

const PCT: Pair = Pair { containerd: "2.1", runtime: "pct" };

#[test]
fn a_guest_that_is_stopped_or_destroyed_by_hand_is_a_container_that_was_killed() {
    let bed = Bed::new(PCT);
    let events = bed.events();
    for command in ["stop", "destroy"] {
        bed.run_detached(&[], command, &["sleep", "1000"]);
        let vmid = bed.vmid(command).to_string();
        let force: &[&str] = if command == "destroy" { &["--force", "1"] } else { &[] };
        bed.start("pct", &[&[command, &vmid], force].concat()).finish().good();
        bed.until_status(command, "STOPPED");
        events.until(&format!("exit {command} 137"));
        assert_eq!(bed.remove_stopped(command), 137);
        assert!(bed.vmids().is_empty());
    }
    bed.leave_nothing();
}

#[test]
fn after_a_reboot_a_guest_is_stale_and_goes_when_that_is_asked_for() {
    let mut bed = Bed::new(PCT);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    let (vmid, supervisor) = (bed.vmid("c"), bed.supervisor("c"));
    let entry = format!("/var/lib/nexcage/vmids/{vmid}");
    let boot_id = bed.read("/proc/sys/kernel/random/boot_id").trim().to_owned();
    // The host goes down, and comes up without /run and with another id.
    bed.stop_containerd("KILL");
    bed.signal(supervisor, "KILL");
    eventually("the supervisor is gone", || (!bed.is_alive(supervisor)).then_some(()));
    bed.start("pct", &["stop", &vmid.to_string()]).finish();
    let text = bed.read(&entry);
    assert!(text.contains(&boot_id), "{text}");
    bed.write(&entry, &text.replace(&boot_id, "00000000-0000-0000-0000-000000000000"));
    let state = format!("/run/nexcage/{}", bed.namespace);
    bed.start("rm", &["-r", &state]).finish().good();

    let stale = format!("{vmid}: stale, its container {}/c is gone", bed.namespace);
    let reconcile = |more: &[&str]| {
        bed.start("nexcage", &[&["vmid", "reconcile"], more].concat()).finish().good().stdout
    };
    assert_eq!(reconcile(&[]), format!("{stale} (--destroy destroys it)\n"));
    assert_eq!(reconcile(&["--destroy"]), format!("{stale}\n"));
    assert_eq!(reconcile(&[]), "everything fits together\n");
    bed.start_containerd();
    eventually("containerd has seen it", || bed.tasks().is_empty().then_some(()));
    bed.ctr(&["containers", "rm", "c"]).good();
    assert_eq!(bed.run(&["--rm"], "c", &["sh", "-c", "exit 4"]).finish().code, 4);
    bed.leave_nothing();
}
