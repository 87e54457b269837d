//! The init at its gate: what lets it through, what does not, and what it leaves behind.

use crate::support::guest::{self, Guest, first, send_bytes, shell};
use nexcage::init::{Description, Hook, encode};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

#[test]
fn nothing_of_the_process_runs_before_the_word() {
    let mut gated = Guest::new().start(&first(shell("echo ran")));
    gated.created();
    let init = gated.init();
    let exe = std::fs::read_link(format!("/proc/{init}/exe")).unwrap();
    assert_eq!(exe.to_string_lossy(), "/dev/.nexcage/init", "it waits as the init");
    assert_eq!(gated.finish_started(), "ran\n");
}

#[test]
fn the_process_is_pid_1_and_has_nothing_of_the_host() {
    let output = guest::run(&first(shell(
        "echo pid $$; ls /proc/self/fd | wc -l; ls -a /dev; \
         grep -c nexcage /proc/self/mountinfo; readlink /proc/1/exe",
    )));
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines[0], "pid 1");
    // Standard input, output and error, and the folder that ls itself reads.
    assert_eq!(lines[1], "4", "{output}");
    assert!(!output.contains(".nexcage"), "{output}");
    assert_eq!(&lines[lines.len() - 2..], ["0", "/bin/busybox"], "no mount: {output}");
}

#[test]
fn the_exit_status_is_the_process_s() {
    let mut gated = Guest::new().start(&first(shell("exit 37")));
    gated.created();
    assert!(gated.go().is_none());
    assert_eq!(gated.end().0, 37);
}

#[test]
fn an_init_whose_supervisor_is_gone_ends_without_running_anything() {
    let mut gated = Guest::new().start(&first(shell("echo ran")));
    gated.created();
    gated.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(gated.end(), (1, String::new()));
}

#[test]
fn another_word_than_go_ends_it() {
    let mut gated = Guest::new().start(&first(shell("echo ran")));
    gated.created();
    std::io::Write::write_all(&mut gated.stream, b"X").unwrap();
    assert_eq!(gated.end(), (1, String::new()));
}

/// Sends `bytes` with `count` descriptors; what the init says of it.
fn refused(bytes: &[u8], count: usize) -> String {
    let mut gated = Guest::new().connect();
    let null = File::open("/dev/null").unwrap();
    send_bytes(&gated.stream, bytes, &vec![null.as_fd(); count]);
    gated.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let failure = gated.answer().unwrap_err();
    assert_eq!(gated.end().0, 126);
    failure.text
}

#[test]
fn frames_that_are_no_description_are_refused() {
    let good = encode(&first(shell("echo ran")));
    let frame = |bytes: &[u8]| {
        let mut frame = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
        frame.extend(bytes);
        frame
    };
    assert!(refused(&frame(b"garbage"), 3).contains("cannot be read"));
    assert!(refused(&frame(&good[..good.len() - 1]), 3).contains("cannot be read"));
    assert!(refused(&frame(&good), 2).contains("2 descriptors came"));
    assert!(refused(&frame(&good), 4).contains("4 descriptors came"));
    let mut short = frame(&good);
    short.pop();
    assert!(refused(&short, 3).contains("receive the description"), "the end comes too early");
    assert!(refused(&[0xff; 8], 3).contains("too long"), "4 GiB are announced");
    let exec = encode(&Description { process: shell("echo ran"), ..Description::default() });
    assert!(refused(&frame(&exec), 3).contains("not one of a first process"));
}

#[test]
fn a_long_description_arrives_whole() {
    let mut process = shell("echo ${#LONG}");
    process.env.push(format!("LONG={}", "x".repeat(100_000)));
    // As much of it again as no pipe or socket takes at once.
    let mut description = first(process);
    description.first.as_mut().unwrap().state = "y".repeat(2 << 20);
    assert_eq!(guest::run(&description), "100000\n");
}

