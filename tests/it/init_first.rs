//! What the init sets up before the container is "created".

use crate::support::guest::{self, Gated, Guest, first, send, shell};
use nexcage::init::{Attributes, Description, First, Node, NodeKind};
use nix::fcntl::OFlag;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

fn with(script: &str, part: First) -> Description {
    Description { first: Some(part), ..first(shell(script)) }
}

fn strings(strings: &[&str]) -> Vec<String> {
    strings.iter().copied().map(str::to_owned).collect()
}

fn fails(guest: Guest, part: First) -> String {
    let mut gated = guest.start(&with("echo ran", part));
    let failure = gated.answer().unwrap_err();
    assert_eq!(gated.end(), (126, String::new()));
    failure.text
}

#[test]
fn the_domain_name_is_set() {
    let part = First { domainname: Some("example.org".to_owned()), ..First::default() };
    assert_eq!(guest::run(&with("cat /proc/sys/kernel/domainname", part)), "example.org\n");
}

fn node(path: &str, kind: NodeKind, major: u32, minor: u32) -> Node {
    Node { path: path.to_owned(), kind, major, minor, mode: 0o640, uid: 7, gid: 8 }
}

#[test]
fn devices_are_made_with_their_folders_owner_and_mode() {
    let part = First {
        devices: vec![
            node("/dev/net/fuse", NodeKind::Char, 10, 229),
            node("/dev/disk", NodeKind::Block, 7, 99),
            node("/dev/pipe", NodeKind::Fifo, 0, 0),
            // Made by LXC already, with another owner and mode.
            node("/dev/null", NodeKind::Char, 1, 3),
        ],
        links: vec![
            ("/proc/self/fd".to_owned(), "/dev/fd".to_owned()),
            ("elsewhere".to_owned(), "/dev/zero".to_owned()),
        ],
        ..First::default()
    };
    let script = "stat -c '%n %F %t:%T %a %u:%g' /dev/net/fuse /dev/disk /dev/pipe /dev/null; \
                  readlink /dev/fd; stat -c %F /dev/zero";
    assert_eq!(
        guest::run(&with(script, part)),
        "/dev/net/fuse character special file a:e5 640 7:8\n\
         /dev/disk block special file 7:63 640 7:8\n\
         /dev/pipe fifo 0:0 640 7:8\n\
         /dev/null character special file 1:3 640 7:8\n\
         /proc/self/fd\ncharacter special file\n"
    );
}

#[test]
fn a_device_that_is_mounted_stays_as_it_is() {
    let mut guest = Guest::new();
    guest.prepare = "touch dev/there; mount --bind dev/zero dev/there".to_owned();
    let part =
        First { devices: vec![node("/dev/there", NodeKind::Char, 1, 5)], ..First::default() };
    let script = "stat -c '%t:%T %a %u' /dev/there /dev/zero";
    assert_eq!(guest.start(&with(script, part)).finish(), "1:5 666 0\n1:5 666 0\n");
}

#[test]
fn a_device_goes_over_nothing_else_and_through_no_link() {
    let mut guest = Guest::new();
    guest.prepare = "ln -s /etc/passwd dev/fuse".to_owned();
    let devices = vec![node("/dev/fuse", NodeKind::Char, 10, 229)];
    let text = fails(guest, First { devices: devices.clone(), ..First::default() });
    assert_eq!(text, "/dev/fuse is there already and is not this device");
    let text = fails(
        Guest::new(),
        First { devices: vec![node("/dev/null", NodeKind::Char, 1, 5)], ..First::default() },
    );
    assert_eq!(text, "/dev/null is there already and is not this device");
    let devices = vec![node("/..", NodeKind::Char, 1, 5)];
    let text = fails(Guest::new(), First { devices, ..First::default() });
    assert_eq!(text, "/.. is not the absolute path of a file");
}

