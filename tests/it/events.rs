//! containerd hears of everything that happens to a container: in order, and each thing once.

use crate::bed::{Bed, Pair};

on_every_pair!(
    a_whole_life_is_told_in_order_and_each_event_once,
    the_end_of_execs_is_told_before_the_end_of_their_container,
    a_container_that_cannot_be_made_is_never_told_of,
);

fn a_whole_life_is_told_in_order_and_each_event_once(pair: Pair) {
    let bed = Bed::new(pair);
    let events = bed.events();
    bed.run_detached(&[], "c", &["sh", "-c", "trap 'exit 5' USR1; while :; do sleep 0.05; done"]);
    let pid = bed.pid("c");
    assert_eq!(bed.exec("c", "x", &["sh", "-c", "exit 3"]).finish().code, 3);
    bed.ctr(&["task", "pause", "c"]).good();
    bed.ctr(&["task", "resume", "c"]).good();
    bed.kill("c", "USR1").good();
    bed.until_status("c", "STOPPED");
    assert_eq!(bed.remove_stopped("c"), 5);
    events.until("delete c");
    let expected = [
        "create c",
        "start c",
        "exec-added c/x",
        "exec-started c/x",
        "exit c/x 3",
        "paused c",
        "resumed c",
        "exit c 5",
        "delete c",
    ];
    assert_eq!(events.brief(), expected);
    let all = events.so_far();
    let of = |topic: &str| &all.iter().rfind(|event| event.topic == topic).unwrap().value;
    for topic in ["create", "start", "exit", "delete"] {
        assert_eq!(of(topic)["pid"], pid, "{topic}");
    }
    assert_eq!(of("create")["bundle"], bed.bundle("c"));
    assert_eq!(of("create")["rootfs"][0]["type"], "overlay");
    assert_eq!(of("delete")["exit_status"], 5);
    assert_eq!(of("delete")["exited_at"], of("exit")["exited_at"]);
    bed.leave_nothing();
}

fn the_end_of_execs_is_told_before_the_end_of_their_container(pair: Pair) {
    let bed = Bed::new(pair);
    let events = bed.events();
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    for exec in ["x", "y", "z"] {
        let args = ["task", "exec", "--detach", "--exec-id", exec, "c", "sleep", "1000"];
        bed.ctr(&args).good();
    }
    bed.kill("c", "KILL").good();
    events.until("exit c 137");
    let told = events.brief();
    let mut execs: Vec<_> = told[told.len() - 4..told.len() - 1].to_vec();
    execs.sort();
    assert_eq!(execs, ["exit c/x 137", "exit c/y 137", "exit c/z 137"], "{told:?}");
    assert_eq!(told.last().unwrap(), "exit c 137");
    assert_eq!(bed.remove_stopped("c"), 137);
    bed.leave_nothing();
}

fn a_container_that_cannot_be_made_is_never_told_of(pair: Pair) {
    let bed = Bed::new(pair);
    let events = bed.events();
    bed.run(&["--rm"], "bad", &["nosuchprogram"]).finish().refused(&["nosuchprogram"]);
    assert_eq!(bed.run(&["--rm"], "good", &["true"]).finish().code, 0);
    events.until("delete good");
    let expected = ["create good", "start good", "exit good 0", "delete good"];
    let told = events.brief();
    let of_good: Vec<_> = told.iter().filter(|event| event.contains("good")).collect();
    assert_eq!(of_good, expected);
    // containerd itself tells of an end and a delete of what it could not make.
    for event in told.iter().filter(|event| event.contains("bad")) {
        assert!(event.starts_with("exit bad") || event.starts_with("delete bad"), "{told:?}");
    }
    bed.leave_nothing();
}
