//! A terminal of a container is the caller's terminal.

use crate::bed::{Bed, Pair, Started};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, ttyname};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

on_every_pair!(
    a_container_with_a_terminal_reads_and_writes_it_and_sees_its_size,
    an_exec_has_a_terminal_of_its_own,
);

/// A program of a bed on a terminal whose other side is here.
struct OnTerminal {
    child: Child,
    master: File,
    path: String,
    shown: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn spawn(mut command: Command) -> Self {
        let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let path = ttyname(&slave).unwrap().to_string_lossy().into_owned();
        let child = command
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .spawn()
            .unwrap();
        let master = File::from(master);
        let (mut from, shown) = (master.try_clone().unwrap(), Arc::<Mutex<String>>::default());
        let kept = shown.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { child, master, path, shown }
    }

    #[track_caller]
    fn until(&self, text: &str) {
        let shown = || self.shown.lock().unwrap().clone();
        let found =
            crate::bed::within(crate::bed::LIMIT / 3, || shown().contains(text).then_some(()));
        assert!(found.is_some(), "no {text:?} on the terminal: {:?}", shown());
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Makes the terminal that size, and tells `ctr` as the kernel would tell the foreground.
    fn resize(&self, rows: u16, columns: u16) {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let size = ["rows", rows.as_str(), "cols", columns.as_str()];
        let mut stty = Command::new("stty");
        Started::spawn(stty.arg("-F").arg(&self.path).args(size), "stty").finish().good();
        let ctr =
            crate::bed::eventually("nsenter has a child", || crate::bed::child_of(self.child.id()));
        kill(Pid::from_raw(ctr), Signal::SIGWINCH).unwrap();
    }

    fn finish(mut self) -> i32 {
        let status = crate::bed::within(crate::bed::LIMIT / 2, || self.child.try_wait().unwrap());
        let shown = self.shown.lock().unwrap().clone();
        status.unwrap_or_else(|| panic!("it did not end: {shown:?}")).code().unwrap()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            nix::sys::signal::killpg(group, Signal::SIGKILL).ok();
            self.child.wait().ok();
        }
    }
}

fn drive(mut terminal: OnTerminal) {
    terminal.until("on");
    // The size is set just after the start.
    terminal.type_in("until stty size | grep 33; do sleep 0.1; done\n");
    terminal.until("33 77\r");
    terminal.resize(44, 99);
    terminal.type_in("until stty size | grep 44; do sleep 0.1; done\n");
    terminal.until("44 99\r");
    terminal.type_in("tty; exit 11\n");
    terminal.until("/dev/");
    assert_eq!(terminal.finish(), 11);
}

fn a_container_with_a_terminal_reads_and_writes_it_and_sees_its_size(pair: Pair) {
    let bed = Bed::new(pair);
    let args = bed.run_args(&["--rm", "--tty"], "c", &["sh", "-c", "echo on; exec sh"]);
    drive(OnTerminal::spawn(bed.command("ctr", &args)));
    bed.leave_nothing();
}

fn an_exec_has_a_terminal_of_its_own(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    let args = ["task", "exec", "--tty", "--exec-id", "x", "c", "sh", "-c", "echo on; exec sh"];
    drive(OnTerminal::spawn(bed.command("ctr", &args)));
    bed.kill_and_remove("c");
    bed.leave_nothing();
}
