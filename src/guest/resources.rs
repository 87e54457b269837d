//! `linux.resources` of config.json: which text goes into which file of the guest's cgroup.
//!
//! The units and conversions are those of crun and runc, so that a container gets the same limits
//! from every backend. What a cgroup hierarchy cannot do is refused here, by its JSON pointer.
//! The order of the files is the one that works for a new cgroup. Where the old values decide
//! which of two files has to be written first, whoever writes them tries again what failed.

mod devices;
mod read;
#[cfg(test)]
mod tests;

pub use devices::{DeviceRule, devices};

use crate::config::input::list;
use crate::error::{Error, Result};
use read::{Node, wrong};
use serde_json::Value;
use std::ops::RangeInclusive;

const AT: &str = "/linux/resources";

const UNSIGNED: RangeInclusive<i128> = 0..=u64::MAX as i128;
const UNSIGNED_32: RangeInclusive<i128> = 0..=u32::MAX as i128;
/// -1 is "no limit".
const LIMIT: RangeInclusive<i128> = -1..=i64::MAX as i128;

/// One write into the guest's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The controller by its name in cgroup v1, in whose hierarchy the file is; in v2 there is
    /// but one.
    pub controller: &'static str,
    /// The file's name.
    pub file: String,
    /// What is written to it at once: one line, without its end.
    pub value: String,
    /// A kernel without that file does what is wanted anyway.
    pub optional: bool,
    /// The JSON pointer of the value that it was made of.
    pub pointer: String,
}

/// What `linux.resources`, or the resources of an update, have to be written as. `devices` is left
/// out: LXC does that, see [`devices()`].
///
/// # Errors
/// `InvalidArgument` for a field that is not in runtime-spec 1.3 and for a value that makes no
/// sense, `Unimplemented` for one that these cgroups have nothing for. Both name the field.
pub fn settings(resources: &Value, cgroup2: bool) -> Result<Vec<Setting>> {
    let mut out = Settings { cgroup2, list: Vec::new() };
    let Some(node) = Node::at(AT.to_owned(), resources)? else { return Ok(out.list) };
    let node = node.only(&[
        "blockIO",
        "cpu",
        "devices",
        "hugepageLimits",
        "memory",
        "network",
        "pids",
        "rdma",
        "unified",
    ])?;
    out.memory(&node)?;
    out.cpu(&node)?;
    out.pids(&node)?;
    out.block_io(&node)?;
    out.hugepages(&node)?;
    out.rdma(&node)?;
    out.network(&node)?;
    // Last, because it names the very files that it wants to have written.
    out.unified(&node)?;
    Ok(out.list)
}

struct Settings {
    cgroup2: bool,
    list: Vec<Setting>,
}

/// A file's name in cgroup v1 and v2.
type Names<'a> = [&'a str; 2];

impl Settings {
    /// Adds one write.
    fn add(
        &mut self,
        controller: &'static str,
        names: Names<'_>,
        value: impl ToString,
        pointer: String,
    ) {
        let [v1, v2] = names;
        let file = if self.cgroup2 { v2 } else { v1 }.to_owned();
        let value = value.to_string();
        self.list.push(Setting { controller, file, value, optional: false, pointer });
    }

    /// Makes the last write one that may be left out.
    fn optional(&mut self, optional: bool) {
        if let Some(last) = self.list.last_mut() {
            last.optional = optional;
        }
    }

    /// A limit as the kernel reads it.
    fn limit(&self, value: i128) -> String {
        if value == -1 && self.cgroup2 { "max".to_owned() } else { value.to_string() }
    }

    /// Refuses a field that only cgroup v1 has.
    fn only_v1(&self, node: &Node<'_>, key: &str, instead: &str) -> Result<()> {
        if !self.cgroup2 {
            return Ok(());
        }
        Err(Error::unimplemented(format!(
            "{}: this host's cgroups are version 2, which has no such limit; {instead}",
            node.pointer(key)
        )))
    }

