//! The figures of a cgroup v1, or hybrid, host: `io.containerd.cgroups.v1.Metrics`.

use std::path::Path;

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl,
    MemoryStat, Metrics, PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use protobuf::MessageField;

use super::{Files, device, field, number, rdma};
use crate::sys::cgroup::Cgroup;

/// Nanoseconds in a tick of cpuacct.stat: the kernel shows a hundred a second to every program.
const TICK: u64 = 10_000_000;

/// Reads every controller that the container has a folder in. `partitions` is /proc/partitions.
pub(super) fn metrics(cgroup: &Cgroup, partitions: &str) -> Metrics {
    let files = |controller| cgroup.legacy(controller).map(Files);
    let memory = files("memory");
    Metrics {
        hugetlb: files("hugetlb").as_ref().map(hugetlb).unwrap_or_default(),
        pids: files("pids").as_ref().map(pids).into(),
        cpu: cpu(cgroup.legacy("cpu"), cgroup.legacy("cpuacct")),
        memory: memory.as_ref().map(memory_usage).into(),
        memory_oom_control: memory.map(|files| oom(&files.text("memory.oom_control"))).into(),
        blkio: files("blkio").map(|files| blkio(&files, partitions)).into(),
        rdma: files("rdma").as_ref().map(rdma_usage).into(),
        ..Metrics::default()
    }
}

fn pids(files: &Files) -> PidsStat {
    // Not the largest number, as in v2's message: clients of this one know "no limit" as zero.
    let limit = match number(&files.text("pids.max")) {
        u64::MAX => 0,
        limit => limit,
    };
    PidsStat { current: files.number("pids.current"), limit, ..PidsStat::default() }
}

fn cpu(cpu: Option<&Path>, cpuacct: Option<&Path>) -> MessageField<CPUStat> {
    let throttling = cpu.map(|folder| throttling(&Files(folder).text("cpu.stat")));
    let usage = cpuacct.map(|folder| {
        let files = Files(folder);
        let ticks = files.text("cpuacct.stat");
        CPUUsage {
            total: files.number("cpuacct.usage"),
            user: field(&ticks, "user").saturating_mul(TICK),
            kernel: field(&ticks, "system").saturating_mul(TICK),
            per_cpu: numbers(&files.text("cpuacct.usage_percpu")),
            ..CPUUsage::default()
        }
    });
    MessageField::some(CPUStat {
        usage: MessageField::some(usage.unwrap_or_default()),
        throttling: MessageField::some(throttling.unwrap_or_default()),
        ..CPUStat::default()
    })
}

