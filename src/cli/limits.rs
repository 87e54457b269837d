//! The flags of `update` as runtime-spec's `linux.resources`.

use super::args::Update;
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};

/// The resources that the flags ask for.
///
/// # Errors
/// `InvalidArgument` for a size that is none, or when nothing is asked for; `Unimplemented` for
/// what `linux.resources` has no field for.
pub fn resources(args: &Update) -> Result<Value> {
    for (flag, schema) in
        [("--l3-cache-schema", &args.l3_cache_schema), ("--mem-bw-schema", &args.mem_bw_schema)]
    {
        if schema.is_some() {
            return Err(Error::unimplemented(format!(
                "{flag}: the schemas of Intel RDT cannot be changed in a running container"
            )));
        }
    }
    let size = |flag: &str, text: &Option<String>| -> Result<Option<Value>> {
        let parsed = text.as_deref().map(|text| {
            bytes(text).ok_or_else(|| {
                Error::invalid(format!("{flag} {text:?}: wanted bytes, with k, m, g or t, or -1"))
            })
        });
        Ok(parsed.transpose()?.map(|bytes| json!(bytes)))
    };
    let groups = [
        (
            "memory",
            vec![
                ("limit", size("--memory", &args.memory)?),
                ("reservation", size("--memory-reservation", &args.memory_reservation)?),
                ("swap", size("--memory-swap", &args.memory_swap)?),
            ],
        ),
        (
            "cpu",
            vec![
                ("shares", args.cpu_share.map(|value| json!(value))),
                ("quota", args.cpu_quota.map(|value| json!(value))),
                ("period", args.cpu_period.map(|value| json!(value))),
                ("burst", args.cpu_burst.map(|value| json!(value))),
                ("realtimePeriod", args.cpu_rt_period.map(|value| json!(value))),
                ("realtimeRuntime", args.cpu_rt_runtime.map(|value| json!(value))),
                ("cpus", args.cpuset_cpus.as_ref().map(|value| json!(value))),
                ("mems", args.cpuset_mems.as_ref().map(|value| json!(value))),
                ("idle", args.cpu_idle.map(|value| json!(value))),
            ],
        ),
        ("pids", vec![("limit", args.pids_limit.map(|value| json!(value)))]),
        ("blockIO", vec![("weight", args.blkio_weight.map(|value| json!(value)))]),
    ];
    let mut resources = Map::new();
    for (group, fields) in groups {
        let set: Map<String, Value> = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect();
        if !set.is_empty() {
            resources.insert(group.to_owned(), set.into());
        }
    }
    if resources.is_empty() {
        return Err(Error::invalid("nothing to change: give a limit, or --resources FILE"));
    }
    Ok(resources.into())
}

/// A size as runc takes it: `64m`, `1.5GiB`, `4096`; -1 for no limit.
fn bytes(text: &str) -> Option<i64> {
    let text = text.trim();
    if text == "-1" {
        return Some(-1);
    }
    let digits =
        text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let whole = whole.parse::<i64>().ok()?.checked_mul(1 << shift)?;
    if part.is_empty() {
        return (!number.ends_with('.')).then_some(whole);
    }
    // Six digits say it to the byte up to a mebibyte's unit.
    let part: String = part.chars().take(6).collect();
    let scale = 10i64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part = part.parse::<i64>().ok()?.checked_mul(1 << shift)?.checked_div(scale)?;
    whole.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn a_size_is_bytes_or_has_a_unit() {
        for (text, size) in [
            ("4096", 4096),
            ("64k", 65536),
            ("64K", 65536),
            ("1.5m", 1_572_864),
            ("2g", 2 << 30),
            ("1GiB", 1 << 30),
            ("10b", 10),
            ("-1", -1),
            ("0", 0),
        ] {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for text in ["", "m", "-2", "1x", "1.", "1.2.3", "9999999999t", "max"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
