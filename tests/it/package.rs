//! What packaging/deb and packaging/tarball make: complete, the same each time, and installed,
//! upgraded and removed beside running containers.

use crate::bed::{ANY, Bed, Output, eventually, fetched};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

const PROGRAMS: [&str; 3] = ["nexcage", "nexcage-init", "containerd-shim-nexcage-v1"];
const SHIM: &str = "/usr/bin/containerd-shim-nexcage-v1";
const LXC: [&str; 2] = ["--annotation", "io.nexcage.backend=lxc"];

#[track_caller]
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {err}");
    String::from_utf8(output.stdout).unwrap()
}

/// What all these tests use, made by the first: to pack takes seconds.
struct Made {
    programs: PathBuf,
    /// Versions 1.2 and 1.10 of the same programs.
    debs: [PathBuf; 2],
    tarball: PathBuf,
    /// busybox's programs, which are all that the installer's image has.
    busybox: PathBuf,
}

fn made() -> &'static Made {
    static MADE: LazyLock<Made> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
        fs::remove_dir_all(&folder).ok();
        let programs = folder.join("bin");
        fs::create_dir_all(&programs).unwrap();
        let built = Path::new(env!("CARGO_BIN_EXE_nexcage")).parent().unwrap();
        for program in PROGRAMS {
            // Most of them is what only a debugger reads.
            let mut strip = Command::new("strip");
            said(strip.arg("-o").arg(programs.join(program)).arg(built.join(program)));
        }
        let debs = ["1.2", "1.10"].map(|version| packed("deb", &programs, &folder, version));
        let tarball = packed("tarball", &programs, &folder, "1.2");
        let busybox = folder.join("busybox");
        fs::create_dir(&busybox).unwrap();
        let install = ["--install", "-s"];
        said(Command::new(fetched("rootfs/bin/busybox")).args(install).arg(&busybox));
        Made { programs, debs, tarball, busybox }
    });
    &MADE
}

/// Runs packaging/deb or packaging/tarball; what it made.
fn packed(script: &str, programs: &Path, out: &Path, version: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(script);
    let mut command = Command::new(script);
    command.args(["--version", version, "--bin-dir"]).arg(programs).arg("--out").arg(out);
    command.env("SOURCE_DATE_EPOCH", "1700000000").current_dir("/");
    PathBuf::from(said(&mut command).trim())
}

/// What is installed, apart from the man pages of the verbs.
const TREE: [&str; 33] = [
    "etc/nexcage/config.json",
    "usr/bin/containerd-shim-nexcage-v1",
    "usr/bin/nexcage",
    "usr/lib/tmpfiles.d/nexcage.conf",
    "usr/libexec/nexcage/nexcage-init",
    "usr/share/bash-completion/completions/nexcage",
    "usr/share/doc/nexcage/changelog.gz",
    "usr/share/doc/nexcage/copyright",
    "usr/share/doc/nexcage/kubernetes.md",
    "usr/share/doc/nexcage/nerdctl.md",
    "usr/share/doc/nexcage/proxmox.md",
    "usr/share/fish/vendor_completions.d/nexcage.fish",
    "usr/share/man/man1/nexcage.1.gz",
    "usr/share/man/man8/containerd-shim-nexcage-v1.8.gz",
    "usr/share/nexcage/config.schema.json",
    "usr/share/nexcage/containerd/README.md",
    "usr/share/nexcage/containerd/nexcage-v2.toml",
    "usr/share/nexcage/containerd/nexcage-v3.toml",
    "usr/share/nexcage/crio/20-nexcage.conf",
    "usr/share/nexcage/crio/README.md",
    "usr/share/nexcage/docker/README.md",
    "usr/share/nexcage/docker/daemon-shim.json",
    "usr/share/nexcage/docker/daemon.json",
    "usr/share/nexcage/kubernetes/Containerfile",
    "usr/share/nexcage/kubernetes/install.sh",
    "usr/share/nexcage/kubernetes/installer.yaml",
    "usr/share/nexcage/kubernetes/runtimeclass.yaml",
    "usr/share/nexcage/podman/50-nexcage.conf",
    "usr/share/nexcage/podman/README.md",
    "usr/share/zsh/vendor-completions/_nexcage",
    "usr/share/man/man1/nexcage-create.1.gz",
    "usr/share/man/man1/nexcage-doctor.1.gz",
    "usr/share/man/man1/nexcage-vmid-reconcile.1.gz",
];

