//! A container can be frozen and thawed, and killed while it is frozen.

use crate::bed::{Bed, Pair, eventually};
use std::time::Duration;

on_every_pair!(
    a_paused_container_stands_still_and_goes_on_when_resumed,
    a_paused_container_can_be_killed,
);

const COUNTER: [&str; 3] = ["sh", "-c", "while :; do echo x >>/tmp/count; sleep 0.02; done"];

fn a_paused_container_stands_still_and_goes_on_when_resumed(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &COUNTER);
    let count = || bed.read(&format!("{}/rootfs/tmp/count", bed.bundle("c"))).len();
    eventually("it counts", || (count() > 4).then_some(()));
    bed.ctr(&["task", "pause", "c"]).good();
    assert_eq!(bed.status("c").as_deref(), Some("PAUSED"));
    assert_eq!(bed.record("c")["status"], "paused");
    let frozen = count();
    // The only sleep: that something does not happen shows in no condition.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(count(), frozen, "it went on while it was paused");
    bed.exec("c", "x", &["true"]).finish().refused(&["paused"]);
    bed.ctr(&["task", "resume", "c"]).good();
    assert_eq!(bed.status("c").as_deref(), Some("RUNNING"));
    assert_eq!(bed.record("c")["status"], "running");
    eventually("it counts on", || (count() > frozen).then_some(()));
    bed.ctr(&["task", "resume", "c"]).refused(&["c"]);
    bed.kill_and_remove("c");
    bed.leave_nothing();
}

fn a_paused_container_can_be_killed(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &COUNTER);
    bed.ctr(&["task", "pause", "c"]).good();
    assert_eq!(bed.kill_and_remove("c"), 137);
    bed.leave_nothing();
}
