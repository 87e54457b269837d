//! The stand-in for pct does what was seen of the real one: what is tested through it is worth no
//! more than this.

use crate::bed::{LIMIT, Output, Started, child_of, eventually, fetched, within};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const PROGRAMS: &str = "/run/n/bin";
const ROOTFS: &str = "/run/n/rootfs";
const EMPTY: &str = "/run/n/empty.tar";

/// What every guest of these tests is made with.
const PLAIN: [&str; 13] = [
    EMPTY,
    "--rootfs",
    ROOTFS,
    "--ostype",
    "unmanaged",
    "--arch",
    "amd64",
    "--unprivileged",
    "0",
    "--console",
    "0",
    "--tty",
    "0",
];

/// A node of Proxmox VE, so to speak, that ends with its test.
struct Node {
    enter: Child,
    init: i32,
    /// Its guests' numbers begin there: cgroups are shared by all.
    first: u32,
}

impl Node {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let enter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bed/enter");
        let mut enter = Command::new(enter)
            .arg("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        enter.stdin.as_mut().unwrap().write_all(b"!").unwrap();
        enter.stdout.as_mut().unwrap().read_exact(&mut [0]).expect("tests/bed/enter failed");
        let init = child_of(enter.id()).expect("tests/bed/enter has no child");
        let shims = Path::new(env!("CARGO_BIN_EXE_containerd-shim-nexcage-v1"));
        let pct = shims.with_file_name("examples").join("pct");
        assert!(pct.exists(), "no {}: cargo build --example pct", pct.display());
        // Pids repeat in other pid namespaces, moments do not.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let moment = u32::try_from(since.as_micros() % 14_000_000).unwrap();
        let node = Self { enter, init, first: 100_000_000 + moment * 60 + number * 3 };
        node.run(&pct.to_string_lossy(), &["--setup", PROGRAMS]).good();
        node.run("mkdir", &[ROOTFS]).good();
        let image = fetched("rootfs");
        node.run("cp", &["-a", &format!("{}/.", image.display()), ROOTFS]).good();
        node.run("tar", &["cf", EMPTY, "-T", "/dev/null"]).good();
        node
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.init.to_string(), "-m", "-n", "-p", "--", program])
            .args(args)
            .env("PATH", format!("{PROGRAMS}:{}", std::env::var("PATH").unwrap()))
            .stdin(Stdio::null())
            .process_group(0);
        command
    }

    fn start(&self, program: &str, args: &[&str]) -> Started {
        Started::spawn(&mut self.command(program, args), &format!("{program} {}", args.join(" ")))
    }

    #[track_caller]
    fn run(&self, program: &str, args: &[&str]) -> Output {
        self.start(program, args).finish()
    }

    /// Runs pct; `ID` in the arguments is that guest's number.
    #[track_caller]
    fn pct(&self, vmid: &str, line: &str) -> Output {
        let line = line.replace("ID", vmid);
        self.run("pct", &line.split(' ').collect::<Vec<_>>())
    }

    /// The number of one of three guests.
    fn vmid(&self, index: u32) -> String {
        (self.first + index).to_string()
    }

    /// Makes a guest whose init is that.
    #[track_caller]
    fn create(&self, vmid: &str, entrypoint: &str, more: &[&str]) {
        let args = [&["create", vmid], PLAIN.as_slice(), &["--entrypoint", entrypoint], more];
        self.run("pct", &args.concat()).good();
    }

    /// The test's path of a file of the node.
    fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.path(inside)).unwrap_or_default()
    }

    fn guest(&self, vmid: &str) -> String {
        self.read(&format!("/etc/pve/lxc/{vmid}.conf"))
    }

    fn append(&self, vmid: &str, line: &str) {
        let path = self.path(&format!("/etc/pve/lxc/{vmid}.conf"));
        let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    fn switch_on(&self, fault: &str, text: &str) {
        fs::write(self.path(&format!("/run/pve-standin/{fault}")), text).unwrap();
    }

    fn switch_off(&self, fault: &str) {
        fs::remove_file(self.path(&format!("/run/pve-standin/{fault}"))).unwrap();
    }

    /// Whether a name is among the node's abstract sockets.
    fn has_socket(&self, name: &str) -> bool {
        self.read_as_node("/proc/net/unix").lines().any(|line| line.ends_with(name))
    }

    /// /proc/net is that of whoever reads it.
    fn read_as_node(&self, path: &str) -> String {
        self.run("cat", &[path]).good().stdout
    }

    fn cgroups(&self, vmid: &str) -> Vec<PathBuf> {
        let roots = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        let roots = roots.chain([PathBuf::from("/sys/fs/cgroup")]);
        let both = roots.flat_map(|root| ["lxc", "lxc.monitor"].map(|name| root.join(name)));
        both.map(|folder| folder.join(vmid)).filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.enter.kill().ok();
        for index in 0..3 {
            within(Duration::from_secs(5), || {
                let cgroups = self.cgroups(&self.vmid(index));
                for cgroup in &cgroups {
                    // In a frozen cgroup even SIGKILL waits.
                    if cgroup.join("freezer.state").exists() {
                        fs::write(cgroup.join("freezer.state"), "THAWED").ok();
                    }
                    for inner in fs::read_dir(cgroup).into_iter().flatten().flatten() {
                        fs::remove_dir(inner.path().join(".lxc")).ok();
                        fs::remove_dir(inner.path()).ok();
                    }
                    fs::remove_dir(cgroup).ok();
                }
                cgroups.is_empty().then_some(())
            });
        }
        self.enter.wait().ok();
    }
}