fn is_program(name: &str) -> bool {
    name.starts_with("usr/bin/") || name.starts_with("usr/libexec/")
}

#[track_caller]
fn assert_tree(names: &[&str], besides: &[&str]) {
    let is_page = |name: &str| name.starts_with("usr/share/man/man1/nexcage");
    for wanted in TREE.iter().chain(besides) {
        assert!(names.contains(wanted), "{wanted} is missing in {names:#?}");
    }
    for name in names {
        assert!(
            TREE.contains(name) || besides.contains(name) || is_page(name),
            "{name} is not expected"
        );
    }
}

#[test]
fn the_package_is_complete_and_the_same_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let deb = &made().debs[0];
    assert!(deb.file_name().unwrap().to_str().unwrap().starts_with("nexcage_1.2_"));
    let again = packed("deb", &made().programs, &at("b"), "1.2");
    assert!(fs::read(deb).unwrap() == fs::read(&again).unwrap(), "two builds differ");
    let names: Vec<_> = fs::read_dir(at("b")).unwrap().collect();
    assert_eq!(names.len(), 1, "something besides the package: {names:?}");

    let listed = said(Command::new("dpkg-deb").arg("--contents").arg(deb));
    let mut names = Vec::new();
    for line in listed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let name = words[5].trim_start_matches("./");
        let mode = match name {
            _ if name.is_empty() || name.ends_with('/') => "drwxr-xr-x",
            _ if is_program(name) || name.ends_with(".sh") => "-rwxr-xr-x",
            _ => "-rw-r--r--",
        };
        assert_eq!((words[0], words[1]), (mode, "root/root"), "{line}");
        assert_eq!(words[3], "2023-11-14", "{line}");
        if !name.is_empty() && !name.ends_with('/') {
            names.push(name);
        }
    }
    let own = ["usr/share/doc/nexcage/changelog.Debian.gz", "usr/share/lintian/overrides/nexcage"];
    assert_tree(&names, &own);

    said(Command::new("dpkg-deb").arg("--raw-extract").args([deb, &at("tree")]));
    let sums = "cd \"$0\" && md5sum --quiet --check DEBIAN/md5sums && find etc usr -type f | wc -l \
                && wc -l <DEBIAN/md5sums";
    let counts = said(Command::new("sh").args(["-c", sums]).arg(at("tree")));
    let (files, summed) = counts.trim().split_once('\n').unwrap();
    assert_eq!(files, summed);
    let conffiles = fs::read_to_string(at("tree/DEBIAN/conffiles")).unwrap();
    assert_eq!(conffiles, "/etc/nexcage/config.json\n");

    // The tested programs know the sources' folder; a text that does was made wrong.
    let sources = env!("CARGO_MANIFEST_DIR");
    let places = [sources, folder.path().to_str().unwrap()];
    for name in names.iter().filter(|name| !is_program(name)) {
        let cat = if name.ends_with(".gz") { "zcat" } else { "cat" };
        let text = said(Command::new(cat).arg(at("tree").join(name)));
        assert!(!places.iter().any(|place| text.contains(place)), "{name} names a folder");
    }
    let nexcage = at("tree/usr/bin/nexcage");
    let config = at("tree/etc/nexcage/config.json");
    said(Command::new(nexcage).args(["config", "check"]).arg(config));
}

#[test]
fn the_tarball_is_complete_the_same_each_time_and_fits_its_checksums() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let archive = &made().tarball;
    let again = packed("tarball", &made().programs, &at("b"), "1.2");
    assert!(fs::read(archive).unwrap() == fs::read(&again).unwrap(), "two builds differ");
    let check = "cd \"$0\" && sha256sum --quiet --strict --check \"$1\"";
    let check = |place: PathBuf, sums: &str| {
        Command::new("sh").args(["-c", check]).arg(place).arg(sums).status().unwrap().success()
    };
    assert!(check(at("b"), "SHA256SUMS"));

    let listed = said(Command::new("tar").arg("-tvzf").arg(archive));
    let owners = listed.lines().all(|line| line.split_whitespace().nth(1) == Some("root/root"));
    assert!(owners, "{listed}");
    let names = listed.lines().map(|line| line.rsplit_once("nexcage-1.2/").unwrap().1);
    let own = ["usr/share/doc/nexcage/LICENSE", "usr/share/doc/nexcage/SHA256SUMS"];
    assert_tree(&names.collect::<Vec<_>>(), &own);

    unpacked(&at("tree"));
    for program in PROGRAMS {
        let path = if program.ends_with("init") { "usr/libexec/nexcage" } else { "usr/bin" };
        let mode = fs::metadata(at("tree").join(path).join(program)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "{program}");
    }
    let sums = "usr/share/doc/nexcage/SHA256SUMS";
    assert!(check(at("tree"), sums));
    fs::write(at("tree/etc/nexcage/config.json"), "{}").unwrap();
    assert!(!check(at("tree"), sums), "a changed file is not noticed");
}

