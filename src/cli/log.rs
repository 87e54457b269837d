//! Errors and warnings, where `--log` wants them.

use super::args::{Global, LogFormat};
use crate::error::{Context, Error, Result};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Sets up the log of what is done, on standard error.
///
/// # Errors
/// `InvalidArgument` for a level that does not exist.
pub fn init(global: &Global) -> Result<()> {
    let mut builder = env_logger::Builder::from_default_env();
    if let Some(level) = &global.log_level {
        let wrong = || {
            Error::invalid(format!(
                "--log-level {level:?}: use error, warning, info, debug or trace"
            ))
        };
        let name = if level.eq_ignore_ascii_case("warning") { "warn" } else { level };
        builder.filter_level(name.parse().map_err(|_| wrong())?);
    }
    if global.debug {
        builder.filter_level(log::LevelFilter::Debug);
    }
    // A second one is a test's.
    builder.try_init().or(Ok(()))
}

/// The lines of an error, as runc writes them.
fn lines(format: LogFormat, error: &Error) -> String {
    let time = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let line = |message: &str| match format {
        LogFormat::Text => format!("time=\"{time}\" level=error msg={message:?}\n"),
        LogFormat::Json => {
            let line = serde_json::json!({ "level": "error", "msg": message, "time": time });
            format!("{line}\n")
        }
    };
    error.lines().map(line).collect()
}

/// What standard error gets of an error. `--log` gets it, too.
pub fn failed(global: &Global, error: &Error) -> String {
    let mut said: String = error.lines().map(|line| format!("nexcage: {line}\n")).collect();
    match &global.log {
        Some(target) => {
            if let Err(lost) = write(target, global.log_format, error) {
                said.push_str(&format!("nexcage: {lost}\n"));
            }
        }
        None if global.log_format == LogFormat::Json => said = lines(global.log_format, error),
        None => {}
    }
    said
}

/// Writes to a file, or, as crun has it, to syslog.
fn write(target: &Path, format: LogFormat, error: &Error) -> Result<()> {
    let doing = || format!("--log {}", target.display());
    let text = target.to_string_lossy();
    if text.starts_with("journald:") || text.starts_with("syslog:") {
        // LOG_DAEMON | LOG_ERR (syslog(3)); journald listens there, too.
        let socket = UnixDatagram::unbound().context(doing)?;
        return error
            .lines()
            .try_for_each(|line| {
                socket.send_to(format!("<27>nexcage: {line}").as_bytes(), "/dev/log").map(drop)
            })
            .context(doing);
    }
    let file = text.strip_prefix("file:").map_or(target, Path::new);
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .and_then(|mut file| file.write_all(lines(format, error).as_bytes()))
        .context(doing)
}
