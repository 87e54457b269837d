//! A node of Proxmox VE in trouble: what failed and what to do about it is said on one line, and a
//! container can be deleted then or once the trouble is over.

use crate::bed::{Bed, Pair, eventually};

const PCT: Pair = Pair { containerd: "2.1", runtime: "pct" };

const NO_QUORUM: (&str, [&str; 2]) = ("no-quorum", ["no quorum", "`pvecm status`"]);
const FULL: (&str, [&str; 2]) = ("full", ["cluster file system is full", "df /etc/pve"]);
const DOWN: (&str, [&str; 2]) = ("pmxcfs-down", ["/etc/pve", "`systemctl status pve-cluster`"]);
const NO_MONITORD: (&str, [&str; 2]) =
    ("no-monitord", ["monitor daemon", "`systemctl start lxc-monitord`"]);

fn suffer(bed: &Bed, fault: &str) {
    bed.suffer(fault, "");
    until_monitord(bed, fault, false);
}

fn recover(bed: &Bed, fault: &str) {
    bed.recover(fault);
    until_monitord(bed, fault, true);
}

/// The daemon takes a moment to go and to come.
fn until_monitord(bed: &Bed, fault: &str, there: bool) {
    if fault == "no-monitord" {
        eventually("lxc-monitord is as it should be", || {
            let sockets = bed.start("cat", &["/proc/net/unix"]).finish().stdout;
            (sockets.contains("@lxc/ad055575fe28ddd5//var/lib/lxc") == there).then_some(())
        });
    }
}

fn reconciled(bed: &Bed) {
    eventually("nothing is left in the ledger", || {
        let said = bed.start("nexcage", &["vmid", "reconcile"]).finish().good().stdout;
        (bed.vmids().is_empty() && said == "everything fits together\n").then_some(())
    });
}

#[test]
fn no_guest_can_be_made_and_it_is_said_why() {
    let bed = Bed::new(PCT);
    for direct in [false, true] {
        bed.set_pct("direct_config", direct);
        for (fault, words) in [NO_QUORUM, FULL, DOWN, NO_MONITORD] {
            suffer(&bed, fault);
            bed.run(&[], "c", &["true"]).finish().refused(&words);
            recover(&bed, fault);
            bed.ctr(&["containers", "rm", "c"]).good();
            assert!(bed.vmids().is_empty(), "{fault}: left in the ledger");
        }
    }
    bed.set_pct("storage", "nostore");
    bed.run(&[], "c", &["true"]).finish().refused(&["'nostore' does not exist", "`pvesm status`"]);
    bed.ctr(&["containers", "rm", "c"]).good();
    bed.leave_nothing();
}

#[test]
fn a_creation_that_fails_half_way_and_cannot_be_undone_is_undone_later() {
    let bed = Bed::new(PCT);
    for (fault, words) in [NO_QUORUM, DOWN] {
        bed.suffer("latency-start", "1500");
        let run = bed.run(&[], "c", &["true"]);
        let vmid = eventually("the guest is there", || bed.vmids().first().copied());
        bed.until_file_says(&format!("/etc/pve/lxc/{vmid}.conf"), "lxc.include");
        bed.suffer(fault, "");
        run.finish().refused(&words);
        bed.recover(fault);
        bed.recover("latency-start");
        bed.ctr(&["containers", "rm", "c"]).good();
        reconciled(&bed);
    }
    bed.leave_nothing();
}

#[test]
fn a_container_can_be_deleted_once_the_trouble_is_over() {
    let bed = Bed::new(PCT);
    for (fault, words) in [NO_QUORUM, FULL, DOWN] {
        bed.run_detached(&[], "c", &["sleep", "1000"]);
        suffer(&bed, fault);
        bed.kill("c", "KILL").good();
        bed.until_status("c", "STOPPED");
        bed.ctr(&["task", "rm", "c"]).refused(&words);
        recover(&bed, fault);
        assert_eq!(bed.remove_stopped("c"), 137);
        assert!(bed.vmids().is_empty(), "{fault}: left in the ledger");
    }
    // The daemon is not needed for that.
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    suffer(&bed, "no-monitord");
    assert_eq!(bed.kill_and_remove("c"), 137);
    recover(&bed, "no-monitord");
    bed.leave_nothing();
}

#[test]
fn a_guest_that_somebody_has_locked_or_protected_is_left_alone_until_it_is_free() {
    let bed = Bed::new(PCT);
    for (lock, words, free) in [
        (["--lock", "backup"], ["CT is locked (backup)", "`pct unlock "], ["--delete", "lock"]),
        (["--protection", "1"], ["protection mode", "--protection 0`"], ["--protection", "0"]),
    ] {
        bed.run_detached(&[], "c", &["sleep", "1000"]);
        let vmid = bed.vmid("c").to_string();
        bed.start("pct", &[&["set", &vmid][..], &lock].concat()).finish().good();
        bed.kill("c", "KILL").good();
        bed.until_status("c", "STOPPED");
        bed.ctr(&["task", "rm", "c"]).refused(&words);
        let tried = bed.start("nexcage", &["vmid", "reconcile"]).finish();
        assert!(tried.code == 1 && tried.stderr.contains(words[0]), "{tried:?}");
        if lock[0] == "--lock" {
            bed.start("pct", &["unlock", &vmid]).finish().good();
        } else {
            bed.start("pct", &[&["set", &vmid][..], &free].concat()).finish().good();
        }
        assert_eq!(bed.remove_stopped("c"), 137);
    }
    bed.leave_nothing();
}

#[test]
fn a_root_that_is_not_shifted_is_no_unprivileged_guests_and_the_error_says_what_would_be() {
    let bed = Bed::new(PCT);
    bed.set_pct("unprivileged", true);
    let words = ["belongs to 0:0", "user namespace", "pct.storage", "pct.unprivileged to false"];
    bed.run(&[], "c", &["true"]).finish().refused(&words);
    bed.ctr(&["containers", "rm", "c"]).good();
    bed.leave_nothing();
}
