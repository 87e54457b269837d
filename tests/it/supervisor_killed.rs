//! When a supervisor dies, its container dies with it, containerd hears of it, and nothing stays.

use crate::bed::{Bed, Pair, eventually};

on_every_pair!(
    the_container_ends_and_all_of_it_is_cleaned_up,
    it_is_cleaned_up_also_when_containerd_was_away,
);

fn the_container_ends_and_all_of_it_is_cleaned_up(pair: Pair) {
    let bed = Bed::new(pair);
    let events = bed.events();
    // One with a pid namespace of its own, one whose processes nobody ends but nexcage.
    for flags in [vec![], vec!["--with-ns", "pid:/proc/1/ns/pid"]] {
        bed.run_detached(&flags, "c", &["sh", "-c", "sleep 1000 & sleep 1000"]);
        bed.ctr(&["task", "exec", "--detach", "--exec-id", "x", "c", "sleep", "1000"]).good();
        let pid = bed.pid("c");
        bed.signal(bed.supervisor("c"), "KILL");
        eventually("the container has ended", || (!bed.is_alive(pid)).then_some(()));
        eventually("containerd knows", || {
            (bed.status("c").as_deref() != Some("RUNNING")).then_some(())
        });
        until_forgotten(&bed);
        bed.ctr(&["containers", "rm", "c"]).good();
        let again = bed.run(&["--rm"], "c", &["sh", "-c", "exit 4"]).finish();
        assert_eq!(again.code, 4, "{again:?}");
    }
    events.until("exit c 137");
    bed.leave_nothing();
}

fn it_is_cleaned_up_also_when_containerd_was_away(pair: Pair) {
    let mut bed = Bed::new(pair);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    let (pid, supervisor) = (bed.pid("c"), bed.supervisor("c"));
    bed.stop_containerd("TERM");
    bed.signal(supervisor, "KILL");
    eventually("the supervisor is gone", || (!bed.is_alive(supervisor)).then_some(()));
    bed.start_containerd();
    eventually("the container has ended", || (!bed.is_alive(pid)).then_some(()));
    until_forgotten(&bed);
    bed.ctr(&["containers", "rm", "c"]).good();
    let again = bed.run(&["--rm"], "c", &["sh", "-c", "exit 4"]).finish();
    assert_eq!(again.code, 4, "{again:?}");
    bed.leave_nothing();
}

/// Until containerd has the task no more: its own clean-up goes on behind what it answers.
fn until_forgotten(bed: &Bed) {
    eventually("containerd has forgotten the task", || {
        bed.ctr(&["task", "rm", "--force", "c"]);
        bed.status("c").is_none().then_some(())
    });
}
