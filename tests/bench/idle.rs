//! What a supervisor takes that has nothing to do.

use crate::contender::{Contender, Life};
use crate::support::proc;
use crate::support::scene::Scene;
use crate::table::{self, Table, Targets};
use std::time::Duration;

const SLEEP: [&str; 2] = ["sleep", "1000"];

fn memory(pid: u32, word: &str) -> u64 {
    proc::number(pid, "smaps_rollup", word)
}

/// Pages of a program that was written a moment ago count as private dirty until they are on disk.
async fn settle() {
    nix::unistd::sync();
    tokio::time::sleep(Duration::from_millis(500)).await;
}

/// One supervisor with one container.
pub async fn one(contenders: &[Contender], targets: &mut Targets) {
    let columns =
        ["shim", "RSS kB", "PSS kB", "anonymous kB", "private dirty kB", "threads", "fds"];
    let mut table = Table::new("one idle supervisor with one running container", &columns);
    for contender in contenders {
        let scene = Scene::with(&contender.program);
        let life = Life::begin(&scene, "idle", &SLEEP).await;
        settle().await;
        let shim = life.shim;
        let figures =
            ["Rss:", "Pss:", "Anonymous:", "Private_Dirty:"].map(|word| memory(shim, word));
        let (threads, fds) = (proc::threads(shim), proc::fds(shim));
        let mut row = vec![contender.name.clone()];
        row.extend(figures.map(|figure| figure.to_string()));
        row.extend([threads.to_string(), fds.to_string()]);
        table.row(row);
        let mib = |kb: u64| kb as f64 / 1024.0;
        targets.chart.bar(
            "Idle supervisor, resident memory: MiB",
            &contender.name,
            mib(figures[0]),
        );
        if contender.is_nexcage() {
            targets.at_most("anonymous memory, idle", figures[2] as f64, 300.0, "kB");
            targets.at_most("RSS, idle", figures[0] as f64 / 1024.0, 2.5, "MB");
            targets.at_most("threads, idle", threads as f64, 1.0, "");
        }
        life.end().await;
    }
    table.print();
}

/// As many as a busy host has.
pub async fn many(contenders: &[Contender], own: usize, others: usize, targets: &mut Targets) {
    let columns = ["shim", "supervisors", "PSS MB in all", "MB each", "at half: MB each"];
    let mut table = Table::new("many idle supervisors, a running container each", &columns);
    for contender in contenders {
        let count = if contender.is_nexcage() { own } else { others };
        if count == 0 {
            continue;
        }
        let scene = Scene::with(&contender.program);
        let mut lives = Vec::new();
        let mut half = f64::NAN;
        for index in 0..count {
            lives.push(Life::begin(&scene, &format!("idle-{index}"), &SLEEP).await);
            if index + 1 == count / 2 {
                settle().await;
                half = pss(&lives) / lives.len() as f64;
            }
        }
        settle().await;
        let all = pss(&lives);
        let each = all / count as f64;
        table.row(vec![
            contender.name.clone(),
            count.to_string(),
            table::one(all),
            format!("{each:.3}"),
            format!("{half:.3}"),
        ]);
        if contender.is_nexcage() {
            targets.at_most(
                format!("PSS of each of {count} idle supervisors"),
                each * 1024.0,
                410.0,
                "kB",
            );
        }
        for life in lives {
            life.end().await;
        }
    }
    table.print();
}

fn pss(lives: &[Life]) -> f64 {
    lives.iter().map(|life| memory(life.shim, "Pss:") as f64 / 1024.0).sum()
}
