//! Output goes to a file or to a logging program when containerd's client asks for that.

use crate::bed::{Bed, Pair};

on_every_pair!(
    output_goes_to_the_end_of_a_file,
    output_goes_to_a_logging_program,
    a_logging_program_that_fails_is_an_error_and_no_container_is_left,
    a_logging_program_that_is_missing_is_an_error_that_names_it,
);

const LOGGER: &str = r#"#!/bin/sh
# As the contract has it: 3 and 4 are the container's stdout and stderr, 5 says "ready".
echo "$CONTAINER_NAMESPACE $CONTAINER_ID $*" >/run/b/logged.who
cat <&3 >/run/b/logged.out 5>&- &
cat <&4 >/run/b/logged.err 5>&- &
exec 3<&- 4<&- 5>&-
wait
echo ended >>/run/b/logged.who
"#;

fn output_goes_to_the_end_of_a_file(pair: Pair) {
    let bed = Bed::new(pair);
    let both = ["sh", "-c", "echo out; echo err >&2"];
    for times in 1..=2 {
        bed.run_detached(&["--log-uri", "file:///run/b/new/log"], "c", &both);
        bed.until_status("c", "STOPPED");
        assert_eq!(bed.remove_stopped("c"), 0);
        let log = bed.read("/run/b/new/log");
        let mut lines: Vec<_> = log.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, [vec!["err"; times], vec!["out"; times]].concat());
    }
    bed.leave_nothing();
}

fn output_goes_to_a_logging_program(pair: Pair) {
    let bed = Bed::new(pair);
    bed.script("/run/b/logger", LOGGER);
    let command = ["sh", "-c", "echo out; echo err >&2; seq 1 100000"];
    bed.run_detached(&["--log-uri", "binary:///run/b/logger?key=value"], "c", &command);
    bed.until_status("c", "STOPPED");
    assert_eq!(bed.remove_stopped("c"), 0);
    bed.until_file_says("/run/b/logged.who", "ended");
    let who = format!("{} c key value\nended\n", bed.namespace);
    assert_eq!(bed.read("/run/b/logged.who"), who);
    let expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    let out = bed.read("/run/b/logged.out");
    assert!(out == format!("out\n{expected}"), "{} bytes", out.len());
    assert_eq!(bed.read("/run/b/logged.err"), "err\n");
    bed.leave_nothing();
}

fn a_logging_program_that_fails_is_an_error_and_no_container_is_left(pair: Pair) {
    let bed = Bed::new(pair);
    bed.script("/run/b/logger", "#!/bin/sh\nexit 3\n");
    // In the first version of the contract its end looks as if it were ready.
    for uri in ["binary:///run/b/logger", "binary-v2:///run/b/logger"] {
        bed.run(&["--rm", "--log-uri", uri], "c", &["sleep", "1000"]).finish().refused(&[
            "/run/b/logger",
            "status 3",
            "container c",
        ]);
    }
    bed.leave_nothing();
}

fn a_logging_program_that_is_missing_is_an_error_that_names_it(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run(&["--rm", "--log-uri", "binary:///run/b/nologger"], "c", &["sleep", "1000"])
        .finish()
        .refused(&["/run/b/nologger", "container c"]);
    bed.leave_nothing();
}
