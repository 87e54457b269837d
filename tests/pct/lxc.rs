//! The configuration that LXC gets, written anew at each start.

use crate::conf::Guest;
use crate::report::{Outcome, fail, reason};
use crate::storage::SHIFT;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Where LXC has its guests.
pub const GUESTS: &str = "/var/lib/lxc";

/// What all guests get, of LXC's own.
const COMMON: &str = "/usr/share/lxc/config/common.conf";
const UNPRIVILEGED: &str = "/usr/share/lxc/config/userns.conf";
const SECCOMP: &str = "/usr/share/lxc/config/common.seccomp";

/// A guest's folder.
pub fn folder(vmid: u32) -> PathBuf {
    Path::new(GUESTS).join(vmid.to_string())
}

/// Writes everything that LXC reads of a guest.
pub fn write(vmid: u32, guest: &Guest) -> Outcome {
    let folder = folder(vmid);
    let text = text(vmid, guest)?;
    let write = || {
        fs::create_dir_all(folder.join("rootfs"))?;
        // Both stay when the guest is destroyed, as they do on a real node.
        fs::create_dir_all(folder.join("passthrough"))?;
        fs::copy(SECCOMP, folder.join("rules.seccomp"))?;
        fs::write(folder.join("config"), text)
    };
    write().or_else(|error| fail(format!("unable to write config: {}", reason(&error))))
}

fn text(vmid: u32, guest: &Guest) -> Outcome<String> {
    for key in ["arch", "ostype", "rootfs"] {
        if guest.get(key).is_none() {
            return fail(format!(
                "missing '{key}' - internal error at /usr/share/perl5/PVE/LXC.pm line 735."
            ));
        }
    }
    let program = std::env::current_exe().or_else(|error| fail(reason(&error)))?;
    let program = program.display();
    let root = folder(vmid);
    let root = root.display();
    let mut text = format!(
        "lxc.cgroup.relative = 0\n\
         lxc.cgroup.dir.monitor = lxc.monitor/{vmid}\n\
         lxc.cgroup.dir.container = lxc/{vmid}\n\
         lxc.cgroup.dir.container.inner = ns\n\
         lxc.arch = {arch}\n\
         lxc.include = {COMMON}\n\
         lxc.seccomp.profile = {root}/rules.seccomp\n\
         lxc.monitor.unshare = 1\n\
         lxc.autodev = 1\n\
         lxc.hook.pre-start = {program} --hook pre-start\n\
         lxc.hook.post-stop = {program} --hook post-stop\n",
        arch = guest.get("arch").unwrap_or("amd64"),
    );
    let mut line = |key: &str, value: &str| writeln!(text, "{key} = {value}").is_ok();
    if guest.flag("unprivileged") {
        line("lxc.include", UNPRIVILEGED);
        if !guest.raw.iter().any(|(key, _)| key == "lxc.idmap") {
            line("lxc.idmap", &format!("u 0 {SHIFT} 65536"));
            line("lxc.idmap", &format!("g 0 {SHIFT} 65536"));
        }
    }
    if guest.get("console") == Some("0") {
        line("lxc.console.path", "none");
    }
    let ttys = guest.get("tty").unwrap_or("2");
    line("lxc.tty.max", ttys);
    line("lxc.environment", "TERM=linux");
    line("lxc.uts.name", guest.get("hostname").unwrap_or(&format!("CT{vmid}")));
    for (key, value) in limits(guest) {
        line(&key, &value);
    }
    line("lxc.rootfs.path", &format!("{root}/rootfs"));
    if let Some(entrypoint) = guest.get("entrypoint") {
        line("lxc.init.cmd", entrypoint);
    }
    let nets = guest.keys.iter().filter(|(key, _)| key.starts_with("net"));
    let mut none = true;
    for (key, value) in nets {
        none = false;
        for (key, value) in network(vmid, key, value) {
            line(&key, &value);
        }
    }
    if none && !guest.raw.iter().any(|(key, _)| key.starts_with("lxc.net.")) {
        line("lxc.net.0.type", "empty");
    }
    for variable in &guest.env {
        // LXC 6.0.5-pve has environment.runtime; to 5.0.2 it is the ordinary one.
        line("lxc.environment", variable);
    }
    for (key, value) in &guest.raw {
        // Without a value it empties the list, which needs no blank behind it.
        line(key, value);
    }
    Ok(text)
}

