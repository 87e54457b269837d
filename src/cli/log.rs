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

/// One line for an error, as runc writes it.
fn line(format: LogFormat, error: &Error) -> String {
    let time = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
    match format {
        LogFormat::Text => format!("time=\"{time}\" level=error msg={:?}\n", error.to_string()),
        LogFormat::Json => {
            let line = serde_json::json!({
                "level": "error", "msg": error.to_string(), "time": time.to_string(),
            });
            format!("{line}\n")
        }
    }
}

/// What standard error gets of an error. `--log` gets it, too.
pub fn failed(global: &Global, error: &Error) -> String {
    let mut said = format!("nexcage: {error}\n");
    match &global.log {
        Some(target) => {
            if let Err(lost) = write(target, global.log_format, error) {
                said.push_str(&format!("nexcage: {lost}\n"));
            }
        }
        None if global.log_format == LogFormat::Json => said = line(global.log_format, error),
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
        return UnixDatagram::unbound()
            .and_then(|socket| {
                socket.send_to(format!("<27>nexcage: {error}").as_bytes(), "/dev/log")
            })
            .map(drop)
            .context(doing);
    }
    let file = text.strip_prefix("file:").map_or(target, Path::new);
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .and_then(|mut file| file.write_all(line(format, error).as_bytes()))
        .context(doing)
}
