//! Checkpoints: with criu, crun and runc write a container's processes to an image and make them
//! anew of it, behind nexcage as by themselves. Through containerd it is runc that does so: crun 1.28
//! cannot restore what has masked paths, as all its containers have ("No mapping for … mountpoint").

use crate::bed::{Bed, Pair, fetched};
use crate::support::guest::pipe;
use crate::support::oci::{Container, Said, eventually};
use std::fs::File;
use std::io::Read;
use std::process::{Child, Command};

/// It counts, and knows itself by a word that no other process has.
const COUNTER: [&str; 3] = [
    "sh",
    "-c",
    "read me </proc/sys/kernel/random/uuid; i=0
     while :; do i=$((i + 1)); echo $me $i >/tmp/now; mv /tmp/now /tmp/count; sleep 0.05; done",
];

const COUNT: [&str; 2] = ["cat", "/tmp/count"];

/// The word and the number that a counter has written.
fn parse(text: &str) -> Option<(String, u64)> {
    let (word, number) = text.trim().split_once(' ')?;
    Some((word.to_owned(), number.parse().ok()?))
}

/// Waits until the counter, by its own word, has come further than that.
#[track_caller]
fn goes_on(from: &(String, u64), mut read: impl FnMut() -> String) {
    eventually("it counts on", || {
        let (word, number) = parse(&read())?;
        assert_eq!(word, from.0, "another process");
        (number > from.1 + 3).then_some(())
    });
}

/// Where criu and what crun loads to call it are found.
fn with_criu(mut command: Command) -> Command {
    let criu = fetched("criu-4.2");
    let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path);
    let path = format!("{}:{}", criu.display(), path.unwrap().display());
    command.env("PATH", path).env("LD_LIBRARY_PATH", criu.join("client"));
    command
}

/// A container of nexcage's, or of crun or runc alone.
struct Subject<'a> {
    container: &'a Container,
    oracle: bool,
}

impl Subject<'_> {
    /// The command of a verb and its flags, and of what follows the container's id.
    fn command(&self, args: &[&str], rest: &[&str]) -> Command {
        let args = [args, &[self.container.id.as_str()], rest].concat();
        with_criu(match self.oracle {
            true => self.container.oracle(&args),
            false => self.container.nexcage(&args),
        })
    }

    fn call(&self, args: &[&str]) -> Said {
        Said::of(&mut self.command(args, &[]))
    }

    /// Starts what has a container's output, which criu writes to an image only if it is a pipe.
    fn spawn(&self, args: &[&str]) -> (Child, File) {
        let (output, theirs) = pipe();
        let mut command = self.command(args, &[]);
        let child = command.stdout(theirs.try_clone().unwrap()).stderr(theirs).spawn().unwrap();
        (child, output.into())
    }

    /// Runs such a command to its end; the container's output is the answer.
    #[track_caller]
    fn leave(&self, args: &[&str]) -> File {
        let (mut child, mut output) = self.spawn(args);
        if !child.wait().unwrap().success() {
            let mut said = String::new();
            output.read_to_string(&mut said).unwrap();
            panic!("{args:?} oracle={}: {said}", self.oracle);
        }
        output
    }

    fn status(&self) -> String {
        let said = self.call(&["state"]);
        let state: serde_json::Value = serde_json::from_str(&said.out).unwrap_or_default();
        state["status"].as_str().unwrap_or("gone").to_owned()
    }

    fn count(&self) -> String {
        Said::of(&mut self.command(&["exec"], &COUNT)).out
    }

    #[track_caller]
    fn counted(&self) -> (String, u64) {
        eventually("it counts", || parse(&self.count()).filter(|(_, number)| *number > 3))
    }

    fn kill(&self) {
        Said::of(&mut self.command(&["kill"], &["KILL"])).good();
    }

    fn end(&self) {
        self.kill();
        eventually("it has stopped", || (self.status() == "stopped").then_some(()));
        self.call(&["delete"]).good();
    }

    /// Checkpoints and restores; what its status was in between.
    fn life(&self) -> Vec<String> {
        // At a restore, runc and crun take relative paths from the bundle.
        let path = |name: &str| self.container.file(name).to_string_lossy().into_owned();
        let [early, late, work, pid] = ["early", "late", "work", "pid"].map(path);
        // Left to it, criu makes cgroups of crun's containers anew in a hierarchy that the bed has
        // hidden, where nobody removes them. runc 1.1 has no such mode, and no such need.
        let cgroups: &[&str] = match self.container.backend {
            "crun" => &["--manage-cgroups-mode", "ignore"],
            _ => &[],
        };
        let checkpoint = |args: &[&str]| {
            self.call(&[&["checkpoint"], cgroups, args].concat()).good();
        };
        let _first = self.leave(&["run", "-d", "-b", "bundle"]);
        let mut told = vec![self.status()];
        let from_early = self.counted();
        checkpoint(&["--leave-running", "--image-path", &early]);
        told.push(self.status());
        goes_on(&from_early, || self.count());
        let from_late = self.counted();
        checkpoint(&["--image-path", &late, "--work-path", &work]);
        told.push(self.status());
        for (image, counted) in [(late, from_late), (early, from_early)] {
            let args = ["restore", "-d", "-b", "bundle", "--pid-file", &pid];
            let _again = self.leave(&[&args[..], cgroups, &["--image-path", &image]].concat());
            told.push(self.status());
            goes_on(&counted, || self.count());
            let pid = self.container.pid();
            assert!(std::fs::exists(format!("/proc/{pid}")).unwrap(), "the pid file says {pid}");
            self.end();
            told.push(self.status());
        }
        told
    }
}

