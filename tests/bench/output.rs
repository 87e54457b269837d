//! How fast a container's output gets through a shim, and what that costs it.

use crate::contender::{Contender, Life};
use crate::support::fifo;
use crate::support::proc;
use crate::support::scene::Scene;
use crate::table::{Table, Targets, median, ms, one};
use nix::fcntl::{SpliceFFlags, splice};
use std::fs::{File, OpenOptions};
use std::thread;
use std::time::Instant;

/// Output of an exec to a FIFO whose reader throws it away as fast as the kernel can.
pub async fn outputs(contenders: &[Contender], rounds: usize, mib: usize, targets: &mut Targets) {
    let scenes: Vec<_> = contenders.iter().map(|shim| Scene::with(&shim.program)).collect();
    let mut lives = Vec::new();
    for scene in &scenes {
        lives.push(Life::begin(scene, "output", &["sleep", "1000"]).await);
    }
    let mut rates = vec![Vec::new(); contenders.len()];
    let mut costs = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        for (index, (scene, life)) in scenes.iter().zip(&lives).enumerate() {
            let exec = format!("e{round}");
            let path = fifo::make(scene.folder(), &exec);
            // A Go shim wants both.
            let errors = fifo::make(scene.folder(), &format!("{exec}-stderr"));
            let errors = (fifo::Reader::open(&errors), errors);
            let count = format!("count={mib}");
            let mut request =
                life.bundle.exec(&exec, &["dd", "if=/dev/zero", "bs=1M", count.as_str()]);
            (request.stdout, request.stderr) = (path.clone(), errors.1);
            life.task.exec(&request).await.unwrap();
            let reader = thread::spawn(move || swallow(&path));
            let before = proc::cpu(life.shim);
            let began = Instant::now();
            life.task.start("output", &exec).await.unwrap();
            assert_eq!(life.task.wait("output", &exec).await.unwrap(), 0);
            life.task.delete("output", &exec).await.unwrap();
            let bytes = reader.join().unwrap();
            let took = began.elapsed();
            drop(errors.0);
            let cost = proc::cpu(life.shim) - before;
            assert_eq!(bytes, mib << 20, "output was lost");
            rates[index].push(mib as f64 / took.as_secs_f64());
            costs[index].push(ms(cost) * 1024.0 / mib as f64);
        }
    }
    let title = format!("{mib} MiB of output through a FIFO, median of {rounds}");
    let mut table = Table::new(title, &["shim", "MiB/s", "shim CPU ms/GiB"]);
    for (index, contender) in contenders.iter().enumerate() {
        let (rate, cost) = (median(&rates[index]), median(&costs[index]));
        table.row(vec![contender.name.clone(), format!("{rate:.0}"), one(cost)]);
        if contender.is_nexcage() {
            targets.at_least("output through a FIFO", rate * 1.048_576, 1500.0, "MB/s");
            targets.at_most("shim CPU for output", cost, 150.0, "ms/GB");
        }
    }
    table.print();
    for life in lives {
        life.end().await;
    }
}

/// Reads to the end without looking; returns how much it was.
fn swallow(path: &str) -> usize {
    let fifo = File::open(path).unwrap();
    let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
    let mut all = 0;
    loop {
        match splice(&fifo, None, &null, None, 1 << 20, SpliceFFlags::empty()).unwrap() {
            0 => return all,
            size => all += size,
        }
    }
}
