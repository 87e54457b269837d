//! What is only read: lists, states, configurations; and exec.

use crate::args::Words;
use crate::conf::Guest;
use crate::life;
use crate::report::{Failure, Outcome, fail, reason, say};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// `pct list`.
pub fn list() {
    let files = fs::read_dir(format!("{}/lxc", crate::cluster::ROOT));
    let mut vmids: Vec<u32> = files
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|file| file.file_name().to_str()?.strip_suffix(".conf")?.parse().ok())
        .collect();
    vmids.sort_unstable();
    if vmids.is_empty() {
        return;
    }
    let line = |vmid: &str, status: &str, lock: &str, name: &str| {
        say(&format!("{vmid:<10} {status:<10} {lock:<12} {name:<20}"));
    };
    line("VMID", "Status", "Lock", "Name");
    for vmid in vmids {
        // It may have been removed since.
        if let Ok(guest) = Guest::load(vmid, 2) {
            let name = guest.get("hostname").map_or_else(|| format!("CT{vmid}"), str::to_owned);
            line(&vmid.to_string(), status(vmid), guest.get("lock").unwrap_or_default(), &name);
        }
    }
}

fn status(vmid: u32) -> &'static str {
    if life::is_running(vmid) { "running" } else { "stopped" }
}

/// `pct status`.
pub fn show_status(words: &Words) -> Outcome {
    let vmid = words.vmid;
    let guest = Guest::load(vmid, 2)?;
    let status = status(vmid);
    if !words.flag("verbose") {
        say(&format!("status: {status}"));
        return Ok(());
    }
    let mib = |key: &str| guest.get(key).and_then(|mib| mib.parse::<u64>().ok()).unwrap_or(512);
    let mut figures = BTreeMap::new();
    for name in ["disk", "diskread", "diskwrite", "maxdisk", "mem", "netin", "netout", "swap"] {
        figures.insert(name, "0".to_owned());
    }
    figures.insert("cpus", guest.get("cores").unwrap_or("1").to_owned());
    figures.insert("maxmem", (mib("memory") << 20).to_string());
    figures.insert("maxswap", (mib("swap") << 20).to_string());
    figures.insert("name", guest.get("hostname").unwrap_or_default().to_owned());
    figures.insert("status", status.to_owned());
    figures.insert("type", "lxc".to_owned());
    figures.insert("uptime", "0".to_owned());
    figures.insert("vmid", vmid.to_string());
    for name in ["lock", "tags", "template"] {
        if let Some(value) = guest.get(name) {
            figures.insert(name, value.to_owned());
        }
    }
    if status == "running" {
        for name in [
            "pressurecpufull",
            "pressurecpusome",
            "pressureiofull",
            "pressureiosome",
            "pressurememoryfull",
            "pressurememorysome",
        ] {
            figures.insert(name, "0.00".to_owned());
        }
        let pid = Command::new("lxc-info").args(["-n", &vmid.to_string(), "-p", "-H"]).output();
        if let Ok(pid) = pid {
            figures.insert("pid", String::from_utf8_lossy(&pid.stdout).trim().to_owned());
        }
    }
    for (name, value) in figures {
        say(&format!("{name}: {value}"));
    }
    Ok(())
}

/// `pct config`, and `pct pending`, which begins each line with `cur `.
pub fn show_config(vmid: u32, before: &str) -> Outcome {
    for line in Guest::load(vmid, 2)?.shown() {
        say(&format!("{before}{line}"));
    }
    Ok(())
}

/// `pct exec`: becomes lxc-attach.
pub fn exec(words: &Words) -> Outcome {
    let vmid = words.vmid;
    if words.more.is_empty() {
        return fail("missing command at /usr/share/perl5/PVE/CLI/pct.pm line 246.");
    }
    Guest::load(vmid, 2)?;
    if !life::is_running(vmid) {
        return fail(format!("container '{vmid}' not running!"));
    }
    let keep = words.get("keep-env").is_none_or(|keep| keep == "1");
    let error = Command::new("lxc-attach")
        .args(["-n", &vmid.to_string(), if keep { "--keep-env" } else { "--clear-env" }, "--"])
        .args(&words.more)
        .env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin")
        .exec();
    Err(Failure::new(255, format!("exec lxc-attach: {}", reason(&error))))
}
