//! One private containerd of any version, with nexcage's shim in its PATH, where nothing that a
//! test starts can outlive it.
//!
//! A [`Bed`] is one run of `tests/bed/enter`: mount, network and pid namespaces of its own. What
//! runs inside is started through nsenter, so that a test sees its pipes and its exit code. The
//! end of the bed is the end of everything in it, also when the test program is killed.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime};

/// How long anything may take that takes no time on an idle machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The image's name.
pub const IMAGE: &str = "docker.io/library/busybox:latest";

/// The name of the image of pods' sandboxes.
pub const PAUSE: &str = "docker.io/library/pause:latest";

/// The stand-in's programs.
const PROXMOX: &str = "/run/b/pve";

/// containerd's folders, as seen in the bed. Short: socket paths hold 107 bytes.
const HOME: &str = "/run/b";
const SOCKET: &str = "/run/b/c.sock";

/// A containerd and an OCI runtime that work together.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The folder of tests/bed/fetch after `containerd-`.
    pub containerd: &'static str,
    /// The folder of tests/bed/fetch.
    pub runtime: &'static str,
}

impl Pair {
    /// The backend's name.
    pub fn backend(self) -> &'static str {
        self.runtime.split('-').next().unwrap_or(self.runtime)
    }

    /// The program that makes a container, and the word of its command line by which that can be
    /// told.
    pub fn maker(self) -> (&'static str, &'static str) {
        match self.backend() {
            "lxc" => ("lxc-start", "--foreground"),
            "pct" => ("pct", "start"),
            runtime => (runtime, "create"),
        }
    }

    fn is_there(self) -> bool {
        match self.backend() {
            "lxc" => Path::new("/usr/bin/lxc-start").exists(),
            "pct" => pct_standin().exists(),
            _ => fetched(self.runtime).is_dir(),
        }
    }
}

/// The pair for tests in which neither version matters.
pub const ANY: Pair = Pair { containerd: "2.1", runtime: "crun-1.28" };

/// Makes a test of each function on every containerd with every backend.
macro_rules! on_every_pair {
    ($($name:ident),* $(,)?) => {
        on_every_oci_runtime!($($name),*);
        on_every_oci_runtime!(@ containerd_1_6_lxc "1.6" "lxc" $($name)*);
        on_every_oci_runtime!(@ containerd_1_7_lxc "1.7" "lxc" $($name)*);
        on_every_oci_runtime!(@ containerd_2_1_lxc "2.1" "lxc" $($name)*);
        on_every_oci_runtime!(@ containerd_1_6_pct "1.6" "pct" $($name)*);
        on_every_oci_runtime!(@ containerd_1_7_pct "1.7" "pct" $($name)*);
        on_every_oci_runtime!(@ containerd_2_1_pct "2.1" "pct" $($name)*);
    };
}