/// A bed where packages can be installed: /usr, /etc and /var/lib are the machine's, and what is
/// written there lies in the bed's memory and ends with it.
fn bed() -> Bed {
    // Other tests may have put a configuration into /etc, as this program sees it: a whiteout
    // (mknod c 0 0) hides that.
    const WRITABLE: &str = "mkdir -p /run/b/hidden/etc /run/b/hidden/usr /run/b/hidden/var/lib
    mknod /run/b/hidden/etc/nexcage c 0 0
    for folder in usr etc var/lib; do
        mkdir -p /run/b/new/$folder /run/b/work/$folder
        lower=/run/b/hidden/$folder:/$folder
        mount -t overlay -o lowerdir=$lower,upperdir=/run/b/new/$folder,workdir=/run/b/work/$folder \
            overlay /$folder || exit
    done";
    let bed = Bed::new(ANY);
    bed.start("sh", &["-ec", WRITABLE]).finish().good();
    // Before the shim beside the test.
    symlink(SHIM, bed.path("/run/b/bin/containerd-shim-nexcage-v1")).unwrap();
    bed
}

fn dpkg(bed: &Bed, args: &[&str]) -> Output {
    // The machine's own settings may leave documentation out, and its triggers write elsewhere.
    let own = ["--log=/run/b/dpkg.log", "--no-triggers", "--path-include=/usr/share/*"];
    bed.start("dpkg", &[&own[..], args].concat()).finish()
}

/// What of the package is in the bed.
fn left(bed: &Bed) -> String {
    // The machine's own empty /var/lib/nexcage is hidden by the last of these, and not removed.
    let find = "cd /run/b/new && find . ! -type d ! -path './var/lib/dpkg/*' ! -path ./var/lib/nexcage; \
                ls -d /usr/libexec/nexcage /usr/share/nexcage /usr/share/doc/nexcage /etc/nexcage \
                    /var/lib/nexcage /run/nexcage 2>/dev/null; true";
    bed.start("sh", &["-c", find]).finish().good().stdout
}

/// The program of a container's supervisor.
fn program(bed: &Bed, id: &str) -> String {
    let link = bed.path(&format!("/proc/{}/exe", bed.supervisor(id)));
    // Of a process in another mount namespace the path is told as seen there.
    fs::read_link(link).unwrap().display().to_string()
}

#[test]
fn containers_run_through_an_upgrade_and_a_removal_and_a_purge_leaves_nothing() {
    let [old, new] = made().debs.each_ref().map(|deb| deb.to_str().unwrap());
    let bed = bed();
    dpkg(&bed, &["--install", old]).good();

    let said = bed.run(&["--rm"], "crun", &["echo", "hi"]).finish().good();
    assert_eq!(said.stdout, "hi\n");
    let said = bed.run(&[&["--rm"], &LXC[..]].concat(), "lxc", &["echo", "hi"]).finish().good();
    assert_eq!(said.stdout, "hi\n");
    bed.run_detached(&[], "c", &["sleep", "1000"]);
    bed.run_detached(&LXC, "l", &["sleep", "1000"]);
    assert_eq!(program(&bed, "c"), SHIM);

    // What was set is kept by an upgrade, without a question.
    let settings = r#"{ "default_container_type": "crun", "systemd_cgroup": false }"#;
    bed.write("/etc/nexcage/config.json", settings);
    dpkg(&bed, &["--install", new]).good();
    assert_eq!(bed.read("/etc/nexcage/config.json"), settings);
    for id in ["c", "l"] {
        assert_eq!(program(&bed, id), format!("{SHIM} (deleted)"));
        bed.exec(id, "x", &["true"]).finish().good();
    }
    bed.run(&["--rm"], "crun", &["true"]).finish().good();
    bed.run(&[&["--rm"], &LXC[..]].concat(), "lxc", &["true"]).finish().good();
    assert_eq!(bed.kill_and_remove("c"), 137);

    bed.run_detached(&[], "d", &["sleep", "1000"]);
    let removed = dpkg(&bed, &["--remove", "nexcage"]).good();
    assert!(removed.stdout.contains("2 container(s) go on"), "{removed:?}");
    assert!(!bed.path(SHIM).exists());
    for id in ["d", "l"] {
        bed.exec(id, "x", &["true"]).finish().good();
    }
    assert_eq!(bed.kill_and_remove("d"), 137);
    let purged = dpkg(&bed, &["--purge", "nexcage"]).good();
    assert!(purged.stdout.contains("/run/nexcage stays: 1 container(s)"), "{purged:?}");
    assert_eq!(bed.kill_and_remove("l"), 137);

    dpkg(&bed, &["--install", new]).good();
    // It goes when it has told containerd of the end.
    eventually("the supervisors have ended", || bed.processes().is_empty().then_some(()));
    let purged = dpkg(&bed, &["--purge", "nexcage"]).good();
    assert!(!purged.stdout.contains("stays"), "{purged:?}");
    assert_eq!(left(&bed), "");
    bed.leave_nothing();
}

