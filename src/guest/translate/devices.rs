//! `linux.devices` and the rules of `linux.resources.devices`.

use super::config::Config;
use super::cursor::At;
use super::{FileKind, Host};
use crate::config::input::quoted;
use crate::error::Result;
use crate::guest::resources;
use crate::init::{Node, NodeKind};
use std::path::Path;

/// What LXC makes in /dev, mode 0666.
const MADE: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// What every container may use, whatever its rules say, as with runc and crun: to make any node,
/// the default devices, terminals.
pub(in crate::guest) const ALWAYS: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// The console is /dev/console as well as a terminal of devpts.
const CONSOLE: &str = "c 5:1 rwm";

/// Nodes for the init to make; in a guest with a user namespace, where nobody may make any, binds
/// of the host's nodes: (their place, relative to the root, and the host's path).
pub(super) fn nodes(
    devices: &At<'_>,
    host: &Host<'_>,
    mapped: bool,
) -> Result<(Vec<Node>, Vec<String>)> {
    let (mut nodes, mut binds) = (Vec::new(), Vec::new());
    for device in devices.items()? {
        let path = device.at("path").absolute()?;
        let at = device.at("type");
        let kind = match at.some_text()? {
            "c" | "u" => NodeKind::Char,
            "b" => NodeKind::Block,
            "p" => NodeKind::Fifo,
            other => return Err(at.wrong(format!("{} is none of c, u, b, p", quoted(other)))),
        };
        let mode = device.at("fileMode");
        let number = |key: &str| -> Result<u32> { Ok(device.at(key).number()?.unwrap_or(0)) };
        let node = Node {
            path: path.to_owned(),
            kind,
            major: number("major")?,
            minor: number("minor")?,
            // Some write the type along with the permissions.
            mode: mode.number::<u32>()?.map_or(0o666, |mode| mode & 0o7777),
            uid: number("uid")?,
            gid: number("gid")?,
        };
        let is_made = MADE.iter().any(|(made, major, minor)| {
            *made == path && (*major, *minor) == (node.major, node.minor)
        });
        let plain = (node.mode, node.uid, node.gid) == (0o666, 0, 0) || mapped;
        if is_made && kind == NodeKind::Char && plain {
            continue;
        }
        if !mapped {
            nodes.push(node);
            continue;
        }
        let found = (host.exists)(Path::new(path));
        let same = match (kind, found) {
            (NodeKind::Char, Some(FileKind::Char { major, minor }))
            | (NodeKind::Block, Some(FileKind::Block { major, minor })) => {
                (major, minor) == (node.major, node.minor)
            }
            _ => false,
        };
        if !same {
            return Err(device.refused(
                "no node can be made in a user namespace, and the host has none of these numbers \
                 at that path that could be mounted there",
            ));
        }
        binds.push(path.to_owned());
    }
    Ok((nodes, binds))
}

/// The device rules: nothing, then what config.json says, then what is always allowed.
pub(super) fn rules(found: &At<'_>, host: &Host<'_>, config: &mut Config) -> Result<()> {
    let prefix = if host.cgroup2 { "lxc.cgroup2.devices" } else { "lxc.cgroup.devices" };
    let mut line = |allow: bool, text: &str| {
        let verb = if allow { "allow" } else { "deny" };
        config.line(&format!("{prefix}.{verb}"), text, found.pointer())
    };
    line(false, "a")?;
    for rule in resources::devices(found.value())? {
        line(rule.allow, &rule.text)?;
    }
    for rule in ALWAYS.iter().chain(host.console.then_some(&CONSOLE)) {
        line(true, rule)?;
    }
    Ok(())
}