/// Makes a test of each function on every containerd with crun and runc.
macro_rules! on_every_oci_runtime {
    ($($name:ident),* $(,)?) => {
        on_every_oci_runtime!(@ containerd_1_6_crun_1_8 "1.6" "crun-1.8" $($name)*);
        on_every_oci_runtime!(@ containerd_1_6_runc_1_1 "1.6" "runc-1.1" $($name)*);
        on_every_oci_runtime!(@ containerd_1_7_crun_1_28 "1.7" "crun-1.28" $($name)*);
        on_every_oci_runtime!(@ containerd_1_7_runc_1_1 "1.7" "runc-1.1" $($name)*);
        on_every_oci_runtime!(@ containerd_2_1_crun_1_28 "2.1" "crun-1.28" $($name)*);
        on_every_oci_runtime!(@ containerd_2_1_runc_1_1 "2.1" "runc-1.1" $($name)*);
    };
    (@ $module:ident $containerd:literal $runtime:literal $($name:ident)*) => {
        mod $module {
            const PAIR: crate::bed::Pair =
                crate::bed::Pair { containerd: $containerd, runtime: $runtime };
            $(#[test] fn $name() { super::$name(PAIR); })*
        }
    };
}

/// Waits for `check` to give something.
#[track_caller]
pub fn eventually<T>(what: &str, check: impl FnMut() -> Option<T>) -> T {
    within(LIMIT / 2, check).unwrap_or_else(|| panic!("did not happen in time: {what}"))
}

/// What `check` gave in that time, if anything.
pub fn within<T>(limit: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = check() {
            return Some(found);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A private containerd and everything around it.
pub struct Bed {
    pair: Pair,
    /// containerd's namespace.
    pub namespace: String,
    /// The folder of its cgroups, different in every bed: they are shared by all.
    pub group: String,
    enter: Child,
    /// Pid 1 of the bed, as the test sees it.
    init: i32,
    containerd: Option<Started>,
}

impl Bed {
    /// A bed whose containerd answers and has the image.
    pub fn new(pair: Pair) -> Self {
        Self::with_programs(pair, &[])
    }

    /// The same, with scripts that stand in PATH before the real programs. `@REAL@` in them is
    /// the real one's path.
    pub fn with_programs(pair: Pair, programs: &[(&str, &str)]) -> Self {
        let mut bed = Self::entered(pair);
        for (name, script) in programs {
            let real = std::env::split_paths(&bed.search_path())
                .map(|folder| folder.join(name))
                .find(|path| bed.path(&path.to_string_lossy()).symlink_metadata().is_ok())
                .unwrap_or_else(|| panic!("no program {name}"));
            bed.script(
                &format!("{HOME}/bin/{name}"),
                &script.replace("@REAL@", &real.display().to_string()),
            );
        }
        bed.configure(str::to_owned);
        bed.start_containerd();
        bed.import("images/busybox.tar", IMAGE);
        bed
    }

    /// A bed with an image for containers and one for sandboxes, in the namespace of containerd's
    /// CRI plugin, whose configuration `change` makes of that of all beds. `files` are written
    /// before containerd starts.
    pub fn with_cri(
        pair: Pair,
        files: &[(&str, &str)],
        change: impl FnOnce(&str) -> String,
    ) -> Self {
        let mut bed = Self::entered(pair);
        "k8s.io".clone_into(&mut bed.namespace);
        // What network plugins keep of their results.
        let private = "mkdir -p /var/lib/cni && mount -t tmpfs -o mode=0700 tmpfs /var/lib/cni";
        bed.start("sh", &["-c", private]).finish().good();
        for (file, text) in files {
            fs::create_dir_all(bed.path(file).parent().unwrap()).unwrap();
            bed.script(file, text);
        }
        bed.configure(change);
        bed.start_containerd();
        bed.import("images/busybox.tar", IMAGE);
        bed.import("pause/pause.tar", PAUSE);
        bed
    }

    /// A bed in which nothing runs yet.
    fn entered(pair: Pair) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        // Pids repeat in other pid namespaces, moments do not.
        let namespace = format!(
            "nx{:x}-{}",
            since.as_micros() & 0xff_ffff_ffff,
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let enter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bed/enter");
        assert!(
            pair.is_there() && fetched("images/busybox.tar").exists(),
            "the bed is not there: run tests/bed/fetch, or set NEXCAGE_BED to its folder"
        );
        // It ends with this program, however that ends: its stdin is then at its end.
        let mut enter = Command::new(enter)
            .arg("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        enter.stdin.as_mut().unwrap().write_all(b"!").unwrap();
        enter.stdout.as_mut().unwrap().read_exact(&mut [0]).expect("tests/bed/enter failed");
        let init = child_of(enter.id()).expect("tests/bed/enter has no child");
        let group = namespace.clone();
        let bed = Self { pair, namespace, group, enter, init, containerd: None };
        for folder in ["bin", "broken"] {
            fs::create_dir_all(bed.path(&format!("{HOME}/{folder}"))).unwrap();
        }
        if pair.backend() == "pct" {
            bed.make_node();
        }
        bed
    }

    /// Writes containerd's configuration.
    fn configure(&self, change: impl FnOnce(&str) -> String) {
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bed/containerd.toml.in");
        let config = fs::read_to_string(template)
            .unwrap()
            .replace("@ROOT@", &format!("{HOME}/root"))
            .replace("@STATE@", &format!("{HOME}/state"))
            .replace("@SOCK@", SOCKET);
        self.write(&format!("{HOME}/c.toml"), &change(&config));
    }

    fn import(&self, archive: &str, name: &str) {
        let archive = fetched(archive);
        let base = name.trim_end_matches(":latest");
        let args = ["images", "import", "--base-name", base, &archive.to_string_lossy()];
        self.ctr(&args).good();
    }

    /// Makes a node of Proxmox VE of it, with numbers for its guests that no other bed uses:
    /// cgroups are shared by all.
    fn make_node(&self) {
        self.start(&pct_standin().to_string_lossy(), &["--setup", PROXMOX]).finish().good();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let first = 200_000_000 + since.as_millis() % 7_000_000 * 100;
        fs::create_dir_all(self.path("/etc/nexcage")).unwrap();
        let config = serde_json::json!({ "pct": { "vmid_min": first, "vmid_max": first + 99 } });
        self.write("/etc/nexcage/config.json", &config.to_string());
    }

    /// Switches on what the node is to suffer from; see tests/pct/fault.rs.
    pub fn suffer(&self, fault: &str, text: &str) {
        self.write(&format!("/run/pve-standin/{fault}"), text);
    }

    /// Switches it off.
    pub fn recover(&self, fault: &str) {
        self.remove(&format!("/run/pve-standin/{fault}"));
    }

    /// Sets one of the settings for pct.
    pub fn set_pct(&self, key: &str, value: impl Into<Value>) {
        const FILE: &str = "/etc/nexcage/config.json";
        let mut config: Value = serde_json::from_str(&self.read(FILE)).unwrap();
        config["pct"][key] = value.into();
        self.write(FILE, &config.to_string());
    }

    /// The numbers in the ledger of vmids.
    pub fn vmids(&self) -> Vec<u64> {
        let names = fs::read_dir(self.path("/var/lib/nexcage/vmids")).into_iter().flatten();
        names.flatten().filter_map(|name| name.file_name().to_str()?.parse().ok()).collect()
    }

    /// The number of a container's guest, on a node of Proxmox VE.
    pub fn vmid(&self, id: &str) -> u64 {
        let text = self.read(&format!("/run/nexcage/{}/{id}/vmid.json", self.namespace));
        let noted: Value = serde_json::from_str(&text).unwrap_or_default();
        noted["vmid"].as_u64().expect("no vmid beside the record")
    }

    /// The test's path of containerd's socket.
    pub fn socket(&self) -> PathBuf {
        self.path(SOCKET)
    }

    /// The test's path of a file in the bed.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// What a file in the bed says; nothing if it is not there.
    pub fn read(&self, inside: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(inside)).unwrap_or_default()).into_owned()
    }

    /// Writes a file in the bed.
    pub fn write(&self, inside: &str, text: &str) {
        fs::write(self.path(inside), text).unwrap();
    }

    /// Writes a program in the bed.
    pub fn script(&self, inside: &str, text: &str) {
        self.write(inside, text);
        fs::set_permissions(self.path(inside), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Removes a file in the bed.
    pub fn remove(&self, inside: &str) {
        fs::remove_file(self.path(inside)).unwrap();
    }

    fn search_path(&self) -> String {
        let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-nexcage-v1")).parent().unwrap();
        format!(
            "{HOME}/bin:{PROXMOX}:{}:{}:{}/bin:{}",
            shim.display(),
            fetched(self.pair.runtime).display(),
            fetched(&format!("containerd-{}", self.pair.containerd)).display(),
            std::env::var("PATH").unwrap()
        )
    }

    /// A command that will run in the bed, in a process group of its own.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.init.to_string(), "-m", "-n", "-p", "--", program])
            .args(args)
            .env("PATH", self.search_path())
            .env("CONTAINERD_ADDRESS", SOCKET)
            .env("CONTAINERD_NAMESPACE", &self.namespace)
            .process_group(0);
        command
    }

    /// Starts a program in the bed.
    pub fn start(&self, program: &str, args: &[&str]) -> Started {
        let what = format!("{program} {}", args.join(" "));
        Started::spawn(self.command(program, args).stdin(Stdio::null()), &what)
    }

    /// The same, with a pipe for its stdin.
    pub fn start_with_stdin(&self, program: &str, args: &[&str]) -> Started {
        let what = format!("{program} {}", args.join(" "));
        Started::spawn(self.command(program, args).stdin(Stdio::piped()), &what)
    }

    /// Runs ctr to its end.
    pub fn ctr(&self, args: &[&str]) -> Output {
        self.start("ctr", args).finish()
    }

    /// Arguments for `ctr run` with this bed's backend.
    pub fn run_args<'a>(
        &self,
        flags: &[&'a str],
        id: &'a str,
        command: &[&'a str],
    ) -> Vec<&'a str> {
        let mut args = vec!["run", "--runtime", "io.containerd.nexcage.v1"];
        match self.pair.backend() {
            "runc" => args.extend(["--annotation", "io.nexcage.backend=runc"]),
            "lxc" => args.extend(["--annotation", "io.nexcage.backend=lxc"]),
            "pct" => args.extend(["--annotation", "io.nexcage.backend=pct"]),
            // crun is what there is by itself.
            _ => {}
        }
        args.extend_from_slice(flags);
        // ctr takes no image beside --config or --rootfs.
        if !flags.contains(&"--config") {
            args.push(IMAGE);
        }
        args.push(id);
        args.extend_from_slice(command);
        args
    }

    /// Starts `ctr run`.
    pub fn run(&self, flags: &[&str], id: &str, command: &[&str]) -> Started {
        self.start("ctr", &self.run_args(flags, id, command))
    }

    /// Runs a container in the background; it has started when this returns.
    pub fn run_detached(&self, flags: &[&str], id: &str, command: &[&str]) {
        let flags = [&["--detach"], flags].concat();
        self.run(&flags, id, command).finish().good();
    }

    /// Starts `ctr task exec`.
    pub fn exec(&self, id: &str, exec: &str, command: &[&str]) -> Started {
        let args = [&["task", "exec", "--exec-id", exec, id], command].concat();
        self.start("ctr", &args)
    }

    /// Sends a signal to a container.
    pub fn kill(&self, id: &str, signal: &str) -> Output {
        self.ctr(&["task", "kill", "--signal", signal, id])
    }

    /// Sends a signal to an exec that runs. Its first output may come before the runtime has told
    /// its pid, and so long it is refused: by every shim.
    #[track_caller]
    pub fn kill_exec(&self, id: &str, exec: &str, signal: &str) {
        let args = ["task", "kill", "--exec-id", exec, "--signal", signal, id];
        eventually("the exec takes a signal", || (self.ctr(&args).code == 0).then_some(()));
    }

    /// containerd's tasks: id, pid in the bed, status.
    pub fn tasks(&self) -> Vec<(String, i32, String)> {
        let listed = self.ctr(&["task", "ls"]).good().stdout;
        listed
            .lines()
            .skip(1)
            .map(|line| {
                let mut words = line.split_whitespace();
                let id = words.next().unwrap().to_owned();
                let pid = words.next().unwrap().parse().unwrap();
                (id, pid, words.next().unwrap().to_owned())
            })
            .collect()
    }

    /// The status that containerd lists for a task, if it lists it.
    pub fn status(&self, id: &str) -> Option<String> {
        self.tasks().into_iter().find(|task| task.0 == id).map(|task| task.2)
    }

    /// The pid of a container's init, in the bed.
    pub fn pid(&self, id: &str) -> i32 {
        self.tasks().into_iter().find(|task| task.0 == id).expect("no such task").1
    }

    /// Whether that pid of the bed is a process that is not a zombie.
    pub fn is_alive(&self, pid: i32) -> bool {
        let status = self.read(&format!("/proc/{pid}/status"));
        status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
    }

    /// Waits for a task to be listed as that.
    #[track_caller]
    pub fn until_status(&self, id: &str, status: &str) {
        eventually(&format!("{id} is {status}"), || {
            (self.status(id).as_deref() == Some(status)).then_some(())
        });
    }

    /// Waits for a file in the bed to hold that text.
    #[track_caller]
    pub fn until_file_says(&self, inside: &str, text: &str) {
        let what = format!("{inside} says {text:?}");
        eventually(&what, || self.read(inside).contains(text).then_some(()));
    }

    /// Kills a container, waits for its end, and removes it; returns its exit code.
    pub fn kill_and_remove(&self, id: &str) -> i32 {
        self.kill(id, "KILL");
        self.until_status(id, "STOPPED");
        self.remove_stopped(id)
    }

    /// Removes a container that has ended; returns its exit code.
    pub fn remove_stopped(&self, id: &str) -> i32 {
        let deleted = self.ctr(&["task", "rm", id]).good();
        self.ctr(&["containers", "rm", id]).good();
        // "task c exit with non-zero exit code 7", and nothing of a zero.
        let said = deleted.stderr.split_once("exit code ");
        said.map_or(0, |(_, code)| code.trim_end_matches(['"', '\n']).parse().unwrap())
    }

    /// A container's bundle.
    pub fn bundle(&self, id: &str) -> String {
        format!("{HOME}/state/io.containerd.runtime.v2.task/{}/{id}", self.namespace)
    }

    /// A container's state.json.
    pub fn record(&self, id: &str) -> Value {
        let text = self.read(&format!("/run/nexcage/{}/{id}/state.json", self.namespace));
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// The pid of a container's supervisor, in the bed.
    pub fn supervisor(&self, id: &str) -> i32 {
        let pid = self.record(id)["io.nexcage"]["supervisor"]["pid"].as_i64();
        i32::try_from(pid.expect("no supervisor in the record")).unwrap()
    }

    /// Sends a signal to a pid of the bed.
    pub fn signal(&self, pid: i32, signal: &str) {
        self.start("kill", &[&format!("-{signal}"), &pid.to_string()]).finish().good();
    }

    /// A file of a container's cgroup, in the hierarchy of that v1 controller.
    pub fn cgroup(&self, id: &str, controller: &str, file: &str) -> String {
        let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let hierarchy = if unified { "" } else { controller };
        let own = match self.pair.backend() {
            "pct" => format!("lxc/{}", self.vmid(id)),
            _ => format!("{}/{id}", self.group),
        };
        let path = hierarchy_tops(hierarchy)
            .into_iter()
            .map(|top| top.join(&own))
            .find(|path| path.is_dir())
            .unwrap_or_default();
        fs::read_to_string(path.join(file)).unwrap_or_default().trim().to_owned()
    }

    /// Starts containerd and waits until it answers.
    pub fn start_containerd(&mut self) {
        let log = format!("{HOME}/containerd.log");
        let command = format!("exec containerd --config {HOME}/c.toml >>{log} 2>&1");
        self.containerd = Some(self.start("sh", &["-c", &command]));
        eventually("containerd answers", || {
            (self.ctr(&["version"]).code == 0 && self.ctr(&["task", "ls"]).code == 0).then_some(())
        });
    }

    /// Ends containerd with that signal and waits for its end.
    pub fn stop_containerd(&mut self, signal: &str) {
        let containerd = self.containerd.take().expect("containerd runs");
        let pid = containerd.pid().to_string();
        Started::spawn(
            Command::new("kill").args([&format!("-{signal}"), pid.as_str()]).process_group(0),
            "kill containerd",
        )
        .finish()
        .good();
        containerd.finish();
    }

    /// What containerd and the supervisors have logged.
    pub fn log(&self) -> String {
        self.read(&format!("{HOME}/containerd.log"))
    }

    /// Begins to collect containerd's events; returns when none can be missed any more.
    pub fn events(&self) -> Events<'_> {
        let events = Events { bed: self, started: self.start("ctr", &["events"]) };
        let mut count = 0;
        eventually("ctr events listens", || {
            count += 1;
            let label = format!("mark={count}");
            self.ctr(&["namespaces", "label", &self.namespace, &label]).good();
            events.started.stdout().contains("/namespaces/update").then_some(())
        });
        events
    }

    /// Every process in the bed except its frame: pid as the test sees it, and command line.
    pub fn processes(&self) -> Vec<String> {
        let own = fs::read_link(format!("/proc/{}/ns/pid", self.init)).unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().to_string_lossy().into_owned();
            let namespace = fs::read_link(entry.path().join("ns/pid")).ok();
            if pid.parse().ok() == Some(self.init) || namespace.as_ref() != Some(&own) {
                continue;
            }
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            // The frame: what keeps the bed open, the daemon, and a client that collects events.
            let frame = line == "cat " || line.starts_with("containerd --config ");
            let node = line.starts_with("pct --cluster ") || line.contains("/lxc-monitord ");
            if !frame && !node && line != "ctr events " {
                found.push(format!("process {pid}: {line}"));
            }
        }
        found
    }

    fn left(&self) -> BTreeSet<String> {
        let mut left: BTreeSet<String> = self.processes().into_iter().collect();
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", self.init)).unwrap();
        let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        left.extend(
            mounts
                .filter(|at| at.starts_with("/run/") && *at != "/run/lock")
                // The init's private copy lasts until the host goes down.
                .filter(|at| !at.contains("/.init/"))
                // podman's storage is a mount of its own.
                .filter(|at| !at.starts_with("/run/b/pod"))
                .map(|at| format!("mount {at}")),
        );
        left.extend(self.cgroup_names().iter().map(|path| format!("cgroup {}", path.display())));
        let bundles = self.bundle("");
        let proxmox = ["/etc/pve/lxc", "/var/lib/lxc", "/var/lib/nexcage/vmids"];
        let node: &[&str] = if self.pair.backend() == "pct" { &proxmox } else { &[] };
        for folder in ["/run/containerd/s", bundles.as_str()].iter().chain(node) {
            let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
            let names = entries.map(|entry| format!("{folder}/{}", entry.file_name().display()));
            // The hint at the id that is used next.
            left.extend(names.filter(|name| !name.ends_with("/vmids/.last")));
        }
        // LXC's own folder for locks is what it leaves behind by itself.
        let lxc = format!("/run/lxc/run/nexcage/{}", self.namespace);
        for folder in [lxc.clone(), lxc.replace("/run/lxc/", "/run/lxc/lock/")] {
            let entries = fs::read_dir(self.path(&folder)).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| format!("{folder}/{}", entry.file_name().display())));
        }
        // Folders that serve all containers may stay, without anything in them.
        let ours = format!("/run/nexcage/{}", self.namespace);
        let mut folders = vec![ours.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(self.path(&folder)).into_iter().flatten().flatten() {
                let path = format!("{folder}/{}", entry.file_name().display());
                let shared = path == format!("{ours}/.crun") || path == format!("{ours}/.runc");
                // crun's own, for all of its containers: one is empty, the other has filters.
                let scratch = [".empty-directory", ".cache"]
                    .iter()
                    .any(|name| path == format!("{ours}/.crun/{name}"));
                if shared {
                    folders.push(path);
                } else if !scratch {
                    left.insert(path);
                }
            }
        }
        left
    }

    /// The cgroups that there are in this bed's own.
    pub fn cgroup_names(&self) -> BTreeSet<PathBuf> {
        let inner = self.cgroups().into_iter().flat_map(|group| fs::read_dir(group).unwrap());
        inner.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }

    /// This bed's cgroup in every hierarchy.
    fn cgroups(&self) -> Vec<PathBuf> {
        let roots = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        roots
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .chain([String::new()])
            .flat_map(|hierarchy| hierarchy_tops(&hierarchy))
            .map(|top| top.join(&self.group))
            .filter(|path| path.is_dir())
            .collect()
    }

    /// Waits until nothing is left of any container, and ends the bed.
    #[track_caller]
    pub fn leave_nothing(self) {
        let tasks = self.tasks();
        assert!(tasks.is_empty(), "containerd still lists {tasks:?}");
        let mut left = BTreeSet::new();
        let clean = within(LIMIT / 3, || {
            left = self.left();
            left.is_empty().then_some(())
        });
        assert!(clean.is_some(), "left behind: {left:#?}");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> =
                log.lines().filter(|line| !line.contains("loading plugin")).collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("{:?}, the last of containerd's log:\n{tail}", self.pair);
        }
        // SIGKILL, and the kernel takes everything inside along.
        self.enter.kill().ok();
        self.enter.wait().ok();
        within(Duration::from_secs(5), || {
            for cgroup in self.cgroups() {
                remove_cgroup(&cgroup);
            }
            self.cgroups().is_empty().then_some(())
        });
    }
}

