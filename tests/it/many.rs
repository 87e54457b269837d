//! Many at once: every one of them runs, and every end is accounted for.

use crate::bed::{Bed, Pair, Started};

const MANY: i32 = 50;
const PAIRS: [Pair; 2] = [
    Pair { containerd: "1.6", runtime: "runc-1.1" },
    Pair { containerd: "2.1", runtime: "crun-1.28" },
];

#[test]
fn fifty_containers_at_once_all_end_with_their_own_exit_code() {
    for pair in PAIRS {
        let bed = Bed::new(pair);
        let events = bed.events();
        let ids: Vec<_> = (0..MANY).map(|number| format!("c{number}")).collect();
        let all: Vec<Started> = (0..MANY)
            .zip(&ids)
            .map(|(number, id)| {
                let command = format!("echo {id}; exit {number}");
                bed.run(&["--rm"], id, &["sh", "-c", &command])
            })
            .collect();
        for ((number, id), run) in (0..MANY).zip(&ids).zip(all) {
            let ended = run.finish_within(crate::bed::LIMIT * 3);
            assert_eq!((ended.code, ended.stdout), (number, format!("{id}\n")), "{}", ended.stderr);
        }
        for id in &ids {
            events.until(&format!("delete {id}"));
        }
        let told = events.brief();
        for (number, id) in (0..MANY).zip(&ids) {
            let of_this: Vec<_> = told
                .iter()
                .filter(|event| event.split(' ').nth(1) == Some(id.as_str()))
                .map(|event| event.replace(id, "c"))
                .collect();
            let exit = format!("exit c {number}");
            assert_eq!(of_this, ["create c", "start c", &exit, "delete c"], "{id}");
        }
        bed.leave_nothing();
    }
}

#[test]
fn fifty_execs_at_once_in_one_container_all_end_with_their_own_exit_code() {
    for pair in PAIRS {
        let bed = Bed::new(pair);
        let events = bed.events();
        bed.run_detached(&[], "c", &["sleep", "1000"]);
        let ids: Vec<_> = (0..MANY).map(|number| format!("x{number}")).collect();
        let all: Vec<Started> = (0..MANY)
            .zip(&ids)
            .map(|(number, id)| {
                bed.exec("c", id, &["sh", "-c", &format!("echo {id}; exit {number}")])
            })
            .collect();
        for ((number, id), exec) in (0..MANY).zip(&ids).zip(all) {
            let ended = exec.finish_within(crate::bed::LIMIT * 3);
            assert_eq!((ended.code, ended.stdout), (number, format!("{id}\n")), "{}", ended.stderr);
        }
        assert_eq!(bed.kill_and_remove("c"), 137);
        events.until("delete c");
        let told = events.brief();
        for (number, id) in (0..MANY).zip(&ids) {
            let process = format!("c/{id}");
            let of_this: Vec<_> = told
                .iter()
                .filter(|event| event.split(' ').nth(1) == Some(process.as_str()))
                .map(|event| event.replace(&process, "x"))
                .collect();
            let exit = format!("exit x {number}");
            assert_eq!(of_this, ["exec-added x", "exec-started x", &exit], "{id}");
        }
        bed.leave_nothing();
    }
}
