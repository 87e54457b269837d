//! `linux.seccomp` of config.json, read and checked.

use super::abi::{self, Abi, Machine};
use super::bpf::{Compare, Condition};
use super::{ALLOW, ERRNO, KILL_PROCESS, KILL_THREAD, LOG, POINTER, TRACE, TRAP};
use crate::error::{Error, Result};
use serde_json::Value;

/// What is asked for.
pub struct Profile<'a> {
    /// The action where no rule is for a call.
    pub default: u32,
    /// The calling conventions that may be used.
    pub abis: Vec<Abi>,
    /// In the order of config.json.
    pub rules: Vec<Rule<'a>>,
    /// SECCOMP_FILTER_FLAG_….
    pub flags: u32,
}

/// An action for some calls.
pub struct Rule<'a> {
    /// Names of calls, of which the kernel need not have all.
    pub names: Vec<&'a str>,
    /// SECCOMP_RET_… with its data.
    pub action: u32,
    /// The rule is for calls for which all conditions of one of these hold.
    pub alternatives: Vec<Vec<Condition>>,
}

/// How many arguments a call has.
const ARGUMENTS: u64 = 6;

/// The highest error that the kernel returns for a call (MAX_ERRNO).
const HIGHEST_ERROR: u64 = 4095;

impl<'a> Profile<'a> {
    /// `None` where nothing is to be filtered.
    ///
    /// # Errors
    /// See [`super::compile`].
    pub fn parse(machine: Machine, seccomp: &'a Value) -> Result<Option<Self>> {
        for key in ["listenerPath", "listenerMetadata"] {
            if is_set(&seccomp[key]) {
                return Err(notifications(&format!("{POINTER}/{key}")));
            }
        }
        if !is_set(&seccomp["defaultAction"]) && !is_set(&seccomp["syscalls"]) {
            return Ok(None);
        }
        Ok(Some(Self {
            default: action(seccomp, POINTER, "defaultAction", "defaultErrnoRet")?,
            abis: architectures(machine, seccomp)?,
            rules: items(seccomp, POINTER, "syscalls")?
                .map(|(pointer, rule)| Rule::parse(rule, &pointer))
                .collect::<Result<_>>()?,
            flags: flags(seccomp)?,
        }))
    }
}

impl<'a> Rule<'a> {
    fn parse(rule: &'a Value, pointer: &str) -> Result<Self> {
        let mut conditions = items(rule, pointer, "args")?
            .map(|(pointer, condition)| parse_condition(condition, &pointer))
            .collect::<Result<Vec<_>>>()?;
        let mut indices: Vec<u32> = conditions.iter().map(|condition| condition.index).collect();
        indices.sort_unstable();
        let alternatives = if indices.is_sorted_by(|one, next| one < next) {
            vec![conditions]
        } else {
            conditions.drain(..).map(|condition| vec![condition]).collect()
        };
        Ok(Self {
            names: items(rule, pointer, "names")?
                .map(|(pointer, name)| text(name, &pointer))
                .collect::<Result<_>>()?,
            action: action(rule, pointer, "action", "errnoRet")?,
            alternatives,
        })
    }
}

fn parse_condition(condition: &Value, pointer: &str) -> Result<Condition> {
    let number = |key: &str, missing: Option<u64>| {
        let value = &condition[key];
        let missing = missing.filter(|_| value.is_null());
        value.as_u64().or(missing).ok_or_else(|| {
            Error::invalid(format!("{pointer}/{key}: {value} is no number from 0 to 2^64 - 1"))
        })
    };
    let index = number("index", None)?;
    let index = u32::try_from(index).ok().filter(|_| index < ARGUMENTS).ok_or_else(|| {
        Error::invalid(format!("{pointer}/index: {index}: a call's arguments are 0 to 5"))
    })?;
    let (value, second) = (number("value", None)?, number("valueTwo", Some(0))?);
    let at = format!("{pointer}/op");
    let op = text(&condition["op"], &at)?;
    let (compare, negated) = match op {
        "SCMP_CMP_EQ" | "SCMP_CMP_MASKED_EQ" => (Compare::Equal, false),
        "SCMP_CMP_NE" => (Compare::Equal, true),
        "SCMP_CMP_GT" => (Compare::Greater, false),
        "SCMP_CMP_LE" => (Compare::Greater, true),
        "SCMP_CMP_GE" => (Compare::NotLess, false),
        "SCMP_CMP_LT" => (Compare::NotLess, true),
        _ => {
            return Err(Error::invalid(format!(
                "{at}: {op:?} is none of SCMP_CMP_NE, LT, LE, EQ, GE, GT, MASKED_EQ"
            )));
        }
    };
    let (mask, value) =
        if op == "SCMP_CMP_MASKED_EQ" { (value, second & value) } else { (u64::MAX, value) };
    Ok(Condition { index, mask, compare, value, negated })
}

