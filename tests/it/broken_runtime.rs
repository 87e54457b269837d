//! A runtime that hangs, fails or talks nonsense: whoever asked is told in one line, everybody
//! else is served meanwhile, and what was begun can be cleaned up.

use crate::bed::{Bed, Pair, eventually};

on_every_oci_runtime!(
    a_runtime_that_fails_is_quoted_and_nothing_is_left,
    a_runtime_that_prints_garbage_is_an_error_in_one_line,
    while_a_create_hangs_others_are_served_and_it_can_be_given_up,
    while_a_start_hangs_others_are_served_and_the_container_can_be_killed,
    while_an_exec_hangs_the_container_can_be_read_and_killed,
    a_delete_that_hangs_or_fails_can_be_asked_again,
);

/// Does what /run/b/broken/VERB says before the real thing.
const BREAKABLE: &str = r#"#!/bin/sh
for verb in "$@"; do
    if [ -f "/run/b/broken/$verb" ]; then
        echo >"/run/b/reached-$verb"
        . "/run/b/broken/$verb"
    fi
done
exec @REAL@ "$@"
"#;

const HANG: &str = "exec sleep 1000";

fn bed(pair: Pair) -> Bed {
    Bed::with_programs(pair, &[(pair.backend(), BREAKABLE)])
}

fn break_verb(bed: &Bed, verb: &str, script: &str) {
    bed.write(&format!("/run/b/broken/{verb}"), script);
}

fn mend(bed: &Bed, verb: &str) {
    bed.remove(&format!("/run/b/broken/{verb}"));
}

#[track_caller]
fn until_reached(bed: &Bed, verb: &str) {
    let mark = format!("/run/b/reached-{verb}");
    eventually(&mark, || bed.path(&mark).exists().then_some(()));
}

/// A container beside it lives its life, and containerd answers.
fn others_are_served(bed: &Bed) {
    bed.tasks();
    bed.ctr(&["task", "ps", "other"]).good();
    bed.ctr(&["task", "metrics", "other"]).good();
}

fn a_runtime_that_fails_is_quoted_and_nothing_is_left(pair: Pair) {
    let bed = bed(pair);
    for verb in ["create", "start"] {
        break_verb(&bed, verb, "echo 'the moon is in the way' >&2; exit 9");
        let ended = bed.run(&["--rm"], "c", &["true"]).finish();
        let words = match verb {
            // A create's stderr is the container's.
            "create" => vec!["create container c", pair.backend(), "status 9"],
            _ => vec!["start container c", pair.backend(), "the moon is in the way"],
        };
        ended.refused(&words);
        bed.ctr(&["task", "rm", "--force", "c"]);
        bed.ctr(&["containers", "rm", "c"]);
        mend(&bed, verb);
    }
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    for verb in ["pause", "exec"] {
        let said = "echo '{\"level\":\"error\",\"msg\":\"no moon\"}' >\"$4\"; exit 9";
        break_verb(&bed, verb, said);
        let ended = match verb {
            "pause" => bed.ctr(&["task", "pause", "c"]),
            _ => bed.exec("c", "x", &["true"]).finish(),
        };
        ended.refused(&[verb, "container c", pair.backend(), "no moon"]);
        mend(&bed, verb);
    }
    assert_eq!(bed.status("c").as_deref(), Some("RUNNING"));
    assert_eq!(bed.exec("c", "x", &["sh", "-c", "exit 4"]).finish().code, 4);
    bed.kill_and_remove("c");
    bed.leave_nothing();
}

