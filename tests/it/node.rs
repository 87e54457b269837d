//! A node of Proxmox VE for scenes: one for all tests of this program, made when the first of them
//! wants it.

use crate::support::bundle::toml_options;
use crate::support::{Bundle, Scene, bed, proc};
use containerd_shim_protos::api::CreateTaskRequest;
use protobuf::MessageField;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The stand-in's programs.
const PROGRAMS: &str = "/run/tests-pve";

/// A scene on which that backend can be used.
pub fn scene(backend: &str) -> Scene {
    let mut scene = Scene::new();
    if backend == "pct" {
        bed::check();
        static MADE: OnceLock<()> = OnceLock::new();
        MADE.get_or_init(make);
        let others = scene.path.clone();
        scene.path = PROGRAMS.into();
        scene.path.push(":");
        scene.path.push(others);
    }
    scene
}

fn make() {
    let shim = Path::new(env!("CARGO_BIN_EXE_containerd-shim-nexcage-v1"));
    let pct = shim.with_file_name("examples").join("pct");
    let made = Command::new(&pct).args(["--setup", PROGRAMS]).status();
    assert!(made.is_ok_and(|made| made.success()), "{}: cargo build --example pct", pct.display());
    // Cgroups are shared by all nodes there are, so their guests need different numbers.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let first = 200_000_000 + since.as_millis() % 7_000_000 * 100;
    let config = serde_json::json!({ "pct": { "vmid_min": first, "vmid_max": first + 99 } });
    fs::create_dir_all("/etc/nexcage").unwrap();
    fs::write("/etc/nexcage/config.json", config.to_string()).unwrap();
}

/// A Create request with settings for pct, in TOML.
pub fn create_with(bundle: &Bundle, settings: &str) -> CreateTaskRequest {
    let options = toml_options(&format!("pct = {{ {settings} }}"));
    CreateTaskRequest { options: MessageField::some(options), ..bundle.create() }
}

/// The configurations of guests of this scene.
fn guests(scene: &Scene) -> Vec<String> {
    let ours = format!("nexcage-namespace%3A {}\n", scene.namespace);
    let files = fs::read_dir("/etc/pve/lxc").into_iter().flatten().flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    texts.filter(|text| text.contains(&ours)).collect()
}

/// Waits until no guest of this scene is there any more: a Delete may answer before that.
pub async fn no_guests(scene: &Scene) {
    proc::eventually("no guest is left", || guests(scene).is_empty()).await;
}
