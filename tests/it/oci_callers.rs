//! Those who call an OCI runtime have nexcage in its place: podman with conmon, and containerd's
//! stock shim for runc.

use crate::bed::{Bed, IMAGE, Output, Pair, eventually, fetched};
use std::path::PathBuf;

/// The program that stands in for runc, with the backend chosen.
fn stand_in(bed: &Bed, backend: &str) -> String {
    let path = format!("/run/b/bin/nexcage-{backend}");
    let program = env!("CARGO_BIN_EXE_nexcage");
    let script = format!("#!/bin/sh\nexec {program} --runtime-type {backend} \"$@\"\n");
    bed.script(&path, &script);
    path
}

fn through_the_stock_shim(containerd: &'static str, backend: &str) {
    let runtime = if backend == "runc" { "runc-1.1" } else { "crun-1.28" };
    let bed = Bed::new(Pair { containerd, runtime });
    let program = stand_in(&bed, backend);
    let run = |flags: &[&str], id: &str, command: &[&str]| {
        let runtime =
            ["run", "--runtime", "io.containerd.runc.v2", "--runc-binary", program.as_str()];
        bed.ctr(&[&runtime[..], flags, &[IMAGE, id], command].concat())
    };
    let said = run(&["--rm"], "c1", &["sh", "-c", "echo hello; exit 4"]);
    assert_eq!((said.code, said.stdout.as_str()), (4, "hello\n"), "{}", said.stderr);
    let polite = "trap 'exit 9' TERM; while :; do sleep 0.02; done";
    run(&["-d"], "c2", &["sh", "-c", polite]).good();
    let said = bed.exec("c2", "e1", &["sh", "-c", "echo exec; exit 6"]).finish();
    assert_eq!((said.code, said.stdout.as_str()), (6, "exec\n"), "{}", said.stderr);
    bed.ctr(&["task", "pause", "c2"]).good();
    bed.until_status("c2", "PAUSED");
    bed.ctr(&["task", "resume", "c2"]).good();
    bed.until_status("c2", "RUNNING");
    assert!(bed.ctr(&["task", "ps", "c2"]).good().stdout.contains(&bed.pid("c2").to_string()));
    bed.kill("c2", "TERM").good();
    bed.until_status("c2", "STOPPED");
    assert_eq!(bed.remove_stopped("c2"), 9);
    run(&["-d"], "c3", &["sleep", "1000"]).good();
    assert_eq!(bed.kill_and_remove("c3"), 137);
    let failed = run(&["--rm"], "c4", &["/none"]);
    assert!(failed.code == 1 && failed.stderr.contains("/none"), "{}", failed.stderr);
    let left = bed.path(&format!("/run/containerd/runc/{}/local", bed.namespace));
    let left: Vec<_> = std::fs::read_dir(left).unwrap().flatten().collect();
    assert!(left.iter().all(|entry| entry.file_name().to_string_lossy().starts_with('.')));
    bed.leave_nothing();
}

#[test]
fn containerd_1_6_has_it_in_place_of_runc_with_lxc() {
    through_the_stock_shim("1.6", "lxc");
}

#[test]
fn containerd_1_7_has_it_in_place_of_runc_with_runc() {
    through_the_stock_shim("1.7", "runc");
}

#[test]
fn containerd_2_1_has_it_in_place_of_runc_with_crun() {
    through_the_stock_shim("2.1", "crun");
}

#[test]
fn containerd_2_1_has_it_in_place_of_runc_with_lxc() {
    through_the_stock_shim("2.1", "lxc");
}

/// podman in a bed, with nexcage as its runtime.
struct Podman {
    bed: Bed,
    runtime: String,
}

