//! `nexcage`: the command line. So far it prints and checks configurations; the OCI runtime's
//! verbs are refused by name until they are built.

mod vmid;

use crate::config;
use crate::error::Result;
use crate::vmid::reconcile::Options;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: nexcage version              print the version and the revision
       nexcage config schema        print the JSON Schema of /etc/nexcage/config.json
       nexcage config check [FILE]  say whether a configuration file is right
       nexcage vmid list [--format json]
                                    list which guest of Proxmox VE is which container's
       nexcage vmid reconcile [--dry-run] [--destroy]
                                    put right what does not fit together; guests whose container
                                    is gone are destroyed only with --destroy
";

/// What a command says: exit status, standard output, standard error.
#[derive(Debug, Default)]
struct Said {
    status: u8,
    out: String,
    err: String,
}

impl From<Result<Said>> for Said {
    fn from(result: Result<Said>) -> Self {
        result.unwrap_or_else(|error| Self {
            status: 1,
            out: String::new(),
            err: format!("nexcage: {error}\n"),
        })
    }
}

/// Runs the program. Exit status: 0, 1 when what was asked failed, 2 when it was not understood.
pub fn main() -> ExitCode {
    env_logger::init();
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let Said { status, out, err } = run(&words);
    let written = std::io::stdout().write_all(out.as_bytes());
    // There is nowhere to report the loss of an error's text.
    drop(std::io::stderr().write_all(err.as_bytes()));
    if written.is_err() { ExitCode::FAILURE } else { ExitCode::from(status) }
}

/// Does what a command line asks for.
fn run(words: &[&str]) -> Said {
    let say = |out: String| Said { out, ..Said::default() };
    let misunderstood = |err: String| Said { status: 2, err, ..Said::default() };
    match words {
        ["version" | "--version" | "-v"] => {
            let (version, revision) = (env!("CARGO_PKG_VERSION"), env!("NEXCAGE_REVISION"));
            say(format!("nexcage version {version}\ncommit: {revision}\nbackends: crun runc\n"))
        }
        ["help" | "--help" | "-h"] => say(USAGE.to_owned()),
        ["config", "schema"] => say(config::SCHEMA.to_owned()),
        ["config", "check"] => check(Path::new(config::FILE)),
        ["config", "check", file] => check(Path::new(file)),
        ["vmid", "list"] => vmid::list(vmid::Format::Table).into(),
        ["vmid", "list", "--format", "json"] => vmid::list(vmid::Format::Json).into(),
        ["vmid", "reconcile", flags @ ..] if reconciling(flags).is_some() => {
            vmid::reconcile_all(reconciling(flags).unwrap_or_default()).into()
        }
        [] => misunderstood(USAGE.to_owned()),
        other => misunderstood(format!(
            "nexcage: {:?} is not something this build does\n{USAGE}",
            other.join(" ")
        )),
    }
}

/// The flags of `nexcage vmid reconcile`; `None` where there is one that it does not have.
fn reconciling(flags: &[&str]) -> Option<Options> {
    let known = |flag: &&str| ["--dry-run", "--destroy"].contains(flag);
    flags.iter().all(known).then(|| Options {
        dry_run: flags.contains(&"--dry-run"),
        destroy: flags.contains(&"--destroy"),
    })
}

fn check(file: &Path) -> Said {
    match config::check(file) {
        Ok(()) => Said { out: format!("{}: ok\n", file.display()), ..Said::default() },
        Err(error) => Err(error).into(),
    }
}