/// Where cgroups of containers begin: at a hierarchy's top, and for LXC at where pid 1 is, which
/// on an ordinary host is the same.
fn hierarchy_tops(hierarchy: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup").join(hierarchy);
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let below = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let known = fields.next()?.split(',').any(|controller| controller == hierarchy);
        known.then(|| top.join(fields.next().unwrap().trim_start_matches('/')))
    });
    let below = below.filter(|path| *path != top);
    [Some(top), below].into_iter().flatten().collect()
}

/// The stand-in for Proxmox VE's tools, which is built beside the shim.
fn pct_standin() -> PathBuf {
    let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-nexcage-v1"));
    shim.with_file_name("examples").join("pct")
}

fn remove_cgroup(path: &Path) {
    // In a frozen cgroup even SIGKILL waits.
    if path.join("freezer.state").exists() {
        fs::write(path.join("freezer.state"), "THAWED").ok();
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    // It may still have a process that is about to go.
    fs::remove_dir(path).ok();
}

/// A file or folder that tests/bed/fetch has brought.
pub fn fetched(name: &str) -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bed");
    std::env::var_os("NEXCAGE_BED").map_or_else(default, PathBuf::from).join(name)
}

/// The one child of a process.
pub fn child_of(parent: u32) -> Option<i32> {
    let parent = parent.to_string();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // After the command in parentheses: the state, and the parent's pid.
        let own = stat.rsplit(')').next()?.split_whitespace().nth(1)? == parent;
        own.then(|| stat.split(' ').next()?.parse().ok())?
    })
}

