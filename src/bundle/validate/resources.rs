//! `linux.resources`: values that the kernel refuses, by themselves or together.

use super::Host;
use super::at::At;
use super::process::cpu_list;
use crate::config::input::quoted;
use serde_json::Value;

/// Below this, not even a runtime's own process fits (crun and runc fail on it).
const LEAST_MEMORY: i128 = 512 << 10;

pub(super) fn check(at: &At<'_>, host: &Host<'_>) {
    devices(&at.at("devices"));
    memory(&at.at("memory"), host);
    cpu(&at.at("cpu"));
    block_io(&at.at("blockIO"));
    for item in at.at("hugepageLimits").items() {
        let size = item.at("pageSize");
        if let Some(text) = size.text()
            && !is_page_size(text)
        {
            size.error(
                format!("{} is no size of a page", quoted(text)),
                "write a number, K, M or G, and B, such as 2MB",
            );
        }
    }
    let unified = at.at("unified");
    for (key, value) in unified.entries() {
        if key.contains('/') || key == ".." || !key.contains('.') {
            value.error(
                format!("{} is no file of a cgroup", quoted(key)),
                "name a file of cgroup v2, such as memory.high",
            );
        }
    }
    if unified.is_set() && !host.cgroup2 {
        unified.error(
            "this host's cgroups are version 1, and runtimes refuse files of version 2",
            "remove it, or use a host with cgroup v2",
        );
    }
}

/// Whether a text is a page's size as runtime-spec writes it.
fn is_page_size(text: &str) -> bool {
    let number = text
        .strip_suffix("KB")
        .or_else(|| text.strip_suffix("MB"))
        .or_else(|| text.strip_suffix("GB"))
        .unwrap_or_default();
    !number.starts_with('0') && number.parse::<u64>().is_ok() && !number.starts_with('+')
}

fn devices(at: &At<'_>) {
    for item in at.items() {
        let access = item.at("access");
        match access.text() {
            None if item.value.is_object() => access.tolerated(
                "is missing or empty: runc refuses it, and for crun the kernel does",
                "give r, w and m, or some of them",
            ),
            Some(text) if text.chars().any(|char| !"rwm".contains(char)) => access.error(
                format!("{} has other letters than r, w and m", quoted(text)),
                "give r for read, w for write, m for mknod, or some of them",
            ),
            _ => {}
        }
        for key in ["major", "minor"] {
            let number = item.at(key);
            match number.number() {
                Some(-1) => number.warning(
                    "is -1, which runc takes for any, and crun hands to the kernel, which refuses",
                    "leave it out, for any",
                ),
                Some(value) if value < -1 => {
                    number.error("is no number of a device", "leave it out, for any");
                }
                _ => {}
            }
        }
    }
}

fn memory(at: &At<'_>, host: &Host<'_>) {
    let value = |key: &str| at.at(key).number();
    let limit = value("limit").filter(|limit| *limit > 0);
    match value("limit") {
        Some(0) => at.at("limit").warning(
            "is 0: runc takes that for no limit, and crun for no memory at all",
            "remove it, or write -1, for no limit",
        ),
        Some(limit) if (1..LEAST_MEMORY).contains(&limit) => at.at("limit").warning(
            format!("{limit} bytes are less than any process needs"),
            "give bytes: 64 MiB are 67108864",
        ),
        _ => {}
    }
    if let Some(swap) = value("swap").filter(|swap| *swap > 0) {
        match limit {
            None => at.at("swap").error(
                "limits memory and swap together, and there is no limit for memory",
                "give /linux/resources/memory/limit, too",
            ),
            Some(limit) if swap < limit => at.at("swap").error(
                format!("{swap} is below memory.limit, {limit}: it is memory and swap together"),
                format!("give {limit} at least, which is no swap"),
            ),
            Some(_) => {}
        }
    }
    if let (Some(reservation), Some(limit)) = (value("reservation"), limit)
        && reservation > limit
    {
        at.at("reservation").warning(
            format!("{reservation} is above the limit, {limit}, and so reserves nothing"),
            format!("give {limit} at most"),
        );
    }
    for key in ["kernel", "kernelTCP"] {
        if value(key).is_some_and(|limit| limit > 0) {
            at.at(key).warning(
                "is not recommended by runtime-spec any more, and newer kernels have none",
                "remove it: limit counts it in",
            );
        }
    }
    if host.cgroup2 {
        for key in ["swappiness", "disableOOMKiller"] {
            let is_off = matches!(at.at(key).value, Value::Null | Value::Bool(false));
            if !is_off {
                at.at(key).warning("is for cgroup v1, and this host's are version 2", "remove it");
            }
        }
    }
}

fn cpu(at: &At<'_>) {
    let value = |key: &str| at.at(key).number();
    if value("shares") == Some(1) {
        at.at("shares")
            .warning("runc takes 2 or more, the kernel makes 2 of it", "give 2 at least");
    }
    if value("quota").is_some_and(|quota| (1..1000).contains(&quota)) {
        at.at("quota").error("the kernel takes 1000 microseconds or more", "give 1000 at least");
    }
    if value("period").is_some_and(|period| period > 0 && !(1000..=1_000_000).contains(&period)) {
        at.at("period").error("the kernel takes 1000 to 1000000 microseconds", "give 100000");
    }
    if let (Some(burst), Some(quota)) = (value("burst"), value("quota").filter(|quota| *quota > 0))
        && burst > quota
    {
        at.at("burst")
            .error(format!("{burst} is above the quota, {quota}"), format!("give {quota} at most"));
    }
    if let (Some(runtime), Some(period)) = (value("realtimeRuntime"), value("realtimePeriod"))
        && period > 0
        && runtime > period
    {
        at.at("realtimeRuntime").error(
            format!("{runtime} is above the period, {period}"),
            format!("give {period} at most"),
        );
    }
    cpu_list(&at.at("cpus"));
    cpu_list(&at.at("mems"));
}

fn block_io(at: &At<'_>) {
    let weight = |at: At<'_>| match at.number() {
        Some(weight) if weight > 1000 => at.error("is above 1000", "give 10 to 1000"),
        Some(weight) if (1..10).contains(&weight) => {
            at.warning("is below 10, which not all schedulers take", "give 10 to 1000");
        }
        _ => {}
    };
    let all = std::iter::once(at.clone()).chain(at.at("weightDevice").items());
    for item in all {
        weight(item.at("weight"));
        weight(item.at("leafWeight"));
    }
    for (kind, devices) in at.entries() {
        if kind != "weightDevice" && !kind.starts_with("throttle") {
            continue;
        }
        for device in devices.items() {
            for key in ["major", "minor"] {
                if device.at(key).number().is_some_and(|number| number < 0) {
                    device.at(key).error("is no number of a device", "take lsblk's");
                }
            }
        }
    }
}