    fn memory(&mut self, node: &Node<'_>) -> Result<()> {
        let Some(node) = node.object(
            "memory",
            &[
                "checkBeforeUpdate",
                "disableOOMKiller",
                "kernel",
                "kernelTCP",
                "limit",
                "reservation",
                "swap",
                "swappiness",
                "useHierarchy",
            ],
        )?
        else {
            return Ok(());
        };
        let limit = node.set("limit", LIMIT)?;
        if let Some(limit) = limit {
            let names = ["memory.limit_in_bytes", "memory.max"];
            self.add("memory", names, self.limit(limit), node.pointer("limit"));
        }
        self.swap(&node, limit)?;
        if let Some(reservation) = node.set("reservation", LIMIT)? {
            let names = ["memory.soft_limit_in_bytes", "memory.low"];
            self.add("memory", names, self.limit(reservation), node.pointer("reservation"));
        }
        // -1 is what a kernel that has no such limit does.
        if node.set("kernel", LIMIT)?.is_some_and(|limit| limit != -1) {
            return Err(Error::unimplemented(format!(
                "{}: Linux has had no limit for the kernel's memory alone since 5.16; \
                 memory.limit counts it in, so remove the value",
                node.pointer("kernel")
            )));
        }
        if let Some(limit) = node.set("kernelTCP", LIMIT)? {
            if limit != -1 {
                self.only_v1(&node, "kernelTCP", "memory.limit counts it in")?;
            }
            if !self.cgroup2 {
                let names = ["memory.kmem.tcp.limit_in_bytes", ""];
                self.add("memory", names, limit, node.pointer("kernelTCP"));
                self.optional(limit == -1);
            }
        }
        if let Some(swappiness) = node.number("swappiness", 0..=100)? {
            self.only_v1(&node, "swappiness", "memory.swap limits what is swapped")?;
            self.add("memory", ["memory.swappiness", ""], swappiness, node.pointer("swappiness"));
        }
        if let Some(disabled) = node.flag("disableOOMKiller")? {
            if disabled {
                self.only_v1(&node, "disableOOMKiller", "remove the value")?;
            }
            if !self.cgroup2 {
                let pointer = node.pointer("disableOOMKiller");
                self.add("memory", ["memory.oom_control", ""], u8::from(disabled), pointer);
                self.optional(!disabled);
            }
        }
        if node.flag("useHierarchy")? == Some(false) {
            return Err(Error::unimplemented(format!(
                "{}: Linux has counted a cgroup's descendants in always since 5.11; remove the \
                 value",
                node.pointer("useHierarchy")
            )));
        }
        if node.flag("checkBeforeUpdate")? == Some(true) && limit.is_some() {
            // In v1 the kernel itself refuses a limit that is below what is in use.
            self.only_v1(&node, "checkBeforeUpdate", "remove the value")?;
        }
        Ok(())
    }

    /// OCI's swap is memory and swap together, as in v1; v2 limits swap alone.
    fn swap(&mut self, node: &Node<'_>, limit: Option<i128>) -> Result<()> {
        const NAMES: Names<'_> = ["memory.memsw.limit_in_bytes", "memory.swap.max"];
        let pointer = node.pointer("swap");
        let swap = node.set("swap", LIMIT)?;
        if let (Some(limit), Some(swap)) = (limit, swap)
            && swap != -1
            && (limit == -1 || swap < limit)
        {
            return Err(Error::invalid(format!(
                "{pointer}: found {swap}, wanted no less than memory.limit, which is {limit} (-1 \
                 is no limit): swap is memory and swap together"
            )));
        }
        let value = match (limit, swap) {
            (None, None) => return Ok(()),
            // A limit that is lifted takes that on both together with it, else it would go on.
            (Some(-1), None) | (_, Some(-1)) => self.limit(-1),
            (Some(_), None) => return Ok(()),
            (Some(limit), Some(swap)) if self.cgroup2 => (swap - limit).to_string(),
            (None, Some(swap)) if self.cgroup2 => {
                return Err(Error::invalid(format!(
                    "{pointer}: found {swap}, which is memory and swap together; on cgroup v2 it \
                     takes memory.limit to know how much of it is swap"
                )));
            }
            (_, Some(swap)) => swap.to_string(),
        };
        // A v2 kernel without the file has no swap. A v1 kernel without it does not count swap.
        let optional = value == self.limit(-1) || self.cgroup2 && value == "0";
        self.add("memory", NAMES, value, pointer);
        self.optional(optional);
        Ok(())
    }

