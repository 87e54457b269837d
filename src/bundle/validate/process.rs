//! `process`: what it runs, as whom, and with which limits.

use super::at::At;
use crate::config::input::quoted;
use crate::guest::translate::CAPABILITIES;
use crate::init::RLIMITS;
use std::collections::BTreeSet;

pub(super) fn check(at: &At<'_>) {
    if !at.value.is_object() {
        return;
    }
    command(at);
    environment(&at.at("env"));
    user(&at.at("user"));
    rlimits(&at.at("rlimits"));
    capabilities(&at.at("capabilities"));
    scheduler(&at.at("scheduler"));
    let size = at.at("consoleSize");
    if size.is_set() && !at.at("terminal").flag() {
        size.note("means nothing without a terminal", "set /process/terminal, or remove it");
    }
    for key in ["height", "width"] {
        if size.at(key).number().is_some_and(|number| number > u16::MAX.into()) {
            size.at(key).warning("is more than a terminal can have", "give 65535 at most");
        }
    }
    for key in ["initial", "final"] {
        cpu_list(&at.at("execCPUAffinity").at(key));
    }
    if at.at("commandLine").is_set() {
        at.at("commandLine").note("is Windows' and passed over", "use /process/args");
    }
}

/// The kernel ends a text at the first NUL.
fn no_nul(at: &At<'_>) -> bool {
    let has = at.text().is_some_and(|text| text.contains('\0'));
    if has {
        at.error(
            "has a NUL in it: crun cuts the text there, and runc refuses it",
            "take it out; in JSON it is written \\u0000",
        );
    }
    !has
}

fn command(at: &At<'_>) {
    let args = at.at("args");
    let items = args.items();
    match items.first() {
        None if args.value.is_array() => {
            args.error("is empty: there is nothing to run", "name the program, such as [\"sh\"]");
        }
        Some(program) if program.value.as_str() == Some("") => {
            program.error("is empty: there is nothing to run", "name the program");
        }
        _ => {}
    }
    for item in &items {
        no_nul(item);
    }
    let cwd = at.at("cwd");
    if let Some(path) = cwd.text()
        && no_nul(&cwd)
        && !path.starts_with('/')
    {
        cwd.error(
            format!("found {}, wanted an absolute path", quoted(path)),
            "give the path as the container sees it, such as /",
        );
    }
}

fn environment(at: &At<'_>) {
    let mut names = BTreeSet::new();
    for item in at.items() {
        let Some(text) = item.value.as_str() else { continue };
        no_nul(&item);
        match text.split_once('=') {
            None => item.tolerated(
                format!("{} is no NAME=VALUE: runc refuses it", quoted(text)),
                format!("write {}, or remove it", quoted(&format!("{text}="))),
            ),
            Some(("", _)) => item.tolerated(
                format!("{} has no name before the =: runc refuses it", quoted(text)),
                "put the variable's name before it",
            ),
            Some((name, _)) if !names.insert(name) => item.note(
                format!("{} is there already: programs disagree which one counts", quoted(name)),
                "remove one of them",
            ),
            Some(_) => {}
        }
    }
}

/// An id that means "leave as it is" to the kernel, and the most that runc takes.
pub(super) fn id(at: &At<'_>) {
    match at.number() {
        Some(number) if number == u32::MAX.into() => {
            at.error("is -1 to the kernel, and nobody's id", "give another one");
        }
        Some(number) if number > i32::MAX.into() && number < u32::MAX.into() => at.warning(
            "is above 2147483647, which is the most that runc takes",
            "give a smaller one, or use another backend",
        ),
        _ => {}
    }
}

fn user(at: &At<'_>) {
    id(&at.at("uid"));
    id(&at.at("gid"));
    at.at("additionalGids").items().iter().for_each(id);
    if !at.is_set() {
        at.warning("is missing: the process runs as root", "say {\"uid\": 0, \"gid\": 0}");
    }
    let umask = at.at("umask");
    if umask.number().is_some_and(|umask| (0o1000..=u32::MAX.into()).contains(&umask)) {
        umask.warning(
            "has bits that no mask of file modes has: the kernel drops them",
            "give 0 to 511, which is 0777",
        );
    }
    if at.at("username").is_set() {
        at.at("username").note("is Windows' and passed over", "use uid and gid");
    }
}

