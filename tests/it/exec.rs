//! More processes in a running container.

use crate::bed::{Bed, Pair};

on_every_pair!(
    output_and_exit_code_of_an_exec_reach_the_caller,
    a_signal_ends_an_exec_and_not_the_container,
    a_missing_program_is_an_error_that_names_it_and_never_success,
    an_exec_in_a_container_that_has_ended_is_refused,
    an_exec_id_in_use_is_refused_and_its_owner_goes_on,
    the_end_of_a_container_ends_its_execs,
    what_an_exec_leaves_running_does_not_hold_it_up,
);

fn output_and_exit_code_of_an_exec_reach_the_caller(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    let ended = bed.exec("c", "x", &["sh", "-c", "echo out; echo err >&2; exit 3"]).finish();
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (3, "out\n", "err\n"));
    let ended = bed.exec("c", "x", &["true"]).finish();
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (0, "", ""));
    bed.kill_and_remove("c");
    bed.leave_nothing();
}

fn a_signal_ends_an_exec_and_not_the_container(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    for (signal, code) in [("TERM", 143), ("KILL", 137)] {
        let exec = bed.exec("c", "x", &["sh", "-c", "echo on; exec sleep 1000"]);
        exec.until_stdout("on");
        bed.kill_exec("c", "x", signal);
        assert_eq!(exec.finish().code, code);
    }
    assert_eq!(bed.status("c").as_deref(), Some("RUNNING"));
    bed.kill_and_remove("c");
    bed.leave_nothing();
}

fn a_missing_program_is_an_error_that_names_it_and_never_success(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    bed.exec("c", "x", &["nosuchprogram"]).finish().refused(&[
        "nosuchprogram",
        pair.backend(),
        "exec x",
    ]);
    // The id is free, and the container as it was.
    assert_eq!(bed.exec("c", "x", &["sh", "-c", "exit 4"]).finish().code, 4);
    bed.kill_and_remove("c");
    bed.leave_nothing();
}

fn an_exec_in_a_container_that_has_ended_is_refused(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &["true"]);
    bed.until_status("c", "STOPPED");
    bed.exec("c", "x", &["true"]).finish().refused(&["ended"]);
    assert_eq!(bed.remove_stopped("c"), 0);
    bed.leave_nothing();
}

fn an_exec_id_in_use_is_refused_and_its_owner_goes_on(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    let command = ["sh", "-c", "trap 'exit 9' USR1; echo on; while :; do sleep 0.1; done"];
    let first = bed.exec("c", "x", &command);
    first.until_stdout("on");
    bed.exec("c", "x", &["true"]).finish().refused(&["x", "already exists"]);
    bed.kill_exec("c", "x", "USR1");
    assert_eq!(first.finish().code, 9);
    bed.kill_and_remove("c");
    bed.leave_nothing();
}

fn the_end_of_a_container_ends_its_execs(pair: Pair) {
    let bed = Bed::new(pair);
    for flags in [vec![], vec!["--with-ns", "pid:/proc/1/ns/pid"]] {
        bed.run_detached(&flags, "c", &["sleep", "1000"]);
        let exec = bed.exec("c", "x", &["sh", "-c", "echo on; exec sleep 1000"]);
        exec.until_stdout("on");
        bed.kill("c", "KILL").good();
        assert_eq!(exec.finish().code, 137, "{flags:?}");
        bed.until_status("c", "STOPPED");
        assert_eq!(bed.remove_stopped("c"), 137);
    }
    bed.leave_nothing();
}

fn what_an_exec_leaves_running_does_not_hold_it_up(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    // It holds the exec's stdout, and nobody will ever close that.
    let exec = bed.exec("c", "x", &["sh", "-c", "sleep 1000 & echo on; exit 5"]);
    let ended = exec.finish_within(std::time::Duration::from_secs(20));
    assert_eq!((ended.code, &*ended.stdout), (5, "on\n"));
    bed.kill_and_remove("c");
    bed.leave_nothing();
}
