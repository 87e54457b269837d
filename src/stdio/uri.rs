//! What containerd's stdio strings mean. No I/O.
//!
//! A string is empty, a plain path, or a URI. The first that is not empty, in the order stdout,
//! stderr, stdin, decides whether the output goes to FIFOs and files or to a logging program;
//! stdin is always a FIFO.

use super::Request;
use crate::error::{Context, Error, Result};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One of a process's three streams, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// Where one stream of output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Fifo(PathBuf),
    File(PathBuf),
}

/// A logging program, after containerd's `binary://` contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) args: Vec<OsString>,
    /// `binary-v2`: end of file on the ready pipe without a byte is a failure.
    pub(super) must_speak: bool,
}

/// Where all output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Each stream to its own place; `None` is nowhere.
    Each { stdout: Option<Target>, stderr: Option<Target> },
    /// Both to one program.
    Logger(Program),
}

/// A request that has been understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) stdin: Option<PathBuf>,
    pub(super) output: Output,
}

enum Uri {
    Target(Target),
    Program(Program),
}

impl Plan {
    pub(super) fn parse(request: &Request) -> Result<Self> {
        let stdin = match uri(&request.stdin).context(|| Stream::Stdin)? {
            None => None,
            Some(Uri::Target(Target::Fifo(path))) => Some(path),
            Some(_) => {
                return Err(Error::invalid(format!("stdin {:?} has to be a FIFO", request.stdin)));
            }
        };
        let stdout = uri(&request.stdout).context(|| Stream::Stdout)?;
        // A logging program takes both streams, whatever stands in the other string.
        if let Some(Uri::Program(program)) = stdout {
            return Ok(Self { stdin, output: Output::Logger(program) });
        }
        let stderr = uri(&request.stderr).context(|| Stream::Stderr)?;
        let output = match (stdout, stderr) {
            (None, Some(Uri::Program(program))) => Output::Logger(program),
            (Some(_), Some(Uri::Program(_))) => {
                return Err(Error::invalid("stderr names a logging program, stdout does not"));
            }
            (stdout, stderr) => {
                Output::Each { stdout: stdout.and_then(target), stderr: stderr.and_then(target) }
            }
        };
        Ok(Self { stdin, output })
    }
}

fn target(uri: Uri) -> Option<Target> {
    match uri {
        Uri::Target(target) => Some(target),
        Uri::Program(_) => None,
    }
}

fn uri(text: &str) -> Result<Option<Uri>> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with('/') {
        return Ok(Some(Uri::Target(Target::Fifo(text.into()))));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Error::invalid(format!("{text:?} is neither an absolute path nor a URI")));
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    // Before the path is looked at: what does not belong to us has a shape of its own.
    let make: fn(PathBuf, &str) -> Result<Uri> = match scheme {
        "fifo" => |path, _| Ok(Uri::Target(Target::Fifo(path))),
        "file" => |path, _| Ok(Uri::Target(Target::File(path))),
        "binary" => |path, query| program(path, query, false),
        "binary-v2" => |path, query| program(path, query, true),
        _ => {
            return Err(Error::invalid(format!(
                "scheme {scheme:?} is not supported; fifo, file, binary and binary-v2 are"
            )));
        }
    };
    if !path.starts_with('/') {
        return Err(Error::invalid(format!("{text:?} has no absolute path after {scheme}://")));
    }
    Ok(Some(make(decode(path, false)?.into(), query)?))
}

/// Arguments are each key and its first value, and an empty one where there is no value, as
/// containerd's are. Go hands them over in an order of chance, so the order they stand in will do.
fn program(path: PathBuf, query: &str, must_speak: bool) -> Result<Uri> {
    let mut seen: Vec<OsString> = Vec::new();
    let mut args = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (decode(key, true)?, decode(value, true)?);
        if !seen.contains(&key) {
            seen.push(key.clone());
            args.extend([key, value]);
        }
    }
    Ok(Uri::Program(Program { path, args, must_speak }))
}

/// Undoes percent-encoding. `form`: a plus sign is a space, as in a query.
fn decode(text: &str, form: bool) -> Result<OsString> {
    let broken = || Error::invalid(format!("{text:?} is not percent-encoded correctly"));
    let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => match (hex(bytes.next()), hex(bytes.next())) {
                (Some(high), Some(low)) => (high << 4 | low) as u8,
                _ => return Err(broken()),
            },
            b'+' if form => b' ',
            byte => byte,
        });
    }
    if decoded.contains(&0) {
        return Err(broken());
    }
    Ok(OsString::from_vec(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(stdin: &str, stdout: &str, stderr: &str) -> Result<Plan> {
        let [stdin, stdout, stderr] = [stdin, stdout, stderr].map(str::to_owned);
        Plan::parse(&Request { stdin, stdout, stderr, terminal: false })
    }

    fn each(stdout: Option<Target>, stderr: Option<Target>) -> Output {
        Output::Each { stdout, stderr }
    }

    #[test]
    fn plain_paths_and_fifo_uris_are_fifos_and_nothing_is_nothing() {
        let fifo = |path: &str| Some(Target::Fifo(path.into()));
        let plan_ = plan("/i", "/o%41", "fifo:///e%41").unwrap();
        assert_eq!(
            plan_,
            Plan { stdin: Some("/i".into()), output: each(fifo("/o%41"), fifo("/eA")) }
        );
        assert_eq!(plan("", "", "").unwrap(), Plan { stdin: None, output: each(None, None) });
        assert_eq!(plan("", "", "/e").unwrap().output, each(None, fifo("/e")));
    }

    #[test]
    fn a_logger_gets_each_key_and_its_first_value() {
        let uri = "binary:///bin/log%20er?_NERDCTL_INTERNAL_LOGGING=%2Fvar%2Flib&flag&a=1+2&a=3#x";
        let Output::Logger(program) = plan("", uri, uri).unwrap().output else { panic!() };
        assert_eq!(program.path, PathBuf::from("/bin/log er"));
        assert_eq!(program.args, ["_NERDCTL_INTERNAL_LOGGING", "/var/lib", "flag", "", "a", "1 2"]);
        assert!(!program.must_speak);
        let output = plan("/in", "", "binary-v2:///l").unwrap().output;
        assert!(matches!(output, Output::Logger(Program { must_speak: true, .. })));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (stdin, stdout, stderr, says) in [
            ("file:///x", "", "", "stdin"),
            ("", "ttrpc+unix://x?streaming_id=1", "", "fifo, file, binary and binary-v2"),
            ("", "relative", "", "stdout: \"relative\""),
            ("", "", "file://host/x", "stderr"),
            ("", "/o", "binary:///l", "stderr"),
            ("", "binary:///l?a=%4", "", "percent"),
            ("", "binary://", "", "absolute"),
            ("", "file:///a%00b", "", "percent"),
        ] {
            let error = plan(stdin, stdout, stderr).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::InvalidArgument);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
