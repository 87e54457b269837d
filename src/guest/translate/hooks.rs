//! `hooks`, by the moment at which each runs.

use super::Hooks;
use super::cursor::At;
use crate::error::Result;
use crate::init::Hook;

/// All but those of kind startContainer, which come second.
pub(super) fn hooks(at: &At<'_>) -> Result<(Hooks, Vec<Hook>)> {
    let of = |kind: &str| list(&at.at(kind));
    let hooks = Hooks {
        prestart: of("prestart")?,
        create_runtime: of("createRuntime")?,
        create_container: of("createContainer")?,
        poststart: of("poststart")?,
        poststop: of("poststop")?,
    };
    Ok((hooks, of("startContainer")?))
}

fn list(at: &At<'_>) -> Result<Vec<Hook>> {
    at.items()?
        .iter()
        .map(|hook| {
            let timeout = hook.at("timeout");
            // 0 would be a hook that has failed before it began; here it would mean no limit.
            if timeout.number::<u32>()? == Some(0) {
                return Err(timeout.wrong("must be above zero"));
            }
            Ok(Hook {
                path: hook.at("path").absolute()?.to_owned(),
                args: hook.at("args").texts()?,
                env: hook.at("env").texts()?,
                timeout: timeout.number()?.unwrap_or(0),
            })
        })
        .collect()
}
