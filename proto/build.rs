//! Generates Rust from the .proto files in this folder, with no protoc on the machine, and hands
//! the revision that is being built to the programs.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=.git/HEAD");
    protobuf_codegen::Codegen::new()
        .pure()
        .include("proto")
        .input("proto/runtimeoptions.proto")
        .input("proto/runctypes.proto")
        .cargo_out_dir("proto")
        .run_from_script();
    // A source archive has no history: the revision is then unknown, and says so.
    let revision = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|out| out.status.success())
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned());
    println!("cargo:rustc-env=NEXCAGE_REVISION={revision}");
}