fn same_as_alone(backend: &'static str) {
    let container = Container::new(backend, &COUNTER);
    let lives =
        [true, false].map(|oracle| Subject { container: &container, oracle }).map(|it| it.life());
    assert_eq!(lives[0], lives[1], "{backend} alone, and with nexcage");
    container.left_nothing();
}

#[test]
fn runc_checkpoints_and_restores_as_it_does_alone() {
    same_as_alone("runc");
}

#[test]
fn crun_checkpoints_and_restores_as_it_does_alone() {
    same_as_alone("crun");
}

/// Both commands stay for as long as the container runs, and end as it does.
#[test]
fn run_ends_with_a_checkpoint_and_restore_with_the_process() {
    let container = Container::new("runc", &COUNTER);
    let it = Subject { container: &container, oracle: false };
    let (mut run, mut output) = it.spawn(&["run", "-b", "bundle"]);
    let counted = it.counted();
    it.call(&["checkpoint", "--image-path", "image"]).good();
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert_eq!((run.wait().unwrap().code(), said.as_str()), (Some(137), ""));
    container.left_nothing();
    let (mut restore, mut output) = it.spawn(&["restore", "-b", "bundle", "--image-path", "image"]);
    eventually("it runs again", || (it.status() == "running").then_some(()));
    goes_on(&counted, || it.count());
    it.kill();
    output.read_to_string(&mut said).unwrap();
    assert_eq!((restore.wait().unwrap().code(), said.as_str()), (Some(137), ""));
    container.left_nothing();
}

fn through_containerd(pair: Pair) {
    let criu = fetched("criu-4.2/criu");
    let bed = Bed::new(pair);
    bed.script("/run/b/bin/criu", &format!("#!/bin/sh\nexec {} \"$@\"\n", criu.display()));
    let read = || bed.exec("c", "count", &COUNT).finish().stdout;
    let events = bed.events();
    let mount = "type=tmpfs,src=tmpfs,dst=/tmp,options=rw";
    bed.run_detached(&["--mount", mount], "c", &COUNTER);
    let counted = eventually("it counts", || parse(&read()).filter(|(_, number)| *number > 3));
    let image = "docker.io/library/counter:latest";
    bed.ctr(&["containers", "checkpoint", "--task", "c", image]).good();
    events.until("checkpointed c");
    assert_eq!(bed.status("c").as_deref(), Some("RUNNING"));
    goes_on(&counted, read);
    assert_eq!(bed.kill_and_remove("c"), 137);
    bed.ctr(&["containers", "restore", "--live", "c", image]).good();
    assert_eq!(bed.status("c").as_deref(), Some("RUNNING"));
    goes_on(&counted, read);
    let exec = bed.exec("c", "seven", &["sh", "-c", "exit 7"]).finish();
    assert_eq!(exec.code, 7, "{exec:?}");
    assert_eq!(bed.kill_and_remove("c"), 137);
    drop(events);
    bed.leave_nothing();
}

#[test]
fn a_container_is_restored_through_containerd_1() {
    through_containerd(Pair { containerd: "1.7", runtime: "runc-1.1" });
}

#[test]
fn a_container_is_restored_through_containerd_2() {
    through_containerd(Pair { containerd: "2.1", runtime: "runc-1.1" });
}