impl Podman {
    fn new(backend: &str) -> Self {
        let bed = Bed::new(crate::bed::ANY);
        let runtime = stand_in(&bed, backend);
        let home = bed.path("/run/b/home/.config/containers");
        std::fs::create_dir_all(&home).unwrap();
        let write = |name: &str, text: &str| std::fs::write(home.join(name), text).unwrap();
        write("policy.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
        write("registries.conf", "");
        let conmon = Self::folder().join("conmon");
        write(
            "containers.conf",
            &format!(
                "[containers]\nnetns = \"none\"\nlog_driver = \"k8s-file\"\n[engine]\n\
                 conmon_path = [{conmon:?}]\nevents_logger = \"file\"\n\
                 cgroup_manager = \"cgroupfs\"\n"
            ),
        );
        let podman = Self { bed, runtime };
        let image = fetched("images/busybox.tar");
        podman.call(&["load", "-q", "-i", &image.to_string_lossy()]).good();
        podman
    }

    fn folder() -> PathBuf {
        fetched("podman-4.3")
    }

    fn call(&self, args: &[&str]) -> Output {
        const HOME: &str = "/run/b/home";
        let config = |name: &str, file: &str| format!("{name}={HOME}/.config/containers/{file}");
        let variables = [
            format!("HOME={HOME}"),
            "TMPDIR=/run".to_owned(),
            config("CONTAINERS_CONF", "containers.conf"),
            config("CONTAINERS_REGISTRIES_CONF", "registries.conf"),
            Self::folder().join("podman").to_string_lossy().into_owned(),
        ];
        let flags = [
            "--root",
            "/run/b/pod",
            "--runroot",
            "/run/b/podrun",
            "--storage-driver",
            "vfs",
            "--runtime",
            &self.runtime,
        ];
        let own: Vec<_> = variables.iter().map(String::as_str).chain(flags).collect();
        self.bed.start("env", &[&own[..], args].concat()).finish()
    }

    /// `podman run`, with cgroups that are known to be this bed's.
    fn run(&self, flags: &[&str], command: &[&str]) -> Output {
        let parent = format!("--cgroup-parent=/{}", self.bed.namespace);
        let run = ["run", "--cgroups=no-conmon", &parent];
        self.call(&[&run[..], flags, &[LOADED], command].concat())
    }
}

/// The image's name as podman has loaded it.
const LOADED: &str = "localhost/latest:latest";

fn through_podman(backend: &str) {
    let podman = Podman::new(backend);
    let said = podman.run(&["--rm"], &["sh", "-c", "echo hello; exit 4"]);
    assert_eq!((said.code, said.stdout.as_str()), (4, "hello\n"), "{}", said.stderr);
    let polite = "trap 'exit 9' TERM; echo started; while :; do sleep 0.02; done";
    podman.run(&["-d", "--name", "d1"], &["sh", "-c", polite]).good();
    eventually("it logs", || {
        (podman.call(&["logs", "d1"]).good().stdout == "started\n").then_some(())
    });
    let said = podman.call(&["exec", "d1", "sh", "-c", "echo exec; exit 6"]);
    assert_eq!((said.code, said.stdout.as_str()), (6, "exec\n"), "{}", said.stderr);
    assert_eq!(podman.call(&["exec", "d1", "sh", "-c", "kill -9 $$"]).code, 137);
    assert_eq!(podman.call(&["exec", "d1", "/none"]).code, 127);
    podman.call(&["pause", "d1"]).good();
    let format = "{{.State.Status}} {{.State.ExitCode}}";
    let inspect = || podman.call(&["inspect", "d1", "--format", format]).good().stdout;
    assert_eq!(inspect(), "paused 0\n");
    podman.call(&["unpause", "d1"]).good();
    podman.call(&["stop", "d1"]).good();
    assert_eq!(inspect(), "exited 9\n");
    podman.call(&["rm", "d1"]).good();
    podman.run(&["-d", "--name", "d2"], &["sleep", "1000"]).good();
    podman.call(&["kill", "d2"]).good();
    assert_eq!(podman.call(&["wait", "d2"]).good().stdout, "137\n");
    podman.call(&["rm", "d2"]).good();
    podman.run(&["-dt", "--name", "d3"], &["sh", "-c", "tty; sleep 1000"]).good();
    eventually("it has a terminal", || {
        podman.call(&["logs", "d3"]).good().stdout.contains("/dev/pts/0").then_some(())
    });
    let said = podman.call(&["exec", "-t", "d3", "sh", "-c", "tty; exit 3"]);
    assert_eq!((said.code, said.stdout.trim()), (3, "/dev/pts/1"), "{}", said.stderr);
    podman.call(&["rm", "-f", "-t", "0", "d3"]).good();
    podman.run(&["--rm", "-m", "64m", "--pids-limit", "50"], &["true"]).good();
    assert_eq!(podman.run(&["--rm"], &["/none"]).code, 127);
    assert_eq!(podman.call(&["ps", "-aq"]).good().stdout, "");
    podman.bed.leave_nothing();
}

#[test]
fn podman_runs_containers_with_it_on_crun() {
    through_podman("crun");
}

#[test]
fn podman_runs_containers_with_it_on_lxc() {
    through_podman("lxc");
}