#[test]
fn masked_paths_read_as_nothing_and_readonly_ones_cannot_be_written() {
    let guest = Guest::new();
    let root = guest.root();
    fs::create_dir_all(root.join("secret/deep")).unwrap();
    fs::create_dir_all(root.join("secret2")).unwrap();
    fs::write(root.join("secret/deep/file"), "secret").unwrap();
    fs::write(root.join("secret2/file"), "secret").unwrap();
    fs::write(root.join("key"), "secret").unwrap();
    fs::create_dir(root.join("fixed")).unwrap();
    fs::write(root.join("fixed/file"), "fixed\n").unwrap();
    let part = First {
        masked: strings(&["/secret", "/secret2", "/key", "/none", "/key/none", "/proc/timer_list"]),
        readonly: strings(&["/fixed", "/none", "/proc/sys"]),
        ..First::default()
    };
    let script = "find /secret /secret2 | wc -l; cat /key /proc/timer_list; \
                  touch /secret/new 2>&1; touch /fixed/new 2>&1; cat /fixed/file; \
                  (echo 1 > /proc/sys/kernel/panic) 2>&1; touch /new && echo /new";
    let mut gated = guest.start(&with(script, part));
    gated.created();
    assert!(gated.go().is_none());
    assert_eq!(
        gated.end().1,
        "2\ntouch: /secret/new: Read-only file system\n\
         touch: /fixed/new: Read-only file system\nfixed\n\
         sh: can't create /proc/sys/kernel/panic: Read-only file system\n/new\n"
    );
    assert_eq!(fs::read_to_string(root.join("key")).unwrap(), "secret", "the file itself stays");
}

#[test]
fn a_mask_is_never_anything_but_the_null_device() {
    for replace in ["ln -s /etc/passwd dev/null", "cp bin/busybox dev/null", "mknod dev/null c 1 5"]
    {
        let mut guest = Guest::new();
        guest.prepare = format!("rm dev/null; {replace}");
        let part = First { masked: strings(&["/etc/passwd"]), ..First::default() };
        let text = fails(guest, part);
        assert!(text.starts_with("mask /etc/passwd: "), "{replace}: {text}");
    }
}

#[test]
fn links_lead_to_places_within_the_root_only() {
    let guest = Guest::new();
    let root = guest.root();
    symlink("../../../../etc/passwd", root.join("up")).unwrap();
    symlink("/proc/1/root/etc", root.join("magic")).unwrap();
    let part = First { masked: strings(&["/up"]), ..First::default() };
    let output = guest.start(&with("cat /up; wc -c < /etc/passwd", part)).finish();
    assert_eq!(output, "0\n", "masked where the link leads to, in the guest's root");
    for part in [
        First { masked: strings(&["/magic"]), ..First::default() },
        First { readonly: strings(&["/magic"]), ..First::default() },
    ] {
        let guest = Guest::new();
        symlink("/proc/1/root/etc", guest.root().join("magic")).unwrap();
        let text = fails(guest, part);
        assert!(text.starts_with("open /magic: Too many levels of symbolic links"), "{text}");
    }
}

#[test]
fn attributes_of_mounts_are_set_below_too_if_asked() {
    let prepare = "mkdir data; mount -t tmpfs tmpfs data; mkdir data/sub; \
                   mount -t tmpfs tmpfs data/sub";
    for (recursive, below) in [(false, "written"), (true, "Read-only")] {
        let mut guest = Guest::new();
        guest.prepare = prepare.to_owned();
        let part = First {
            attributes: vec![Attributes {
                path: "/data".to_owned(),
                set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOEXEC,
                clear: 0,
                propagation: libc::MS_SHARED,
                recursive,
            }],
            ..First::default()
        };
        let script = "touch /data/x 2>&1; touch /data/sub/x 2>&1 && echo written; \
                      grep ' /data ' /proc/self/mountinfo";
        let output = guest.start(&with(script, part)).finish();
        let lines: Vec<_> = output.lines().collect();
        assert!(lines[0].contains("Read-only"), "{output}");
        assert!(lines[1].contains(below), "{output}");
        assert!(lines[2].contains("noexec") && lines[2].contains("shared:"), "{output}");
    }
    let part = First {
        attributes: vec![Attributes { path: "/etc".to_owned(), set: 1, ..Attributes::default() }],
        ..First::default()
    };
    let text = fails(Guest::new(), part);
    assert!(text.starts_with("set the attributes of the mount at /etc (set 0x1"), "{text}");
}