/// A program that runs in a bed; killed when it is dropped.
pub struct Started {
    child: Child,
    what: String,
    out: Text,
    err: Text,
    readers: mpsc::Receiver<()>,
    /// Its stdin, where it has a pipe for it.
    pub stdin: Option<ChildStdin>,
}

type Text = Arc<Mutex<Vec<u8>>>;

impl Started {
    /// Starts a command whose stdin has been set.
    pub fn spawn(command: &mut Command, what: &str) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (ended, readers) = mpsc::channel();
        let out = collect(child.stdout.take().unwrap(), ended.clone());
        let err = collect(child.stderr.take().unwrap(), ended);
        let stdin = child.stdin.take();
        Self { child, what: what.to_owned(), out, err, readers, stdin }
    }

    /// The pid of the program itself, nsenter's child, as the test sees it.
    pub fn pid(&self) -> i32 {
        eventually("nsenter has a child", || child_of(self.child.id()))
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        text(&self.out)
    }

    /// Waits until it has printed that.
    #[track_caller]
    pub fn until_stdout(&self, wanted: &str) {
        let what = format!("{} prints {wanted:?}", self.what);
        if within(LIMIT / 2, || self.stdout().contains(wanted).then_some(())).is_none() {
            panic!("{what}: {:?} {:?}", self.stdout(), text(&self.err));
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(self) -> Output {
        self.finish_within(LIMIT)
    }

    /// Waits for its end; it is killed, and the test fails, when that takes longer.
    #[track_caller]
    pub fn finish_within(mut self, limit: Duration) -> Output {
        // What was given will not be added to.
        drop(self.stdin.take());
        let end = within(limit, || self.child.try_wait().unwrap());
        let Some(status) = end else {
            panic!("{} did not end: {:?} {:?}", self.what, self.stdout(), text(&self.err));
        };
        for _ in 0..2 {
            // A grandchild may hold a pipe for longer.
            self.readers.recv_timeout(Duration::from_secs(2)).ok();
        }
        let code = std::os::unix::process::ExitStatusExt::signal(&status);
        let code = code.map_or_else(|| status.code().unwrap_or(-1), |signal| 128 + signal);
        let (stdout, stderr) = (self.stdout(), text(&self.err));
        Output { what: self.what.clone(), code, stdout, stderr }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let group = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
            nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).ok();
        }
        self.child.wait().ok();
    }
}

