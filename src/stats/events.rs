//! The figures as `runc events` prints them.

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, MemoryEntry, MemoryStat, Metrics as V1,
};
use containerd_shim_protos::cgroups_v2::metrics::Metrics as V2;
use serde_json::{Map, Value, json};

/// Nanoseconds in a microsecond.
const MICRO: u64 = 1000;

pub(super) fn of_v1(metrics: &V1) -> Value {
    let usage = metrics.cpu.usage.clone().unwrap_or_default();
    let throttling = metrics.cpu.throttling.clone().unwrap_or_default();
    let memory = metrics.memory.clone().unwrap_or_default();
    let blkio = metrics.blkio.clone().unwrap_or_default();
    json!({
        "cpu": {
            "usage": {
                "total": usage.total, "percpu": usage.per_cpu, "kernel": usage.kernel,
                "user": usage.user,
            },
            "throttling": {
                "periods": throttling.periods, "throttledPeriods": throttling.throttled_periods,
                "throttledTime": throttling.throttled_time,
            },
        },
        "memory": {
            "cache": memory.cache,
            "usage": entry(&memory.usage),
            "swap": entry(&memory.swap),
            "kernel": entry(&memory.kernel),
            "kernelTCP": entry(&memory.kernel_tcp),
            "raw": raw(&memory),
        },
        "pids": { "current": metrics.pids.current, "limit": metrics.pids.limit },
        "blkio": {
            "ioServiceBytesRecursive": blkio_entries(&blkio.io_service_bytes_recursive),
            "ioServicedRecursive": blkio_entries(&blkio.io_serviced_recursive),
            "ioQueueRecursive": blkio_entries(&blkio.io_queued_recursive),
            "ioServiceTimeRecursive": blkio_entries(&blkio.io_service_time_recursive),
            "ioWaitTimeRecursive": blkio_entries(&blkio.io_wait_time_recursive),
            "ioMergedRecursive": blkio_entries(&blkio.io_merged_recursive),
            "ioTimeRecursive": blkio_entries(&blkio.io_time_recursive),
            "sectorsRecursive": blkio_entries(&blkio.sectors_recursive),
        },
        "hugetlb": metrics.hugetlb.iter().map(|size| (size.pagesize.clone(), json!({
            "usage": size.usage, "max": size.max, "failcnt": size.failcnt,
        }))).collect::<Map<_, _>>(),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn entry(entry: &MemoryEntry) -> Value {
    json!({
        "limit": entry.limit, "usage": entry.usage, "max": entry.max, "failcnt": entry.failcnt,
    })
}

fn raw(memory: &MemoryStat) -> Value {
    json!({
        "active_anon": memory.active_anon, "active_file": memory.active_file,
        "cache": memory.cache, "dirty": memory.dirty, "inactive_anon": memory.inactive_anon,
        "inactive_file": memory.inactive_file, "mapped_file": memory.mapped_file,
        "pgfault": memory.pg_fault, "pgmajfault": memory.pg_maj_fault,
        "pgpgin": memory.pg_pg_in, "pgpgout": memory.pg_pg_out, "rss": memory.rss,
        "rss_huge": memory.rss_huge, "unevictable": memory.unevictable,
        "writeback": memory.writeback,
        "hierarchical_memory_limit": memory.hierarchical_memory_limit,
        "hierarchical_memsw_limit": memory.hierarchical_swap_limit,
        "total_cache": memory.total_cache, "total_rss": memory.total_rss,
    })
}

fn blkio_entries(entries: &[BlkIOEntry]) -> Vec<Value> {
    let entry = |entry: &BlkIOEntry| {
        json!({
            "major": entry.major, "minor": entry.minor, "op": entry.op, "value": entry.value,
        })
    };
    entries.iter().map(entry).collect()
}

pub(super) fn of_v2(metrics: &V2) -> Value {
    let (cpu, memory) = (&metrics.cpu, &metrics.memory);
    let io = metrics.io.usage.iter().flat_map(|device| {
        let value = |op: &str, value: u64| {
            json!({ "major": device.major, "minor": device.minor, "op": op, "value": value })
        };
        [value("Read", device.rbytes), value("Write", device.wbytes)]
    });
    let operations = metrics.io.usage.iter().flat_map(|device| {
        let value = |op: &str, value: u64| {
            json!({ "major": device.major, "minor": device.minor, "op": op, "value": value })
        };
        [value("Read", device.rios), value("Write", device.wios)]
    });
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_usec.saturating_mul(MICRO),
                "kernel": cpu.system_usec.saturating_mul(MICRO),
                "user": cpu.user_usec.saturating_mul(MICRO),
            },
            "throttling": {
                "periods": cpu.nr_periods, "throttledPeriods": cpu.nr_throttled,
                "throttledTime": cpu.throttled_usec.saturating_mul(MICRO),
            },
        },
        "memory": {
            "cache": memory.file,
            "usage": {
                "limit": memory.usage_limit, "usage": memory.usage, "max": memory.max_usage,
                "failcnt": metrics.memory_events.max,
            },
            "swap": { "limit": memory.swap_limit, "usage": memory.swap_usage, "failcnt": 0 },
            "raw": {
                "anon": memory.anon, "file": memory.file, "kernel_stack": memory.kernel_stack,
                "slab": memory.slab, "sock": memory.sock, "shmem": memory.shmem,
                "file_mapped": memory.file_mapped, "file_dirty": memory.file_dirty,
                "inactive_anon": memory.inactive_anon, "active_anon": memory.active_anon,
                "inactive_file": memory.inactive_file, "active_file": memory.active_file,
                "pgfault": memory.pgfault, "pgmajfault": memory.pgmajfault,
            },
        },
        "pids": { "current": metrics.pids.current, "limit": match metrics.pids.limit {
            // As runc has it: no limit.
            u64::MAX => 0,
            limit => limit,
        } },
        "blkio": {
            "ioServiceBytesRecursive": io.collect::<Vec<_>>(),
            "ioServicedRecursive": operations.collect::<Vec<_>>(),
        },
        "hugetlb": metrics.hugetlb.iter().map(|size| (size.pagesize.clone(), json!({
            "usage": size.current, "max": size.max, "failcnt": 0,
        }))).collect::<Map<_, _>>(),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}