/// That a command failed with this code, and with this and nothing else on standard error.
#[track_caller]
fn refuses(output: &Output, code: i32, text: &str) {
    assert_eq!((output.code, output.stderr.trim_end()), (code, text), "{output:?}");
}

#[test]
fn a_guest_lives_as_the_tables_say() {
    let node = Node::new();
    let id = node.vmid(0);
    let none = node.pct(&id, "list").good();
    assert_eq!(none.stdout, "");
    let before = node.run("find", &[ROOTFS]).good().stdout;
    let made = node.run(
        "pct",
        &[
            &["create", &id],
            PLAIN.as_slice(),
            &["--hostname", "web1", "--memory", "64", "--swap", "0", "--cpuunits", "200"],
            &["--tags", "oci;k8s", "--description", "oci-id=abc\nsecond: ü"],
            &["--entrypoint", "/bin/sleep 5000"],
        ]
        .concat(),
    );
    let made = made.good();
    let first = format!("extracting archive '{EMPTY}'\nTotal bytes read: 10240 (10KiB, ");
    assert!(made.stdout.starts_with(&first), "{made:?}");
    assert_eq!(made.stdout.lines().count(), 2, "{made:?}");
    assert_eq!(made.stderr, "");
    let rest = "arch: amd64\nconsole: 0\ncpuunits: 200\nentrypoint: /bin/sleep 5000\n\
                hostname: web1\nmemory: 64\nostype: unmanaged\nrootfs: /run/n/rootfs\nswap: 0\n\
                tags: k8s;oci\ntty: 0\n";
    assert!(node.guest(&id).ends_with(rest), "{}", node.guest(&id));
    assert!(node.guest(&id).starts_with("#oci-id=abc\n"), "{}", node.guest(&id));
    let shown = node.pct(&id, "config ID").good().stdout;
    assert!(shown.contains("\ndescription: oci-id=abc%0Asecond%3A %C3%BC%0A\n"), "{shown}");
    assert_eq!(node.pct(&id, "status ID").good().stdout, "status: stopped\n");

    let started = node.pct(&id, "start ID").good();
    assert_eq!((started.stdout.as_str(), started.stderr.as_str()), ("", ""));
    let listed = node.pct(&id, "list").good().stdout;
    let lines = format!(
        "VMID       Status     Lock         Name                \n\
         {id:<10} running                 web1                \n"
    );
    assert_eq!(listed, lines);
    let status = node.pct(&id, "status ID --verbose").good().stdout;
    let info = node.run("lxc-info", &["-n", &id, "-p", "-H"]).good().stdout;
    let pid = info.trim();
    assert!(status.contains(&format!("\npid: {pid}\n")), "{status}");
    assert!(node.has_socket(&format!("@/var/lib/lxc/{id}/command")));
    let cgroups = node.read(&format!("/proc/{pid}/cgroup"));
    let own = format!(":/lxc/{id}/ns");
    assert!(cgroups.lines().filter(|line| line.ends_with(&own)).count() >= 1, "{cgroups}");
    if Path::new("/sys/fs/cgroup/memory").is_dir() {
        let limit = format!("/sys/fs/cgroup/memory/lxc/{id}/memory.limit_in_bytes");
        assert_eq!(fs::read_to_string(&limit).unwrap(), "67108864\n");
        node.pct(&id, "set ID --memory 128").good();
        assert_eq!(fs::read_to_string(&limit).unwrap(), "134217728\n");
    }
    let unit = format!("pve-container@{id}");
    let main = node.run("systemctl", &["show", "-p", "MainPID", "--value", &unit]).good().stdout;
    let parent = node.read(&format!("/proc/{pid}/stat"));
    assert_eq!(parent.split(' ').nth(3), Some(main.trim()), "the monitor is not the unit's");

    // Frozen is running to pct, and can be stopped.
    node.run("lxc-freeze", &["-n", &id]).good();
    assert_eq!(node.pct(&id, "status ID").good().stdout, "status: running\n");
    let stopped = node.pct(&id, "stop ID").good();
    assert_eq!((stopped.stdout.as_str(), stopped.stderr.as_str()), ("", ""));
    let state = node.run("systemctl", &["is-active", &unit]);
    assert_eq!((state.code, state.stdout.as_str()), (3, "inactive\n"));
    assert_eq!(node.cgroups(&id), Vec::<PathBuf>::new());
    node.pct(&id, "destroy ID --purge").good();
    assert_eq!(node.guest(&id), "");
    assert_eq!(node.pct(&id, "list").good().stdout, "");
    // Whoever made the guest has to take these away.
    let left = node.run("ls", &[&format!("/var/lib/lxc/{id}")]).good().stdout;
    assert_eq!(left, "passthrough\nrules.seccomp\n");
    // LXC makes the places of its mounts, which are there in this root.
    assert_eq!(node.run("find", &[ROOTFS]).good().stdout, before, "a bind root was changed");
}

