//! The figures of a cgroup v2 host: `io.containerd.cgroups.v2.Metrics`.

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats,
    PidsStat, RdmaEntry, RdmaStat,
};
use protobuf::MessageField;

use super::{Files, device, field, rdma};

/// Reads the container's folder.
pub(super) fn metrics(folder: &Path) -> Metrics {
    let files = Files(folder);
    let pids = PidsStat {
        current: files.number("pids.current"),
        limit: files.number("pids.max"),
        ..PidsStat::default()
    };
    let cpu =
        CPUStat { psi: pressure(&files.text("cpu.pressure")), ..cpu_stat(&files.text("cpu.stat")) };
    let io = IOStat {
        usage: io_entries(&files.text("io.stat")),
        psi: pressure(&files.text("io.pressure")),
        ..IOStat::default()
    };
    Metrics {
        pids: MessageField::some(pids),
        cpu: MessageField::some(cpu),
        memory: MessageField::some(memory(&files)),
        rdma: MessageField::some(rdma_usage(&files)),
        io: MessageField::some(io),
        hugetlb: hugetlb(&files),
        memory_events: memory_events(&files.text("memory.events")),
        ..Metrics::default()
    }
}

fn cpu_stat(text: &str) -> CPUStat {
    CPUStat {
        usage_usec: field(text, "usage_usec"),
        user_usec: field(text, "user_usec"),
        system_usec: field(text, "system_usec"),
        nr_periods: field(text, "nr_periods"),
        nr_throttled: field(text, "nr_throttled"),
        throttled_usec: field(text, "throttled_usec"),
        nr_bursts: field(text, "nr_bursts"),
        burst_usec: field(text, "burst_usec"),
        ..CPUStat::default()
    }
}

fn memory(files: &Files) -> MemoryStat {
    MemoryStat {
        usage: files.number("memory.current"),
        usage_limit: files.number("memory.max"),
        max_usage: files.number("memory.peak"),
        swap_usage: files.number("memory.swap.current"),
        swap_limit: files.number("memory.swap.max"),
        swap_max_usage: files.number("memory.swap.peak"),
        psi: pressure(&files.text("memory.pressure")),
        ..memory_stat(&files.text("memory.stat"))
    }
}

fn memory_stat(text: &str) -> MemoryStat {
    let field = |key| field(text, key);
    MemoryStat {
        anon: field("anon"),
        file: field("file"),
        kernel_stack: field("kernel_stack"),
        slab: field("slab"),
        sock: field("sock"),
        shmem: field("shmem"),
        file_mapped: field("file_mapped"),
        file_dirty: field("file_dirty"),
        file_writeback: field("file_writeback"),
        anon_thp: field("anon_thp"),
        inactive_anon: field("inactive_anon"),
        active_anon: field("active_anon"),
        inactive_file: field("inactive_file"),
        active_file: field("active_file"),
        unevictable: field("unevictable"),
        slab_reclaimable: field("slab_reclaimable"),
        slab_unreclaimable: field("slab_unreclaimable"),
        pgfault: field("pgfault"),
        pgmajfault: field("pgmajfault"),
        workingset_refault: field("workingset_refault"),
        workingset_activate: field("workingset_activate"),
        workingset_nodereclaim: field("workingset_nodereclaim"),
        pgrefill: field("pgrefill"),
        pgscan: field("pgscan"),
        pgsteal: field("pgsteal"),
        pgactivate: field("pgactivate"),
        pgdeactivate: field("pgdeactivate"),
        pglazyfree: field("pglazyfree"),
        pglazyfreed: field("pglazyfreed"),
        thp_fault_alloc: field("thp_fault_alloc"),
        thp_collapse_alloc: field("thp_collapse_alloc"),
        ..MemoryStat::default()
    }
}

/// Left out where memory is not accounted for.
fn memory_events(text: &str) -> MessageField<MemoryEvents> {
    let events = (!text.is_empty()).then(|| MemoryEvents {
        low: field(text, "low"),
        high: field(text, "high"),
        max: field(text, "max"),
        oom: field(text, "oom"),
        oom_kill: field(text, "oom_kill"),
        oom_group_kill: field(text, "oom_group_kill"),
        ..MemoryEvents::default()
    });
    events.into()
}

/// Lines such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`. Left out where the kernel does
/// not measure it.
fn pressure(text: &str) -> MessageField<PSIStats> {
    let line = |kind| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
        MessageField::from(line.map(stalls))
    };
    let stats = PSIStats { some: line("some"), full: line("full"), ..PSIStats::default() };
    (stats.some.is_some() || stats.full.is_some()).then_some(stats).into()
}

