//! Debian with systemd as its first process: it starts, it is looked at from within, it goes down
//! when it is told to, and all of that on LXC and pct as on crun.

use crate::bed::{ANY, Bed, IMAGE, Pair, fetched};
use std::fs;

const LXC: Pair = Pair { containerd: "2.1", runtime: "lxc" };
const PCT: Pair = Pair { containerd: "2.1", runtime: "pct" };

/// The image's name in the bed.
const DEBIAN: &str = "docker.io/library/debian:latest";

/// What its own service writes.
const LOG: &str = "/run/b/tell/log";

#[test]
fn halts_on_lxc() {
    halts(LXC);
}

#[test]
fn halts_on_crun() {
    halts(ANY);
}

#[test]
fn halts_on_pct() {
    halts(PCT);
}

#[test]
fn halts_on_containerd_1_6() {
    for runtime in ["crun-1.8", "lxc"] {
        halts(Pair { containerd: "1.6", runtime });
    }
}

#[test]
fn halts_on_containerd_1_7() {
    for runtime in ["crun-1.28", "lxc"] {
        halts(Pair { containerd: "1.7", runtime });
    }
}

fn halts(pair: Pair) {
    up_and_down(pair, 130, |bed| drop(bed.kill("c", "SIGRTMIN+3").good()));
}

/// For whoever runs it that is an end: to start it again is containerd's business.
#[test]
fn reboots_on_lxc() {
    up_and_down(LXC, 129, |bed| drop(bed.exec("c", "reboot", &["reboot"]).finish()));
}

#[test]
fn reboots_on_crun() {
    up_and_down(ANY, 129, |bed| drop(bed.exec("c", "reboot", &["reboot"]).finish()));
}

/// What systemd asks of whoever runs it (systemd.io/CONTAINER_INTERFACE): cgroups to write to, a
/// word that it is in a container, and what the first process of a system may do.
fn run(bed: &Bed) {
    fs::create_dir_all(bed.path("/run/b/tell")).unwrap();
    let image = fetched("debian-12/debian.tar").to_string_lossy().into_owned();
    let name = DEBIAN.trim_end_matches(":latest");
    bed.ctr(&["images", "import", "--base-name", name, &image]).good();
    let flags = [
        ["--env", "container=oci"],
        ["--with-ns", "cgroup:"],
        ["--mount", "type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=rw:nosuid:nodev:noexec"],
        ["--mount", "type=tmpfs,src=tmpfs,dst=/run/lock,options=nosuid:nodev:noexec"],
        ["--mount", "type=bind,src=/run/b/tell,dst=/tell,options=bind:rw"],
        ["--cap-add", "CAP_SYS_ADMIN"],
        ["--cap-add", "CAP_SYS_BOOT"],
    ];
    let flags = [&["--detach"], flags.as_flattened()].concat();
    // It mounts a cgroup v2 hierarchy of its own accord beside controllers of v1. The bed hides that
    // one from whoever makes containers, so no container has a place of its own in it.
    let command = ["/sbin/init", "systemd.legacy_systemd_cgroup_controller=yes"];
    let mut args = bed.run_args(&flags, "c", &command);
    for arg in args.iter_mut().filter(|arg| **arg == IMAGE) {
        *arg = DEBIAN;
    }
    bed.start("ctr", &args).finish().good();
}

fn up_and_down(pair: Pair, code: i32, end: impl FnOnce(&Bed)) {
    let bed = Bed::new(pair);
    let events = bed.events();
    run(&bed);
    bed.until_file_says(LOG, "up\n");
    let said = bed.exec("c", "wait", &["systemctl", "is-system-running", "--wait"]).finish();
    if said.stdout != "running\n" {
        let why = bed.exec("c", "why", &["systemctl", "--failed", "--full"]).finish();
        let log = bed.exec("c", "log", &["journalctl", "-p", "warning"]).finish();
        panic!("{said:?} {} {}", why.stdout, log.stdout);
    }
    let units = ["systemctl", "list-units", "--no-legend", "--plain", "*.service"];
    let units = bed.exec("c", "units", &units).finish().good().stdout;
    for unit in ["dbus.service", "systemd-journald.service", "tell.service"] {
        let line = units.lines().find(|line| line.starts_with(unit));
        assert!(line.is_some_and(|line| line.contains("active")), "{unit}: {units}");
    }
    // Each service is in a cgroup of its own, below the container's, which Proxmox VE has one of its
    // own in for the guest.
    let inner = if pair.backend() == "pct" { "ns/" } else { "" };
    let service = format!("{inner}system.slice/dbus.service/cgroup.procs");
    let cgroup = bed.cgroup("c", "systemd", &service);
    assert!(cgroup.parse::<i32>().is_ok(), "dbus.service is in no cgroup: {cgroup:?}");
    let first = bed.exec("c", "first", &["cat", "/proc/1/comm"]).finish().good().stdout;
    assert_eq!(first, "systemd\n");
    end(&bed);
    bed.until_status("c", "STOPPED");
    assert_eq!(bed.read(LOG), "up\ndown\n");
    events.until(&format!("exit c {code}"));
    assert_eq!(bed.remove_stopped("c"), code);
    events.until("delete c");
    let brief = events.brief();
    assert_eq!(brief.iter().filter(|event| event.starts_with("start ")).count(), 1, "{brief:?}");
    drop(events);
    bed.leave_nothing();
}
