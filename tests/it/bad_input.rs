//! A bundle that cannot be run is refused in one line that says what is wrong with it, and
//! nothing of it stays.

use crate::bed::{ANY, Bed};

/// Spoils the bundle between containerd, which writes it, and the shim, which reads it.
const SPOILER: &str = r#"#!/bin/sh
for word in "$@"; do
    if [ "$word" = start ] && [ -f /run/b/spoil ]; then . /run/b/spoil; fi
done
exec @REAL@ "$@"
"#;

fn refused(spoil: &str, words: &[&str]) {
    let bed = Bed::with_programs(ANY, &[("containerd-shim-nexcage-v1", SPOILER)]);
    bed.write("/run/b/spoil", spoil);
    let words = [&["container c"], words].concat();
    bed.run(&["--rm"], "c", &["true"]).finish().refused(&words);
    // containerd and nexcage go on, with the same id.
    bed.remove("/run/b/spoil");
    assert_eq!(bed.run(&["--rm"], "c", &["sh", "-c", "exit 4"]).finish().code, 4);
    bed.leave_nothing();
}

#[test]
fn a_bundle_without_a_config_is_refused() {
    refused("rm config.json", &["config.json", "no such file"]);
}

#[test]
fn a_config_that_is_cut_off_is_refused() {
    refused("head -c 500 config.json >new; mv new config.json", &["config.json"]);
}

#[test]
fn an_empty_config_is_refused() {
    refused(": >config.json", &["config.json"]);
}

#[test]
fn a_config_that_is_not_text_is_refused() {
    refused("head -c 4096 /dev/urandom >config.json", &["config.json"]);
}

#[test]
fn a_config_of_100_megabytes_is_refused() {
    refused("head -c 100000000 /dev/zero | tr '\\0' ' ' >config.json", &["config.json"]);
}

#[test]
fn a_config_that_is_a_device_without_an_end_is_refused() {
    refused("rm config.json; ln -s /dev/zero config.json", &["config.json"]);
}

#[test]
fn a_config_that_is_a_pipe_without_a_writer_is_refused() {
    refused("rm config.json; mkfifo config.json", &["config.json"]);
}

#[test]
fn a_config_with_a_field_of_the_wrong_type_is_refused_by_its_name() {
    let spoil = "sed -i 's/\"root\":{[^}]*}/\"root\":\"here\"/' config.json";
    refused(spoil, &["config.json", "root"]);
}

#[test]
fn a_config_of_an_unknown_version_is_refused_by_it() {
    refused(
        "sed -i 's/\"ociVersion\":\"[^\"]*\"/\"ociVersion\":\"9.9.9\"/' config.json",
        &["9.9.9"],
    );
    refused("sed -i 's/\"ociVersion\":\"[^\"]*\"/\"ociVersion\":\"new\"/' config.json", &["new"]);
}

#[test]
fn a_root_that_is_missing_is_refused_by_its_path() {
    refused("sed -i 's/\"path\":\"rootfs\"/\"path\":\"nowhere\"/' config.json", &["nowhere"]);
}

/// The mounts would land on whatever it points to.
#[test]
fn a_root_that_is_a_symlink_is_refused() {
    refused("mkdir /run/b/elsewhere; rmdir rootfs; ln -s /run/b/elsewhere rootfs", &["rootfs"]);
}

#[test]
fn a_backend_that_does_not_exist_is_refused_by_its_name() {
    let bed = Bed::new(ANY);
    bed.run(&["--rm", "--annotation", "io.nexcage.backend=kvm"], "c", &["true"])
        .finish()
        .refused(&["kvm", "container c"]);
    bed.leave_nothing();
}

#[test]
fn a_root_given_by_the_caller_that_is_missing_is_refused() {
    let bed = Bed::new(ANY);
    let args = ["run", "--rm", "--runtime", "io.containerd.nexcage.v1", "--rootfs"];
    let args = [&args[..], &["/run/b/nowhere", "c", "true"]].concat();
    bed.ctr(&args).refused(&["/run/b/nowhere"]);
    bed.leave_nothing();
}