#[test]
fn what_is_wrong_on_the_command_line_is_said_in_the_real_ones_words() {
    let node = Node::new();
    let id = node.vmid(0);
    let usage = |command: &str| format!("pct {command} <vmid> [OPTIONS]");
    let bad = "400 Parameter verification failed.\n";
    let vmid = "vmid: invalid format - value does not look like a valid VM ID";
    for wrong in ["99", "0100", "1234567890"] {
        let text = format!("{bad}{vmid}\n\n{}", usage("start"));
        refuses(&node.run("pct", &["start", wrong]), 2, &text);
    }
    let text =
        format!("{bad}vmid: type check ('integer') failed - got 'abc'\n\n{}", usage("start"));
    refuses(&node.run("pct", &["start", "abc"]), 2, &text);
    let text =
        format!("Unknown option: lxc.mount.entry\n400 unable to parse option\n{}", usage("set"));
    refuses(&node.pct(&id, "set ID --lxc.mount.entry x"), 2, &text);
    let text = format!("400 not enough arguments\n{}", usage("set"));
    refuses(&node.pct(&id, "set"), 2, &text);
    for (option, why) in [
        ("memory 15", "memory: value must have a minimum value of 16"),
        ("hostname web_1", "hostname: invalid format - value does not look like a valid DNS name"),
        ("env A.B=1", "env: value does not match the regex pattern"),
        (
            "rootfs /a,b",
            "rootfs: invalid format - duplicate key in comma-separated list property: volume",
        ),
    ] {
        let text = format!("{bad}{why}\n\n{}", usage("set"));
        refuses(&node.pct(&id, &format!("set ID --{option}")), 2, &text);
    }
    let unknown = node.pct(&id, "nosuchcmd");
    assert_eq!(unknown.code, 255);
    assert!(unknown.stderr.starts_with("ERROR: unknown command 'pct nosuchcmd'\n"), "{unknown:?}");

    let missing = format!("Configuration file 'nodes/pve/lxc/{id}.conf' does not exist");
    for command in ["status ID", "config ID", "exec ID -- true", "set ID --memory 64", "destroy ID"]
    {
        refuses(&node.pct(&id, command), 2, &missing);
    }
    refuses(&node.pct(&id, "start ID"), 255, &missing);
    refuses(&node.pct(&id, "stop ID"), 255, &format!("CT {id} not running"));

    let unable = format!("unable to create CT {id} - ");
    node.run("ln", &["-s", ROOTFS, "/run/n/link"]).good();
    node.run("touch", &["/run/n/none.tar", "/run/n/empty.img"]).good();
    for (template, root, why) in [
        ("/run/n/no.tar", ROOTFS, "can't find file '/run/n/no.tar'"),
        ("local:vztmpl/no.tar.gz", ROOTFS, "volume 'local:vztmpl/no.tar.gz' does not exist"),
        (
            "/run/n/empty.img",
            ROOTFS,
            "file does not look like a template archive: /run/n/empty.img",
        ),
        ("/run/n/none.tar", ROOTFS, "command 'tar -tf /run/n/none.tar' failed: exit code 2"),
        (EMPTY, "/run/n/link", "symlink encountered at: //run/n/link"),
        (EMPTY, "/run/n/missing", "directory '/run/n/missing' does not exist"),
    ] {
        let output = node.pct(&id, &format!("create ID {template} --rootfs {root}"));
        refuses(&output, 255, &format!("{unable}{why}"));
        assert_eq!(node.guest(&id), "", "a failed create left its reservation");
    }
    let said = node.pct(&id, &format!("create ID /run/n/no.tar --rootfs {ROOTFS}")).stdout;
    assert_eq!(said, "can't find file '/run/n/no.tar'\n");
    let output = node.pct(&id, &format!("create ID {EMPTY} --rootfs nostore:4"));
    refuses(&output, 2, "storage 'nostore' does not exist");
    let output = node.pct(&id, &format!("create ID {EMPTY} --rootfs relative/dir"));
    assert!(output.stderr.contains("unable to parse volume ID 'relative/dir'"), "{output:?}");
}

