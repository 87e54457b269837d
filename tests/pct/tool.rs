//! The other programs of a node, as far as somebody who drives pct leans on them.

use crate::fault;
use crate::life::Unit;
use crate::report::{Outcome, early, fail, say};
use std::fs;

/// What pveversion and the interface say, unless the switch `version` says another.
const VERSION: &str = "9.2.11";

fn version() -> String {
    fault::text("version").unwrap_or_else(|| VERSION.to_owned())
}

/// Whether this Proxmox VE is that one or newer.
pub fn is_at_least(major: u32, minor: u32) -> bool {
    let version = version();
    let mut numbers = version.split(['.', '-']).map(|word| word.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

/// Where pve-manager has its version.
const MODULE: &str = "/usr/share/perl5/PVE/pvecfg.pm";

/// Writes the version down as pve-manager does.
pub fn write_module() -> std::io::Result<()> {
    let function =
        |name: &str, value: &str| format!("sub {name} {{\n    return '{value}';\n}}\n\n");
    let version = version();
    let text = [
        "package PVE::pvecfg;\n\nuse strict;\nuse warnings;\n\n".to_owned(),
        function("package", "pve-manager"),
        function("version", &version),
        function("version_text", &format!("{version}/0123456789abcdef")),
        "1;\n".to_owned(),
    ]
    .concat();
    if fs::read_to_string(MODULE).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::create_dir_all("/usr/share/perl5/PVE")?;
    // Whole or not at all: it may be read at any moment.
    let new = format!("{MODULE}.new");
    fs::write(&new, text)?;
    fs::rename(new, MODULE)
}

/// `pveversion`.
pub fn pveversion() {
    say(&format!("pve-manager/{}/0123456789abcdef (running kernel: 6.17.2-1-pve)", version()));
}

/// `pvesh get /version` and `pvesh get /cluster/nextid`.
pub fn pvesh(args: &[String]) -> Outcome {
    let words: Vec<_> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["get", "/version", ..] => {
            let version = version();
            let release = version.rsplit_once('.').map_or("", |(release, _)| release);
            say(&format!(
                "{{\"release\":\"{release}\",\"repoid\":\"0123456789abcdef\",\
                 \"version\":\"{version}\"}}"
            ));
            Ok(())
        }
        ["get", "/cluster/nextid", more @ ..] => {
            let list = fs::read_to_string(format!("{}/.vmlist", crate::cluster::ROOT));
            let list: serde_json::Value =
                serde_json::from_str(&list.unwrap_or_default()).unwrap_or_default();
            let taken = |vmid: u32| list["ids"].get(vmid.to_string()).is_some();
            let asked = match more {
                ["--vmid" | "-vmid", vmid, ..] => vmid.parse().ok(),
                _ => None,
            };
            match asked {
                Some(vmid) if taken(vmid) => early(format!(
                    "400 Parameter verification failed.\nvmid: VM {vmid} already exists\n\
                     pvesh get /cluster/nextid [OPTIONS] [FORMAT_OPTIONS]"
                )),
                Some(vmid) => {
                    say(&vmid.to_string());
                    Ok(())
                }
                None => match (100..1_000_000).find(|vmid| !taken(*vmid)) {
                    Some(vmid) => {
                        say(&vmid.to_string());
                        Ok(())
                    }
                    None => fail("unable to get any free VMID in range [100, 999999]"),
                },
            }
        }
        ["get", path, ..] => early(format!("No '{}' handler defined for '{path}'", "get")),
        _ => early("ERROR: no command specified"),
    }
}

/// `systemctl show` and `systemctl is-active` of a guest's unit.
pub fn systemctl(args: &[String]) -> Outcome {
    let mut properties = Vec::new();
    let mut bare = false;
    let mut words = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match (arg.as_str(), arg.split_once('=')) {
            ("-p" | "--property", _) => properties.extend(args.next().cloned()),
            (_, Some(("--property", name))) => properties.push(name.to_owned()),
            ("--value", _) => bare = true,
            (flag, _) if flag.starts_with('-') => {}
            (word, _) => words.push(word),
        }
    }
    let [command, unit] = words.as_slice() else {
        return Err(crate::report::Failure::new(1, "Unknown command verb"));
    };
    let vmid = unit.trim_end_matches(".service").strip_prefix("pve-container@");
    let Some(vmid) = vmid.and_then(|vmid| vmid.parse().ok()) else {
        return Err(crate::report::Failure::new(5, format!("Unit {unit} could not be found.")));
    };
    let unit = Unit::of(vmid);
    match *command {
        "show" => {
            for name in properties.iter().flat_map(|names| names.split(',')) {
                let value = unit.get(name);
                say(&if bare { value.to_owned() } else { format!("{name}={value}") });
            }
            Ok(())
        }
        "is-active" | "is-failed" => {
            let state = unit.get("ActiveState");
            say(state);
            let wanted = if *command == "is-active" { "active" } else { "failed" };
            if state == wanted { Ok(()) } else { Err(crate::report::Failure::new(3, "")) }
        }
        _ => Err(crate::report::Failure::new(1, "only show, is-active and is-failed are here")),
    }
}
