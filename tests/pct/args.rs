//! The command line: options, their types, and the texts of what is wrong with them.

use crate::report::{Failure, Outcome};
use crate::tool::is_at_least;
use std::collections::BTreeMap;

/// What an option takes.
enum Kind {
    Text,
    Flag,
    /// A whole number of at least that much, and at most.
    Whole(i64, i64),
    Number,
    Name,
    Word(&'static [&'static str]),
    Entrypoint,
    Variable,
    Volume,
    Network,
}

/// The settings of a guest that are no list.
fn setting(name: &str) -> Option<Kind> {
    let kind = match name {
        "arch" => Kind::Word(&["amd64", "i386", "arm64", "armhf", "riscv32", "riscv64"]),
        "cmode" => Kind::Word(&["shell", "console", "tty"]),
        "console" | "debug" | "onboot" | "protection" | "template" | "unprivileged" => Kind::Flag,
        "cores" => Kind::Whole(1, 8192),
        "cpulimit" => Kind::Number,
        "cpuunits" => Kind::Whole(0, 500_000),
        "entrypoint" if is_at_least(9, 1) => Kind::Entrypoint,
        "env" if is_at_least(9, 1) => Kind::Variable,
        "hostname" => Kind::Name,
        "lock" => Kind::Word(&[
            "backup",
            "create",
            "destroyed",
            "disk",
            "fstrim",
            "migrate",
            "mounted",
            "rollback",
            "snapshot",
            "snapshot-delete",
        ]),
        "memory" => Kind::Whole(16, i64::MAX),
        "ostype" => Kind::Word(&[
            "debian",
            "devuan",
            "ubuntu",
            "centos",
            "fedora",
            "opensuse",
            "archlinux",
            "alpine",
            "gentoo",
            "nixos",
            "unmanaged",
        ]),
        "swap" => Kind::Whole(0, i64::MAX),
        "tty" => Kind::Whole(0, 6),
        "rootfs" => Kind::Volume,
        "description" | "features" | "hookscript" | "nameserver" | "searchdomain" | "startup"
        | "tags" | "timezone" => Kind::Text,
        _ => return numbered(name),
    };
    Some(kind)
}

fn numbered(name: &str) -> Option<Kind> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == name.len() {
        return None;
    }
    match stem {
        "mp" => Some(Kind::Volume),
        "net" => Some(Kind::Network),
        "dev" | "unused" => Some(Kind::Text),
        _ => None,
    }
}

/// Whether a guest has such a setting.
pub fn is_setting(name: &str) -> bool {
    setting(name).is_some()
}

fn option(command: &str, name: &str) -> Option<Kind> {
    let own = match (command, name) {
        ("create", "storage" | "pool" | "password" | "ssh-public-keys" | "bwlimit") => Kind::Text,
        ("create", "force" | "start" | "restore" | "unique" | "ignore-unpack-errors") => Kind::Flag,
        ("set", "delete" | "revert" | "digest") => Kind::Text,
        ("set", "force") | ("start", "debug") | ("status", "verbose") => Kind::Flag,
        ("start" | "stop" | "destroy" | "shutdown" | "resume" | "suspend", "skiplock") => {
            Kind::Flag
        }
        ("stop", "overrule-shutdown") | ("shutdown", "forceStop") => Kind::Flag,
        ("shutdown" | "reboot", "timeout") => Kind::Whole(0, i64::MAX),
        ("destroy", "force" | "purge" | "destroy-unreferenced-disks") => Kind::Flag,
        ("config", "current") | ("exec", "keep-env") => Kind::Flag,
        ("config", "snapshot") => Kind::Text,
        // `unprivileged` cannot be set later, but that is said by whoever sets it.
        ("create" | "set", _) => return setting(name),
        _ => return None,
    };
    Some(own)
}

/// The words of a command line, in their places.
#[derive(Debug, Default)]
pub struct Words {
    /// The guest.
    pub vmid: u32,
    /// Words after it: the template of `create`.
    pub more: Vec<String>,
    /// The options that were given. A flag is 0 or 1.
    pub options: BTreeMap<String, String>,
}

impl Words {
    /// An option's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    /// Whether a flag was given.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name) == Some("1")
    }
}

/// The usage line of a command.
fn usage(command: &str) -> String {
    match command {
        "create" => "pct create <vmid> <ostemplate> [OPTIONS]".to_owned(),
        "list" => "pct list ".to_owned(),
        "unlock" | "df" | "pending" => format!("pct {command} <vmid>"),
        "exec" => "pct exec <vmid> [<extra-args>] [OPTIONS]".to_owned(),
        _ => format!("pct {command} <vmid> [OPTIONS]"),
    }
}

fn refused(command: &str, lines: &[String]) -> Failure {
    Failure::new(2, format!("{}\n{}", lines.join("\n"), usage(command)))
}

fn invalid(command: &str, name: &str, why: &str) -> Failure {
    let text = format!("400 Parameter verification failed.\n{name}: {why}\n\n{}", usage(command));
    Failure::new(2, text)
}

