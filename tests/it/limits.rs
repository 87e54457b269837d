//! Limits hold, can be changed, and what a container uses can be read.

use crate::bed::{Bed, Pair, eventually};
use containerd_shim_protos::api::UpdateTaskRequest;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::{Client, TaskClient, ttrpc};

on_every_pair!(
    a_memory_limit_is_set_and_can_be_changed,
    figures_of_a_running_container_can_be_read,
    running_out_of_memory_is_told_before_the_end_it_causes,
);

fn a_memory_limit_is_set_and_can_be_changed(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&["--memory-limit", "67108864"], "c", &["sleep", "1000"]);
    assert_eq!(bed.cgroup("c", "memory", "memory.limit_in_bytes"), "67108864");
    // ctr has no word for it: the call that containerd would make.
    let address = bed.read(&format!("{}/address", bed.bundle("c")));
    let socket = bed.path(address.trim().strip_prefix("unix://").unwrap());
    let client = Client::connect(&format!("unix://{}", socket.display())).unwrap();
    let resources = br#"{"memory":{"limit":33554432},"pids":{"limit":77}}"#;
    let request = UpdateTaskRequest {
        id: "c".to_owned(),
        resources: Some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".to_owned(),
            value: resources.to_vec(),
            ..Any::default()
        })
        .into(),
        ..UpdateTaskRequest::default()
    };
    TaskClient::new(client).update(ttrpc::context::with_timeout(20_000_000_000), &request).unwrap();
    assert_eq!(bed.cgroup("c", "memory", "memory.limit_in_bytes"), "33554432");
    assert_eq!(bed.cgroup("c", "pids", "pids.max"), "77");
    if pair.backend() == "pct" {
        let shown = bed.start("pct", &["config", &bed.vmid("c").to_string()]).finish().good();
        assert!(shown.stdout.contains("memory: 32\n"), "{shown:?}");
    }
    bed.kill_and_remove("c");
    bed.leave_nothing();
}

fn figures_of_a_running_container_can_be_read(pair: Pair) {
    let bed = Bed::new(pair);
    bed.run_detached(&["--memory-limit", "67108864"], "c", &["sleep", "1000"]);
    let metrics = bed.ctr(&["task", "metrics", "c"]).good().stdout;
    let figure = |name: &str| -> u64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
        line.trim().parse().unwrap()
    };
    let memory = figure("memory.usage_in_bytes");
    assert!((1..67_108_864).contains(&memory), "{metrics}");
    assert_eq!(figure("memory.limit_in_bytes"), 67_108_864);
    assert_eq!(figure("pids.current"), 1);
    assert!(figure("cpuacct.usage ") > 0, "{metrics}");
    bed.kill_and_remove("c");
    bed.leave_nothing();
}

fn running_out_of_memory_is_told_before_the_end_it_causes(pair: Pair) {
    let bed = Bed::new(pair);
    let events = bed.events();
    let hungry = ["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"];
    let ended = bed.run(&["--rm", "--memory-limit", "33554432"], "c", &hungry).finish();
    assert_eq!(ended.code, 137, "{ended:?}");
    events.until("delete c");
    let expected = ["create c", "start c", "oom c", "exit c 137", "delete c"];
    assert_eq!(events.brief(), expected);
    bed.leave_nothing();
}

/// By then LXC has removed the guest's cgroup, and with it what the kernel has counted there.
fn told_by_a_supervisor_that_looks_late(runtime: &'static str) {
    let bed = Bed::new(Pair { containerd: "2.1", runtime });
    let events = bed.events();
    let hungry = "trap 'exec dd if=/dev/zero of=/dev/null bs=256M count=1' USR1; mkdir /ready
        while :; do sleep 0.05; done";
    bed.run_detached(&["--memory-limit", "33554432"], "c", &["sh", "-c", hungry]);
    eventually("it waits for the signal", || {
        (bed.exec("c", "look", &["ls", "/ready"]).finish().code == 0).then_some(())
    });
    let (first, supervisor) = (bed.pid("c"), bed.supervisor("c"));
    bed.signal(supervisor, "STOP");
    bed.signal(first, "USR1");
    eventually("its cgroup is gone", || {
        bed.cgroup("c", "memory", "memory.limit_in_bytes").is_empty().then_some(())
    });
    bed.signal(supervisor, "CONT");
    events.until("exit c 137");
    let brief = events.brief();
    assert!(brief.iter().any(|event| event == "oom c"), "{brief:?}");
    assert_eq!(bed.remove_stopped("c"), 137);
    drop(events);
    bed.leave_nothing();
}

#[test]
fn running_out_of_memory_is_told_late_on_lxc() {
    told_by_a_supervisor_that_looks_late("lxc");
}

#[test]
fn running_out_of_memory_is_told_late_on_pct() {
    told_by_a_supervisor_that_looks_late("pct");
}
