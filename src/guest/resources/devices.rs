//! `linux.resources.devices`: which devices the guest's processes may use.

use super::AT;
use super::read::{Node, wrong};
use crate::error::Result;
use serde_json::Value;

/// One rule of the device cgroup; a later one goes before an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether it allows or denies.
    pub allow: bool,
    /// As devices.allow and devices.deny take it: `c 1:3 rwm`, or `a` for everything.
    pub text: String,
}

/// The rules of `linux.resources`, in their order. One that is for both kinds of devices, but not
/// for everything, becomes two: for `a`, the kernel takes no number and no access.
///
/// # Errors
/// `InvalidArgument` that names the field.
pub fn devices(resources: &Value) -> Result<Vec<DeviceRule>> {
    let Some(node) = Node::at(AT.to_owned(), resources)? else { return Ok(Vec::new()) };
    let mut rules = Vec::new();
    for node in node.objects("devices", &["access", "allow", "major", "minor", "type"])? {
        let allow = node
            .flag("allow")?
            .ok_or_else(|| wrong(&node.pointer("allow"), &Value::Null, "true or false"))?;
        let kinds = kinds(&node)?;
        let number = format!("{}:{}", number(&node, "major")?, number(&node, "minor")?);
        let everything = kinds.len() > 1 && number == "*:*";
        let access = match node.text("access")? {
            None if everything => "rwm".to_owned(),
            text => access(&node, text.unwrap_or_default())?,
        };
        if everything && access == "rwm" {
            rules.push(DeviceRule { allow, text: "a".to_owned() });
            continue;
        }
        let rule = |kind: &&str| DeviceRule { allow, text: format!("{kind} {number} {access}") };
        rules.extend(kinds.iter().map(rule));
    }
    Ok(rules)
}

fn kinds(node: &Node<'_>) -> Result<&'static [&'static str]> {
    match node.text("type")?.unwrap_or("a") {
        "a" => Ok(&["b", "c"]),
        "b" => Ok(&["b"]),
        "c" => Ok(&["c"]),
        other => Err(wrong(&node.pointer("type"), &other.into(), "a, b or c")),
    }
}

/// -1 and nothing are every number.
fn number(node: &Node<'_>, key: &str) -> Result<String> {
    let number = node.number(key, -1..=i128::from(u32::MAX))?.filter(|number| *number != -1);
    Ok(number.map_or_else(|| "*".to_owned(), |number| number.to_string()))
}

/// Some of `rwm`, in that order.
fn access(node: &Node<'_>, text: &str) -> Result<String> {
    if text.is_empty() || !text.chars().all(|letter| "rwm".contains(letter)) {
        return Err(wrong(&node.pointer("access"), &text.into(), "some of r, w and m"));
    }
    Ok("rwm".chars().filter(|letter| text.contains(*letter)).collect())
}
