//! What comes from outside, against a fuzzer that sees which lines an input reaches (libFuzzer).
//!
//! `NEXCAGE_FUZZ` names the target; the arguments are libFuzzer's. tests/fuzz/run builds it and
//! runs every target for a while. A target must neither panic nor hang, and an error is one line.
#![no_main]
#![allow(clippy::panic, clippy::unwrap_used, reason = "that is how a fuzzer is told")]

use libfuzzer_sys::fuzz_target;
use nexcage::{config, cri, spec};
use protobuf::CodedOutputStream;
use protobuf::well_known_types::any::Any;
use std::fmt::Display;
use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> =
    LazyLock::new(|| match std::env::var("NEXCAGE_FUZZ").as_deref() {
        Ok("config") => config,
        Ok("spec") => spec,
        other => panic!("NEXCAGE_FUZZ is {other:?}: set it to config or spec"),
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
