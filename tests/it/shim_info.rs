//! What the program says of itself.

use crate::support::bundle::runc_options;
use crate::support::{Scene, bed};
use containerd_shim_protos::types::introspection::RuntimeInfo;
use protobuf::Message;
use std::process::Command;

#[tokio::test]
async fn info_is_a_runtime_info_with_runtime_specs_features() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["true"]);
    let mut start =
        scene.start(&bundle).stdin(runc_options(&bed::runc()).write_to_bytes().unwrap());
    start.words = vec!["-info".into()];
    let reply = start.run();
    assert!(reply.status.success() && reply.stderr.is_empty(), "{reply:?}");
    let info = RuntimeInfo::parse_from_bytes(&reply.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.nexcage.v1");
    assert_eq!(info.version.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(info.options.type_url, "containerd.runc.v1.Options");
    assert_eq!(
        info.features.type_url,
        "types.containerd.io/opencontainers/runtime-spec/1/features/Features"
    );
    let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string());
    let namespaces = features["linux"]["namespaces"].as_array().unwrap();
    assert!(namespaces.contains(&"pid".into()), "{features}");
}

#[tokio::test]
async fn info_without_options_describes_the_default_runtime() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["true"]);
    let mut start = scene.start(&bundle);
    start.words = vec!["-info".into()];
    let reply = start.run();
    assert!(reply.status.success() && reply.stderr.is_empty(), "{reply:?}");
    let info = RuntimeInfo::parse_from_bytes(&reply.stdout).unwrap();
    assert!(info.options.is_none());
    let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
    assert!(features["ociVersionMax"].is_string());
}

#[tokio::test]
async fn info_refuses_garbage() {
    let scene = Scene::new();
    let bundle = scene.bundle("web", &["true"]);
    let mut start = scene.start(&bundle).stdin(vec![0xff; 100]);
    start.words = vec!["-info".into()];
    start.run().refusal();
}

#[test]
fn the_version_is_printed_as_gos_shims_print_it() {
    for flag in ["-v", "--version"] {
        let said = Command::new(bed::shim()).arg(flag).output().unwrap();
        assert!(said.status.success() && said.stderr.is_empty());
        let text = String::from_utf8(said.stdout).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "containerd-shim-nexcage-v1:");
        assert_eq!(lines[1], format!("  Version:  {}", env!("CARGO_PKG_VERSION")));
        assert!(lines[2].starts_with("  Revision: "));
    }
}

#[test]
fn run_by_hand_it_says_who_is_meant_to_run_it() {
    let said = Command::new(bed::shim()).output().unwrap();
    assert!(!said.status.success());
    let text = String::from_utf8(said.stderr).unwrap();
    assert!(text.contains("io.containerd.nexcage.v1"), "{text}");
}
