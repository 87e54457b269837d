//! `nexcage vmid` on a node of Proxmox VE, so to speak.

use std::path::Path;
use std::process::Command;

/// What comes before every script: the node, a guest as nexcage makes it, and the program.
const BEFORE: &str = r#"
set -eu
"$PCT" --setup /run/n/bin
export PATH=/run/n/bin:$PATH
mkdir -p /run/n/rootfs
head -c 10240 /dev/zero > /run/n/empty.tar
make() {
    pct create "$1" /run/n/empty.tar --rootfs /run/n/rootfs --ostype unmanaged --arch amd64 \
        --unprivileged 0 --console 0 --tty 0 --tags nexcage --description "nexcage-namespace: ns
nexcage-id: $2
nexcage-generation: 1b4e" > /dev/null
}
vmid() { "$NEXCAGE" vmid "$@"; }
"#;

/// Runs a script on a node of its own; what it says on standard output and error.
#[track_caller]
fn on_a_node(script: &str) -> (String, String) {
    let enter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bed/enter");
    let nexcage = Path::new(env!("CARGO_BIN_EXE_nexcage"));
    let pct = nexcage.with_file_name("examples").join("pct");
    assert!(pct.exists(), "no {}: cargo build --example pct", pct.display());
    let output = Command::new(enter)
        .args(["sh", "-c", &format!("{BEFORE}{script}")])
        .env("PCT", pct)
        .env("NEXCAGE", nexcage)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    (out, err)
}

#[test]
fn the_ledger_is_rebuilt_from_the_guests_and_stale_ones_go_only_when_asked() {
    let (out, _) = on_a_node(
        "make 9101 web-1; make 9102 web-2
         pct create 9103 /run/n/empty.tar --rootfs /run/n/rootfs --ostype unmanaged > /dev/null
         vmid reconcile --dry-run; test ! -e /var/lib/nexcage/vmids/9101
         vmid reconcile > /dev/null; vmid list
         pct destroy 9102
         vmid reconcile --destroy; vmid reconcile; ls /etc/pve/lxc /var/lib/nexcage/vmids",
    );
    assert_eq!(
        out,
        "9101: write its entry anew, it is ns/web-1 (not done: --dry-run)\n\
         9101: stale, its container ns/web-1 is gone (--destroy destroys it)\n\
         9102: write its entry anew, it is ns/web-2 (not done: --dry-run)\n\
         9102: stale, its container ns/web-2 is gone (--destroy destroys it)\n\
         VMID       STATE      GUEST     SUPERVISOR NAMESPACE            CONTAINER\n\
         9101       made       stopped   gone       ns                   web-1\n\
         9102       made       stopped   gone       ns                   web-2\n\
         9101: stale, its container ns/web-1 is gone\n\
         9102: free, was ns/web-2: there is no guest, and its maker ended\n\
         everything fits together\n\
         /etc/pve/lxc:\n9103.conf\n\n/var/lib/nexcage/vmids:\n"
    );
}

#[test]
fn a_guest_of_another_generation_is_never_destroyed() {
    let (out, _) = on_a_node(
        "make 9111 web; vmid reconcile > /dev/null
         sed -i s/1b4e/1b4f/ /etc/pve/lxc/9111.conf
         vmid reconcile; vmid reconcile --dry-run
         sed -i s/nexcage$/mine/ /etc/pve/lxc/9111.conf
         vmid reconcile --destroy; ls /etc/pve/lxc",
    );
    assert_eq!(
        out,
        "9111: free, was ns/web: the guest is another container's, and its maker ended\n\
         9111: write its entry anew, it is ns/web\n\
         9111: stale, its container ns/web is gone (--destroy destroys it)\n\
         9111: stale, its container ns/web is gone (--destroy destroys it)\n\
         9111: the guest is not surely that of ns/web, and is left alone: its description names a \
         container, but it does not have the tag nexcage\n\
         9111.conf\n"
    );
}

#[test]
fn what_stands_in_the_way_is_told_and_tried_again_the_next_time() {
    let (out, err) = on_a_node(
        "make 9121 web; vmid reconcile > /dev/null
         echo 'lock: backup' >> /etc/pve/lxc/9121.conf
         vmid reconcile --destroy || echo failed
         sed -i /^lock/d /etc/pve/lxc/9121.conf
         touch /run/pve-standin/no-quorum; vmid reconcile || echo failed
         rm /run/pve-standin/no-quorum
         touch /run/pve-standin/pmxcfs-down; vmid reconcile || echo failed
         rm /run/pve-standin/pmxcfs-down
         vmid reconcile; ls /etc/pve/lxc /var/lib/nexcage/vmids",
    );
    assert_eq!(
        out,
        "failed\nfailed\nfailed\n9121: finish the removal of ns/web, which was begun\n\
         /etc/pve/lxc:\n\n/var/lib/nexcage/vmids:\n"
    );
    let said: Vec<&str> = err.lines().collect();
    assert!(said[0].contains("CT is locked (backup)") && said[0].contains("`pct unlock 9121`"));
    assert!(said[1].contains("no quorum"), "{err}");
    assert!(said[2].contains("systemctl status pve-cluster"), "{err}");
    assert_eq!(said.len(), 3, "{err}");
}