#[test]
fn the_program_says_what_it_is_when_it_is_run_by_hand() {
    let output = std::process::Command::new(guest::program()).output().unwrap();
    assert_eq!(output.status.code(), Some(126));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("nexcage-init: connect to /dev/.nexcage/socket: "), "{said}");
    let output = std::process::Command::new(guest::program()).arg("--help").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("usage: nexcage-init [exec"), "{said}");
}

#[test]
fn the_waiting_init_cannot_be_looked_into_from_the_guest() {
    let mut gated = Guest::new().start(&first(shell("true")));
    gated.created();
    let status = std::fs::read_to_string(format!("/proc/{}/stat", gated.init())).unwrap();
    assert!(status.contains("(init)"), "{status}");
    // Without CAP_SYS_PTRACE, which containers do not have, even the same user may not.
    let look = |pid: i32| {
        let fd = format!("/proc/{pid}/fd/0");
        let output = std::process::Command::new("setpriv")
            .args([guest::NO_TRACING, "--", "readlink", &fd])
            .output()
            .unwrap();
        output.status.success()
    };
    assert!(!look(gated.init()));
    assert!(look(gated.child.id().cast_signed()), "but who has made the guest can be");
}

fn hook(script: &str) -> Hook {
    Hook {
        path: "/bin/sh".to_owned(),
        args: ["sh", "-c", script].map(str::to_owned).into(),
        env: vec!["PATH=/bin".to_owned(), "OF=hook".to_owned()],
        timeout: 0,
    }
}

#[test]
fn start_hooks_run_after_the_word_with_the_state_and_before_the_process() {
    let mut description = first(shell("cat /tmp/order; echo process"));
    let part = description.first.as_mut().unwrap();
    part.state = format!("{{\"id\":\"{}\"}}", "a".repeat(200_000));
    part.start_hooks =
        vec![hook("wc -c >> /tmp/order; echo $OF >> /tmp/order"), hook("echo 2 >>/tmp/order")];
    let guest = Guest::new();
    let root = guest.root();
    let mut gated = guest.start(&description);
    gated.created();
    assert!(!root.join("tmp/order").exists(), "no hook before the word");
    assert_eq!(gated.finish_started(), "200009\nhook\n2\nprocess\n");
}

#[test]
fn a_hook_that_does_not_read_its_state_is_no_failure() {
    let mut description = first(shell("echo process"));
    let part = description.first.as_mut().unwrap();
    part.state = "a".repeat(1 << 20);
    part.start_hooks = vec![hook("exit 0")];
    assert_eq!(guest::run(&description), "process\n");
}

fn hook_fails_with(hook: Hook) -> String {
    let mut description = first(shell("echo ran"));
    description.first.as_mut().unwrap().start_hooks = vec![hook];
    let mut gated = Guest::new().start(&description);
    gated.created();
    let failure = gated.go().unwrap();
    assert_eq!(gated.end(), (126, String::new()), "the process does not run");
    failure.text
}

#[test]
fn a_hook_that_fails_is_named_with_what_it_said() {
    let text = hook_fails_with(hook("echo no disk >&2; exit 3"));
    assert_eq!(text, "the startContainer hook /bin/sh exited with status 3: no disk");
    let text = hook_fails_with(hook("kill -9 $$"));
    assert_eq!(text, "the startContainer hook /bin/sh was killed by signal 9");
    let text = hook_fails_with(Hook { path: "/bin/none".to_owned(), ..Hook::default() });
    assert!(text.contains("/bin/none exited with status 127: exec: No such file"), "{text}");
}

#[test]
fn a_hook_that_does_not_end_is_killed_after_its_time() {
    let text = hook_fails_with(Hook { timeout: 1, ..hook("sleep 1000") });
    assert_eq!(text, "the startContainer hook /bin/sh did not end within 1 s");
}

#[test]
fn what_a_hook_leaves_behind_holds_nothing_up() {
    let mut description = first(shell("echo process"));
    description.first.as_mut().unwrap().start_hooks = vec![hook("sleep 1000 &")];
    let mut gated = Guest::new().start(&description);
    gated.created();
    assert!(gated.go().is_none());
    let mut said = [0; 8];
    gated.output.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"process\n");
}
