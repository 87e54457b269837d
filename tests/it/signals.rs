//! Every signal reaches the process, and how it ended is told as 128 + the signal.

use crate::bed::{Bed, Pair, eventually};

on_every_pair!(
    an_end_by_a_signal_is_128_plus_its_number,
    a_handler_sees_any_signal_also_real_time_ones,
    a_signal_to_all_reaches_children,
    a_signal_that_does_not_exist_is_refused,
    a_container_that_has_ended_cannot_be_signalled,
);

fn an_end_by_a_signal_is_128_plus_its_number(pair: Pair) {
    let bed = Bed::new(pair);
    let run = bed.run(&["--rm"], "c", &["sh", "-c", "echo on; exec sleep 1000"]);
    run.until_stdout("on");
    bed.kill("c", "KILL").good();
    assert_eq!(run.finish().code, 137);
    // Pid 1 of a namespace is immune to SIGTERM's default; in a shared one it is not pid 1.
    let shared = ["--rm", "--with-ns", "pid:/proc/1/ns/pid"];
    let run = bed.run(&shared, "c", &["sh", "-c", "echo on; exec sleep 1000"]);
    run.until_stdout("on");
    bed.kill("c", "TERM").good();
    assert_eq!(run.finish().code, 143);
    bed.leave_nothing();
}

fn a_handler_sees_any_signal_also_real_time_ones(pair: Pair) {
    let bed = Bed::new(pair);
    for (signal, number) in
        [("USR1", 10), ("SIGTERM", 15), ("36", 36), ("SIGRTMIN+3", 37), ("64", 64)]
    {
        let script =
            format!("trap 'exit {number}' {number}; echo on; while :; do sleep 0.05; done");
        let run = bed.run(&["--rm"], "c", &["sh", "-c", &script]);
        run.until_stdout("on");
        bed.kill("c", signal).good();
        assert_eq!(run.finish().code, number, "{signal}");
    }
    bed.leave_nothing();
}

fn a_signal_to_all_reaches_children(pair: Pair) {
    let bed = Bed::new(pair);
    // The child says so itself: before it is a program of its own the trap would be its, too.
    let child = "sh -c 'echo on; exec sleep 1000'";
    let script = format!("trap : TERM; {child} & wait; wait; echo child ended; exit 6");
    let run = bed.run(&["--rm"], "c", &["sh", "-c", &script]);
    run.until_stdout("on");
    bed.ctr(&["task", "kill", "--all", "--signal", "TERM", "c"]).good();
    let ended = run.finish();
    assert_eq!((ended.code, &*ended.stdout), (6, "on\nchild ended\n"));
    bed.leave_nothing();
}

fn a_signal_that_does_not_exist_is_refused(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    bed.kill("c", "65").refused(&["65"]);
    assert_eq!(bed.status("c").as_deref(), Some("RUNNING"));
    bed.kill_and_remove("c");
    bed.leave_nothing();
}

fn a_container_that_has_ended_cannot_be_signalled(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &["true"]);
    eventually("it has ended", || (bed.status("c")? == "STOPPED").then_some(()));
    bed.kill("c", "KILL").refused(&["process already finished"]);
    assert_eq!(bed.remove_stopped("c"), 0);
    bed.leave_nothing();
}
