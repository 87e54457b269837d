//! How long one short life takes, phase by phase, and one exec.

use crate::contender::{Bare, Contender, Life, create_of, gone, start_of};
use crate::support::scene::{Scene, kill};
use crate::support::start::Address;
use crate::support::{Bundle, Task};
use crate::table::{Table, Targets, median, ms, one, quantile};
use std::path::Path;
use std::time::Instant;

const PHASES: [&str; 7] =
    ["start", "connect", "create", "start task", "wait", "delete", "shutdown"];

const LIFE: &str = "A container's whole life, from start to Shutdown: ms";
const EXEC: &str = "One exec, from Exec to Delete: ms";

/// Runs that warm the page cache and are thrown away.
const WARM_UP: usize = 2;

/// The times of each phase, in milliseconds; a phase that a contender does not have stays empty.
struct Times {
    phases: [Vec<f64>; PHASES.len()],
    totals: Vec<f64>,
    clean_up: Vec<f64>,
    after_kill: Vec<f64>,
}

impl Times {
    fn new() -> Self {
        Self {
            phases: [const { Vec::new() }; PHASES.len()],
            totals: Vec::new(),
            clean_up: Vec::new(),
            after_kill: Vec::new(),
        }
    }
}

/// Takes the time since it was last asked.
struct Stopwatch(Instant);

impl Stopwatch {
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let lap = ms(now - self.0);
        self.0 = now;
        lap
    }
}

/// `true` from `start` to Shutdown.
pub async fn lives(contenders: &[Contender], rounds: usize, targets: &mut Targets) {
    let scenes: Vec<_> = contenders.iter().map(|shim| Scene::with(&shim.program)).collect();
    let bare_scene = Scene::with(Path::new("/bin/true"));
    let mut times: Vec<_> = contenders.iter().map(|_| Times::new()).collect();
    let mut bare = Times::new();
    for round in 0..rounds + WARM_UP {
        let id = format!("life-{round}");
        // Everybody comes after everybody else as often; the last of them is crun by hand.
        for turn in 0..=scenes.len() {
            let index = (round + turn) % (scenes.len() + 1);
            match scenes.get(index) {
                Some(scene) => life(scene, &id, &mut times[index]).await,
                None => by_hand(&bare_scene, &id, &mut bare),
            }
        }
        for (scene, times) in scenes.iter().zip(&mut times) {
            dead(scene, &format!("dead-{round}"), times).await;
        }
        if round + 1 == WARM_UP {
            bare = Times::new();
            times = contenders.iter().map(|_| Times::new()).collect();
        }
    }
    let title = format!("true in a ready root file system: ms, median (p90) of {rounds}");
    let mut columns = vec!["shim"];
    columns.extend(PHASES);
    columns.extend(["total", "over bare", "(undisturbed)"]);
    let mut table = Table::new(title, &columns);
    // Round by round, so that what the machine does meanwhile is in both.
    let over_bare = |totals: &[f64]| {
        let each = totals.iter().zip(&bare.totals).map(|(total, bare)| total - bare);
        median(&each.collect::<Vec<_>>())
    };
    let mut add = |name: &str, times: &Times| {
        let cell = |values: &Vec<f64>| match values.as_slice() {
            [] => String::new(),
            values => format!("{} ({})", one(median(values)), one(quantile(values, 0.9))),
        };
        let over = over_bare(&times.totals);
        let mut row = vec![name.to_owned()];
        row.extend(times.phases.iter().map(cell));
        row.push(cell(&times.totals));
        if over != 0.0 {
            // On a busy machine the fastest runs say what the work itself takes.
            let undisturbed = quantile(&times.totals, 0.1) - quantile(&bare.totals, 0.1);
            row.extend([format!("{over:+.1}"), format!("{undisturbed:+.1}")]);
        }
        table.row(row);
        over
    };
    for (contender, times) in contenders.iter().zip(&times) {
        let over = add(&contender.name, times);
        targets.chart.bar(LIFE, &contender.name, median(&times.totals));
        if contender.is_nexcage() {
            targets.at_most("total over bare crun", over, 4.0, "ms");
        }
    }
    add("bare crun", &bare);
    targets.chart.bar(LIFE, "crun by hand", median(&bare.totals));
    table.print();

    let title = "the delete action: ms, median (p90)";
    let mut table = Table::new(title, &["shim", "after the end", "after SIGKILL of the shim"]);
    for (contender, times) in contenders.iter().zip(&times) {
        let cell = |v: &[f64]| format!("{} ({})", one(median(v)), one(quantile(v, 0.9)));
        table.row(vec![contender.name.clone(), cell(&times.clean_up), cell(&times.after_kill)]);
    }
    table.print();
}

