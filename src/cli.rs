//! `nexcage`: the command line.
//!
//! Every verb is a module that takes what was typed and gives what is to be said; this one parses,
//! chooses, and reports. Exit status: 0, 1 when what was asked failed, 2 when it was not
//! understood; `run` and `exec` give the container process's own.

mod about;
mod args;
mod bundle;
mod checkpoint;
mod create;
mod delete;
mod doctor;
mod events;
mod exec;
mod foreground;
mod life;
mod limits;
mod log;
mod output;
mod route;
mod runtime;
mod signals;
mod state;
mod vmid;
mod watcher;

use crate::config;
use crate::error::{Context, Error, Result};
use crate::sys::process;
use crate::vmid::reconcile::Options;
use args::{Cli, Command, Global, ReportFormat};
use clap::{CommandFactory, Parser};
use runtime::Runtime;
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
    // Before anything is opened: what the caller left open is for nobody that is started here,
    // unless it is passed on by name.
    process::seal_inherited_fds();
    let done = log::init(&cli.global).and_then(|()| match cli.command {
        Some(command) => run(&cli.global, command),
        None => Ok(version(ReportFormat::Text)),
    });
    let Said { status, out, err } = done.unwrap_or_else(|error| failed(&cli.global, &error));
    let written = std::io::stdout().write_all(out.as_bytes());
    drop(std::io::stderr().write_all(err.as_bytes()));
    if written.is_err() { ExitCode::FAILURE } else { ExitCode::from(status) }
}

/// What is said of an error.
fn failed(global: &Global, error: &Error) -> Said {
    Said { status: 1, out: String::new(), err: log::failed(global, error) }
}

/// Does what a command line asks for.
fn run(global: &Global, command: Command) -> Result<Said> {
    let say = |out: String| Said { out, ..Said::default() };
    let runtime = || Runtime::of(global);
    match command {
        Command::Create(args) => create::create(runtime()?, args),
        Command::Run(args) => create::run(runtime()?, args),
        Command::Start { id } => life::start(&runtime()?, &id),
        Command::State { id } => state::state(&runtime()?, &id),
        Command::Kill(args) => delete::kill(&runtime()?, &args),
        Command::Delete { id, force } => delete::delete(&runtime()?, &id, force),
        Command::Exec(args) => exec::exec(&runtime()?, &args),
        Command::List { format, quiet } => state::list(&runtime()?, format, quiet),
        Command::Ps { id, format, args } => state::ps(&runtime()?, &id, format, &args),
        Command::Pause { id } => life::pause(&runtime()?, &id),
        Command::Resume { id } => life::resume(&runtime()?, &id),
        Command::Update(args) => life::update(&runtime()?, &args),
        Command::Events { id, interval, stats } => {
            events::events(&runtime()?, &id, &interval, stats)
        }
        Command::Features => about::features(&runtime()?),
        Command::Spec { bundle, rootless } => about::spec(&bundle, rootless),
        Command::Checkpoint(args) => checkpoint::checkpoint(&runtime()?, &args),
        Command::Restore(args) => checkpoint::restore(runtime()?, *args),
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
