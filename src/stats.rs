//! What a container uses, as containerd's Task.Stats answers it.
//!
//! Two messages exist, one for each cgroup version, and clients read both. The fields are those
//! that containerd's own runc shim fills; network figures are not among them. A controller that is
//! off, or a file that this kernel does not have, leaves its fields at zero.

use std::fs;
use std::path::Path;

use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::error::{Context, Error, Result};
use crate::sys::cgroup::{Cgroup, value};

mod events;
mod v1;
mod v2;

/// The figures of one container as `runc events` prints them (runc's types/events.go).
///
/// # Errors
/// `NotFound` when it has no cgroup, or none any more.
pub fn as_event(cgroup: &Cgroup) -> Result<serde_json::Value> {
    let figures = match cgroup.unified() {
        _ if cgroup.is_legacy() => {
            let partitions = fs::read_to_string("/proc/partitions").unwrap_or_default();
            events::of_v1(&v1::metrics(cgroup, &partitions))
        }
        Some(folder) => events::of_v2(&v2::metrics(folder)),
        None => return Err(Error::not_found("the container has no cgroup with controllers")),
    };
    if !cgroup.exists() {
        return Err(Error::not_found("the container's cgroup is gone"));
    }
    Ok(figures)
}

/// The figures of one container. The type's name stands without a prefix, as Go's typeurl has it.
pub fn read(cgroup: &Cgroup) -> Result<Any> {
    let (type_url, metrics) = match cgroup.unified() {
        _ if cgroup.is_legacy() => {
            let partitions = fs::read_to_string("/proc/partitions").unwrap_or_default();
            let metrics = v1::metrics(cgroup, &partitions).write_to_bytes();
            ("io.containerd.cgroups.v1.Metrics", metrics)
        }
        Some(folder) => ("io.containerd.cgroups.v2.Metrics", v2::metrics(folder).write_to_bytes()),
        None => return Err(Error::not_found("the container has no cgroup with controllers")),
    };
    // After the reading: a cgroup removed meanwhile must not pass for an idle one.
    if !cgroup.exists() {
        return Err(Error::not_found("the container's cgroup is gone"));
    }
    let value = metrics.map_err(|error| Error::unknown(error.to_string()));
    let value = value.context(|| "encode metrics")?;
    Ok(Any { type_url: type_url.to_owned(), value, ..Any::default() })
}

/// One cgroup's files. One that is not there reads as empty.
struct Files<'a>(&'a Path);

impl Files<'_> {
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        number(&self.text(name))
    }

    /// The page sizes that hugetlb files with this ending are there for: `2MB`, `1GB`.
    fn page_sizes(&self, ending: &str) -> Vec<String> {
        let names = fs::read_dir(self.0).into_iter().flatten().flatten();
        let mut sizes: Vec<String> = names
            .filter_map(|entry| Some(page_size(entry.file_name().to_str()?, ending)?.to_owned()))
            .collect();
        sizes.sort_unstable();
        sizes
    }
}

/// A file of one number, or of `max` for "no limit".
fn number(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        digits => digits.parse().unwrap_or(0),
    }
}

/// The number after `key`; zero where this kernel has none.
fn field(text: &str, key: &str) -> u64 {
    value(text, key).unwrap_or(0)
}

/// `8:16` as two numbers.
fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The size in `hugetlb.2MB.max`, for the ending `.max`. `hugetlb.2MB.rsvd.max` is about
/// reservations.
fn page_size<'a>(name: &'a str, ending: &str) -> Option<&'a str> {
    let size = name.strip_prefix("hugetlb.")?.strip_suffix(ending)?;
    (!size.contains('.')).then_some(size)
}