fn stalls(line: &str) -> PSIData {
    let mut data = PSIData::default();
    for (key, amount) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
        match key {
            "avg10" => data.avg10 = amount.parse().unwrap_or(0.0),
            "avg60" => data.avg60 = amount.parse().unwrap_or(0.0),
            "avg300" => data.avg300 = amount.parse().unwrap_or(0.0),
            "total" => data.total = amount.parse().unwrap_or(0),
            _ => {}
        }
    }
    data
}

/// Lines such as `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`. Some kernels put devices
/// without figures in front of one on the same line.
fn io_entries(text: &str) -> Vec<IOEntry> {
    let entry = |line: &str| {
        let mut at = None;
        let mut counted = false;
        let mut entry = IOEntry::default();
        for word in line.split_whitespace() {
            let Some((key, amount)) = word.split_once('=') else {
                at = device(word);
                continue;
            };
            counted = true;
            let amount = amount.parse().unwrap_or(0);
            match key {
                "rbytes" => entry.rbytes = amount,
                "wbytes" => entry.wbytes = amount,
                "rios" => entry.rios = amount,
                "wios" => entry.wios = amount,
                _ => {}
            }
        }
        (entry.major, entry.minor) = at?;
        counted.then_some(entry)
    };
    text.lines().filter_map(entry).collect()
}

fn hugetlb(files: &Files) -> Vec<HugeTlbStat> {
    let stat = |pagesize: String| HugeTlbStat {
        current: files.number(&format!("hugetlb.{pagesize}.current")),
        max: files.number(&format!("hugetlb.{pagesize}.max")),
        failcnt: field(&files.text(&format!("hugetlb.{pagesize}.events")), "max"),
        pagesize,
        ..HugeTlbStat::default()
    };
    files.page_sizes(".current").into_iter().map(stat).collect()
}