fn throttling(text: &str) -> Throttle {
    Throttle {
        periods: field(text, "nr_periods"),
        throttled_periods: field(text, "nr_throttled"),
        throttled_time: field(text, "throttled_time"),
        ..Throttle::default()
    }
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn memory_usage(files: &Files) -> MemoryStat {
    let entry = |prefix: &str| {
        let number = |name| files.number(&format!("{prefix}.{name}"));
        MessageField::some(MemoryEntry {
            limit: number("limit_in_bytes"),
            usage: number("usage_in_bytes"),
            max: number("max_usage_in_bytes"),
            failcnt: number("failcnt"),
            ..MemoryEntry::default()
        })
    };
    MemoryStat {
        usage: entry("memory"),
        swap: entry("memory.memsw"),
        kernel: entry("memory.kmem"),
        kernel_tcp: entry("memory.kmem.tcp"),
        ..memory_stat(&files.text("memory.stat"))
    }
}

fn memory_stat(text: &str) -> MemoryStat {
    let field = |key| field(text, key);
    MemoryStat {
        cache: field("cache"),
        rss: field("rss"),
        rss_huge: field("rss_huge"),
        mapped_file: field("mapped_file"),
        dirty: field("dirty"),
        writeback: field("writeback"),
        pg_pg_in: field("pgpgin"),
        pg_pg_out: field("pgpgout"),
        pg_fault: field("pgfault"),
        pg_maj_fault: field("pgmajfault"),
        inactive_anon: field("inactive_anon"),
        active_anon: field("active_anon"),
        inactive_file: field("inactive_file"),
        active_file: field("active_file"),
        unevictable: field("unevictable"),
        hierarchical_memory_limit: field("hierarchical_memory_limit"),
        hierarchical_swap_limit: field("hierarchical_memsw_limit"),
        total_cache: field("total_cache"),
        total_rss: field("total_rss"),
        total_rss_huge: field("total_rss_huge"),
        total_mapped_file: field("total_mapped_file"),
        total_dirty: field("total_dirty"),
        total_writeback: field("total_writeback"),
        total_pg_pg_in: field("total_pgpgin"),
        total_pg_pg_out: field("total_pgpgout"),
        total_pg_fault: field("total_pgfault"),
        total_pg_maj_fault: field("total_pgmajfault"),
        total_inactive_anon: field("total_inactive_anon"),
        total_active_anon: field("total_active_anon"),
        total_inactive_file: field("total_inactive_file"),
        total_active_file: field("total_active_file"),
        total_unevictable: field("total_unevictable"),
        ..MemoryStat::default()
    }
}

fn oom(text: &str) -> MemoryOomControl {
    MemoryOomControl {
        oom_kill_disable: field(text, "oom_kill_disable"),
        under_oom: field(text, "under_oom"),
        oom_kill: field(text, "oom_kill"),
        ..MemoryOomControl::default()
    }
}

fn blkio(files: &Files, partitions: &str) -> BlkIOStat {
    let entries = |name: &str| blkio_entries(&files.text(&format!("blkio.{name}")), partitions);
    let scheduled = BlkIOStat {
        io_service_bytes_recursive: entries("io_service_bytes_recursive"),
        io_serviced_recursive: entries("io_serviced_recursive"),
        io_queued_recursive: entries("io_queued_recursive"),
        io_service_time_recursive: entries("io_service_time_recursive"),
        io_wait_time_recursive: entries("io_wait_time_recursive"),
        io_merged_recursive: entries("io_merged_recursive"),
        io_time_recursive: entries("time_recursive"),
        sectors_recursive: entries("sectors_recursive"),
        ..BlkIOStat::default()
    };
    if scheduled != BlkIOStat::default() {
        return scheduled;
    }
    // Those are the figures of a scheduler that the disks need not use, and that kernels since 5.0
    // do not have. The throttling layer counts for every scheduler.
    BlkIOStat {
        io_service_bytes_recursive: entries("throttle.io_service_bytes"),
        io_serviced_recursive: entries("throttle.io_serviced"),
        ..BlkIOStat::default()
    }
}

/// Lines such as `8:0 Read 4096` or `8:0 17`. The `Total` line at the end has no device.
fn blkio_entries(text: &str, partitions: &str) -> Vec<BlkIOEntry> {
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (id, op, amount) = match words[..] {
            [id, op, amount] => (id, op, amount),
            [id, amount] => (id, "", amount),
            _ => return None,
        };
        let (major, minor) = device(id)?;
        Some(BlkIOEntry {
            op: op.to_owned(),
            device: device_path(partitions, major, minor).unwrap_or_default(),
            major,
            minor,
            value: amount.parse().ok()?,
            ..BlkIOEntry::default()
        })
    };
    text.lines().filter_map(entry).collect()
}

/// What /proc/partitions calls a device.
fn device_path(partitions: &str, major: u64, minor: u64) -> Option<String> {
    let name = partitions.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let found = words.next()?.parse() == Ok(major) && words.next()?.parse() == Ok(minor);
        words.nth(1).filter(|_| found)
    });
    Some(format!("/dev/{}", name?))
}

