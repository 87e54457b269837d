//! What comes from outside, against a fuzzer that sees which lines an input reaches (libFuzzer).
//!
//! `NEXCAGE_FUZZ` names the target; the arguments are libFuzzer's. tests/fuzz/run builds it and
//! runs every target for a while. A target must neither panic nor hang, and an error is one line.
#![no_main]
#![allow(clippy::panic, clippy::unwrap_used, reason = "that is how a fuzzer is told")]

use libfuzzer_sys::fuzz_target;
use nexcage::bundle::create::stop::Stop;
use nexcage::bundle::create::{self, Request};
use nexcage::bundle::validate::{self, Files, Host, Level};
use nexcage::config::BackendName;
use nexcage::guest::translate::FileKind;
use nexcage::{config, cri, spec};
use protobuf::CodedOutputStream;
use protobuf::well_known_types::any::Any;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> =
    LazyLock::new(|| match std::env::var("NEXCAGE_FUZZ").as_deref() {
        Ok("config") => config,
        Ok("spec") => spec,
        Ok("validate") => validate,
        Ok("archive") => archive,
        other => panic!("NEXCAGE_FUZZ is {other:?}: config, spec, validate or archive is wanted"),
    });

fuzz_target!(|input: &[u8]| TARGET(input));

fn one_line<T>(result: Result<T, impl Display>) -> Option<T> {
    result
        .map_err(|error| {
            let error = error.to_string();
            assert!(!error.is_empty() && !error.contains('\n'), "{error:?}");
        })
        .ok()
}

/// A configuration as containerd's options bring it: JSON or TOML, in a message.
fn config(input: &[u8]) {
    let mut stream = Vec::new();
    let mut message = CodedOutputStream::vec(&mut stream);
    // runtimeoptions.v1.Options: config_body.
    message.write_bytes(3, input).and_then(|()| message.flush()).unwrap();
    drop(message);
    let type_url = "runtimeoptions.v1.Options".to_owned();
    let sent = Any { type_url, value: stream, ..Any::default() };
    if let Some(options) = one_line(config::from_any(&sent)) {
        // A file that is not there: nothing of the host is read.
        one_line(config::Config::load("/nowhere/config.json".as_ref(), &options));
    }
    // And what a client may send instead of it.
    let type_url = "containerd.runc.v1.Options".to_owned();
    one_line(config::from_any(&Any { type_url, value: input.to_vec(), ..Any::default() }));
}

/// A config.json, what is translated of it for LXC, and the requests that carry parts of it.
fn spec(input: &[u8]) {
    one_line(spec::parse_process(input));
    one_line(spec::parse_resources(input));
    if let Some(spec) = one_line(spec::parse(input)) {
        cri::Cri::of(&spec.annotations);
    }
}

/// A host on which every path is a folder: the rules behind that are reached, too.
struct Folders;

impl Files for Folders {
    fn kind(&self, _: &Path) -> Option<FileKind> {
        Some(FileKind::Dir)
    }

    fn real(&self, path: &Path) -> Option<PathBuf> {
        Some(path.to_owned())
    }

    fn has_filesystem(&self, _: &str) -> bool {
        true
    }
}

/// The judgement of a bundle, for each backend and for none: one line a finding, and no error where
/// the supervisor sees one.
fn validate(input: &[u8]) {
    let host = Host { bundle: Path::new("/bundle"), cgroup2: true, files: &Folders };
    for backend in [None, Some(BackendName::Crun), Some(BackendName::Lxc), Some(BackendName::Pct)] {
        let (findings, _) = validate::check_text(input, &host, backend);
        for finding in &findings {
            assert!(!finding.problem.contains('\n') && !finding.mend.contains('\n'), "{finding:?}");
        }
        let valid = findings.iter().all(|finding| finding.level != Level::Error);
        assert!(!valid || spec::parse(input).is_ok());
    }
}

/// An archive as a bundle's root: whatever is in it, nothing is made outside, and nothing half.
fn archive(input: &[u8]) {
    let parent = tempfile::tempdir_in("/dev/shm").unwrap();
    let (file, target) = (parent.path().join("archive"), parent.path().join("bundle"));
    fs::write(&file, input).unwrap();
    let mut request = Request::new(target.clone());
    request.rootfs = Some(file);
    request.most_bytes = 1 << 20;
    let made = one_line(create::create(request, &Stop::on_signals().unwrap())).is_some();
    let mut names: Vec<_> =
        fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let expected: &[&str] = if made { &["archive", "bundle"] } else { &["archive"] };
    assert_eq!(names, expected);
    if made {
        let mut names: Vec<_> =
            fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["config.json", "rootfs"]);
    }
}