    fn cpu(&mut self, node: &Node<'_>) -> Result<()> {
        let Some(node) = node.object(
            "cpu",
            &[
                "burst",
                "cpus",
                "idle",
                "mems",
                "period",
                "quota",
                "realtimePeriod",
                "realtimeRuntime",
                "shares",
            ],
        )?
        else {
            return Ok(());
        };
        let idle = node.number("idle", 0..=1)?;
        // A cgroup that is idle has no weight: the kernel forgets one, or refuses it.
        if let Some(shares) = node.set("shares", UNSIGNED)?.filter(|_| idle != Some(1)) {
            let value = if self.cgroup2 { weight_of_shares(shares) } else { shares };
            self.add("cpu", ["cpu.shares", "cpu.weight"], value, node.pointer("shares"));
        }
        if let Some(idle) = idle {
            self.add("cpu", ["cpu.idle", "cpu.idle"], idle, node.pointer("idle"));
            self.optional(idle == 0);
        }
        self.bandwidth(&node)?;
        for (key, range, file) in [
            ("realtimePeriod", UNSIGNED, "cpu.rt_period_us"),
            ("realtimeRuntime", LIMIT, "cpu.rt_runtime_us"),
        ] {
            if let Some(time) = node.set(key, range)? {
                self.only_v1(&node, key, "remove the value")?;
                self.add("cpu", [file, ""], time, node.pointer(key));
            }
        }
        for (key, file) in [("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")] {
            if let Some(set) = node.text(key)? {
                self.add("cpuset", [file, file], set, node.pointer(key));
            }
        }
        Ok(())
    }

    fn bandwidth(&mut self, node: &Node<'_>) -> Result<()> {
        let period = node.set("period", UNSIGNED)?;
        let quota = node.set("quota", LIMIT)?;
        if self.cgroup2 {
            // One file for both. A quota alone leaves the period; a period cannot be alone.
            let value = match (quota, period) {
                (Some(quota), Some(period)) => Some(format!("{} {period}", self.limit(quota))),
                (Some(quota), None) => Some(self.limit(quota)),
                (None, Some(period)) => Some(format!("max {period}")),
                (None, None) => None,
            };
            if let Some(value) = value {
                let key = if quota.is_some() { "quota" } else { "period" };
                self.add("cpu", ["", "cpu.max"], value, node.pointer(key));
            }
        } else {
            if let Some(period) = period {
                self.add("cpu", ["cpu.cfs_period_us", ""], period, node.pointer("period"));
            }
            if let Some(quota) = quota {
                self.add("cpu", ["cpu.cfs_quota_us", ""], quota, node.pointer("quota"));
            }
        }
        if let Some(burst) = node.number("burst", UNSIGNED)? {
            self.add("cpu", ["cpu.cfs_burst_us", "cpu.max.burst"], burst, node.pointer("burst"));
            self.optional(burst == 0);
        }
        Ok(())
    }

    fn pids(&mut self, node: &Node<'_>) -> Result<()> {
        let Some(node) = node.object("pids", &["limit"])? else { return Ok(()) };
        let pointer = node.pointer("limit");
        let value = match node.number("limit", LIMIT)? {
            None => return Ok(()),
            // "No limit" up to runtime-spec 1.2, "no process" since: nobody can mean both.
            Some(0) => {
                return Err(Error::invalid(format!(
                    "{pointer}: 0 is no limit to some programs and no process to others; write -1 \
                     for no limit"
                )));
            }
            Some(-1) => "max".to_owned(),
            Some(limit) => limit.to_string(),
        };
        let optional = value == "max";
        self.add("pids", ["pids.max", "pids.max"], value, pointer);
        self.optional(optional);
        Ok(())
    }