fn collect(mut from: impl Read + Send + 'static, ended: mpsc::Sender<()>) -> Text {
    let text = Text::default();
    let kept = text.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            kept.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
        ended.send(()).ok();
    });
    text
}

fn text(from: &Text) -> String {
    String::from_utf8_lossy(&from.lock().unwrap()).into_owned()
}

/// What a program did.
#[derive(Debug)]
pub struct Output {
    what: String,
    /// Its exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// All it printed.
    pub stdout: String,
    /// All it complained about.
    pub stderr: String,
}

impl Output {
    /// Itself, if the program succeeded.
    #[track_caller]
    pub fn good(self) -> Self {
        assert!(self.code == 0, "{} failed: {self:?}", self.what);
        self
    }

    /// Itself, if the program failed as ctr fails: with one line that holds each of `words`.
    /// What a runtime says into a container's stderr may stand before it.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Self {
        assert!(self.code != 0, "{} succeeded: {self:?}", self.what);
        let said = self.stderr.lines().rfind(|line| line.starts_with("ctr: "));
        let said = said.unwrap_or_else(|| panic!("{} did not say why: {self:?}", self.what));
        for word in words {
            assert!(said.contains(word), "no {word:?} in: {said}");
        }
        assert!(self.stderr.trim_end().ends_with(said), "more than one line: {self:?}");
        assert!(said.len() < 600, "too long to be read: {said}");
        self
    }
}