/// Reads the command line of `command`, which wants `wanted` words besides options.
pub fn parse(command: &str, wanted: usize, args: &[String]) -> Outcome<Words> {
    let mut words = Words::default();
    let mut plain = Vec::new();
    let mut unknown = Vec::new();
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        if arg == "--" {
            plain.extend(args.by_ref().cloned());
            break;
        }
        let Some(name) = arg.strip_prefix("--").or(arg.strip_prefix('-')) else {
            plain.push(arg.clone());
            continue;
        };
        let (name, given) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let Some(kind) = option(command, name) else {
            unknown.push(format!("Unknown option: {name}"));
            continue;
        };
        let value = match (given, &kind) {
            (Some(value), _) => value,
            // A flag's value may be left out.
            (None, Kind::Flag) => match args.next_if(|next| !next.starts_with('-')) {
                Some(value) => value.clone(),
                None => "1".to_owned(),
            },
            (None, _) => match args.next() {
                Some(value) => value.clone(),
                None => {
                    unknown.push(format!("Option {name} requires an argument"));
                    continue;
                }
            },
        };
        words.options.insert(name.to_owned(), value);
    }
    if !unknown.is_empty() {
        unknown.push("400 unable to parse option".to_owned());
        return Err(refused(command, &unknown));
    }
    if plain.len() < wanted {
        return Err(refused(command, &["400 not enough arguments".to_owned()]));
    }
    if plain.len() > wanted && command != "exec" {
        return Err(refused(command, &["400 too many arguments".to_owned()]));
    }
    let mut plain = plain.into_iter();
    if let Some(vmid) = plain.next() {
        words.vmid = number(command, &vmid)?;
    }
    words.more = plain.collect();
    for (name, value) in &mut words.options {
        if let Some(kind) = option(command, name) {
            *value = checked(&kind, value).map_err(|why| {
                let name = numbered(name).map_or(name.as_str(), |_| name);
                invalid(command, name, &why)
            })?;
        }
    }
    Ok(words)
}

/// A guest's number.
fn number(command: &str, text: &str) -> Outcome<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let why = format!("type check ('integer') failed - got '{text}'");
        return Err(invalid(command, "vmid", &why));
    }
    if (3..=9).contains(&text.len()) && !text.starts_with('0') {
        return text.parse().map_err(|_| invalid(command, "vmid", "not a number"));
    }
    Err(invalid(command, "vmid", "invalid format - value does not look like a valid VM ID"))
}

fn checked(kind: &Kind, value: &str) -> Result<String, String> {
    let kept = Ok(value.to_owned());
    match kind {
        Kind::Network if value.contains(",host-managed=") && !is_at_least(9, 1) => Err("invalid \
            format - format error\nnet0.host-managed: property is not defined in schema and the \
            schema does not allow additional properties"
            .to_owned()),
        Kind::Text | Kind::Network => kept,
        Kind::Flag => match value {
            "1" | "yes" | "on" | "true" => Ok("1".to_owned()),
            "0" | "no" | "off" | "false" => Ok("0".to_owned()),
            _ => Err(format!("type check ('boolean') failed - got '{value}'")),
        },
        Kind::Whole(least, most) => match value.parse::<i64>() {
            Err(_) => Err(format!("type check ('integer') failed - got '{value}'")),
            Ok(number) if number < *least => {
                Err(format!("value must have a minimum value of {least}"))
            }
            Ok(number) if number > *most => {
                Err(format!("value must have a maximum value of {most}"))
            }
            Ok(_) => kept,
        },
        Kind::Number => match value.parse::<f64>() {
            Err(_) => Err(format!("type check ('number') failed - got '{value}'")),
            Ok(number) if number < 0.0 => Err("value must have a minimum value of 0".to_owned()),
            Ok(number) if number > 8192.0 => {
                Err("value must have a maximum value of 8192".to_owned())
            }
            Ok(_) => kept,
        },
        Kind::Name if is_dns_name(value) => kept,
        Kind::Name => Err("invalid format - value does not look like a valid DNS name".to_owned()),
        Kind::Word(words) if words.contains(&value) => kept,
        Kind::Word(words) => Err(format!(
            "value '{value}' does not have a value in the enumeration '{}'",
            words.join(", ")
        )),
        Kind::Entrypoint => {
            let control = |c: char| (c.is_ascii_control() && c != '\t') || c == '\u{7f}';
            if value.is_empty() || value.contains(control) {
                return Err("value does not match the regex pattern".to_owned());
            }
            Ok(damaged(value))
        }
        Kind::Variable => {
            let name = value.split('=').next().unwrap_or_default();
            let word = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
            if !word || value.contains(|c: char| c.is_ascii_control() && c != '\t') {
                return Err("value does not match the regex pattern".to_owned());
            }
            Ok(damaged(value))
        }
        Kind::Volume => {
            let defaults =
                value.split(',').filter(|part| !part.contains('=') || part.starts_with("volume="));
            if defaults.count() > 1 {
                return Err("invalid format - duplicate key in comma-separated list property: \
                            volume"
                    .to_owned());
            }
            let path = value.split(',').next().unwrap_or_default();
            let path = path.strip_prefix("volume=").unwrap_or(path);
            let parts = path.split('/').filter(|part| matches!(*part, "." | ".."));
            if path.starts_with('/') && parts.count() > 0 {
                return Err("invalid format - format error\nvolume: invalid format - value does \
                            not look like a valid mount point path"
                    .to_owned());
            }
            kept
        }
    }
}

/// What is not ASCII arrives as Latin-1, where it can: UTF-8 is decoded and not encoded again.
/// Here every such character becomes one that no test asks for.
fn damaged(value: &str) -> String {
    value.chars().map(|c| if c.is_ascii() { c } else { '\u{fffd}' }).collect()
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}
