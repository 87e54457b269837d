//! The same calls of nexcage and of the runtime behind it end in the same way.

use crate::support::oci::{Container, Said, eventually};
use serde_json::Value;
use std::fs;

/// One call: what is asked, and whether standard output is to be the same.
const LIFE: [(&str, bool); 25] = [
    ("state @", false),
    ("start @", true),
    ("kill @ TERM", true),
    ("delete @", true),
    ("delete --force @", true),
    ("create --bundle bundle @", false),
    ("create --bundle bundle @", false),
    ("exec @ sh -c 'exit 9'", true),
    ("pause none", true),
    ("start @", false),
    ("start @", true),
    ("exec @ sh -c 'echo out; exit 5'", true),
    ("exec @ sh -c 'kill -9 $$'", true),
    ("exec -e X=1 --cwd /tmp -u 1000:1000 @ sh -c 'echo $X; pwd; id -u'", true),
    ("exec none true", true),
    ("delete @", true),
    ("kill @ NOSUCHSIGNAL", true),
    ("pause @", true),
    ("resume @", true),
    ("update --pids-limit 100 @", true),
    ("kill @ 9", true),
    ("!stopped", true),
    ("start @", true),
    ("exec @ true", true),
    ("delete @", true),
];

#[test]
fn a_life_has_the_same_statuses_and_states_as_with_crun_and_runc_themselves() {
    for backend in ["crun", "runc"] {
        let script = "echo ready; while :; do sleep 0.02; done";
        let container = Container::new(backend, &["sh", "-c", script]);
        let ask = |oracle: bool, line: &str| {
            let words = shell_words(&line.replace('@', &container.id));
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let mut command =
                if oracle { container.oracle(&words) } else { container.nexcage(&words) };
            Said::of(&mut command)
        };
        let state = |oracle: bool| -> Value {
            let said = ask(oracle, "state @");
            let state: Value = serde_json::from_str(&said.out).unwrap_or_default();
            // What runtime-spec has; the pids differ, and as ociVersion each gives its own.
            let keys = ["id", "status", "bundle", "annotations"];
            keys.into_iter().map(|key| (key.to_owned(), state[key].clone())).collect()
        };
        // One after the other: they would share the cgroup.
        let lives = [true, false].map(|oracle| {
            LIFE.map(|(line, has_output)| {
                if line == "!stopped" {
                    eventually("it has stopped", || {
                        (state(oracle)["status"] == "stopped").then_some(())
                    });
                    return (line, 0, String::new(), state(oracle));
                }
                let said = ask(oracle, line);
                let out = if has_output { said.out } else { String::new() };
                (line, i32::from(said.code != 0) * said.code.min(255), out, state(oracle))
            })
        });
        let [theirs, ours] = lives;
        for (theirs, ours) in theirs.into_iter().zip(ours) {
            // crun says 255 or 1 where something is wrong, nexcage 1.
            let failed = |code: i32| matches!(code, 1 | 255);
            assert!(
                theirs.1 == ours.1 || failed(theirs.1) && failed(ours.1),
                "{backend} {}: {} and not {}",
                ours.0,
                ours.1,
                theirs.1
            );
            assert_eq!((ours.0, ours.2, ours.3), (theirs.0, theirs.2, theirs.3), "{backend}");
        }
        container.left_nothing();
    }
}

#[test]
fn run_has_the_same_status_and_output_as_with_crun_and_runc_themselves() {
    for backend in ["crun", "runc"] {
        for script in ["echo out; exit 3", "sleep 0.01 & wait; exit 0", "sh -c 'kill -9 $$'"] {
            let container = Container::new(backend, &["sh", "-c", script]);
            let words = ["run", "--bundle", "bundle", &container.id];
            let theirs = Said::of(&mut container.oracle(&words));
            let ours = Said::of(&mut container.nexcage(&words));
            assert_eq!((ours.code, ours.out), (theirs.code, theirs.out), "{backend} {script}");
            container.left_nothing();
        }
    }
    // Nothing of theirs stays below the folder of state.
    assert!(fs::metadata("/run/nexcage").is_ok());
}

/// Words with single quotes, as a shell takes them.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in line.split('\'').enumerate() {
        if number % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