/// Device, handles and objects of each line of an rdma file: the same in both versions.
fn rdma(text: &str) -> impl Iterator<Item = (String, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let device = words.next()?.to_owned();
        let (mut handles, mut objects) = (0, 0);
        for (key, amount) in words.filter_map(|word| word.split_once('=')) {
            let amount = if amount == "max" { u32::MAX } else { amount.parse().unwrap_or(0) };
            match key {
                "hca_handle" => handles = amount,
                "hca_object" => objects = amount,
                _ => {}
            }
        }
        Some((device, handles, objects))
    })
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::cgroups::metrics as v1_metrics;
    use containerd_shim_protos::cgroups_v2::metrics as v2_metrics;

    use super::*;
    use crate::error::Kind;
    use crate::sys::cgroup::tests::{Contained, laid_out};

    /// Writes each file and its contents into a folder.
    pub(super) fn fill(folder: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn no_limit_is_the_largest_number() {
        assert_eq!(number("max\n"), u64::MAX);
        assert_eq!(number("42\n"), 42);
        assert_eq!(number(""), 0);
    }

    #[test]
    fn reservations_are_no_page_size() {
        assert_eq!(page_size("hugetlb.2MB.max", ".max"), Some("2MB"));
        assert_eq!(page_size("hugetlb.2MB.rsvd.max", ".max"), None);
        assert_eq!(page_size("memory.max", ".max"), None);
    }

    #[test]
    fn rdma_without_a_limit_is_the_largest_number() {
        let text = "mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3 hca_object=max\n";
        let found: Vec<_> = rdma(text).collect();
        let expected = [("mlx4_0".into(), 2, 2000), ("ocrdma1".into(), 3, u32::MAX)];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_type_is_the_bare_name_of_the_hosts_version() {
        let root = tempfile::tempdir().unwrap();
        let (pids, unified) = (root.path().join("pids"), root.path().join("unified"));
        let hybrid = laid_out(&[("pids", &pids), ("", &unified)]);
        fill(&pids.join("pod/web"), &[("pids.current", "3\n"), ("pids.max", "max\n")]);
        let any = read(&hybrid).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let metrics = v1_metrics::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(metrics.pids.current, 3);

        let pure = laid_out(&[("", &unified)]);
        fill(&unified.join("pod/web"), &[("pids.current", "3\n"), ("pids.max", "max\n")]);
        let any = read(&pure).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = v2_metrics::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(metrics.pids.current, 3);
    }

    #[test]
    fn a_cgroup_that_is_gone_is_not_found() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = laid_out(&[("", root.path())]);
        cgroup.remove().unwrap();
        assert_eq!(read(&cgroup).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn a_cgroup_without_controllers_is_not_found() {
        let root = tempfile::tempdir().unwrap();
        let cgroup = laid_out(&[("name=systemd", root.path())]);
        assert_eq!(read(&cgroup).unwrap_err().kind(), Kind::NotFound);
    }

    /// Needs root and memory, pids and cpuacct controllers of one version.
    #[test]
    fn a_real_container_uses_something() {
        let wanted = ["memory", "pids", "cpu", "cpuacct", "blkio"];
        let mut web =
            Contained::new("stats", &wanted, "head -c 5000000 /dev/zero | tail | wc -c; read x");
        web.go();
        web.shell.wait().unwrap();
        let any = read(&web.cgroup).unwrap();
        let (cpu, memory, pids) = if web.cgroup.is_legacy() {
            let metrics = v1_metrics::Metrics::parse_from_bytes(&any.value).unwrap();
            assert_eq!(metrics.cpu.usage.per_cpu.iter().sum::<u64>(), metrics.cpu.usage.total);
            (metrics.cpu.usage.total, metrics.memory.usage.max, metrics.pids.current)
        } else {
            let metrics = v2_metrics::Metrics::parse_from_bytes(&any.value).unwrap();
            (metrics.cpu.usage_usec * 1000, metrics.memory.max_usage, metrics.pids.current)
        };
        // Something was computed, and for less than a minute.
        assert!((100_000..60_000_000_000).contains(&cpu), "{cpu} ns");
        assert!(memory > 5_000_000, "{memory} bytes");
        assert_eq!(pids, 0);
    }
}
