//! What LXC guests cost: nexcage's Create and exec against lxc-start and lxc-attach by hand, on
//! the same configuration.

use crate::contender::{Contender, create_of, gone, start_of};
use crate::support::bundle::toml_options;
use crate::support::scene::Scene;
use crate::support::start::Address;
use crate::support::{Bundle, Start, Task};
use crate::table::{Table, Targets, median, ms, one, quantile};
use nexcage::sys::cgroup::Cgroup;
use protobuf::MessageField;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs that warm the page cache and are thrown away.
const WARM_UP: usize = 2;

/// A bundle for the backend lxc.
fn bundle(scene: &Scene, id: &str) -> Bundle {
    let folder = scene.folder().join("b");
    Bundle::new(&folder, id, &scene.cgroup(id), &["sleep", "1000"])
        .edit(|spec| spec["annotations"]["io.nexcage.backend"] = "lxc".into())
}

/// The same guest for LXC's own tools: nexcage's configuration, with an ordinary init.
struct ByHand {
    lxcpath: PathBuf,
}

impl ByHand {
    fn new(scene: &Scene, config: &str) -> Self {
        let lxcpath = scene.folder().join("lxc");
        fs::create_dir_all(lxcpath.join("bare")).unwrap();
        let ours = |line: &&str| line.contains("/dev/.nexcage") || line.contains("dev/.nexcage");
        let lines = config.lines().filter(|line| !ours(line)).map(|line| {
            // cgroups of its own
            match line.split_once("= ") {
                Some((key, path)) if key.starts_with("lxc.cgroup.dir.") => {
                    format!("{key}= {path}.bare")
                }
                _ => line.to_owned(),
            }
        });
        let text: Vec<String> = lines.chain(["lxc.init.cmd = /bin/sleep 1000".into()]).collect();
        fs::write(lxcpath.join("bare/config"), text.join("\n") + "\n").unwrap();
        Self { lxcpath }
    }