fn rdma_usage(files: &Files) -> RdmaStat {
    let entries = |name| {
        let entry = |(device, hca_handles, hca_objects)| RdmaEntry {
            device,
            hca_handles,
            hca_objects,
            ..RdmaEntry::default()
        };
        rdma(&files.text(name)).map(entry).collect()
    };
    let (current, limit) = (entries("rdma.current"), entries("rdma.max"));
    RdmaStat { current, limit, ..RdmaStat::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::tests::fill;

    const MEMORY_STAT: &str = "\
anon 7823360
file 9535488
kernel 1933312
kernel_stack 49152
pagetables 200704
percpu 3456
sock 4096
shmem 9068544
file_mapped 7651328
file_dirty 16384
file_writeback 12288
swapcached 0
anon_thp 2097152
inactive_anon 7700480
active_anon 24576
inactive_file 20480
active_file 446464
unevictable 15360000
slab_reclaimable 300704
slab_unreclaimable 400704
slab 701408
workingset_refault 350
workingset_activate 20
workingset_nodereclaim 2
pgscan 1001
pgsteal 1000
pgfault 41160
pgmajfault 12
pgrefill 55
pgactivate 66
pgdeactivate 77
pglazyfree 88
pglazyfreed 89
thp_fault_alloc 3
thp_collapse_alloc 4
";

    #[test]
    fn every_memory_field_has_its_line() {
        let stat = memory_stat(MEMORY_STAT);
        let found = [
            ("anon", stat.anon),
            ("file", stat.file),
            ("kernel_stack", stat.kernel_stack),
            ("sock", stat.sock),
            ("shmem", stat.shmem),
            ("file_mapped", stat.file_mapped),
            ("file_dirty", stat.file_dirty),
            ("file_writeback", stat.file_writeback),
            ("anon_thp", stat.anon_thp),
            ("inactive_anon", stat.inactive_anon),
            ("active_anon", stat.active_anon),
            ("inactive_file", stat.inactive_file),
            ("active_file", stat.active_file),
            ("unevictable", stat.unevictable),
            ("slab_reclaimable", stat.slab_reclaimable),
            ("slab_unreclaimable", stat.slab_unreclaimable),
            ("slab", stat.slab),
            ("workingset_refault", stat.workingset_refault),
            ("workingset_activate", stat.workingset_activate),
            ("workingset_nodereclaim", stat.workingset_nodereclaim),
            ("pgscan", stat.pgscan),
            ("pgsteal", stat.pgsteal),
            ("pgfault", stat.pgfault),
            ("pgmajfault", stat.pgmajfault),
            ("pgrefill", stat.pgrefill),
            ("pgactivate", stat.pgactivate),
            ("pgdeactivate", stat.pgdeactivate),
            ("pglazyfree", stat.pglazyfree),
            ("pglazyfreed", stat.pglazyfreed),
            ("thp_fault_alloc", stat.thp_fault_alloc),
            ("thp_collapse_alloc", stat.thp_collapse_alloc),
        ];
        // Four lines have no field in the message.
        let skipped = ["kernel ", "pagetables ", "percpu ", "swapcached "];
        let expected = MEMORY_STAT.lines().filter(|l| !skipped.iter().any(|s| l.starts_with(s)));
        let found: Vec<_> = found.iter().map(|(key, value)| format!("{key} {value}")).collect();
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn pressure_that_is_not_measured_is_left_out() {
        assert!(pressure("").is_none());
        let text = "some avg10=1.50 avg60=0.25 avg300=0.10 total=12345\n";
        let some = pressure(text).some.clone().unwrap();
        assert_eq!((some.avg10, some.avg60, some.avg300, some.total), (1.5, 0.25, 0.1, 12345));
        assert!(pressure(text).full.is_none());
    }

    #[test]
    fn a_device_without_figures_is_left_out() {
        let text = "8:16\n7:7 7:6 8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n";
        let found = io_entries(text);
        let found: Vec<_> =
            found.iter().map(|e| (e.major, e.minor, e.rbytes, e.wbytes, e.rios, e.wios)).collect();
        assert_eq!(found, [(8, 0, 1, 2, 3, 4)]);
    }

    #[test]
    fn a_whole_folder_is_read() {
        let root = tempfile::tempdir().unwrap();
        let psi = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n\
                   full avg10=0.00 avg60=0.00 avg300=0.00 total=2\n";
        let cpu = "usage_usec 100\nuser_usec 60\nsystem_usec 40\nnice_usec 0\nnr_periods 5\n\
                   nr_throttled 2\nthrottled_usec 9\nnr_bursts 1\nburst_usec 3\n";
        fill(
            root.path(),
            &[
                ("pids.current", "3\n"),
                ("pids.max", "max\n"),
                ("cpu.stat", cpu),
                ("cpu.pressure", psi),
                ("memory.stat", MEMORY_STAT),
                ("memory.current", "100\n"),
                ("memory.max", "200\n"),
                ("memory.peak", "150\n"),
                ("memory.swap.current", "10\n"),
                ("memory.swap.max", "max\n"),
                ("memory.swap.peak", "15\n"),
                ("memory.pressure", psi),
                (
                    "memory.events",
                    "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nsock_throttled 0\n",
                ),
                ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
                ("io.pressure", psi),
                ("hugetlb.2MB.current", "2097152\n"),
                ("hugetlb.2MB.max", "max\n"),
                ("hugetlb.2MB.events", "max 8\n"),
                ("hugetlb.2MB.rsvd.current", "0\n"),
                ("rdma.current", "mlx4_0 hca_handle=1 hca_object=20\n"),
                ("rdma.max", "mlx4_0 hca_handle=2 hca_object=max\n"),
            ],
        );
        let found = metrics(root.path());
        assert_eq!((found.pids.current, found.pids.limit), (3, u64::MAX));
        let cpu = &found.cpu;
        assert_eq!((cpu.usage_usec, cpu.user_usec, cpu.system_usec), (100, 60, 40));
        assert_eq!((cpu.nr_periods, cpu.nr_throttled, cpu.throttled_usec), (5, 2, 9));
        assert_eq!((cpu.nr_bursts, cpu.burst_usec), (1, 3));
        assert_eq!((cpu.psi.some.total, cpu.psi.full.total), (1, 2));
        let memory = &found.memory;
        assert_eq!((memory.usage, memory.usage_limit, memory.max_usage), (100, 200, 150));
        assert_eq!(
            (memory.swap_usage, memory.swap_limit, memory.swap_max_usage),
            (10, u64::MAX, 15)
        );
        assert_eq!((memory.anon, memory.psi.full.total), (7_823_360, 2));
        let events = &found.memory_events;
        assert_eq!((events.low, events.high, events.max), (1, 2, 3));
        assert_eq!((events.oom, events.oom_kill, events.oom_group_kill), (4, 5, 6));
        assert_eq!((found.io.usage[0].wios, found.io.psi.some.total), (4, 1));
        assert_eq!(found.hugetlb.len(), 1);
        let huge = &found.hugetlb[0];
        assert_eq!((huge.pagesize.as_str(), huge.current, huge.max), ("2MB", 2_097_152, u64::MAX));
        assert_eq!(huge.failcnt, 8);
        assert_eq!(found.rdma.limit[0].hca_objects, u32::MAX);
    }

    #[test]
    fn a_folder_without_controllers_reads_as_zero() {
        let root = tempfile::tempdir().unwrap();
        let found = metrics(root.path());
        assert_eq!((found.pids.current, found.cpu.usage_usec, found.memory.usage), (0, 0, 0));
        assert!(found.memory_events.is_none());
        assert!(found.hugetlb.is_empty());
    }
}