#[test]
fn a_purge_keeps_what_says_whose_guests_there_are() {
    let deb = made().debs[0].to_str().unwrap();
    let bed = bed();
    dpkg(&bed, &["--install", deb]).good();
    fs::create_dir_all(bed.path("/var/lib/nexcage/vmids")).unwrap();
    bed.write("/var/lib/nexcage/vmids/900007", "{}");
    bed.write("/etc/nexcage/other.toml", "");
    let purged = dpkg(&bed, &["--purge", "nexcage"]).good();
    let expected = "these guests of Proxmox VE belong to: 900007.";
    assert!(purged.stdout.contains(expected), "{purged:?}");
    assert!(purged.stdout.contains("/etc/nexcage stays"), "{purged:?}");
    assert_eq!(bed.read("/var/lib/nexcage/vmids/900007"), "{}");

    bed.remove("/var/lib/nexcage/vmids/900007");
    bed.remove("/etc/nexcage/other.toml");
    dpkg(&bed, &["--install", deb]).good();
    dpkg(&bed, &["--purge", "nexcage"]).good();
    assert_eq!(left(&bed), "");
}

/// Runs the node's containerd of that version as install.sh asks for it, with the node's root
/// before the configuration's path; restarts are noted only.
fn node_with(bed: &Bed, containerd: &str) {
    let program = fetched(&format!("containerd-{containerd}/bin/containerd"));
    bed.script(
        "/run/b/on-node",
        &format!(
            "#!/bin/sh\n[ \"$1\" != systemctl ] || {{ echo \"$*\" >>/run/b/restarts; exit; }}\n\
             exec {} --config \"/run/b/node$3\" config dump\n",
            program.display()
        ),
    );
    fs::create_dir_all(bed.path("/run/b/node/etc/containerd")).unwrap();
}

/// Runs install.sh of a tree.
fn installer(bed: &Bed, tree: &Path, verb: &str) -> Output {
    let script = tree.join("usr/share/nexcage/kubernetes/install.sh");
    let busybox = made().busybox.to_str().unwrap();
    let path = format!("PATH={busybox}");
    let (shell, script) = (format!("{busybox}/sh"), script.to_str().unwrap());
    let variables = ["NODE=/run/b/node", "ON_NODE=/run/b/on-node", path.as_str()];
    bed.start("env", &[&["-i"], &variables[..], &[&shell, script, verb]].concat()).finish()
}

/// The tarball's tree, in that folder.
fn unpacked(folder: &Path) -> &Path {
    fs::create_dir_all(folder).unwrap();
    let unpack = ["--strip-components", "1", "-xzf"];
    said(Command::new("tar").arg("-C").arg(folder).args(unpack).arg(&made().tarball));
    folder
}

const CONFIG: &str = "/run/b/node/etc/containerd/config.toml";
const ON_NODE: &str = "/run/b/node/usr/local/bin/containerd-shim-nexcage-v1";

/// Everything on the node, with what a restart of containerd would find.
fn node(bed: &Bed) -> String {
    bed.start("sh", &["-c", "cd /run/b/node && find . ! -type d | sort"]).finish().good().stdout
}