    fn block_io(&mut self, node: &Node<'_>) -> Result<()> {
        const THROTTLES: [(&str, &str, &str); 4] = [
            ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
            ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
            ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
            ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
        ];
        let mut known = vec!["leafWeight", "weight", "weightDevice"];
        known.extend(THROTTLES.map(|(key, ..)| key));
        let Some(node) = node.object("blockIO", &known)? else { return Ok(()) };
        no_leaf_weight(&node)?;
        if let Some(weight) = weight(&node)? {
            if self.cgroup2 {
                // BFQ has a file of its own beside the one of all schedulers, in OCI's unit.
                let names = ["", "io.bfq.weight"];
                self.add("blkio", names, weight, node.pointer("weight"));
                self.optional(true);
            }
            let value = if self.cgroup2 { io_weight(weight) } else { weight };
            let names = ["blkio.bfq.weight", "io.weight"];
            self.add("blkio", names, value, node.pointer("weight"));
        }
        for device in node.objects("weightDevice", &["leafWeight", "major", "minor", "weight"])? {
            no_leaf_weight(&device)?;
            let number = device_number(&device)?;
            if let Some(weight) = weight(&device)? {
                let names = ["blkio.bfq.weight_device", "io.bfq.weight"];
                let value = format!("{number} {weight}");
                self.add("blkio", names, value, device.pointer("weight"));
            }
        }
        for (key, v1, word) in THROTTLES {
            for device in node.objects(key, &["major", "minor", "rate"])? {
                let number = device_number(&device)?;
                let value = match device.needed("rate", UNSIGNED)? {
                    // In v1 a 0 lifts the limit; v2 wants it in words.
                    0 if self.cgroup2 => format!("{number} {word}=max"),
                    rate if self.cgroup2 => format!("{number} {word}={rate}"),
                    rate => format!("{number} {rate}"),
                };
                self.add("blkio", [v1, "io.max"], value, device.pointer("rate"));
            }
        }
        Ok(())
    }

    fn hugepages(&mut self, node: &Node<'_>) -> Result<()> {
        for limit in node.objects("hugepageLimits", &["limit", "pageSize"])? {
            let size = page_size(&limit)?;
            let value = limit.needed("limit", UNSIGNED)?;
            let pointer = limit.pointer("limit");
            let names = [format!("hugetlb.{size}.limit_in_bytes"), format!("hugetlb.{size}.max")];
            self.add("hugetlb", [&names[0], &names[1]], value, pointer.clone());
            // What is reserved, but not touched yet, is counted apart since Linux 5.7.
            let names =
                [format!("hugetlb.{size}.rsvd.limit_in_bytes"), format!("hugetlb.{size}.rsvd.max")];
            self.add("hugetlb", [&names[0], &names[1]], value, pointer);
            self.optional(true);
        }
        Ok(())
    }

    fn rdma(&mut self, node: &Node<'_>) -> Result<()> {
        const KNOWN: [(&str, &str); 2] =
            [("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")];
        let Some(devices) = node.any_object("rdma")? else { return Ok(()) };
        for (name, _) in devices.fields() {
            let pointer = devices.pointer(name);
            let Some(device) = devices.object(name, &KNOWN.map(|(key, _)| key))? else { continue };
            one_word(name, &pointer, "the name of an RDMA device")?;
            let mut value = name.to_owned();
            for (key, word) in KNOWN {
                if let Some(limit) = device.number(key, UNSIGNED_32)? {
                    value.push_str(&format!(" {word}={limit}"));
                }
            }
            if value != name {
                self.add("rdma", ["rdma.max", "rdma.max"], value, pointer);
            }
        }
        Ok(())
    }

    fn network(&mut self, node: &Node<'_>) -> Result<()> {
        let Some(node) = node.object("network", &["classID", "priorities"])? else {
            return Ok(());
        };
        const INSTEAD: &str = "set it on the host's side of the network, or use cgroup v1";
        if let Some(class) = node.number("classID", UNSIGNED_32)? {
            if class != 0 {
                self.only_v1(&node, "classID", INSTEAD)?;
            }
            if !self.cgroup2 {
                self.add("net_cls", ["net_cls.classid", ""], class, node.pointer("classID"));
                self.optional(class == 0);
            }
        }
        for priority in node.objects("priorities", &["name", "priority"])? {
            self.only_v1(&node, "priorities", INSTEAD)?;
            let pointer = priority.pointer("name");
            let name = priority.text("name")?.unwrap_or_default();
            one_word(name, &pointer, "the name of a network interface")?;
            let value = format!("{name} {}", priority.needed("priority", UNSIGNED_32)?);
            self.add("net_prio", ["net_prio.ifpriomap", ""], value, priority.pointer("priority"));
        }
        Ok(())
    }

