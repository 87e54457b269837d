//! What a container prints, how it ends and where it is listed reaches whoever ran it.

use crate::bed::{Bed, Pair};

on_every_pair!(
    output_and_exit_code_reach_the_caller,
    a_program_that_does_not_exist_is_an_error_that_names_it,
    a_container_in_the_background_is_listed_until_it_is_removed,
    an_id_can_be_used_again_at_once,
    what_a_container_leaves_running_ends_with_it,
);

fn output_and_exit_code_reach_the_caller(pair: Pair) {
    let bed = Bed::new(pair);
    let both = ["sh", "-c", "echo out; echo err >&2; exit 7"];
    let ended = bed.run(&["--rm"], "c", &both).finish();
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (7, "out\n", "err\n"));
    let ended = bed.run(&["--rm"], "c", &["true"]).finish();
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (0, "", ""));
    let ended = bed.run(&["--rm"], "c", &["sh", "-c", "nosuchprogram"]).finish();
    assert_eq!(ended.code, 127, "{ended:?}");
    bed.leave_nothing();
}

fn a_program_that_does_not_exist_is_an_error_that_names_it(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run(&["--rm"], "c", &["nosuchprogram"]).finish().refused(&[
        "nosuchprogram",
        pair.backend(),
        "container c",
    ]);
    bed.leave_nothing();
}

fn a_container_in_the_background_is_listed_until_it_is_removed(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    assert_eq!(bed.status("c").as_deref(), Some("RUNNING"));
    let pid = bed.pid("c");
    let line = bed.read(&format!("/proc/{pid}/cmdline"));
    assert_eq!(line, "sleep\x001000\0", "the listed pid is not the container's");
    let record = bed.record("c");
    assert_eq!(record["status"], "running");
    assert_eq!(record["id"], "c");
    assert_eq!(record["pid"], pid);
    assert_eq!(record["bundle"], bed.bundle("c"));
    assert_eq!(bed.kill_and_remove("c"), 137);
    bed.leave_nothing();
}

fn an_id_can_be_used_again_at_once(pair: Pair) {
    let bed = Bed::new(pair);
    for round in 0..5 {
        let command = format!("exit {round}");
        assert_eq!(bed.run(&["--rm"], "c", &["sh", "-c", &command]).finish().code, round);
    }
    bed.leave_nothing();
}

/// With a pid namespace of its own the kernel does it; in one that is shared nexcage must.
fn what_a_container_leaves_running_ends_with_it(pair: Pair) {
    let bed = Bed::new(pair);
    for flags in [vec!["--rm"], vec!["--rm", "--with-ns", "pid:/proc/1/ns/pid"]] {
        let ended = bed.run(&flags, "c", &["sh", "-c", "sleep 1000 & echo on; exit 3"]).finish();
        assert_eq!((ended.code, &*ended.stdout), (3, "on\n"), "{flags:?}");
    }
    bed.leave_nothing();
}