#[test]
fn a_node_is_installed_upgraded_beside_a_running_container_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (old, new) = (at("old"), at("new"));
    unpacked(&old);
    unpacked(&new);
    // Another build: a loader does not read what is behind a program.
    for program in ["bin/nexcage", "bin/containerd-shim-nexcage-v1", "libexec/nexcage/nexcage-init"]
    {
        let file = new.join("usr").join(program);
        OpenOptions::new().append(true).open(file).unwrap().write_all(b"newer").unwrap();
    }
    let bed = Bed::new(ANY);
    symlink(ON_NODE, bed.path("/run/b/bin/containerd-shim-nexcage-v1")).unwrap();
    node_with(&bed, "2.1");
    let before =
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"x/y:1\"\n";
    bed.write(CONFIG, before);
    let restarts = || bed.read("/run/b/restarts").lines().count();

    let said = installer(&bed, &old, "check");
    assert!(said.code != 0 && said.stderr.contains("is not there yet"), "{said:?}");
    let said = installer(&bed, &old, "install").good();
    assert!(said.stdout.contains("changed /etc/containerd/config.toml"), "{said:?}");
    assert!(bed.read(CONFIG).starts_with(before));
    assert_eq!(restarts(), 1);
    installer(&bed, &old, "check").good();
    let after = node(&bed);
    let said = installer(&bed, &old, "install").good();
    assert_eq!(said.stdout, "nexcage: installed\n");
    assert_eq!((restarts(), node(&bed)), (1, after));

    bed.run_detached(&[], "c", &["sleep", "1000"]);
    assert_eq!(program(&bed, "c"), ON_NODE);
    let said = installer(&bed, &new, "check");
    assert!(said.code != 0 && said.stderr.contains("of another version"), "{said:?}");
    installer(&bed, &new, "install").good();
    installer(&bed, &new, "check").good();
    // Nothing of the configuration changed.
    assert_eq!(restarts(), 1);
    assert_eq!(program(&bed, "c"), format!("{ON_NODE} (deleted)"));
    bed.exec("c", "x", &["true"]).finish().good();
    bed.run(&["--rm"], "d", &["true"]).finish().good();

    // The state is at the bed's /run and not at the node's.
    fs::create_dir_all(bed.path("/run/b/node/run/nexcage/k8s.io/c")).unwrap();
    bed.write("/run/b/node/run/nexcage/k8s.io/c/state.json", "{}");
    let said = installer(&bed, &new, "uninstall");
    assert!(said.code != 0 && said.stderr.contains("1 container(s)"), "{said:?}");
    installer(&bed, &new, "check").good();
    bed.remove("/run/b/node/run/nexcage/k8s.io/c/state.json");
    assert_eq!(bed.kill_and_remove("c"), 137);
    installer(&bed, &new, "uninstall").good();
    assert_eq!(bed.read(CONFIG), before);
    assert_eq!(node(&bed), "./etc/containerd/config.toml\n");
    assert_eq!(restarts(), 2);
    assert_eq!(installer(&bed, &new, "uninstall").good().stdout, "nexcage: uninstalled\n");
    assert_eq!(restarts(), 2);
    bed.leave_nothing();
}

/// What containerd makes of the node's configuration; nexcage has to be in it, and runc still.
#[track_caller]
fn runtimes_there(bed: &Bed, case: &str) -> String {
    let config = ["", "", "/etc/containerd/config.toml"];
    let dumped = bed.start("/run/b/on-node", &config).finish().good().stdout;
    for runtime in ["nexcage", "runc"] {
        let shim = format!("io.containerd.{runtime}.v");
        let is_there = dumped.contains(&format!("runtimes.{runtime}]")) && dumped.contains(&shim);
        assert!(is_there, "{case}, no {runtime}: {dumped}");
    }
    dumped
}

#[test]
fn the_files_for_containerd_work_as_they_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/containerd");
    let bed = Bed::new(ANY);
    for (containerd, version) in [("1.6", 2), ("1.7", 2), ("2.1", 2), ("2.1", 3)] {
        node_with(&bed, containerd);
        let file = folder.join(format!("nexcage-v{version}.toml"));
        let import = format!("version = {version}\nimports = [\"{}\"]\n", file.display());
        for config in [fs::read_to_string(&file).unwrap(), import] {
            bed.write(CONFIG, &config);
            runtimes_there(&bed, &format!("containerd {containerd}, {config}"));
        }
    }
}