fn rlimits(at: &At<'_>) {
    let mut seen = BTreeSet::new();
    for item in at.items() {
        let kind = item.at("type");
        if let Some(name) = kind.text() {
            let word = name.strip_prefix("RLIMIT_");
            if word.is_none_or(|word| !RLIMITS.contains(&word)) {
                let bare = RLIMITS.iter().find(|known| known.eq_ignore_ascii_case(name));
                let mend = match bare {
                    Some(bare) => format!("it is called RLIMIT_{bare}"),
                    None => "getrlimit(2) has the names".to_owned(),
                };
                kind.error(format!("{} is no limit that Linux has", quoted(name)), mend);
            } else if !seen.insert(name) {
                kind.error(format!("{name} is there twice"), "remove one of them");
            }
        }
        if let (Some(soft), Some(hard)) = (item.at("soft").number(), item.at("hard").number())
            && soft > hard
        {
            let problem = format!("{soft} is above the hard limit, {hard}");
            item.at("soft").error(problem, format!("give {hard} at most"));
        }
    }
}

fn capabilities(at: &At<'_>) {
    let set =
        |key: &str| -> BTreeSet<&str> { at.at(key).items().iter().filter_map(At::text).collect() };
    for key in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
        for item in at.at(key).items() {
            let Some(name) = item.text() else { continue };
            let word = name.strip_prefix("CAP_");
            if word.is_some_and(|word| CAPABILITIES.contains(&word)) {
                continue;
            }
            let upper = name.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            item.warning(
                format!("{} is no capability: crun and runc do without it", quoted(name)),
                if CAPABILITIES.contains(&bare) {
                    format!("it is called CAP_{bare}")
                } else {
                    "capabilities(7) has the names".to_owned()
                },
            );
        }
    }
    let (bounding, permitted) = (set("bounding"), set("permitted"));
    let (inheritable, ambient) = (set("inheritable"), set("ambient"));
    for (key, within, name) in
        [("effective", &permitted, "permitted"), ("inheritable", &bounding, "bounding")]
    {
        for item in at.at(key).items() {
            if item.text().is_some_and(|cap| !within.contains(cap)) {
                item.error(
                    format!("is not in {name}: the kernel refuses such a set"),
                    format!("add it to {name}, or remove it here"),
                );
            }
        }
    }
    if ambient.iter().any(|cap| !permitted.contains(cap) || !inheritable.contains(cap)) {
        at.at("ambient").note(
            "has what is not both in permitted and in inheritable: the kernel leaves it out",
            "add it to both, or remove it here",
        );
    }
}

/// sched_setattr(2)
fn scheduler(at: &At<'_>) {
    let Some(policy) = at.at("policy").text() else { return };
    let has = |key: &str| at.at(key).number().is_some_and(|number| number != 0);
    if has("priority") != matches!(policy, "SCHED_FIFO" | "SCHED_RR") {
        let problem = if has("priority") {
            format!("is for SCHED_FIFO and SCHED_RR, not for {policy}")
        } else {
            format!("is missing, and {policy} needs one")
        };
        at.at("priority").error(problem, "give 1 to 99 with those two policies, and with no other");
    }
    for key in ["runtime", "deadline", "period"] {
        if has(key) && policy != "SCHED_DEADLINE" {
            at.at(key).error(format!("is for SCHED_DEADLINE, not for {policy}"), "remove it");
        }
    }
    if policy == "SCHED_DEADLINE" {
        let value = |key: &str| at.at(key).number().unwrap_or(0);
        let (runtime, deadline, period) = (value("runtime"), value("deadline"), value("period"));
        if runtime == 0 || runtime > deadline || period != 0 && deadline > period {
            at.error(
                "the kernel wants 0 < runtime <= deadline <= period",
                "give all three in nanoseconds",
            );
        }
    }
}

/// A list such as `0-3,7` (cpuset(7)).
pub(super) fn cpu_list(at: &At<'_>) {
    let Some(text) = at.text() else { return };
    let number = |text: &str| text.trim().parse::<u32>().ok();
    let is_range = |part: &str| match part.split_once('-') {
        Some((first, last)) => match (number(first), number(last)) {
            (Some(first), Some(last)) => first <= last,
            _ => false,
        },
        None => number(part).is_some(),
    };
    if !text.trim_end_matches('\n').split(',').all(is_range) {
        at.error(format!("{} is no list of numbers", quoted(text)), "write it as in 0-3,7");
    }
}
