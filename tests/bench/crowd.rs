//! Many containers at once.

use crate::contender::{Contender, create_of, gone, start_of};
use crate::support::scene::Scene;
use crate::support::start::Address;
use crate::support::{Bundle, Task};
use crate::table::{Table, ms, one};
use std::sync::Arc;
use std::time::Instant;

/// `count` containers, a supervisor each, from `start` to Shutdown, all at the same time.
pub async fn crowd(contenders: &[Contender], count: usize) {
    let title = format!("{count} containers at once");
    let mut table = Table::new(title, &["shim", "ms in all", "ms each", "exits"]);
    for contender in contenders {
        let scene = Arc::new(Scene::with(&contender.program));
        let bundles: Vec<_> = (0..count)
            .map(|index| {
                let id = format!("crowd-{index}");
                let args = ["sh", "-c", "exit 7"];
                Bundle::new(&scene.folder().join("b"), &id, &scene.cgroup(&id), &args)
            })
            .collect();
        let began = Instant::now();
        let lives: Vec<_> =
            bundles.into_iter().map(|bundle| tokio::spawn(live(scene.clone(), bundle))).collect();
        let mut shims = Vec::new();
        for life in lives {
            shims.push(life.await.unwrap());
        }
        let took = ms(began.elapsed());
        let exit = |event: &crate::support::events::Event| {
            event.topic == "/tasks/exit" && event.status == Some(7)
        };
        let enough = |events: &[_]| events.iter().filter(|event| exit(event)).count() >= count;
        // runc-v2 has been seen to lose some at its end, and that is a figure, too.
        let events = scene.events.as_far_as(enough).await;
        let exits = events.iter().filter(|event| exit(event)).count();
        for (shim, start) in shims {
            gone(shim).await;
            start.run_combined();
        }
        table.row(vec![
            contender.name.clone(),
            one(took),
            one(took / count as f64),
            format!("{exits} of {count}"),
        ]);
    }
    table.print();
}

async fn live(scene: Arc<Scene>, bundle: Bundle) -> (u32, crate::support::Start) {
    let start = start_of(&scene, &bundle);
    let call = start.clone();
    let (reply, _) = tokio::task::spawn_blocking(move || call.run_combined()).await.unwrap();
    let task = Task::connect(&Address::parse(&reply)).await;
    let id = bundle.id.as_str();
    let shim = task.hello(id).await.unwrap().shim_pid;
    task.create(&create_of(&bundle)).await.unwrap();
    task.start(id, "").await.unwrap();
    assert_eq!(task.wait(id, "").await.unwrap(), 7);
    task.delete(id, "").await.unwrap();
    drop(task.shutdown(id).await);
    (shim, start.action("delete"))
}