#[test]
fn the_installer_changes_every_containerd_so_that_it_keeps_what_it_had() {
    const V2: &str =
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"x/y:1\"\n";
    const V3: &str = "version = 3\n[plugins.\"io.containerd.cri.v1.images\".pinned_images]\n  sandbox = \"x/y:1\"\n";
    const BARE: &str = "version = 2\n";
    let imports = "imports = [\"/run/b/node/etc/containerd/conf.d/*.toml\"]\n";
    let folder = tempfile::tempdir().unwrap();
    let tree = unpacked(folder.path());
    let bed = Bed::new(ANY);
    let drop_in = "/run/b/node/etc/containerd/conf.d/nexcage.toml";
    for (containerd, config, imported) in [
        ("1.6", String::new(), false),
        ("1.6", V2.to_owned(), false),
        ("1.6", format!("{imports}{V2}"), false),
        ("1.7", format!("{imports}{V2}"), false),
        ("1.7", format!("{imports}{BARE}"), true),
        ("2.1", String::new(), false),
        ("2.1", format!("{imports}{V2}"), false),
        ("2.1", V3.to_owned(), false),
        ("2.1", format!("{imports}{V3}"), true),
    ] {
        let case = format!("containerd {containerd}: {config}");
        node_with(&bed, containerd);
        if !config.is_empty() {
            bed.write(CONFIG, &config);
        }
        installer(&bed, tree, "install").good();
        assert_eq!(bed.path(drop_in).exists(), imported, "{case}");
        let dumped = runtimes_there(&bed, &case);
        if config.contains("x/y:1") {
            assert!(dumped.contains("x/y:1"), "{case}: {dumped}");
        }
        installer(&bed, tree, "check").good();
        installer(&bed, tree, "uninstall").good();
        let left = if config.is_empty() { "" } else { "./etc/containerd/config.toml\n" };
        assert_eq!((node(&bed).as_str(), bed.read(CONFIG)), (left, config), "{case}");
        bed.start("rm", &["-rf", "/run/b/node"]).finish().good();
    }
}

#[test]
fn the_installer_leaves_a_configuration_alone_that_it_cannot_change() {
    let folder = tempfile::tempdir().unwrap();
    let tree = unpacked(folder.path());
    let bed = Bed::new(ANY);
    node_with(&bed, "1.7");
    for (config, word) in [
        ("[plugins.cri]\n", "is of version 1"),
        ("version = 2\n[plugins\n", "does not read"),
        // Another's drop-in takes the place of the table.
        ("version = 2\nimports = [\"/run/b/other.toml\"]\n", "cannot be changed"),
    ] {
        let other =
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"x\"\n";
        bed.write("/run/b/other.toml", other);
        bed.write(CONFIG, config);
        let said = installer(&bed, tree, "install");
        assert!(said.code != 0 && said.stderr.contains(word), "{config}: {said:?}");
        assert_eq!(bed.read(CONFIG), config);
        assert_eq!(bed.read("/run/b/restarts"), "");
        let node = node(&bed);
        assert!(!node.contains("nexcage-new") && !node.contains("restart"), "{config}: {node}");
    }
}

#[test]
fn the_snippets_are_what_their_readers_take() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let read = |name: &str| fs::read_to_string(packaging.join(name)).unwrap();
    let shim: serde_json::Value = serde_json::from_str(&read("docker/daemon-shim.json")).unwrap();
    assert_eq!(shim["runtimes"]["nexcage"]["runtimeType"], "io.containerd.nexcage.v1");
    let path: serde_json::Value = serde_json::from_str(&read("docker/daemon.json")).unwrap();
    assert_eq!(path["runtimes"]["nexcage"]["path"], "/usr/bin/nexcage");
    let podman: toml::Table = read("podman/50-nexcage.conf").parse().unwrap();
    assert_eq!(podman["engine"]["runtimes"]["nexcage"][0].as_str(), Some("/usr/bin/nexcage"));
    let crio: toml::Table = read("crio/20-nexcage.conf").parse().unwrap();
    let crio = &crio["crio"]["runtime"]["runtimes"]["nexcage"];
    assert_eq!(crio["runtime_path"].as_str(), Some("/usr/bin/nexcage"));
}