#[test]
fn a_number_belongs_to_one_guest_of_the_whole_cluster() {
    let node = Node::new();
    let [here, there, machine] = [0, 1, 2].map(|index| node.vmid(index));
    let guests = "/etc/pve/nodes";
    fs::write(node.path(&format!("{guests}/other/lxc/{there}.conf")), "arch: amd64\n").unwrap();
    fs::write(node.path(&format!("{guests}/pve/qemu-server/{machine}.conf")), "cores: 1\n")
        .unwrap();
    node.create(&here, "/bin/sleep 1000", &[]);
    let create = |vmid: &str| node.run("pct", &[&["create", vmid], PLAIN.as_slice()].concat());
    refuses(&create(&here), 2, &format!("CT {here} already exists on node 'pve'"));
    refuses(&create(&there), 2, &format!("CT {there} already exists on node 'other'"));
    refuses(&create(&machine), 2, &format!("VM {machine} already exists on node 'pve'"));
    for vmid in [&here, &there, &machine] {
        let path = node.path(&format!("/etc/pve/lxc/{vmid}.conf"));
        let direct = fs::OpenOptions::new().write(true).create_new(true).open(&path);
        assert_eq!(direct.unwrap_err().kind(), ErrorKind::AlreadyExists, "{vmid}");
    }
    let away = node.path("/etc/pve/lxc/new.tmp");
    fs::write(&away, "").unwrap();
    let onto = fs::rename(&away, node.path(&format!("/etc/pve/lxc/{there}.conf")));
    assert_eq!(onto.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let list: serde_json::Value = serde_json::from_str(&node.read("/etc/pve/.vmlist")).unwrap();
    assert_eq!(list["ids"].as_object().unwrap().len(), 3, "{list}");
    assert_eq!(list["ids"][&machine]["type"], "qemu", "{list}");
    assert_eq!(list["ids"][&there]["node"], "other", "{list}");
    let next = ["get", "/cluster/nextid"];
    assert_eq!(node.run("pvesh", &next).good().stdout, "100\n");
    let asked = node.run("pvesh", &[&next[..], &["--vmid", &machine]].concat());
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(asked.stderr.contains(&format!("vmid: VM {machine} already exists")), "{asked:?}");

    // Many at once: each number has one winner, and a loser that came too late for the first look
    // is told so after it had the lock.
    node.pct(&here, "destroy ID").good();
    node.switch_on("latency-create-locked", "300");
    let args = [&["create", &here], PLAIN.as_slice()].concat();
    let all: Vec<_> = (0..3).map(|_| node.start("pct", &args)).collect();
    let ended: Vec<_> = all.into_iter().map(Started::finish).collect();
    assert_eq!(ended.iter().filter(|output| output.code == 0).count(), 1, "{ended:?}");
    for loser in ended.iter().filter(|output| output.code != 0) {
        assert!(loser.stderr.contains("already exists on node 'pve'"), "{loser:?}");
    }
    let won = AtomicU32::new(0);
    thread::scope(|scope| {
        let path = node.path(&format!("/etc/pve/lxc/{}.conf", node.first + 20));
        for _ in 0..8 {
            scope.spawn({
                let (path, won) = (path.clone(), &won);
                move || {
                    let new = fs::OpenOptions::new().write(true).create_new(true).open(path);
                    won.fetch_add(u32::from(new.is_ok()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(won.into_inner(), 1);
}

#[test]
fn raw_keys_are_kept_by_the_list_and_lost_without_an_error() {
    let node = Node::new();
    let id = node.vmid(0);
    node.create(&id, "/bin/sleep 1000", &[]);
    for line in [
        "lxc.namespace.share.net = /run/netns/foo",
        "lxc.rootfs.path = /elsewhere",
        "lxc.signal.halt = SIGTERM",
        "lxc.environment.runtime: A=1",
        "foobar: baz",
        "# of my own",
        "lxc.cap.drop:",
    ] {
        node.append(&id, line);
    }
    let warnings = format!(
        "vm {id} - unable to parse config: lxc.namespace.share.net = /run/netns/foo\n\
         vm {id} - lxc.rootfs.path: lxc.rootfs.path is auto generated from rootfs\n\
         vm {id} - unable to parse value of 'foobar' - unknown setting 'foobar'\n"
    );
    let shown = node.pct(&id, "config ID").good();
    assert_eq!(shown.stderr, warnings);
    assert!(!shown.stdout.contains("namespace"), "{shown:?}");
    assert!(
        shown.stdout.ends_with("tty: 0\nlxc.signal.halt: SIGTERM\nlxc.cap.drop: \n"),
        "{shown:?}"
    );
    assert!(node.guest(&id).contains("namespace.share"), "reading has changed the file");
    assert_eq!(node.pct(&id, "set ID --memory 64").good().stderr, warnings);
    let kept = node.guest(&id);
    assert!(kept.starts_with("# of my own\narch: amd64\n"), "{kept}");
    let end = "foobar: baz\nhostname: CT";
    assert!(kept.contains(end), "{kept}");
    let end = "tty: 0\nlxc.environment.runtime: A=1\nlxc.signal.halt: SIGTERM\nlxc.cap.drop: \n";
    assert!(kept.ends_with(end), "{kept}");
    refuses(
        &node.pct(&id, "set ID --unprivileged 1"),
        255,
        "unable to modify read-only option: 'unprivileged'",
    );

    // An included file is LXC's own affair: there, everything holds, after what pct writes.
    fs::write(node.path("/run/n/include"), "lxc.uts.name = mine\nlxc.init.cmd = /bin/sleep 77\n")
        .unwrap();
    node.append(&id, "lxc.include: /run/n/include");
    node.pct(&id, "start ID").good();
    assert_eq!(node.pct(&id, "exec ID -- hostname").good().stdout, "mine\n");
    let first = node.pct(&id, "exec ID -- cat /proc/1/cmdline").good().stdout;
    assert_eq!(first, "/bin/sleep\0".to_owned() + "77\0");
    let environment = node.pct(&id, "exec ID -- cat /proc/1/environ").good().stdout;
    assert!(
        environment.contains("A=1\0") && environment.contains("TERM=linux\0"),
        "{environment:?}"
    );
    node.pct(&id, "destroy ID --force").good();

    // Without the file, nothing says what is wrong, and late.
    node.create(&id, "/bin/sleep 1000", &[]);
    node.append(&id, "lxc.include: /run/n/missing");
    node.switch_on("monitor-timeout", "300");
    let since = Instant::now();
    let failed = node.pct(&id, "start ID");
    assert!(since.elapsed() > Duration::from_millis(300));
    refuses(&failed, 255, &format!("command 'lxc-info -n {id} -p' failed: exit code 1"));
    let said = "problem with monitor socket, but continuing anyway: got timeout\n";
    assert!(failed.stdout.starts_with(said), "{failed:?}");
}

#[test]
fn a_start_says_less_than_one_would_like() {
    let node = Node::new();
    let id = node.vmid(0);
    node.create(&id, "/bin/nonexist", &[]);
    let failed = node.pct(&id, "start ID");
    refuses(&failed, 255, &format!("startup for container '{id}' failed"));
    let said = "An error occurred in another process (expected sequence number";
    assert!(failed.stdout.starts_with("sync_wait: ") && failed.stdout.contains(said), "{failed:?}");
    assert!(!failed.stdout.contains("nonexist"), "the real one does not tell: {failed:?}");
    let unit = format!("pve-container@{id}");
    eventually("the unit has failed", || {
        (node.run("systemctl", &["is-failed", &unit]).code == 0).then_some(())
    });

    // It ran, and all the same.
    fs::write(node.path(&format!("{ROOTFS}/job")), "echo ran >/ran\nexit 7\n").unwrap();
    node.run("pct", &["set", &id, "--entrypoint", "/bin/sh /job"]).good();
    node.switch_on("latency-start-pid", "500");
    let text = format!("unable to get PID for CT {id} (not running?)");
    refuses(&node.pct(&id, "start ID"), 255, &text);
    assert_eq!(node.read(&format!("{ROOTFS}/ran")), "ran\n");
    node.switch_off("latency-start-pid");
    let result = node.run("systemctl", &["show", "-p", "ActiveState,ExecMainStatus", &unit]);
    assert_eq!(
        result.good().stdout,
        "ActiveState=inactive\nExecMainStatus=0\n",
        "the code is lost"
    );

    // Without the monitor's daemon nothing is waited for, and the guest runs nevertheless.
    node.run("pct", &["set", &id, "--entrypoint", "/bin/sleep 1000"]).good();
    let daemon = "@lxc/ad055575fe28ddd5//var/lib/lxc";
    assert!(node.has_socket(daemon));
    node.switch_on("no-monitord", "");
    eventually("the daemon is gone", || (!node.has_socket(daemon)).then_some(()));
    let failed = node.pct(&id, "start ID");
    refuses(&failed, 255, &text);
    assert_eq!(failed.stdout, "failed to connect to monitor socket: Connection refused\n");
    eventually("the guest runs", || {
        (node.pct(&id, "status ID").good().stdout == "status: running\n").then_some(())
    });
    node.switch_off("no-monitord");
    eventually("the daemon is back", || node.has_socket(daemon).then_some(()));
    refuses(&node.pct(&id, "start ID"), 255, &format!("CT {id} already running"));

    // CRIU's suspend is the end of it; so is the end of the monitor.
    let text =
        format!("command 'lxc-checkpoint -n {id} -s -D /var/lib/vz/dump' failed: exit code 1");
    refuses(&node.pct(&id, "suspend ID"), 255, &text);
    assert_eq!(node.pct(&id, "status ID").good().stdout, "status: stopped\n");
    node.pct(&id, "start ID").good();
    let main = node.run("systemctl", &["show", "-p", "MainPID", "--value", &unit]).good().stdout;
    node.run("kill", &["-KILL", main.trim()]).good();
    eventually("the guest is stopped", || {
        (node.pct(&id, "status ID").good().stdout == "status: stopped\n").then_some(())
    });
    assert!(!node.cgroups(&id).is_empty(), "nobody was there to remove them");
    node.pct(&id, "start ID").good();

    // Its halt signal is SIGPWR, which this init does not know.
    let failed = node.pct(&id, "shutdown ID --timeout 1");
    refuses(&failed, 255, "container did not stop");
    let said = format!("command 'lxc-stop -n {id} --nokill --timeout 1' failed: exit code 1\n");
    assert_eq!(failed.stdout, said);
    node.pct(&id, "shutdown ID --timeout 1 --forceStop 1").good();
    refuses(&node.pct(&id, "stop ID"), 255, &format!("CT {id} not running"));
}

#[test]
fn locks_and_protection_hold_what_they_hold() {
    let node = Node::new();
    let id = node.vmid(0);
    node.create(&id, "/bin/sleep 1000", &[]);
    node.pct(&id, "start ID").good();
    refuses(
        &node.pct(&id, "destroy ID"),
        255,
        &format!("unable to destroy CT {id} - container is running"),
    );
    refuses(&node.pct(&id, "unlock ID"), 255, "no lock found trying to remove any lock");
    node.pct(&id, "set ID --lock backup").good();
    for command in ["stop ID", "shutdown ID", "destroy ID"] {
        refuses(&node.pct(&id, command), 255, "CT is locked (backup)");
    }
    assert_eq!(node.pct(&id, "status ID").good().stdout, "status: running\n");
    node.pct(&id, "exec ID -- true").good();
    assert!(node.pct(&id, "list").good().stdout.contains(" running    backup       CT"));
    node.pct(&id, "unlock ID").good();
    node.pct(&id, "set ID --protection 1").good();
    let text = format!("can't remove CT {id} - protection mode enabled");
    refuses(&node.pct(&id, "destroy ID --force"), 255, &text);
    node.pct(&id, "set ID --delete protection").good();

    // Somebody has the node's lock of the guest.
    let path = format!("/run/lock/lxc/pve-config-{id}.lock");
    let mut holder = node.start("flock", &[&path, "sh", "-c", "echo held; exec sleep 1000"]);
    holder.until_stdout("held");
    node.switch_on("lock-timeout", "200");
    let busy = format!("can't lock file '{path}' - got timeout");
    let failed = node.pct(&id, "set ID --memory 64");
    assert_eq!(failed.code, 4);
    assert_eq!(failed.stderr, format!("trying to acquire lock...\n{busy}\n"));
    let failed = node.pct(&id, "start ID");
    refuses(&failed, 255, &busy);
    assert_eq!(failed.stdout, "trying to acquire lock...\n");
    assert!(!holder.has_ended());
    drop(holder);
    let forced = node.pct(&id, "destroy ID --force").good();
    assert_eq!(forced.stdout, format!("forced to stop CT {id} before destroying!\n"));
}

#[test]
fn a_cluster_in_trouble_refuses_what_it_refuses() {
    let node = Node::new();
    let [id, new] = [0, 1].map(|index| node.vmid(index));
    node.create(&id, "/bin/sleep 1000", &[]);
    node.pct(&id, "start ID").good();
    let file = node.path(&format!("/etc/pve/lxc/{new}.conf"));
    let create = || node.run("pct", &[&["create", &new], PLAIN.as_slice()].concat());

    node.switch_on("no-quorum", "");
    refuses(&create(), 2, "cluster not ready - no quorum?");
    // EACCES, not EROFS.
    assert_eq!(fs::write(&file, "x").unwrap_err().raw_os_error(), Some(13));
    let own = node.path(&format!("/etc/pve/lxc/{id}.conf"));
    assert_eq!(fs::remove_file(&own).unwrap_err().raw_os_error(), Some(13));
    for command in ["exec ID -- true", "list", "status ID", "config ID", "stop ID"] {
        node.pct(&id, command).good();
    }
    refuses(&node.pct(&id, "start ID"), 255, "cluster not ready - no quorum?");
    let failed = node.pct(&id, "destroy ID");
    let text = format!("unable to open file '/etc/pve/nodes/pve/lxc/{id}.conf.tmp.");
    assert!(failed.code == 255 && failed.stderr.starts_with(&text), "{failed:?}");
    assert!(failed.stderr.ends_with("' - Permission denied\n"), "{failed:?}");
    assert!(node.guest(&id).contains("hostname: "), "the guest has changed");
    node.switch_off("no-quorum");

    node.switch_on("full", "");
    assert_eq!(fs::write(&file, "x").unwrap_err().raw_os_error(), Some(28));
    assert_eq!(create().code, 255);
    assert!(!file.exists());
    node.switch_off("full");
    let large = vec![b'#'; 1024 * 1024 + 1];
    assert_eq!(fs::write(&file, large).unwrap_err().raw_os_error(), Some(27), "1 MiB and more");
    fs::remove_file(&file).unwrap();

    node.switch_on("pmxcfs-down", "");
    let down = "ipcc_send_rec[1] failed: Connection refused\n\
                ipcc_send_rec[2] failed: Connection refused\n\
                ipcc_send_rec[3] failed: Connection refused\n\
                Unable to load access control list: Connection refused";
    for command in ["list", "start ID", "status ID"] {
        refuses(&node.pct(&id, command), 111, down);
    }
    assert_eq!(fs::read(&own).unwrap_err().raw_os_error(), Some(107));
    node.switch_off("pmxcfs-down");
    node.switch_on("fail-destroy", "storage is on fire");
    refuses(&node.pct(&id, "destroy ID"), 255, "storage is on fire");
    node.switch_off("fail-destroy");
    node.pct(&id, "destroy ID").good();
}

#[test]
fn a_task_goes_on_when_its_caller_is_killed() {
    let node = Node::new();
    let id = node.vmid(0);
    // Long enough for everything before the kill, on a busy machine, too.
    node.switch_on("latency-create-locked", "3000");
    let creating = node.start("pct", &[&["create", &id], PLAIN.as_slice()].concat());
    eventually("the number is taken", || (node.guest(&id) == "lock: create\n").then_some(()));
    let listed = node.pct(&id, "list").good().stdout;
    assert!(listed.contains(&format!("{id:<10} stopped    create       CT{id}")), "{listed}");
    let pid = Pid::from_raw(creating.pid());
    // It hears nothing else while a task runs.
    kill(pid, Signal::SIGTERM).unwrap();
    kill(pid, Signal::SIGINT).unwrap();
    // Nor is it in the group of its caller.
    killpg(getpgid(Some(pid)).unwrap(), Signal::SIGKILL).unwrap();
    assert_eq!(creating.finish_within(LIMIT).code, 128 + 9);
    eventually("the guest is made", || node.guest(&id).contains("ostype: unmanaged").then_some(()));
}

#[test]
fn a_guest_can_have_a_disk_and_no_privileges() {
    let node = Node::new();
    let id = node.vmid(0);
    let template = "/run/pve-standin/vz/template/cache/busybox.tar.gz";
    node.run("tar", &["czf", template, "-C", ROOTFS, "."]).good();
    // Without the flag a guest is unprivileged.
    let made = node.run(
        "pct",
        &[
            &["create", &id, "local:vztmpl/busybox.tar.gz", "--rootfs", "local:1"],
            &["--ostype", "unmanaged", "--console", "0", "--tty", "0"][..],
            &["--mp0", "/run/n,mp=/data", "--entrypoint", "/bin/sleep 1000"],
        ]
        .concat(),
    );
    let said = made.good().stdout;
    assert!(said.contains(&format!("extracting archive '{template}'\n")), "{said}");
    assert!(said.ends_with("Use `pct set VMID --arch ARCH` to change.\n"), "{said}");
    let root = format!("\nrootfs: local:{id}/vm-{id}-disk-0.raw,size=1G\n");
    let guest = node.guest(&id);
    assert!(guest.contains(&root) && guest.ends_with("\nunprivileged: 1\n"), "{guest}");
    node.pct(&id, "start ID").good();
    let map = node.pct(&id, "exec ID -- cat /proc/self/uid_map").good().stdout;
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    let touch = "touch /own && stat -c %u /own /data";
    let owners = node.run("pct", &["exec", &id, "--", "sh", "-c", touch]).good().stdout;
    assert_eq!(owners, "0\n65534\n");
    node.pct(&id, "destroy ID --force").good();
    assert!(!node.path(&format!("/run/pve-standin/vz/images/{id}")).exists());
}

#[test]
fn exec_leaks_and_tells_codes_as_the_real_one() {
    let node = Node::new();
    let id = node.vmid(0);
    node.create(&id, "/bin/sleep 1000", &[]);
    refuses(&node.pct(&id, "exec ID -- true"), 255, &format!("container '{id}' not running!"));
    node.pct(&id, "start ID").good();
    let missing = "missing command at /usr/share/perl5/PVE/CLI/pct.pm line 246.";
    refuses(&node.pct(&id, "exec ID"), 255, missing);
    let exec = |words: &[&str]| node.run("pct", &[&["exec", &id], words].concat());
    let eaten = exec(&["ls", "-l"]);
    assert!(eaten.code == 2 && eaten.stderr.starts_with("Unknown option: l\n"), "{eaten:?}");
    for (script, code) in [("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)] {
        assert_eq!(exec(&["--", "sh", "-c", script]).code, code, "{script}");
    }
    assert_eq!(exec(&["--", "/nonexist"]).code, 127);
    let both = exec(&["--", "sh", "-c", "echo out; echo err >&2; id -u"]).good();
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n0\n", "err\n"));
    let mut with = node.command("pct", &["exec", &id, "--", "env"]);
    with.env("FROM_CALLER", "1");
    let kept = Started::spawn(&mut with, "pct exec env").finish().good().stdout;
    assert!(kept.contains("FROM_CALLER=1\n"), "{kept}");
    assert!(kept.contains("PATH=/sbin:/bin:/usr/sbin:/usr/bin\n"), "{kept}");
    let mut without = node.command("pct", &["exec", &id, "--keep-env", "0", "--", "env"]);
    without.env("FROM_CALLER", "1");
    let clear = Started::spawn(&mut without, "pct exec env").finish().good().stdout;
    assert!(!clear.contains("FROM_CALLER") && clear.contains("container=lxc\n"), "{clear}");
}