/// An action with its data.
fn action(object: &Value, pointer: &str, key: &str, errno_key: &str) -> Result<u32> {
    let at = format!("{pointer}/{key}");
    let name = text(&object[key], &at)?;
    let action = match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        "SCMP_ACT_TRAP" => TRAP,
        "SCMP_ACT_ERRNO" => ERRNO,
        "SCMP_ACT_TRACE" => TRACE,
        "SCMP_ACT_LOG" => LOG,
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_NOTIFY" => return Err(notifications(&at)),
        _ => {
            return Err(Error::invalid(format!(
                "{at}: {name:?} is none of SCMP_ACT_ALLOW, ERRNO, KILL, KILL_PROCESS, \
                 KILL_THREAD, LOG, TRACE, TRAP"
            )));
        }
    };
    let data = &object[errno_key];
    let highest = match action {
        ERRNO => HIGHEST_ERROR,
        TRACE => u16::MAX.into(),
        // What runtime-spec wants to fail.
        _ if !data.is_null() => {
            return Err(Error::invalid(format!(
                "{pointer}/{errno_key}: {name} returns no error; remove the value"
            )));
        }
        _ => return Ok(action),
    };
    if data.is_null() {
        return Ok(action | super::EPERM);
    }
    let data = data.as_u64().filter(|data| *data <= highest);
    let data = data.and_then(|data| u32::try_from(data).ok()).ok_or_else(|| {
        Error::invalid(format!(
            "{pointer}/{errno_key}: {} is no number from 0 to {highest}",
            object[errno_key]
        ))
    })?;
    Ok(action | data)
}

/// The conventions listed, and the kernel's own.
fn architectures(machine: Machine, seccomp: &Value) -> Result<Vec<Abi>> {
    let mut abis: Vec<Abi> = machine.first().copied().into_iter().collect();
    for (pointer, name) in items(seccomp, POINTER, "architectures")? {
        let name = text(name, &pointer)?;
        let abi = abi::find(machine, name).ok_or_else(|| {
            Error::invalid(format!("{pointer}: {name:?} is no SCMP_ARCH_… of runtime-spec"))
        })?;
        abis.extend(abi);
    }
    Ok(abis)
}

fn flags(seccomp: &Value) -> Result<u32> {
    let mut flags = 0;
    for (pointer, name) in items(seccomp, POINTER, "flags")? {
        flags |= match text(name, &pointer)? {
            "SECCOMP_FILTER_FLAG_TSYNC" => 1,
            "SECCOMP_FILTER_FLAG_LOG" => 1 << 1,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 1 << 2,
            // Says how to wait for an answer to a notification, and is an error to the kernel
            // where there are none.
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 0,
            name => {
                return Err(Error::invalid(format!(
                    "{pointer}: {name:?} is none of SECCOMP_FILTER_FLAG_TSYNC, LOG, SPEC_ALLOW, \
                     WAIT_KILLABLE_RECV"
                )));
            }
        };
    }
    Ok(flags)
}

fn notifications(pointer: &str) -> Error {
    Error::unimplemented(format!(
        "{pointer}: notifications of system calls are not passed on; use another action"
    ))
}

/// Go writes what is unset as nothing, null, or something empty.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

/// A list's items, with the pointer of each.
fn items<'a>(
    object: &'a Value,
    pointer: &str,
    key: &str,
) -> Result<impl Iterator<Item = (String, &'a Value)> + use<'a>> {
    let pointer = format!("{pointer}/{key}");
    let list = match &object[key] {
        Value::Null => &[],
        Value::Array(list) => list.as_slice(),
        other => return Err(Error::invalid(format!("{pointer}: {other} is no list"))),
    };
    Ok(list.iter().enumerate().map(move |(at, item)| (format!("{pointer}/{at}"), item)))
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.as_str().ok_or_else(|| Error::invalid(format!("{pointer}: {value} is no text")))
}