/// The controllers' keys for what the guest's file says, for the cgroups of this machine; what a
/// machine has no controller for is not limited.
fn limits(guest: &Guest) -> Vec<(String, String)> {
    let whole = |key: &str| guest.get(key).and_then(|value| value.parse::<u64>().ok());
    let memory = whole("memory").unwrap_or(512) << 20;
    let swap = whole("swap").unwrap_or(512) << 20;
    let period = 100_000;
    let quota = guest.get("cpulimit").and_then(|limit| limit.parse::<f64>().ok());
    let quota = quota.filter(|limit| *limit > 0.0).map(|limit| limit * f64::from(period));
    let cores = whole("cores").map(|cores| format!("0-{}", cores.saturating_sub(1)));
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let mut limits = Vec::new();
    let mut limit = |controller: &str, file: &str, value: String| {
        let (there, version) = if unified {
            (true, "cgroup2")
        } else {
            (Path::new("/sys/fs/cgroup").join(controller).is_dir(), "cgroup")
        };
        if there {
            limits.push((format!("lxc.{version}.{controller}.{file}"), value));
        }
    };
    if unified {
        // The last sixteenth of a 64th, and at most 128 MiB, is where reclaim begins.
        let high = (memory / 1024 * 1016).max(memory.saturating_sub(128 << 20));
        limit("memory", "max", memory.to_string());
        limit("memory", "high", high.to_string());
        limit("memory", "swap.max", swap.to_string());
        if let Some(quota) = quota {
            limit("cpu", "max", format!("{quota:.0} {period}"));
        }
        if let Some(units) = whole("cpuunits") {
            limit("cpu", "weight", units.clamp(1, 10_000).to_string());
        }
    } else {
        limit("memory", "limit_in_bytes", memory.to_string());
        if Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists() {
            limit("memory", "memsw.limit_in_bytes", (memory + swap).to_string());
        }
        if let Some(quota) = quota {
            limit("cpu", "cfs_quota_us", format!("{quota:.0}"));
        }
        if let Some(units) = whole("cpuunits") {
            limit("cpu", "shares", units.to_string());
        }
    }
    if let Some(cores) = cores {
        limit("cpuset", "cpus", cores);
    }
    limits
}

/// Writes the limits of a running guest.
pub fn apply_limits(vmid: u32, guest: &Guest) {
    let limits = limits(guest);
    // From the end and from the beginning: of memory, and memory with swap, the smaller one must
    // be first on the way down and last on the way up.
    for (key, value) in limits.iter().rev().chain(&limits) {
        let unified = key.starts_with("lxc.cgroup2.");
        let file = key.trim_start_matches("lxc.cgroup2.").trim_start_matches("lxc.cgroup.");
        let controller = if unified { "" } else { file.split('.').next().unwrap_or_default() };
        let path = Path::new("/sys/fs/cgroup").join(controller).join(format!("lxc/{vmid}/{file}"));
        fs::write(path, value).ok();
    }
}

/// LXC's keys for one network device.
fn network(vmid: u32, key: &str, value: &str) -> Vec<(String, String)> {
    let number = key.trim_start_matches("net");
    let get =
        |name: &str| value.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let at = |name: &str| format!("lxc.net.{number}.{name}");
    let mut keys = vec![
        (at("type"), "veth".to_owned()),
        (at("veth.pair"), format!("veth{vmid}i{number}")),
        (at("name"), get("name").unwrap_or("eth0").to_owned()),
    ];
    if let Some(address) = get("hwaddr") {
        keys.push((at("hwaddr"), address.to_owned()));
    }
    if let Some(bridge) = get("bridge") {
        keys.push((at("link"), bridge.to_owned()));
    }
    if get("host-managed") == Some("1") {
        keys.push((at("flags"), "up".to_owned()));
        if let Some(address) = get("ip").filter(|address| address.contains('/')) {
            keys.push((at("ipv4.address"), address.to_owned()));
        }
        if let Some(gateway) = get("gw") {
            keys.push((at("ipv4.gateway"), gateway.to_owned()));
        }
    }
    keys
}
