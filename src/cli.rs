//! `nexcage`: the command line. So far it prints and checks configurations; the OCI runtime's
//! verbs are refused by name until they are built.

use crate::config;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: nexcage version              print the version and the revision
       nexcage config schema        print the JSON Schema of /etc/nexcage/config.json
       nexcage config check [FILE]  say whether a configuration file is right
";

/// Runs the program. Exit status: 0, 1 when what was asked failed, 2 when it was not understood.
pub fn main() -> ExitCode {
    env_logger::init();
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (status, out, err) = run(&words);
    let written = std::io::stdout().write_all(out.as_bytes());
    // There is nowhere to report the loss of an error's text.
    drop(std::io::stderr().write_all(err.as_bytes()));
    if written.is_err() { ExitCode::FAILURE } else { ExitCode::from(status) }
}

/// What a command line says: exit status, standard output, standard error.
fn run(words: &[&str]) -> (u8, String, String) {
    match words {
        ["version" | "--version" | "-v"] => {
            let (version, revision) = (env!("CARGO_PKG_VERSION"), env!("NEXCAGE_REVISION"));
            (
                0,
                format!("nexcage version {version}\ncommit: {revision}\nbackends: crun runc\n"),
                String::new(),
            )
        }
        ["help" | "--help" | "-h"] => (0, USAGE.to_owned(), String::new()),
        ["config", "schema"] => (0, config::SCHEMA.to_owned(), String::new()),
        ["config", "check"] => check(Path::new(config::FILE)),
        ["config", "check", file] => check(Path::new(file)),
        [] => (2, String::new(), USAGE.to_owned()),
        other => {
            let said =
                format!("nexcage: {:?} is not something this build does\n{USAGE}", other.join(" "));
            (2, String::new(), said)
        }
    }
}

fn check(file: &Path) -> (u8, String, String) {
    match config::check(file) {
        Ok(()) => (0, format!("{}: ok\n", file.display()), String::new()),
        Err(error) => (1, String::new(), format!("nexcage: {error}\n")),
    }
}