/// containerd's events as they come.
pub struct Events<'a> {
    bed: &'a Bed,
    started: Started,
}

/// One event about a task.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its topic without `/tasks/`.
    pub topic: String,
    /// What ctr printed of it.
    pub value: Value,
}

impl Event {
    /// In one word or two: `start c`, `exec-added c/x`, `exit c/x 7`.
    pub fn brief(&self) -> String {
        let get = |key: &str| self.value[key].as_str().unwrap_or_default();
        let container = get("container_id");
        let process = match self.topic.as_str() {
            "exit" => get("id"),
            _ => get("exec_id"),
        };
        let mut brief = format!("{} {container}", self.topic);
        if !process.is_empty() && process != container {
            write!(brief, "/{process}").unwrap();
        }
        if self.topic == "exit" {
            write!(brief, " {}", self.value["exit_status"].as_u64().unwrap_or(0)).unwrap();
        }
        brief
    }
}

impl Events<'_> {
    /// The task events so far.
    pub fn so_far(&self) -> Vec<Event> {
        let all = self.started.stdout();
        // The last line may be half there.
        let complete = all.rsplit_once('\n').map_or("", |(lines, _)| lines);
        complete.lines().filter_map(|line| self.parse(line)).collect()
    }

    /// Date, time, zone (two words), namespace, topic, JSON.
    fn parse(&self, line: &str) -> Option<Event> {
        let mut words = line.splitn(7, ' ').skip(4);
        let (namespace, topic, value) = (words.next()?, words.next()?, words.next()?);
        if namespace != self.bed.namespace {
            return None;
        }
        let topic = topic.strip_prefix("/tasks/")?.to_owned();
        Some(Event { topic, value: serde_json::from_str(value).unwrap() })
    }

    /// The task events so far, in short.
    pub fn brief(&self) -> Vec<String> {
        self.so_far().iter().map(Event::brief).collect()
    }

    /// Waits for an event, in short form.
    #[track_caller]
    pub fn until(&self, wanted: &str) {
        let found =
            within(LIMIT / 2, || self.brief().iter().any(|event| event == wanted).then_some(()));
        assert!(found.is_some(), "no event {wanted:?} in {:#?}", self.brief());
    }
}
