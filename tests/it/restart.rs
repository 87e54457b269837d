//! Containers do not notice that containerd ends, and containerd finds them when it is back.

use crate::bed::{Bed, Pair, eventually};

on_every_pair!(
    containers_go_on_while_containerd_is_ended_and_are_found_again,
    containers_go_on_while_containerd_is_killed_and_are_found_again,
    an_end_that_containerd_missed_is_told_when_it_is_back,
    containerd_killed_in_the_middle_of_a_create_leaves_nothing_for_ever,
    a_create_that_hangs_longer_than_containerd_lives_can_be_given_up,
);

fn containers_go_on_while_containerd_is_ended_and_are_found_again(pair: Pair) {
    go_on(pair, "TERM");
}

fn containers_go_on_while_containerd_is_killed_and_are_found_again(pair: Pair) {
    go_on(pair, "KILL");
}

fn go_on(pair: Pair, signal: &str) {
    let mut bed = Bed::new(pair);
    let script = "trap 'exit 6' USR1; n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done";
    bed.run_detached(&["--log-uri", "file:///run/b/log"], "c", &["sh", "-c", script]);
    // Its output goes through pipes of ctr, which is gone with containerd.
    bed.run_detached(&[], "fifo", &["sh", "-c", script]);
    bed.ctr(&["task", "exec", "--detach", "--exec-id", "x", "c", "sleep", "1000"]).good();
    let pids = [bed.pid("c"), bed.pid("fifo")];
    bed.stop_containerd(signal);
    let lines = || bed.read("/run/b/log").lines().count();
    let at_end = lines();
    eventually("output is written while containerd is away", || {
        (lines() > at_end + 10).then_some(())
    });
    assert!(bed.is_alive(pids[1]), "a container ended with containerd");
    bed.start_containerd();
    for (id, pid) in ["c", "fifo"].into_iter().zip(pids) {
        assert_eq!(bed.status(id).as_deref(), Some("RUNNING"), "{id}");
        assert_eq!(bed.pid(id), pid);
        assert_eq!(bed.exec(id, "y", &["sh", "-c", "exit 3"]).finish().code, 3);
    }
    // An exec from before is known and can be signalled.
    bed.exec("c", "x", &["true"]).finish().refused(&["exists"]);
    bed.kill_exec("c", "x", "KILL");
    let events = bed.events();
    bed.kill("c", "USR1").good();
    events.until("exit c 6");
    bed.until_status("c", "STOPPED");
    assert_eq!(bed.remove_stopped("c"), 6);
    let log = bed.read("/run/b/log");
    let whole = log.lines().zip(1..).all(|(line, number)| line == number.to_string());
    assert!(whole, "lines are missing");
    assert_eq!(bed.kill_and_remove("fifo"), 137);
    events.until("delete fifo");
    let ends = events.brief().into_iter().filter(|event| event.starts_with("exit c "));
    assert_eq!(ends.count(), 1, "{:?}", events.brief());
    drop(events);
    bed.leave_nothing();
}

fn an_end_that_containerd_missed_is_told_when_it_is_back(pair: Pair) {
    let mut bed = Bed::new(pair);
    let script = "until [ -e /tmp/go ]; do sleep 0.02; done; exit 8";
    bed.run_detached(&[], "c", &["sh", "-c", script]);
    let pid = bed.pid("c");
    let go = format!("{}/rootfs/tmp/go", bed.bundle("c"));
    bed.stop_containerd("KILL");
    bed.write(&go, "");
    eventually("the container has ended", || (!bed.is_alive(pid)).then_some(()));
    eventually("its end is on record", || (bed.record("c")["status"] == "stopped").then_some(()));
    assert_eq!(bed.record("c")["io.nexcage"]["exit"]["status"], 8);
    bed.start_containerd();
    bed.until_status("c", "STOPPED");
    assert_eq!(bed.remove_stopped("c"), 8);
    bed.leave_nothing();
}

fn containerd_killed_in_the_middle_of_a_create_leaves_nothing_for_ever(pair: Pair) {
    killed_in_create(pair, true);
}

fn a_create_that_hangs_longer_than_containerd_lives_can_be_given_up(pair: Pair) {
    killed_in_create(pair, false);
}

/// `goes_on` is whether the runtime's create comes to its end after all.
fn killed_in_create(pair: Pair, goes_on: bool) {
    let waits = "#!/bin/sh
for word in \"$@\"; do
    if [ \"$word\" = @WORD@ ]; then
        echo >/run/b/creating
        until [ -e /run/b/go ]; do sleep 0.02; done
    fi
done
exec @REAL@ \"$@\"
";
    let (program, word) = pair.maker();
    let waits = waits.replace("@WORD@", word);
    let mut bed = Bed::with_programs(pair, &[(program, &waits)]);
    let run = bed.run(&["--detach"], "c", &["sleep", "1000"]);
    eventually("the create is under way", || bed.path("/run/b/creating").exists().then_some(()));
    bed.stop_containerd("KILL");
    drop(run);
    if goes_on {
        bed.write("/run/b/go", "");
    }
    bed.start_containerd();
    // Whether containerd found it or gave it up: it can be removed, and made again.
    eventually("the container can be removed", || {
        bed.ctr(&["task", "rm", "--force", "c"]);
        bed.ctr(&["containers", "rm", "c"]);
        let listed = bed.ctr(&["containers", "ls", "--quiet"]).good().stdout;
        (listed.trim().is_empty() && bed.tasks().is_empty()).then_some(())
    });
    bed.write("/run/b/go", "");
    // containerd 1.6 keeps the id of a container that its supervisor has given up until that
    // supervisor, which has no container, ends by itself after a minute without a call.
    let limit = crate::bed::LIMIT * 2;
    let again = crate::bed::within(limit, || {
        let run = bed.run(&["--rm"], "c", &["sh", "-c", "exit 4"]).finish();
        let busy = run.code == 1 && run.stderr.contains("already exists");
        bed.ctr(&["containers", "rm", "c"]);
        (!busy).then_some(run)
    });
    assert_eq!(again.expect("the id stays in use").code, 4);
    bed.leave_nothing();
}