fn hugetlb(files: &Files) -> Vec<HugetlbStat> {
    let stat = |pagesize: String| HugetlbStat {
        usage: files.number(&format!("hugetlb.{pagesize}.usage_in_bytes")),
        max: files.number(&format!("hugetlb.{pagesize}.max_usage_in_bytes")),
        failcnt: files.number(&format!("hugetlb.{pagesize}.failcnt")),
        pagesize,
        ..HugetlbStat::default()
    };
    files.page_sizes(".usage_in_bytes").into_iter().map(stat).collect()
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
    use crate::sys::cgroup::tests::laid_out;

    const PARTITIONS: &str = "\
major minor  #blocks  name

   8        0  104857600 sda
   8        1  104856576 sda1
 253        0    8388608 dm-0
";

    const MEMORY_STAT: &str = "\
cache 9535488
rss 7823360
rss_huge 2097152
shmem 9068544
mapped_file 7651328
dirty 16384
writeback 4096
workingset_refault_anon 0
swap 0
pgpgin 37441
pgpgout 33203
pgfault 41160
pgmajfault 12
inactive_anon 1
active_anon 1531904
inactive_file 20480
active_file 446464
unevictable 15360000
hierarchical_memory_limit 9223372036854771712
hierarchical_memsw_limit 9223372036854771711
total_cache 254709760
total_rss 14200832
total_rss_huge 3
total_mapped_file 11190272
total_dirty 200704
total_writeback 5
total_pgpgin 4928077
total_pgpgout 4879717
total_pgfault 5434257
total_pgmajfault 1411
total_inactive_anon 6156288
total_active_anon 1576960
total_inactive_file 153931776
total_active_file 91709440
total_unevictable 15360001
";

    #[test]
    fn every_memory_field_has_its_line() {
        let stat = memory_stat(MEMORY_STAT);
        let found = [
            stat.cache,
            stat.rss,
            stat.rss_huge,
            stat.mapped_file,
            stat.dirty,
            stat.writeback,
            stat.pg_pg_in,
            stat.pg_pg_out,
            stat.pg_fault,
            stat.pg_maj_fault,
            stat.inactive_anon,
            stat.active_anon,
            stat.inactive_file,
            stat.active_file,
            stat.unevictable,
            stat.hierarchical_memory_limit,
            stat.hierarchical_swap_limit,
            stat.total_cache,
            stat.total_rss,
            stat.total_rss_huge,
            stat.total_mapped_file,
            stat.total_dirty,
            stat.total_writeback,
            stat.total_pg_pg_in,
            stat.total_pg_pg_out,
            stat.total_pg_fault,
            stat.total_pg_maj_fault,
            stat.total_inactive_anon,
            stat.total_active_anon,
            stat.total_inactive_file,
            stat.total_active_file,
            stat.total_unevictable,
        ];
        // The lines are in the order of the fields, with three that the message has none for.
        let skipped = ["shmem", "workingset_refault_anon", "swap"];
        let lines = MEMORY_STAT.lines().filter_map(|line| line.split_once(' '));
        let expected: Vec<u64> = lines
            .filter(|(key, _)| !skipped.contains(key))
            .map(|(_, value)| value.parse().unwrap())
            .collect();
        assert_eq!(found[..], expected);
    }

    #[test]
    fn a_device_has_its_name_and_the_total_is_left_out() {
        let text = "8:0 Read 4096\n8:0 Write 0\n253:0 Read 512\n7:0 Read 1\nTotal 4609\n";
        let found = blkio_entries(text, PARTITIONS);
        let found: Vec<_> = found
            .iter()
            .map(|e| (e.device.as_str(), e.major, e.minor, e.op.as_str(), e.value))
            .collect();
        let expected = [
            ("/dev/sda", 8, 0, "Read", 4096),
            ("/dev/sda", 8, 0, "Write", 0),
            ("/dev/dm-0", 253, 0, "Read", 512),
            ("", 7, 0, "Read", 1),
        ];
        assert_eq!(found, expected);
        let sectors = blkio_entries("8:1 17\n", PARTITIONS);
        assert_eq!((sectors[0].op.as_str(), sectors[0].value), ("", 17));
    }

    #[test]
    fn the_schedulers_figures_come_before_the_throttling_layers() {
        let root = tempfile::tempdir().unwrap();
        fill(
            root.path(),
            &[
                ("blkio.io_serviced_recursive", "Total 0\n"),
                ("blkio.throttle.io_serviced", "8:0 Read 3\nTotal 3\n"),
                ("blkio.throttle.io_service_bytes", "8:0 Read 4096\nTotal 4096\n"),
            ],
        );
        let stat = blkio(&Files(root.path()), PARTITIONS);
        assert_eq!(stat.io_serviced_recursive[0].value, 3);
        assert_eq!(stat.io_service_bytes_recursive[0].value, 4096);
        fill(root.path(), &[("blkio.time_recursive", "8:0 9\n")]);
        let stat = blkio(&Files(root.path()), PARTITIONS);
        assert_eq!(stat.io_time_recursive[0].value, 9);
        assert!(stat.io_serviced_recursive.is_empty());
    }

    #[test]
    fn a_whole_hierarchy_is_read() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let cgroup = laid_out(&[
            ("cpu,cpuacct", &at("cpu")),
            ("memory", &at("memory")),
            ("pids", &at("pids")),
            ("hugetlb", &at("hugetlb")),
            ("rdma", &at("rdma")),
            ("name=systemd", &at("systemd")),
        ]);
        let fill = |name, files: &[(&str, &str)]| fill(&at(name).join("pod/web"), files);
        fill(
            "cpu",
            &[
                ("cpu.stat", "nr_periods 10\nnr_throttled 4\nthrottled_time 77\n"),
                ("cpuacct.usage", "280004989585\n"),
                ("cpuacct.stat", "user 22523\nsystem 5477\n"),
                ("cpuacct.usage_percpu", "123648608508 156356381077 \n"),
            ],
        );
        fill(
            "memory",
            &[
                ("memory.stat", MEMORY_STAT),
                ("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 5\n"),
                ("memory.usage_in_bytes", "100\n"),
                ("memory.max_usage_in_bytes", "200\n"),
                ("memory.limit_in_bytes", "300\n"),
                ("memory.failcnt", "4\n"),
                ("memory.memsw.usage_in_bytes", "101\n"),
                ("memory.kmem.usage_in_bytes", "102\n"),
                ("memory.kmem.tcp.usage_in_bytes", "103\n"),
            ],
        );
        fill("pids", &[("pids.current", "3\n"), ("pids.max", "max\n")]);
        fill(
            "hugetlb",
            &[
                ("hugetlb.2MB.usage_in_bytes", "2097152\n"),
                ("hugetlb.2MB.max_usage_in_bytes", "4194304\n"),
                ("hugetlb.2MB.failcnt", "1\n"),
                ("hugetlb.2MB.rsvd.usage_in_bytes", "7\n"),
                ("hugetlb.1GB.usage_in_bytes", "0\n"),
            ],
        );
        fill(
            "rdma",
            &[
                ("rdma.current", "mlx4_0 hca_handle=1 hca_object=20\n"),
                ("rdma.max", "mlx4_0 hca_handle=2 hca_object=max\n"),
            ],
        );

        let found = metrics(&cgroup, PARTITIONS);
        assert_eq!(found.cpu.usage.total, 280_004_989_585);
        assert_eq!(found.cpu.usage.user, 225_230_000_000);
        assert_eq!(found.cpu.usage.kernel, 54_770_000_000);
        assert_eq!(found.cpu.usage.per_cpu, [123_648_608_508, 156_356_381_077]);
        let throttling = &found.cpu.throttling;
        assert_eq!(
            (throttling.periods, throttling.throttled_periods, throttling.throttled_time),
            (10, 4, 77)
        );
        let usage = &found.memory.usage;
        assert_eq!((usage.usage, usage.max, usage.limit, usage.failcnt), (100, 200, 300, 4));
        assert_eq!(found.memory.swap.usage, 101);
        assert_eq!(found.memory.kernel.usage, 102);
        assert_eq!(found.memory.kernel_tcp.usage, 103);
        assert_eq!(found.memory.total_rss, 14_200_832);
        let oom = &found.memory_oom_control;
        assert_eq!((oom.oom_kill_disable, oom.under_oom, oom.oom_kill), (1, 0, 5));
        assert_eq!((found.pids.current, found.pids.limit), (3, 0));
        let sizes: Vec<_> = found.hugetlb.iter().map(|h| h.pagesize.as_str()).collect();
        assert_eq!(sizes, ["1GB", "2MB"]);
        let huge = &found.hugetlb[1];
        assert_eq!((huge.usage, huge.max, huge.failcnt), (2_097_152, 4_194_304, 1));
        assert_eq!(found.rdma.current[0].hca_objects, 20);
        assert_eq!(found.rdma.limit[0].hca_objects, u32::MAX);
        assert!(found.blkio.is_none());
    }
}
