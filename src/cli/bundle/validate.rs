//! `nexcage bundle validate`: what is wrong with a bundle, for people and for programs.
//!
//! Exit status: 0 for a valid bundle (warnings and notes do not count), 1 for an invalid one, 2
//! where there is none that could be read.
//!
//! As JSON it is one object:
//!
//! ```json
//! {
//!   "config": "/b/config.json",
//!   "backend": null,
//!   "valid": false,
//!   "errors": 1, "warnings": 0, "notes": 0, "notListed": 0,
//!   "findings": [
//!     {
//!       "level": "error", "refused": true, "pointer": "/process/cwd", "line": 4, "column": 12,
//!       "problem": "found \"tmp\", wanted an absolute path",
//!       "mend": "give the path as the container sees it, such as /"
//!     }
//!   ]
//! }
//! ```
//!
//! `level` is `error`, `warning` or `note`; `refused` says whether `create` and `run` refuse the
//! bundle for it; `pointer` is a JSON pointer (RFC 6901), also that of a
//! value that is missing; lines and columns count from 1, columns in characters; `notListed` is how
//! many findings are left out because there are very many of their level.

use crate::bundle::validate::{self, Finding, Level, Report};
use crate::cli::Said;
use crate::cli::args::{Global, ReportFormat};
use crate::config::BackendName;
use crate::config::input::{plain, shown};
use serde_json::json;
use std::io::IsTerminal;
use std::path::Path;

/// `nexcage bundle validate`. An error is exit status 2, too, and so becomes what is said.
pub fn validate(global: &Global, path: &Path, backend: Option<&str>, format: ReportFormat) -> Said {
    let backend = backend.map(BackendName::parse).transpose();
    match backend.and_then(|backend| validate::check(path, backend)) {
        Err(error) => Said { status: 2, ..super::super::failed(global, &error) },
        Ok(report) => {
            let out = match format {
                ReportFormat::Json => as_json(&report),
                ReportFormat::Text => as_text(&report, wants_colour()),
            };
            Said { status: u8::from(!report.is_valid()), out, err: String::new() }
        }
    }
}

/// Colours are for people (<https://no-color.org>).
fn wants_colour() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !dumb
}

fn as_json(report: &Report) -> String {
    let finding = |finding: &Finding| {
        let Finding { level, refused, pointer, line, column, problem, mend } = finding;
        json!({
            "level": level.as_str(), "refused": refused, "pointer": pointer, "line": line, "column": column,
            "problem": problem, "mend": mend,
        })
    };
    let whole = json!({
        "config": report.config,
        "backend": report.backend.map(BackendName::as_str),
        "valid": report.is_valid(),
        "errors": report.count(Level::Error),
        "warnings": report.count(Level::Warning),
        "notes": report.count(Level::Note),
        "notListed": report.more,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    });
    format!("{whole:#}\n")
}

fn as_text(report: &Report, colour: bool) -> String {
    let paint = |code: &str, text: &str| match colour {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    };
    let (config, mut out) = (shown(&report.config), String::new());
    for Finding { level, pointer, line, column, problem, mend, .. } in &report.findings {
        let code = match level {
            Level::Error => "1;31",
            Level::Warning => "1;33",
            Level::Note => "1;36",
        };
        let level = paint(code, level.as_str());
        let place = if pointer.is_empty() { "" } else { ": " };
        let pointer = paint("1", &plain(pointer));
        out += &format!(
            "{config}:{line}:{column}: {level}{place}{pointer}: {}\n    {}\n",
            plain(problem),
            plain(mend)
        );
    }
    if report.more > 0 {
        out += &format!("{config}: {} more of the same levels are not listed\n", report.more);
    }
    let verdict = match report.is_valid() {
        true => paint("1;32", "valid"),
        false => paint("1;31", "invalid"),
    };
    let count = |level: Level| match report.count(level) {
        0 => None,
        1 => Some(format!("1 {level}")),
        number => Some(format!("{number} {level}s")),
    };
    let counts: Vec<String> =
        [Level::Error, Level::Warning, Level::Note].into_iter().filter_map(count).collect();
    let counts = match counts.is_empty() {
        true => String::new(),
        false => format!(": {}", counts.join(", ")),
    };
    out + &format!("{config}: {verdict}{counts}\n")
}

#[cfg(test)]
mod tests;
