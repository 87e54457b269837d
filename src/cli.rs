//! `nexcage`: the command line.
//!
//! Every verb is a module that takes what was typed and gives what is to be said; this one parses,
//! chooses, and reports. Exit status: 0, 1 when what was asked failed, 2 when it was not
//! understood; `run` and `exec` give the container process's own.

mod args;
mod bundle;
mod doctor;
mod route;
mod vmid;

use crate::config;
use crate::error::{Context, Error, Result};
use crate::vmid::reconcile::Options;
use args::{Cli, Command, Global, LogFormat, ReportFormat};
use clap::{CommandFactory, Parser};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// What a command says: exit status, standard output, standard error.
#[derive(Debug, Default)]
struct Said {
    status: u8,
    out: String,
    err: String,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let status = u8::try_from(error.exit_code()).unwrap_or(2);
            // There is nowhere to report the loss of an error's text.
            drop(error.print());
            return ExitCode::from(status);
        }
    };
    env_logger::init();
    let Said { status, out, err } = match cli.command {
        Some(command) => {
            run(&cli.global, command).unwrap_or_else(|error| failed(&cli.global, &error))
        }
        None => version(ReportFormat::Text),
    };
    let written = std::io::stdout().write_all(out.as_bytes());
    drop(std::io::stderr().write_all(err.as_bytes()));
    if written.is_err() { ExitCode::FAILURE } else { ExitCode::from(status) }
}

/// What is said of an error.
fn failed(global: &Global, error: &Error) -> Said {
    let err = match global.log_format {
        LogFormat::Text => format!("nexcage: {error}\n"),
        LogFormat::Json => {
            let time = humantime::format_rfc3339_seconds(std::time::SystemTime::now());
            let line = serde_json::json!({
                "level": "error", "msg": error.to_string(), "time": time.to_string(),
            });
            format!("{line}\n")
        }
    };
    Said { status: 1, out: String::new(), err }
}

/// Does what a command line asks for.
fn run(global: &Global, command: Command) -> Result<Said> {
    let say = |out: String| Said { out, ..Said::default() };
    match command {
        Command::Config(args::Config::Schema) => Ok(say(config::SCHEMA.to_owned())),
        Command::Config(args::Config::Check { file }) => {
            let file = file.as_deref().or(global.config.as_deref());
            check(file.unwrap_or(Path::new(config::FILE)))
        }
        Command::Doctor { format } => Ok(doctor::doctor(global, format)),
        Command::Route(args::Route::Explain(asked)) => route::explain(global, asked),
        Command::Bundle(args::Bundle::Create(args)) => bundle::create::create(global, *args),
        Command::Vmid(args::Vmid::List { format }) => vmid::list(format),
        Command::Vmid(args::Vmid::Reconcile { dry_run, destroy }) => {
            vmid::reconcile_all(Options { dry_run, destroy })
        }
        Command::Bundle(args::Bundle::Validate { path, backend, format }) => {
            Ok(bundle::validate::validate(global, &path, backend.as_deref(), format))
        }
        Command::Version { format } => Ok(version(format)),
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "nexcage", &mut out);
            Ok(say(String::from_utf8_lossy(&out).into_owned()))
        }
        Command::Man { folder } => clap_mangen::generate_to(Cli::command(), &folder)
            .map(|()| Said::default())
            .context(|| format!("write man pages into {}", folder.display())),
        _ => Err(Error::unimplemented("this verb is not built yet")),
    }
}

fn version(format: ReportFormat) -> Said {
    let (version, revision) = (env!("CARGO_PKG_VERSION"), env!("NEXCAGE_REVISION"));
    let backends = config::BackendName::ALL.map(config::BackendName::as_str);
    let out = match format {
        ReportFormat::Text => format!(
            "nexcage version {version}\ncommit: {revision}\nspec: {}\nbackends: {}\n",
            crate::spec::NEWEST,
            backends.join(" ")
        ),
        ReportFormat::Json => {
            let what = serde_json::json!({
                "version": version, "commit": revision, "spec": crate::spec::NEWEST,
                "backends": backends,
            });
            format!("{what}\n")
        }
    };
    Said { out, ..Said::default() }
}

fn check(file: &Path) -> Result<Said> {
    config::check(file)?;
    Ok(Said { out: format!("{}: ok\n", file.display()), ..Said::default() })
}