#[test]
fn a_readonly_root_leaves_what_is_mounted_in_it_and_the_working_folder_is_made() {
    let part = First { readonly_root: true, ..First::default() };
    let mut description = with("touch /x 2>&1; touch /dev/x && echo dev; pwd", part);
    description.process.cwd = "/made/here".to_owned();
    assert_eq!(guest::run(&description), "touch: /x: Read-only file system\ndev\n/made/here\n");
}

#[test]
fn root_propagation_is_as_described() {
    for (flag, tag) in [(libc::MS_SHARED, "shared:"), (libc::MS_UNBINDABLE, "unbindable")] {
        let root = Attributes { path: "/".to_owned(), propagation: flag, ..Attributes::default() };
        let part = First { attributes: vec![root], ..First::default() };
        let output = guest::run(&with("awk '$5 == \"/\"' /proc/self/mountinfo", part));
        assert!(output.contains(tag), "{output}");
    }
}

/// A terminal of the guest's own devpts, as the supervisor makes one: our end, and its.
fn terminal(gated: &Gated) -> (File, File) {
    let path = format!("/proc/{}/root/dev/pts/ptmx", gated.init());
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let ours = nix::fcntl::open(path.as_str(), flags, nix::sys::stat::Mode::empty()).unwrap();
    let unlocked: libc::c_int = 0;
    #[expect(unsafe_code, reason = "nix wraps neither TIOCSPTLCK nor TIOCGPTPEER")]
    // SAFETY: TIOCSPTLCK reads one int; TIOCGPTPEER makes a descriptor that is ours.
    let theirs = unsafe {
        use std::os::fd::{AsRawFd, FromRawFd};
        assert_eq!(libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked), 0);
        let number = libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags.bits());
        assert!(number >= 0);
        File::from_raw_fd(number)
    };
    (File::from(ours), theirs)
}

#[test]
fn a_terminal_is_the_controlling_one_and_the_console() {
    let mut gated = Guest::new().connect();
    let (ours, theirs) = terminal(&gated);
    let script = "tty; stat -c %t:%T /dev/console; echo via console > /dev/console; \
                  echo via tty > /dev/tty; id -u";
    let mut description = with(script, First { console: true, ..First::default() });
    description.process.terminal = true;
    description.process.uid = 1000;
    send(&gated.stream, &description, [theirs.as_fd(), theirs.as_fd(), theirs.as_fd()]);
    drop(theirs);
    gated.created();
    assert!(gated.go().is_none());
    // EIO comes once the last of the other end is closed.
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut &ours, &mut said).unwrap_err();
    let said = String::from_utf8(said).unwrap();
    assert_eq!(said, "/dev/pts/0\r\n88:0\r\nvia console\r\nvia tty\r\n1000\r\n");
}

#[test]
fn a_terminal_that_is_not_the_guest_s_is_no_console() {
    let mut gated = Guest::new().connect();
    let pty = nix::pty::openpty(None, None).unwrap();
    let mut description = with("true", First { console: true, ..First::default() });
    description.process.terminal = true;
    let slave = pty.slave.as_fd();
    send(&gated.stream, &description, [slave, slave, slave]);
    let failure = gated.answer().unwrap_err();
    assert!(failure.text.contains("only one of the guest's own /dev/pts"), "{failure:?}");
}

#[test]
fn a_guest_with_a_user_namespace_is_set_up_as_well() {
    let mut guest = Guest::new();
    guest.unshare = vec!["--user", "--map-root-user"];
    fs::write(guest.root().join("key"), "secret").unwrap();
    let part = First {
        // Mounted by whoever made the guest, for nobody inside may make one.
        devices: vec![node("/dev/null", NodeKind::Char, 1, 3)],
        masked: strings(&["/etc", "/key"]),
        readonly: strings(&["/tmp"]),
        readonly_root: true,
        ..First::default()
    };
    let description = with("id -u; ls /etc; cat /key; touch /tmp/x || touch /x || echo ro", part);
    let output = guest.start(&description).finish();
    assert!(output.starts_with("0\n"), "{output}");
    assert!(output.ends_with("ro\n"), "{output}");
    let mut guest = Guest::new();
    guest.unshare = vec!["--user", "--map-root-user"];
    let devices = vec![node("/dev/fuse", NodeKind::Char, 10, 229)];
    let text = fails(guest, First { devices, ..First::default() });
    assert_eq!(text, "make the device /dev/fuse: Operation not permitted");
}
