//! Many guests of LXC at once.

use crate::bed::{Bed, LIMIT, Pair, Started};

const MANY: usize = 30;

#[test]
fn thirty_guests_run_side_by_side_and_leave_nothing() {
    let bed = Bed::new(Pair { containerd: "2.1", runtime: "lxc" });
    let ids: Vec<_> = (0..MANY).map(|number| format!("c{number}")).collect();
    let all = |start: &dyn Fn(&str) -> Started| -> Vec<_> {
        let started: Vec<_> = ids.iter().map(|id| start(id)).collect();
        started.into_iter().map(|started| started.finish_within(LIMIT * 3)).collect()
    };
    for run in all(&|id| bed.run(&["--detach"], id, &["sleep", "1000"])) {
        run.good();
    }
    let running = bed.tasks();
    assert_eq!(running.len(), MANY);
    assert!(running.iter().all(|(_, _, status)| status == "RUNNING"), "{running:?}");
    for (id, exec) in ids.iter().zip(all(&|id| bed.exec(id, "x", &["echo", id]))) {
        assert_eq!(exec.good().stdout, format!("{id}\n"));
    }
    for kill in all(&|id| bed.start("ctr", &["task", "kill", "--signal", "KILL", id])) {
        kill.good();
    }
    for id in &ids {
        bed.until_status(id, "STOPPED");
    }
    for remove in all(&|id| bed.start("ctr", &["task", "rm", id])) {
        assert!(remove.good().stderr.contains("137"));
    }
    for remove in all(&|id| bed.start("ctr", &["containers", "rm", id])) {
        remove.good();
    }
    bed.leave_nothing();
}