    fn run(&self, program: &str, words: &[&str]) {
        let status = Command::new(program)
            .arg("-P")
            .arg(&self.lxcpath)
            .args(["-n", "bare"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{program} {words:?}: {status}");
    }
}

/// Create of a guest until it is created, and exec of `true` in it.
pub async fn guests(contender: &Contender, rounds: usize, execs: usize, targets: &mut Targets) {
    let scene = Scene::with(&contender.program);
    let (mut create, mut bare_create) = (Vec::new(), Vec::new());
    let mut anonymous = Vec::new();
    let (mut exec, mut bare_exec) = (Vec::new(), Vec::new());
    for round in 0..rounds + WARM_UP {
        let id = format!("guest-{round}");
        let bundle = bundle(&scene, &id);
        let start = start_of(&scene, &bundle);
        let task = Task::connect(&Address::parse(&start.run_combined().0)).await;
        let shim = task.hello(&id).await.unwrap().shim_pid;
        let began = Instant::now();
        task.create(&create_of(&bundle)).await.unwrap();
        create.push(ms(began.elapsed()));
        task.start(&id, "").await.unwrap();
        anonymous.push(crate::support::proc::number(shim, "smaps_rollup", "Anonymous:") as f64);
        let config = fs::read_to_string(config_of(&scene, &id)).unwrap();
        let by_hand = ByHand::new(&scene, &config);
        let began = Instant::now();
        by_hand.run("lxc-start", &["--daemon"]);
        bare_create.push(ms(began.elapsed()));
        if round + 1 == rounds + WARM_UP {
            for number in 0..execs + WARM_UP {
                let name = format!("e{number}");
                let request = bundle.exec(&name, &["true"]);
                let began = Instant::now();
                task.exec(&request).await.unwrap();
                task.start(&id, &name).await.unwrap();
                assert_eq!(task.wait(&id, &name).await.unwrap(), 0);
                task.delete(&id, &name).await.unwrap();
                exec.push(ms(began.elapsed()));
                let began = Instant::now();
                by_hand.run("lxc-attach", &["--", "/bin/true"]);
                bare_exec.push(ms(began.elapsed()));
            }
        }
        by_hand.run("lxc-stop", &["--kill"]);
        // Where LXC's monitor goes to end, which LXC leaves.
        if let Some(left) = Cgroup::at(&format!("/{}.pivot.bare", scene.cgroup(&id))).unwrap() {
            left.remove().unwrap();
        }
        end(&task, &id, shim, start).await;
    }
    for times in [&mut create, &mut bare_create, &mut exec, &mut bare_exec] {
        times.drain(..WARM_UP);
    }
    let title = format!("an LXC guest: ms, median (p90) of {rounds} and {execs}");
    let mut table = Table::new(title, &["what", "nexcage", "LXC's tools", "over them"]);
    let mut row = |what: &str, ours: &[f64], theirs: &[f64], limit: f64| {
        let cell = |v: &[f64]| format!("{} ({})", one(median(v)), one(quantile(v, 0.9)));
        // Round by round, so that what the machine does meanwhile is in both.
        let each: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours - theirs).collect();
        let over = median(&each);
        table.row(vec![what.to_owned(), cell(ours), cell(theirs), format!("{over:+.1}")]);
        targets.at_most(format!("{what} over LXC's tools"), over, limit, "ms");
    };
    row("Create of an LXC guest", &create, &bare_create, 25.0);
    row("exec of true in an LXC guest", &exec, &bare_exec, 10.0);
    table.print();
    println!("anonymous memory of a supervisor with a guest: {} kB", one(median(&anonymous)));
    targets.at_most("anonymous memory with an LXC guest", median(&anonymous), 300.0, "kB");
}

/// Ends a container, and its supervisor.
async fn end(task: &Task, id: &str, shim: u32, start: Start) {
    task.kill(id, "", 9).await.unwrap();
    task.wait(id, "").await.unwrap();
    task.delete(id, "").await.unwrap();
    // It may close the connection before the answer has left.
    drop(task.shutdown(id).await);
    gone(shim).await;
    start.action("delete").run_combined();
}

/// Create of a guest of Proxmox VE, on the tests' stand-in, beyond what pct itself takes. Its time is
/// taken by a script around it, whose own start counts as nexcage's.
pub async fn pct(contender: &Contender, rounds: usize, targets: &mut Targets) {
    let standin = Path::new(env!("CARGO_BIN_EXE_nexcage")).with_file_name("examples").join("pct");
    if !standin.exists() {
        println!("\npct: not measured; cargo build --release --example pct makes the stand-in");
        return;
    }
    let scene = Scene::with(&contender.program);
    let node = scene.folder().join("node");
    let set_up = Command::new(&standin).arg("--setup").arg(&node).status().unwrap();
    assert!(set_up.success(), "{set_up}");
    let (timed, log) = (scene.folder().join("pct"), scene.folder().join("pct.log"));
    let script = format!(
        "#!/bin/sh\nbegan=$(date +%s%N)\n{}/pct \"$@\"\nstatus=$?\n\
         echo $(($(date +%s%N) - began)) >>{}\nexit $status\n",
        node.display(),
        log.display()
    );
    fs::write(&timed, script).unwrap();
    fs::set_permissions(&timed, fs::Permissions::from_mode(0o755)).unwrap();
    let first = 300_000_000 + std::process::id() * 100;
    let columns = ["what", "nexcage", "pct's own", "over it"];
    let mut table = Table::new(format!("a guest of Proxmox VE: ms, median of {rounds}"), &columns);
    // `pct create` and `pct start`; the configuration written by nexcage itself, and `pct start`.
    for (direct, calls, what) in [(false, 2, "Create"), (true, 1, "Create, direct_config")] {
        let options = format!(
            "pct.path = {timed:?}\npct.vmid_min = {first}\npct.vmid_max = {}\n\
             pct.direct_config = {direct}\n",
            first + 99
        );
        let (mut create, mut own) = (Vec::new(), Vec::new());
        for round in 0..rounds + WARM_UP {
            let id = format!("pct-{calls}-{round}");
            let bundle = bundle(&scene, &id)
                .edit(|spec| spec["annotations"]["io.nexcage.backend"] = "pct".into());
            let mut start = start_of(&scene, &bundle);
            let mut path = node.clone().into_os_string();
            path.push(":");
            path.push(&start.path);
            start.path = path;
            let task = Task::connect(&Address::parse(&start.run_combined().0)).await;
            let shim = task.hello(&id).await.unwrap().shim_pid;
            let mut request = bundle.create();
            request.options = MessageField::some(toml_options(&options));
            drop(fs::remove_file(&log));
            let began = Instant::now();
            task.create(&request).await.unwrap();
            create.push(ms(began.elapsed()));
            // The last of them may be about to write its line.
            crate::support::proc::eventually("pct's commands have ended", || {
                fs::read_to_string(&log).is_ok_and(|text| text.lines().count() >= calls)
            })
            .await;
            let text = fs::read_to_string(&log).unwrap();
            own.push(text.lines().map(|line| line.parse::<f64>().unwrap() / 1e6).sum::<f64>());
            end(&task, &id, shim, start).await;
        }
        create.drain(..WARM_UP);
        own.drain(..WARM_UP);
        let each: Vec<f64> = create.iter().zip(&own).map(|(all, own)| all - own).collect();
        let over = median(&each);
        let [all, own] = [median(&create), median(&own)].map(one);
        table.row(vec![what.to_owned(), all, own, format!("{over:+.1}")]);
        targets.at_most(format!("{what} over pct's own time (stand-in)"), over, 20.0, "ms");
    }
    table.print();
}

fn config_of(scene: &Scene, id: &str) -> PathBuf {
    Path::new("/run/nexcage").join(&scene.namespace).join(id).join(id).join("config")
}