    /// Files of cgroup v2 by their names. One that takes several lines gets one after the other.
    fn unified(&mut self, node: &Node<'_>) -> Result<()> {
        let Some(files) = node.any_object("unified")? else { return Ok(()) };
        for (file, value) in files.fields() {
            let pointer = files.pointer(file);
            if !self.cgroup2 {
                return Err(Error::unimplemented(format!(
                    "{pointer}: this host's cgroups are version 1, which has other files; use the \
                     fields of linux.resources instead"
                )));
            }
            let controller = controller(file).ok_or_else(|| {
                Error::invalid(format!(
                    "{pointer}: not a limit of cgroup v2: the file's name begins with that of one \
                     of the controllers {}",
                    list(&CONTROLLERS.map(|(v2, _)| v2))
                ))
            })?;
            let lines = value.as_str().map(|text| text.split('\n').filter(|line| !line.is_empty()));
            let fits = |line: &str| !line.contains(char::is_control);
            let lines = lines
                .filter(|lines| lines.clone().all(fits))
                .ok_or_else(|| wrong(&pointer, value, "text, which may have several lines"))?;
            for line in lines {
                self.add(controller, ["", file], line, pointer.clone());
            }
        }
        Ok(())
    }
}

/// The controllers that cgroup v2 has limits of, and their names in v1.
const CONTROLLERS: [(&str, &str); 10] = [
    ("cgroup.max", "cgroup"),
    ("cpu", "cpu"),
    ("cpuset", "cpuset"),
    ("dmem", "dmem"),
    ("hugetlb", "hugetlb"),
    ("io", "blkio"),
    ("memory", "memory"),
    ("misc", "misc"),
    ("pids", "pids"),
    ("rdma", "rdma"),
];

/// Whose file this is; `None` for what is no limit, such as cgroup.procs or a path.
fn controller(file: &str) -> Option<&'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let owns = |prefix: &str| {
        file.strip_prefix(prefix).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.'))
    };
    let (_, controller) = CONTROLLERS.into_iter().find(|(prefix, _)| owns(prefix))?;
    file.bytes().all(plain).then_some(controller)
}

/// From 2..=262144 to 1..=10000 in a straight line, as crun before 1.23 and runc before 1.4 do:
/// what most hosts have in other containers, among which this weight counts.
fn weight_of_shares(shares: i128) -> i128 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// From 10..=1000, which is OCI's range and BFQ's, to 1..=10000.
fn io_weight(weight: i128) -> i128 {
    1 + (weight - 10) * 9999 / 990
}

fn weight(node: &Node<'_>) -> Result<Option<i128>> {
    node.set("weight", 0..=1000)?.map_or(Ok(None), |_| node.number("weight", 10..=1000))
}

/// There was a scheduler that had these, CFQ.
fn no_leaf_weight(node: &Node<'_>) -> Result<()> {
    if node.set("leafWeight", 0..=1000)?.is_none() {
        return Ok(());
    }
    Err(Error::unimplemented(format!(
        "{}: Linux has had no such weight since 5.0; remove the value",
        node.pointer("leafWeight")
    )))
}

fn device_number(node: &Node<'_>) -> Result<String> {
    let [major, minor] = [node.needed("major", UNSIGNED_32)?, node.needed("minor", UNSIGNED_32)?];
    Ok(format!("{major}:{minor}"))
}

/// A size of huge pages as the kernel's file names have it: it becomes part of one.
fn page_size<'a>(node: &Node<'a>) -> Result<&'a str> {
    let text = node.text("pageSize")?.unwrap_or_default();
    let number = ["KB", "MB", "GB"].into_iter().find_map(|unit| text.strip_suffix(unit));
    let fits = |number: &str| {
        number.bytes().all(|byte| byte.is_ascii_digit())
            && (1..=9).contains(&number.len())
            && !number.starts_with('0')
    };
    number.filter(|number| fits(number)).map(|_| text).ok_or_else(|| {
        wrong(&node.pointer("pageSize"), &text.into(), "a size of huge pages, such as 2MB or 1GB")
    })
}

/// In these files, a blank ends the name.
fn one_word(name: &str, pointer: &str, what: &str) -> Result<()> {
    let blank = |char: char| char.is_whitespace() || char.is_control();
    if name.is_empty() || name.contains(blank) {
        return Err(wrong(pointer, &name.into(), what));
    }
    Ok(())
}
