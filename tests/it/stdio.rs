//! What goes in and out of a container is whole, and never holds the container up.

use crate::bed::{Bed, Pair, eventually};
use std::io::Write;

on_every_pair!(
    stdin_reaches_a_container_and_its_end_too,
    stdin_reaches_an_exec_and_its_end_too,
    much_output_arrives_whole,
    a_container_goes_on_when_its_reader_is_gone,
);

fn stdin_reaches_a_container_and_its_end_too(pair: Pair) {
    let bed = Bed::new(pair);
    let mut run = bed.start_with_stdin("ctr", &bed.run_args(&["--rm"], "c", &["cat"]));
    // ctr loses an end that comes before the start, and so does it with every shim.
    bed.until_status("c", "RUNNING");
    run.stdin.as_mut().unwrap().write_all(b"one\n").unwrap();
    run.until_stdout("one\n");
    assert!(!run.has_ended(), "stdin ended before its time");
    run.stdin.as_mut().unwrap().write_all(b"two\n").unwrap();
    let ended = run.finish();
    assert_eq!((ended.code, &*ended.stdout), (0, "one\ntwo\n"));
    bed.leave_nothing();
}

fn stdin_reaches_an_exec_and_its_end_too(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    let args = ["task", "exec", "--exec-id", "x", "c", "sh", "-c", "echo on; wc -c"];
    let mut exec = bed.start_with_stdin("ctr", &args);
    exec.until_stdout("on");
    // More than all the pipes on the way hold together.
    exec.stdin.as_mut().unwrap().write_all(&vec![b'x'; 3 << 20]).unwrap();
    let ended = exec.finish();
    assert_eq!((ended.code, &*ended.stdout), (0, "on\n3145728\n"));
    bed.kill_and_remove("c");
    bed.leave_nothing();
}

fn much_output_arrives_whole(pair: Pair) {
    let bed = Bed::new(pair);
    let ended = bed.run(&["--rm"], "c", &["sh", "-c", "seq 1 300000; seq 1 9 >&2"]).finish();
    let expected: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
    let same = ended.stdout.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
    assert!(
        ended.stdout == expected,
        "{} bytes of {}, the first {same} as they should be; ctr: {} {:?}",
        ended.stdout.len(),
        expected.len(),
        ended.code,
        ended.stderr
    );
    assert_eq!(ended.stderr, "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    bed.leave_nothing();
}

fn a_container_goes_on_when_its_reader_is_gone(pair: Pair) {
    let bed = Bed::new(pair);
    // The second line is a megabyte later: no pipe on the way holds that.
    let script =
        "echo on; read x </tmp/go; yes | head -c 1000000; echo done >/tmp/done; sleep 1000";
    let script = format!("mkfifo /tmp/go; {script}");
    let run = bed.run(&[], "c", &["sh", "-c", &script]);
    run.until_stdout("on");
    // SIGKILL: ctr passes SIGTERM on.
    drop(run);
    let tmp = format!("{}/rootfs/tmp", bed.bundle("c"));
    bed.start("sh", &["-c", &format!("echo >{tmp}/go")]).finish().good();
    eventually("the container got rid of its output", || {
        bed.read(&format!("{tmp}/done")).contains("done").then_some(())
    });
    assert_eq!(bed.status("c").as_deref(), Some("RUNNING"));
    bed.kill_and_remove("c");
    bed.leave_nothing();
}