fn a_runtime_that_prints_garbage_is_an_error_in_one_line(pair: Pair) {
    let bed = bed(pair);
    let garbage = "head -c 300000 /dev/urandom >\"$4\"; head -c 300000 /dev/urandom >&2; exit ";
    for (verb, code) in [("create", 0), ("create", 1), ("start", 1)] {
        break_verb(&bed, verb, &format!("{garbage}{code}"));
        let ended = bed.run(&["--rm", "--null-io"], "c", &["true"]).finish();
        assert_ne!(ended.code, 0, "{verb} {code}: {ended:?}");
        let lines = ended.stderr.trim_end().lines().count();
        assert!(lines == 1 && ended.stderr.len() < 10_000, "{verb} {code}: {lines}: {ended:?}");
        bed.ctr(&["task", "rm", "--force", "c"]);
        bed.ctr(&["containers", "rm", "c"]);
        mend(&bed, verb);
    }
    assert_eq!(bed.run(&["--rm"], "c", &["sh", "-c", "exit 4"]).finish().code, 4);
    bed.leave_nothing();
}

fn while_a_create_hangs_others_are_served_and_it_can_be_given_up(pair: Pair) {
    let bed = bed(pair);
    bed.run_detached(&[], "other", &["sleep", "1000"]);
    break_verb(&bed, "create", HANG);
    let run = bed.run(&["--detach"], "c", &["sleep", "1000"]);
    until_reached(&bed, "create");
    others_are_served(&bed);
    // What ends the hang is the caller's patience: containerd then has the container removed.
    drop(run);
    mend(&bed, "create");
    eventually("the container can be removed", || {
        bed.ctr(&["task", "rm", "--force", "c"]);
        bed.ctr(&["containers", "rm", "c"]);
        (!bed.ctr(&["containers", "ls", "--quiet"]).good().stdout.contains("c\n")).then_some(())
    });
    assert_eq!(bed.run(&["--rm"], "c", &["sh", "-c", "exit 4"]).finish().code, 4);
    bed.kill_and_remove("other");
    bed.leave_nothing();
}

fn while_a_start_hangs_others_are_served_and_the_container_can_be_killed(pair: Pair) {
    let bed = bed(pair);
    bed.run_detached(&[], "other", &["sleep", "1000"]);
    break_verb(&bed, "start", HANG);
    let run = bed.run(&["--detach"], "c", &["sleep", "1000"]);
    until_reached(&bed, "start");
    others_are_served(&bed);
    assert_eq!(bed.status("c").as_deref(), Some("CREATED"));
    bed.kill("c", "KILL").good();
    run.finish().refused(&["start container c"]);
    mend(&bed, "start");
    bed.ctr(&["task", "rm", "--force", "c"]);
    bed.ctr(&["containers", "rm", "c"]);
    bed.kill_and_remove("other");
    bed.leave_nothing();
}

fn while_an_exec_hangs_the_container_can_be_read_and_killed(pair: Pair) {
    let bed = bed(pair);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    break_verb(&bed, "exec", HANG);
    let exec = bed.exec("c", "x", &["true"]);
    until_reached(&bed, "exec");
    assert_eq!(bed.status("c").as_deref(), Some("RUNNING"));
    bed.ctr(&["task", "ps", "c"]).good();
    bed.ctr(&["task", "metrics", "c"]).good();
    mend(&bed, "exec");
    // A second exec does not wait for the first.
    assert_eq!(bed.exec("c", "y", &["sh", "-c", "exit 4"]).finish().code, 4);
    bed.kill("c", "KILL").good();
    bed.until_status("c", "STOPPED");
    assert_ne!(exec.finish().code, 0);
    assert_eq!(bed.remove_stopped("c"), 137);
    bed.leave_nothing();
}

fn a_delete_that_hangs_or_fails_can_be_asked_again(pair: Pair) {
    let bed = bed(pair);
    for broken in ["echo 'no moon' >&2; exit 9", HANG] {
        bed.run_detached(&[], "c", &["sh", "-c", "exit 3"]);
        bed.until_status("c", "STOPPED");
        break_verb(&bed, "delete", broken);
        let refused = bed.ctr(&["task", "rm", "c"]);
        assert!(refused.stderr.contains("delete"), "{broken}: {refused:?}");
        mend(&bed, "delete");
        assert_eq!(bed.remove_stopped("c"), 3, "{broken}");
    }
    bed.leave_nothing();
}