async fn life(scene: &Scene, id: &str, times: &mut Times) {
    let bundle = Bundle::new(&scene.folder().join("b"), id, &scene.cgroup(id), &["true"]);
    let (start, request) = (start_of(scene, &bundle), create_of(&bundle));
    let began = Instant::now();
    let mut watch = Stopwatch(began);
    let (reply, _) = start.run_combined();
    times.phases[0].push(watch.lap());
    let task = Task::connect(&Address::parse(&reply)).await;
    let shim = task.hello(id).await.unwrap().shim_pid;
    times.phases[1].push(watch.lap());
    task.create(&request).await.unwrap();
    times.phases[2].push(watch.lap());
    task.start(id, "").await.unwrap();
    times.phases[3].push(watch.lap());
    let status = task.wait(id, "").await.unwrap();
    times.phases[4].push(watch.lap());
    task.delete(id, "").await.unwrap();
    times.phases[5].push(watch.lap());
    drop(task.shutdown(id).await);
    times.phases[6].push(watch.lap());
    times.totals.push(ms(began.elapsed()));
    assert_eq!(status, 0);
    gone(shim).await;
    times.clean_up.push(ms(start.action("delete").run_combined().1));
}

/// A supervisor that is killed over a running container.
async fn dead(scene: &Scene, id: &str, times: &mut Times) {
    let life = Life::begin(scene, id, &["sleep", "1000"]).await;
    kill(life.shim);
    gone(life.shim).await;
    times.after_kill.push(ms(life.start.action("delete").run_combined().1));
}

fn by_hand(scene: &Scene, id: &str, times: &mut Times) {
    let bundle = Bundle::new(&scene.folder().join("b"), id, &scene.cgroup(id), &["true"]);
    let bare = Bare::new(scene, &bundle);
    let began = Instant::now();
    let mut watch = Stopwatch(began);
    let pid = bare.create();
    times.phases[2].push(watch.lap());
    bare.start();
    times.phases[3].push(watch.lap());
    bare.wait(pid);
    times.phases[4].push(watch.lap());
    bare.delete();
    times.phases[5].push(watch.lap());
    times.totals.push(ms(began.elapsed()));
}

/// Exec, Start, Wait and Delete of `true` in a container that runs.
pub async fn execs(contenders: &[Contender], rounds: usize, targets: &mut Targets) {
    const STEPS: [&str; 4] = ["exec", "start", "wait", "delete"];
    let mut lives = Vec::new();
    let scenes: Vec<_> = contenders.iter().map(|shim| Scene::with(&shim.program)).collect();
    for scene in &scenes {
        lives.push(Life::begin(scene, "exec", &["sleep", "1000"]).await);
    }
    let scene = Scene::with(Path::new("/bin/true"));
    let bundle =
        Bundle::new(&scene.folder().join("b"), "exec", &scene.cgroup("exec"), &["sleep", "1000"]);
    let bare = Bare::new(&scene, &bundle);
    let pid = bare.create();
    bare.start();
    let mut times = vec![[const { Vec::new() }; 5]; contenders.len()];
    let mut floor = Vec::new();
    for round in 0..rounds + WARM_UP {
        let exec = format!("e{round}");
        for turn in 0..=lives.len() {
            let index = (round + turn) % (lives.len() + 1);
            let Some(life) = lives.get(index) else {
                let began = Instant::now();
                bare.exec(&["true"]);
                floor.push(ms(began.elapsed()));
                continue;
            };
            let times = &mut times[index];
            let request = life.bundle.exec(&exec, &["true"]);
            let began = Instant::now();
            let mut watch = Stopwatch(began);
            life.task.exec(&request).await.unwrap();
            times[0].push(watch.lap());
            life.task.start("exec", &exec).await.unwrap();
            times[1].push(watch.lap());
            assert_eq!(life.task.wait("exec", &exec).await.unwrap(), 0);
            times[2].push(watch.lap());
            life.task.delete("exec", &exec).await.unwrap();
            times[3].push(watch.lap());
            times[4].push(ms(began.elapsed()));
        }
        if round + 1 == WARM_UP {
            times = vec![[const { Vec::new() }; 5]; contenders.len()];
            floor.clear();
        }
    }
    let title = format!("exec of true: ms, median (p90) of {rounds}");
    let mut columns = vec!["shim"];
    columns.extend(STEPS);
    columns.extend(["total", "over bare", "(undisturbed)"]);
    let mut table = Table::new(title, &columns);
    let cell = |v: &[f64]| format!("{} ({})", one(median(v)), one(quantile(v, 0.9)));
    for (contender, times) in contenders.iter().zip(&times) {
        let each = times[4].iter().zip(&floor).map(|(total, bare)| total - bare);
        let over = median(&each.collect::<Vec<_>>());
        let mut row = vec![contender.name.clone()];
        row.extend(times.iter().map(|values| cell(values)));
        let undisturbed = quantile(&times[4], 0.1) - quantile(&floor, 0.1);
        row.extend([format!("{over:+.1}"), format!("{undisturbed:+.1}")]);
        table.row(row);
        targets.chart.bar(EXEC, &contender.name, median(&times[4]));
        if contender.is_nexcage() {
            targets.at_most("exec of true over bare crun exec", over, 1.5, "ms");
        }
    }
    let mut row = vec!["bare crun exec".to_owned()];
    row.extend(STEPS.map(|_| String::new()));
    row.push(cell(&floor));
    targets.chart.bar(EXEC, "crun by hand", median(&floor));
    table.row(row);
    table.print();
    for life in lives {
        life.end().await;
    }
    bare.kill();
    bare.wait(pid);
    bare.delete();
}
