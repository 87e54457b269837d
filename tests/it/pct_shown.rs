//! What people see of a container with Proxmox VE's own tools, and how its guest is made.

use crate::bed::{Bed, Pair, eventually};

const PCT: Pair = Pair { containerd: "2.1", runtime: "pct" };

/// LXC looks for a bridge in /sys, which in a bed still shows the machine's network.
const OWN_SYSFS: &str = "set -e; mkdir /run/sys; mount -t sysfs sysfs /run/sys
    for of in class/net devices/virtual/net; do mount --bind /run/sys/$of /sys/$of; done
    umount /run/sys; rmdir /run/sys";

fn pct(bed: &Bed, args: &[&str]) -> String {
    bed.start("pct", args).finish().good().stdout
}

#[test]
fn pct_shows_name_limits_and_whose_a_guest_is() {
    let bed = Bed::new(PCT);
    let flags = ["--hostname", "web-1", "--memory-limit", "67108864"];
    bed.run_detached(&flags, "c", &["sleep", "1000"]);
    let vmid = bed.vmid("c").to_string();
    let listed = pct(&bed, &["list"]);
    let line = listed.lines().find(|line| line.starts_with(&vmid)).unwrap_or_default();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), [&*vmid, "running", "web-1"]);
    let shown = pct(&bed, &["config", &vmid]);
    let namespace = format!("nexcage-namespace%3A {}", bed.namespace);
    for part in ["hostname: web-1\n", "memory: 64\n", "tags: nexcage\n", &namespace, "%3A c%0A"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    assert_eq!(bed.kill_and_remove("c"), 137);
    bed.leave_nothing();
}

#[test]
fn a_guest_is_made_in_every_mode() {
    let bed = Bed::new(PCT);
    let script = "test -f /etc/passwd && touch /own && cat /own && exit 6";
    for (key, value) in [("direct_config", serde_json::json!(true)), ("storage", "local".into())] {
        bed.set_pct(key, value);
        bed.run_detached(&[], "c", &["sleep", "1000"]);
        let vmid = bed.vmid("c").to_string();
        let shown = pct(&bed, &["config", &vmid]);
        let root = if key == "storage" {
            format!("rootfs: local:{vmid}/")
        } else {
            "rootfs: /run/".into()
        };
        assert!(shown.contains(&root), "{shown}");
        assert_eq!(bed.exec("c", "x", &["sh", "-c", script]).finish().code, 6);
        assert_eq!(bed.kill_and_remove("c"), 137);
        eventually("the guest is gone", || bed.vmids().is_empty().then_some(()));
    }
    assert!(bed.log().contains("copy its root to the storage local"));
    assert!(
        !bed.path("/run/pve-standin/vz/images")
            .read_dir()
            .is_ok_and(|mut left| left.next().is_some())
    );
    bed.leave_nothing();
}

#[test]
fn a_guest_gets_the_network_of_proxmoxs_that_an_annotation_asks_for() {
    let bed = Bed::new(PCT);
    let run = |network: &str, id: &str, command: &[&str]| {
        let annotation = format!("io.nexcage.pct.net0={network}");
        let done = bed.run(&["--annotation", &annotation], id, command).finish();
        bed.ctr(&["containers", "rm", id]).good();
        done
    };
    let network = "name=eth0,bridge=vmbr7,ip=10.9.9.50/24,gw=10.9.9.1,host-managed=1";
    let missing = run(network, "c", &["true"]);
    missing.refused(&["vmbr7"]);
    run("bridge=vmbr7", "c", &["true"]).refused(&["io.nexcage.pct.net0", "no name="]);

    let made = bed.start("ip", &["link", "add", "vmbr7", "type", "bridge"]).finish();
    if made.code != 0 {
        eprintln!("no bridges in this kernel: {}", made.stderr);
        return;
    }
    bed.start("ip", &["link", "set", "vmbr7", "up"]).finish().good();
    bed.start("sh", &["-c", OWN_SYSFS]).finish().good();
    let shown = run(network, "c", &["ip", "address", "show", "eth0"]).good().stdout;
    assert!(shown.contains("inet 10.9.9.50/24") && shown.contains("UP"), "{shown}");
    eventually("the guest is gone", || bed.vmids().is_empty().then_some(()));
    bed.leave_nothing();
}

#[test]
fn an_older_proxmox_is_driven_as_far_as_it_goes_and_named_where_it_does_not() {
    const MODULE: &str = "/usr/share/perl5/PVE/pvecfg.pm";
    let bed = Bed::new(PCT);
    let annotation = "io.nexcage.pct.net0=name=eth0,bridge=vmbr7,host-managed=1";
    let managed = ["--annotation", annotation];
    for (version, plain, network) in [
        ("7.4-3", Some("Proxmox VE 7.4.3"), "nexcage needs 8"),
        ("8.4.1", None, "Proxmox VE 8.4.1"),
        ("9.0.3", None, "upgrade to 9.1.0"),
        ("9.2.11", None, "vmbr7"),
    ] {
        bed.suffer("version", version);
        bed.until_file_says(MODULE, version);
        let run = bed.run(&["--rm"], "c", &["sh", "-c", "exit 5"]).finish();
        match plain {
            None => assert_eq!(run.code, 5, "{run:?}"),
            Some(words) => drop(run.refused(&[words, "nexcage needs 8"])),
        }
        bed.ctr(&["containers", "rm", "c"]);
        bed.run(&managed, "c", &["true"]).finish().refused(&[network]);
        bed.ctr(&["containers", "rm", "c"]).good();
        assert!(bed.vmids().is_empty(), "{version}: left in the ledger");
    }
    // Nothing says which one it is: it is tried.
    bed.remove(MODULE);
    assert_eq!(bed.run(&["--rm"], "c", &["sh", "-c", "exit 5"]).finish().code, 5);
    bed.leave_nothing();
}
